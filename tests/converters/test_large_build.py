"""A build of more footage than memory holds, in processes that die, on disks that fill, and again after a kill -9."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import tiny
from edge_vad.converters import local_engine, normal_footage, tasks
from edge_vad.converters.build import build
from edge_vad.converters.local_engine import LocalEngine
from edge_vad.converters.settings import BuildSettings
from edge_vad.converters.tasks import memorise_task
from tiny import Outcome

from edge_vad import files
from edge_vad.errors import EngineError, SourceError
from edge_vad.footage import Clip, find_clips

Cli = Callable[..., Outcome]
N_CLIPS = 4
ONE_THREAD = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of a small street."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(N_CLIPS):
        tiny.write_clip(folder / f"{number:02d}", 24, seed=number)
    return folder


@pytest.fixture(scope="module")
def settings(tiny_encoder: Path) -> BuildSettings:
    return BuildSettings(encoder_name=str(tiny_encoder), taps=("fine", "coarse"), precision="fp32", ratio=0.05)


@pytest.fixture(scope="module")
def expected(clips: Path, settings: BuildSettings, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bundle of the clips, built in this process."""
    out = tmp_path_factory.mktemp("expected") / "site.evb"
    build(find_clips([clips]), out, settings)
    assert [path.name for path in out.parent.iterdir()] == ["site.evb"]
    return out.read_bytes()


def arguments(clips: Path, tmp_path: Path, encoder: Path, *more: str) -> list[str]:
    return tiny.build_arguments(clips, tmp_path / "site.evb", encoder, *more)


def receipts(folder: Path) -> list[Path]:
    return list(folder.glob("*.json"))


def until(happened: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_and_their_number_do_not_change_a_byte(
    clips: Path, tiny_encoder: Path, expected: bytes, tmp_path: Path, cli: Cli
) -> None:
    assert cli(*arguments(clips, tmp_path, tiny_encoder, "--jobs", "3")).code == 0
    assert (tmp_path / "site.evb").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["site.evb"]


def test_a_build_that_is_killed_again_and_again_goes_on(
    clips: Path, tiny_encoder: Path, expected: bytes, tmp_path: Path
) -> None:
    code = "import sys; from edge_vad.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments(clips, tmp_path, tiny_encoder, "--jobs", "2")]
    work = tmp_path / "site.evb.work"
    for n_finished in (1, N_CLIPS + 1):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=ONE_THREAD)
        until(lambda n=n_finished: len(receipts(work)) >= n)  # type: ignore[misc]
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and workers
        until(lambda pids=workers: not any(map(is_alive, pids)))  # type: ignore[misc]
        assert not (tmp_path / "site.evb").exists()
    ended = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert f"features: {N_CLIPS} of {N_CLIPS} were finished before" in ended.stderr
    assert "calibrate: " in ended.stderr
    assert (tmp_path / "site.evb").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["site.evb"]


