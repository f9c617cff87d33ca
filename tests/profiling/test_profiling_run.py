"""Measuring: which frames are played, what is recorded of them, and that a normal run knows nothing of it."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import boards
import numpy as np
import pytest
import tiny
from made_runs import Busy, Quiet, pictures

from edge_vad import spans
from edge_vad.detector import Detector
from edge_vad.profiling import measure, measurement, recording
from edge_vad.profiling.board import Board
from edge_vad.profiling.overhead import N_FRAMES, overhead
from edge_vad.profiling.recording import Recording
from edge_vad.profiling.stock import Stock, read_frames, street_source


def run(detector: Any, **options: Any) -> Any:
    return measure(detector, pictures(), **{"warm_up": 2, "board": Quiet(), **options})


def test_frames_are_played_forwards_and_backwards_with_time_stamps_that_rise() -> None:
    stock = Stock(pictures(4), 0.5)
    played = [stock.frame(k) for k in range(10)]
    assert [int(frame.luma[0, 0]) for frame in played] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert [frame.timestamp for frame in played] == [0.5 * k for k in range(10)]
    assert [frame.index for frame in played] == list(range(10))
    assert [int(Stock(pictures(1), 0.5).frame(k).luma[0, 0]) for k in range(3)] == [0, 0, 0]
    with pytest.raises(ValueError, match="no frames"):
        Stock([], 0.5)


def test_as_many_frames_as_were_asked_for_after_the_warm_up() -> None:
    detector = Busy()
    found = run(detector, n_frames=12, warm_up=5)
    assert (found.n_frames, found.n_passed, found.warm_up, len(detector.seen)) == (12, 0, 5, 17)
    assert not found.full and found.n_lost == 0 and detector.n_resets == 2
    assert [frame.timestamp for frame in detector.seen] == pytest.approx([0.1 * k for k in range(17)])


def test_wall_and_cpu_time_of_every_stage_and_frame() -> None:
    found = run(Busy(n_loops=20_000), n_frames=10)
    assert found.spans.names == ("sums", "sleeps")
    assert list(found.spans.frame) == sorted(list(range(10)) * 3) and list(found.spans.stage[:3]) == [0, 1, 0]
    wall, cpu = found.by_stage(found.spans.wall_ns), found.by_stage(found.spans.cpu_ns)
    assert wall.shape == (2, 10) and (wall.sum(axis=0) <= found.wall_ns).all() and (cpu.sum(axis=0) <= found.cpu_ns).all()
    assert (wall[1] >= 1e6).all(), "it slept a millisecond"
    assert cpu[1].sum() < 0.5 * wall[1].sum(), "which costs no processor time"
    assert (np.diff(found.start_ns) >= found.wall_ns[:-1]).all(), "one after the other"
    ends = found.spans.start_ns + found.spans.wall_ns
    last = found.start_ns[found.spans.frame] + found.wall_ns[found.spans.frame]
    assert (found.spans.start_ns >= found.start_ns[found.spans.frame]).all() and (ends <= last).all()


def test_a_run_ends_when_its_time_is_over() -> None:
    found = run(Busy(), duration_s=0.1)
    assert 0.1 <= found.duration_s < 10 and found.n_frames > 1
    assert run(Busy(), duration_s=1e-9).n_frames == 1


def test_frames_that_are_passed_over_do_not_count() -> None:
    found = run(Busy(every=3), n_frames=6)
    assert found.n_frames == 6 and found.n_passed in range(10, 16) and set(found.spans.frame) == set(range(6))
    with pytest.raises(ValueError, match="none of the frames"):
        run(Busy(every=10**9, period_s=0.1), n_frames=3, warm_up=2)


def test_a_paced_run_keeps_to_the_period_and_counts_late_frames() -> None:
    found = run(Busy(period_s=0.02), n_frames=8, paced=True)
    assert found.paced and found.duration_s >= 7 * 0.02
    late = run(Busy(period_s=0.0001), n_frames=8, paced=True)
    assert late.n_late >= 5, "a millisecond of work does not fit into a tenth of it"
    assert run(Busy(), n_frames=3).n_late == 0


def test_the_board_is_asked_before_after_and_once_a_period_between_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "SAMPLE_S", 0.03)
    board = Quiet()
    found = run(Busy(), duration_s=0.2, board=board)
    times = [sample["t_s"] for sample in found.samples]
    assert 1 <= len(times) <= 6 and board.n_read == len(times) + 2 and times == sorted(times)
    assert found.before == found.after == {"load": 0.5}


def test_a_full_recording_ends_the_run_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "SPARE_FRAMES", 4)
    monkeypatch.setattr(measurement, "FASTER", 0)
    found = run(Busy(), duration_s=30)
    assert found.full and found.n_frames == 4


def test_stages_without_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "SPANS_PER_FRAME", 2)
    found = run(Busy(), n_frames=10)
    assert found.n_lost == 10 and len(found.spans.stage) == 20


def test_nothing_records_before_or_after_a_run_even_one_that_fails() -> None:
    class Failing(Busy):
        def process(self, frame: Any) -> Any:
            if frame.index == 5:
                raise OSError("gone")
            return super().process(frame)

    assert spans.recorder is None
    with pytest.raises(OSError, match="gone"):
        run(Failing(), n_frames=10)
    assert spans.recorder is None
    with spans.recording_to(Recording(1)), pytest.raises(RuntimeError, match="already"):
        run(Busy(), n_frames=1)
    assert spans.recorder is None


def test_recording_takes_no_memory_frame_by_frame() -> None:
    room = Recording(4000)

    def record(n: int) -> None:
        for _ in range(n):
            room.begin()
            for stage in ("a", "b", "c"):
                room.begin()
                room.end(stage)
            room.end_frame()

    record(500)
    tracemalloc.start()
    try:
        record(1)
        before = tracemalloc.get_traced_memory()[0]
        record(3000)
        assert tracemalloc.get_traced_memory()[0] - before < 2000, "bytes of 3000 frames"
    finally:
        tracemalloc.stop()
    assert room.n_frames == 3501 and room.n_spans == 3 * 3501 and room.n_lost == 0


def test_a_detector_says_the_same_while_it_is_recorded(tiny_bundle: Path) -> None:
    frames = tiny.clip_frames(20)[::2]
    plain, recorded = Detector.open(tiny_bundle), Detector.open(tiny_bundle)
    expected = [plain.process(frame) for frame in frames]
    with spans.recording_to(Recording(20)):
        found = [recorded.process(frame) for frame in frames]
    assert [r.score for r in found] == [r.score for r in expected] and [r.regions for r in found] == [
        r.regions for r in expected
    ]
    assert [list(r.stage_ms) for r in found] == [list(r.stage_ms) for r in expected]
    assert recorded.bank_kinds == {"spatial": "exact", "temporal": "exact", "velocity": "exact"}


def test_every_stage_of_a_detector_is_recorded_for_less_than_it_is_worth(tiny_bundle: Path) -> None:
    detector = Detector.open(tiny_bundle)
    found = measure(detector, tiny.clip_frames(20)[::2], n_frames=30, warm_up=5, board=Quiet())
    last = detector.process(tiny.clip_frames(1)[0])
    assert set(last.stage_ms) <= set(found.spans.names) and {"encoder", "search", "scoring"} <= set(found.spans.names)
    told = found.summary()
    stages = {name: stage["mean_ms"]["wall"] for name, stage in told["stages"].items()}
    assert stages["other"] < 0.5 * sum(stages.values())
    assert found.period_s == detector.period_s and 0 < told["recorder"]["share_of_cpu"] < 0.05


def test_the_overhead_compares_every_frame_with_and_without_the_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[bool] = []

    class Watched(Busy):
        def process(self, frame: Any) -> Any:
            recorded.append(spans.recorder is not None)
            return super().process(frame)

    found = overhead(Watched(), pictures(), n_passes=4)
    with_it = np.array(recorded).reshape(5, N_FRAMES)[1:]
    assert (with_it.sum(axis=0) == 2).all() and (with_it[0] != with_it[1]).all()
    assert 0 < found["ratio"] < 100 and len(found["ratio_of_halves"]) == 2 and found["cpu_ms_without"] > 0
    assert spans.recorder is None


def test_the_street_is_one_of_processed_frames() -> None:
    source = street_source((96, 64), 0.25)
    frames = read_frames(source, 0.25)
    assert len(frames) == 100 and frames[0].image.shape == (64, 96, 3)
    assert frames[1].timestamp == pytest.approx(0.25) and "anomalies=none" in source


def test_a_source_gives_the_frames_that_would_be_processed(footage: Any) -> None:
    frames = read_frames(str(footage / "01"), 0.3, fps=10)
    assert [frame.index for frame in frames] == list(range(0, 40, 3))


def test_frames_in_memory_have_a_bound(monkeypatch: pytest.MonkeyPatch, footage: Any) -> None:
    from edge_vad.profiling import stock

    frames = read_frames(str(footage / "01"), 0.1)
    size = frames[0].image.nbytes + frames[0].luma.nbytes
    monkeypatch.setattr(stock, "MAX_BYTES", 5 * size)
    assert len(frames) == 40 and len(read_frames(str(footage / "01"), 0.1)) == 6
    assert Stock(frames, 0.1).mb == pytest.approx(40 * size / 2**20)


def test_a_board_counts_energy_and_says_what_it_is(tmp_path: Path) -> None:
    board = Board("cpu", boards.rapl(boards.raspberry_pi_5(tmp_path), zone_0=1_000_000))
    boards.rapl(tmp_path, zone_0=3_500_000)
    assert board.energy_j() == {"processor": pytest.approx(2.5)} and board.notes == []
    assert board.identity()["model"] == "Raspberry Pi 5 Model B Rev 1.0" and board.identity()["governor"] == "ondemand"
    assert board.read()["temperature_c"] == 51.2


def test_a_board_says_why_power_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").mkdir(parents=True)  # cannot be read
    monkeypatch.setitem(sys.modules, "pynvml", None)
    board = Board("cuda:0", tmp_path)
    assert board.energy_j() == {} and board.read() == {}
    gpu, processor = board.notes
    assert "pip install 'nvidia-ml-py'" in gpu and "root only" in processor
    assert Board("cpu", tmp_path / "other").notes == []