def test_a_worker_that_is_killed_on_the_way_is_replaced(
    clips: Path, settings: BuildSettings, expected: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = LocalEngine(jobs=2)
    work = tmp_path / "work"

    def kill() -> None:
        until(lambda: receipts(work) and engine.pids)
        os.kill(engine.pids[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        build(find_clips([clips]), tmp_path / "site.evb", settings, engine=engine, work=work)
    finally:
        killer.join()
        engine.close()
    assert "died (SIGKILL); another one starts it again" in caplog.text
    assert (tmp_path / "site.evb").read_bytes() == expected


def test_a_clip_over_which_every_worker_dies_is_named(
    clips: Path, settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = local_engine._Worker.begin

    def fatal(self: local_engine._Worker, task: object, folder: Path) -> None:
        begin(self, task, folder)  # type: ignore[arg-type]
        if getattr(task, "name", "").endswith("/02"):
            self.process.kill()

    monkeypatch.setattr(local_engine._Worker, "begin", fatal)
    engine = LocalEngine(jobs=2)
    try:
        with pytest.raises(EngineError, match=r"/02: 3 processes died over it, the last one by SIGKILL; .*--jobs"):
            build(find_clips([clips]), tmp_path / "site.evb", settings, engine=engine)
    finally:
        engine.close()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_damaged_clip_is_named_and_the_others_are_not_done_again(
    jobs: str,
    clips: Path,
    tiny_encoder: Path,
    tmp_path: Path,
    cli: Cli,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(normal_footage, "MEASURE_FRAMES", 80)
    shutil.copytree(clips, tmp_path / "footage")
    picture = tmp_path / "footage" / "03" / "022.png"  # behind the frames that are measured
    whole = picture.read_bytes()
    picture.write_bytes(whole[:100])
    command = arguments(tmp_path / "footage", tmp_path, tiny_encoder, "--jobs", jobs)
    said = cli(*command)
    assert said.code == 1 and len(said.err.splitlines()) == 1
    assert str(picture) in said.err and "not a readable picture" in said.err
    assert "the same command goes on from there" in caplog.text
    n_finished = len(receipts(tmp_path / "site.evb.work"))
    assert n_finished >= 1 and not (tmp_path / "site.evb").exists()
    picture.write_bytes(whole)
    assert cli(*command).code == 0
    assert f"features: {n_finished} of {N_CLIPS} were finished before" in caplog.text


def test_a_full_disk_loses_nothing(
    clips: Path, tiny_encoder: Path, expected: bytes, tmp_path: Path, cli: Cli, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    command = arguments(clips, tmp_path, tiny_encoder, "--jobs", "1")
    write_new = files.write_new
    with pytest.MonkeyPatch.context() as patch:

        def full(path: Path, data: bytes, mode: int = 0o644) -> None:
            if len(receipts(tmp_path / "site.evb.work")) < 2:
                return write_new(path, data, mode)
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(files, "write_new", full)
        said = cli(*command)
    assert said.code == 1 and len(said.err.splitlines()) == 1
    assert "cannot be written: No space left on device; choose another place or free some space" in said.err
    assert not list((tmp_path / "site.evb.work").glob(".*")), "half a file is left behind"
    assert cli(*command).code == 0
    assert f"features: 2 of {N_CLIPS} were finished before" in caplog.text
    assert (tmp_path / "site.evb").read_bytes() == expected


def test_the_error_of_a_worker_is_one_line(clips: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, 2**15)); "
    limited += "from edge_vad.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", limited, *arguments(clips, tmp_path, tiny_encoder, "--jobs", "2")]
    ended = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, timeout=120)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "File too large; choose another place" in ended.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [], "nothing was finished, nothing stays"


def test_two_builds_do_not_share_a_work_folder(
    clips: Path, tiny_encoder: Path, expected: bytes, tmp_path: Path, cli: Cli
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "notes.txt").write_text("mine")
    (work / f"{'0' * 32}.json").write_text("{}")
    command = arguments(clips, tmp_path, tiny_encoder, "--jobs", "1", "--work", str(work))
    handle = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        said = cli(*command)
    finally:
        os.close(handle)
    assert said.code == 1 and len(said.err.splitlines()) == 1
    assert f"{work}: another build is at work there" in said.err and "--work" in said.err
    assert cli(*command).code == 0
    assert (tmp_path / "site.evb").read_bytes() == expected
    assert [path.name for path in work.iterdir()] == ["notes.txt"], "stale files go, those of others stay"


def test_the_names_of_finished_work_follow_from_all_that_it_depends_on(tmp_path: Path) -> None:
    clip = Clip("a", tiny.write_clip(tmp_path / "a", 3))

    def key(recipe: str = "r") -> str:
        return memorise_task(clip, recipe, 3).key

    before = key()
    assert key() == before and key("other") != before
    picture = clip.path / "001.png"
    os.utime(picture, ns=(0, picture.stat().st_mtime_ns + 1))
    touched = key()
    picture.write_bytes(picture.read_bytes() + b"x")
    os.utime(picture, ns=(0, 0))
    longer = key()
    picture.rename(clip.path / "011.png")
    assert len({before, touched, longer, key()}) == 4


def test_a_worker_that_sees_other_footage_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = memorise_task(Clip("a", tiny.write_clip(tmp_path / "a", 3)), "r", 3)
    (tmp_path / "a" / "002.png").unlink()
    monkeypatch.setattr(tasks, "_recipe", lambda *_: None)
    with pytest.raises(SourceError, match="/a: not the footage that the build was started with"):
        tasks.perform(task, tmp_path, lambda _: None)


def test_footage_that_grows_while_it_is_read_is_refused(
    clips: Path, settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(clips, tmp_path / "footage")
    processed = tasks.processed

    def grows(clip: Clip, *more: object) -> Iterator[object]:
        yield from processed(clip, *more)  # type: ignore[arg-type]
        shutil.copy(clip.path / "000.png", clip.path / "100.png")

    monkeypatch.setattr(tasks, "processed", grows)
    with pytest.raises(SourceError, match="/00: changed while it was read"):
        build(find_clips([tmp_path / "footage"]), tmp_path / "site.evb", settings)


OWN_ENGINE = """
from edge_vad.converters.engine import Engine
from edge_vad.converters.tasks import perform

class Backwards(Engine):
    def __init__(self, location, jobs):
        assert (location, jobs) == ("somewhere", 4)

    def run(self, tasks, folder, moved):
        for task in reversed(tasks):
            perform(task, folder, lambda n: None)
            yield task
"""


def test_an_engine_of_ones_own_that_works_backwards(
    clips: Path, tiny_encoder: Path, expected: bytes, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_engines").mkdir()
    (tmp_path / "own_engines" / "backwards.py").write_text(OWN_ENGINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    more = ("--engine", "own_engines.backwards://somewhere", "--jobs", "4")
    assert cli(*arguments(clips, tmp_path, tiny_encoder, *more)).code == 0
    assert (tmp_path / "site.evb").read_bytes() == expected


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--jobs", "0"), 2, ("--jobs", "at least 1")),
        (("--engine", "dusk://host:1"), 1, ("no engine named 'dusk'", "did you mean 'dask'")),
        (("--engine", "local://here"), 1, ("engine local", "--jobs")),
    ],
)
def test_a_wrong_engine(more: Sequence[str], code: int, words: Sequence[str], clips: Path, tmp_path: Path, cli: Cli) -> None:
    said = cli(*arguments(clips, tmp_path, tmp_path / "no.onnx", *more))
    assert said.code == code and len(said.err.splitlines()) == 1
    assert all(word in said.err for word in words), said.err


# Memory

PEAK = """
import resource, sys
from pathlib import Path
import cv2, numpy, onnx, onnxruntime
from edge_vad.converters import spill
from edge_vad.converters.build import build
from edge_vad.converters.settings import BuildSettings
from edge_vad.footage import find_clips
from edge_vad.streams import LocalSettings

spill.PART_BYTES, spill.PIECE_BYTES = 2**21, 2**19
spilled = 0
flush = spill.Spool.flush
def counted(spool):
    global spilled
    spilled += spool._held_bytes
    flush(spool)
spill.Spool.flush = counted
used = 1024 * int(next(l.split()[1] for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmData")))
limit = used + int(sys.argv[4]) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
settings = BuildSettings(encoder_name=sys.argv[2], taps=("fine", "coarse"), precision="fp32", ratio=0.001,
                         local=LocalSettings(crop=128))
build(find_clips([sys.argv[1]]), Path(sys.argv[3]), settings)
print(spilled / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
"""
LIMIT_MIB = 224  # private memory on top of what the imported libraries take; with all features held, 240 are too few
MAX_GROWTH_MIB = 32


def wide_encoder() -> bytes:
    """image (n, 3, h, w) -> fine (n, 96, h/4, w/4) and coarse (n, 8, h/8, w/8): many numbers for little work."""
    import numpy as np
    from onnx import helper

    generator = np.random.default_rng(5)
    weights = {
        "w0": generator.normal(0, 0.3, (96, 3, 4, 4)).astype(np.float32),
        "w1": generator.normal(0, 0.3, (8, 96, 2, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["stem"], strides=[4, 4]),
        helper.make_node("Relu", ["stem"], ["fine"]),
        helper.make_node("Conv", ["fine", "w1"], ["last"], strides=[2, 2]),
        helper.make_node("Relu", ["last"], ["coarse"]),
    ]
    outputs = {"fine": ["n", 96, "h4", "w4"], "coarse": ["n", 8, "h8", "w8"]}
    return tiny.model(nodes, weights, {"image": ["n", 3, "h", "w"]}, outputs)


def test_six_times_the_footage_takes_no_more_memory_and_fits_under_a_limit(tmp_path: Path) -> None:
    (tmp_path / "wide.onnx").write_bytes(wide_encoder())
    pictures = sorted(tiny.write_clip(tmp_path / "pictures", 50).iterdir())
    measured = []
    for times in (1, 6):
        clip = tmp_path / f"footage{times}"
        clip.mkdir()
        for i in range(times * len(pictures)):  # one long clip
            os.link(pictures[i % len(pictures)], clip / f"{i:04d}.png")
        command = [
            sys.executable,
            "-c",
            PEAK,
            str(clip),
            str(tmp_path / "wide.onnx"),
            str(tmp_path / "x.evb"),
            str(LIMIT_MIB),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, timeout=180)
        assert ended.returncode == 0, ended.stderr
        measured.append([float(word) for word in ended.stdout.split()])
    (few, peak), (many, peak_of_many) = measured
    assert many > few + 1.5 * MAX_GROWTH_MIB
    assert peak_of_many - peak < MAX_GROWTH_MIB
