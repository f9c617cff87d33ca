"""Capture processes: pictures that are never mixed, counters that are exact, and every way in which a camera can end."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_stage import importable, plan, wait_for

from edge_vad.capture import Capture
from edge_vad.errors import SourceError
from edge_vad.feed import LiveFeed, Notice
from edge_vad.types import Frame

N_FAST = 4000


def number_of(image: np.ndarray) -> int:
    """The number that a picture carries; fails when its pixels are of two pictures."""
    colour = image[0, 0].astype(int)
    assert (image == image[0, 0]).all(), "pixels of two pictures in one"
    return int(colour[0] + 256 * colour[1] + 65536 * colour[2])


def check_number(frame: Frame) -> None:
    assert number_of(frame.image) == frame.index
    assert (frame.luma == frame.image[..., 1]).all(), "image and luma belong together"


def take_all(capture: Capture) -> tuple[list[Frame], str]:
    """Frames until the end, and its reason."""
    frames = []
    for _ in range(3000):
        try:
            frame = capture.newest()
        except SourceError as error:
            return frames, str(error)
        if frame is not None:
            frames.append(frame)
        time.sleep(0.005)
    raise AssertionError("it did not end")


def test_a_slow_reader_takes_the_newest_frame_of_thousands_and_counts_the_rest_exactly(tmp_path: Path) -> None:
    feed = LiveFeed(plan(tmp_path / "plan", [["indexed", N_FAST]], fps=0))
    dice = random.Random(1)
    indices: list[int] = []
    notices: list[Notice] = []
    began = time.monotonic()
    while not notices:
        frame, notices = feed.poll()
        if frame is not None:
            check_number(frame)
            indices.append(frame.index)
            assert frame.timestamp >= began
        time.sleep(dice.choice([0, 0, 0.001, 0.002, 0.01]))
        assert time.monotonic() < began + 60
    counters = feed.counters
    feed.close()
    assert [n.kind for n in notices] == ["lost"]
    assert len(indices) > 20, "the reader had its turn"
    assert indices == sorted(set(indices)), "strictly rising"
    assert counters.taken == len(indices)
    assert counters.captured == counters.taken + counters.dropped
    assert counters.captured == indices[-1] - indices[0] + 1
    assert counters.dropped == sum(b - a - 1 for a, b in itertools.pairwise(indices)) > 0


def test_a_frame_that_was_taken_stays_as_it_is_while_newer_ones_are_written(tmp_path: Path) -> None:
    capture = Capture(plan(tmp_path / "plan", [["indexed", -1]], fps=0))
    try:
        kept: list[Frame] = []
        wait_for(lambda: kept.extend(f for f in [capture.newest()] if f) or len(kept) >= 50, "50 frames come")
    finally:
        capture.close()
    for frame in kept:
        check_number(frame)


def test_a_reader_that_sleeps_for_long_finds_the_newest_frame_and_no_old_one(tmp_path: Path) -> None:
    """Hundreds of messages wait then, and the oldest of them speak of slots that were written over."""
    capture = Capture(plan(tmp_path / "plan", [["indexed", 1500], ["hang", 60]], fps=0))
    try:
        wait_for(capture.newest, "it starts")
        time.sleep(1.0)
        last = None
        for _ in range(20):
            last = capture.newest() or last
        assert last is None or last.index > 200
    finally:
        capture.close()


def test_the_picture_may_change_its_size_at_any_speed(tmp_path: Path) -> None:
    small, large = ["size", [40, [64, 48]]], ["size", [40, [96, 80]]]
    capture = Capture(plan(tmp_path / "plan", [small, large] * 10, fps=0))
    try:
        frames, reason = take_all(capture)
    finally:
        capture.close()
    assert reason == "the stream ended"
    assert {f.image.shape for f in frames} <= {(48, 64, 3), (80, 96, 3)}
    for frame in frames:
        assert frame.luma.shape == frame.image.shape[:2]
        assert frame.image.shape == ((48, 64, 3) if frame.index // 40 % 2 == 0 else (80, 96, 3))


ENDS: dict[str, tuple[list[Any], str]] = {
    "the stream ends": ([], "the stream ended"),
    "an error of the camera": (["raise", "VIDIOC_DQBUF: No such device"], "VIDIOC_DQBUF: No such device"),
    "an error in a camera's code": (["bug", "index out of range"], r"the capture process ended \(exit code 1\)"),
    "the process exits": (["exit", 3], r"the capture process ended \(exit code 3\)"),
    "a segmentation fault": (["signal", signal.SIGSEGV], r"the capture process ended \(SIGSEGV\)"),
    "an abort of a library": (["signal", signal.SIGABRT], r"the capture process ended \(SIGABRT\)"),
    "killed for memory": (["signal", signal.SIGKILL], r"the capture process ended \(SIGKILL\)"),
    "floating-point pixels": (["dtype", 0], "a frame of the shape .*float32.*: the camera is broken"),
    "a grey picture": (["shape", 0], r"a frame of the shape \(120, 180\).*: the camera is broken"),
    "floating-point luma": (["luma", 0], "a frame of the shape .*float32.*: the camera is broken"),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_told_with_its_reason_after_the_last_frame(tmp_path: Path, end: str) -> None:
    step, reason = ENDS[end]
    capture = Capture(plan(tmp_path / "plan", [["indexed", 5], *([step] if step else [])], fps=100))
    try:
        frames, told = take_all(capture)
        assert re.fullmatch(reason, told)
        assert 1 <= len(frames) <= 5 and frames[-1].index == 4, "frames before the end are not lost"
    finally:
        capture.close()


def test_the_reason_is_told_even_where_it_comes_together_with_the_last_frame(tmp_path: Path) -> None:
    capture = Capture(plan(tmp_path / "plan", [["indexed", 5], ["raise", "unplugged"]], fps=0))
    try:
        wait_for(lambda: _is_gone(capture.pid), "the process has ended")
        frame = capture.newest()
        assert frame is not None and frame.index == 4
        for _ in range(2):
            with pytest.raises(SourceError, match="^unplugged$"):
                capture.newest()
    finally:
        capture.close()


def test_a_killed_process_is_told_at_once(tmp_path: Path) -> None:
    capture = Capture(plan(tmp_path / "plan", [["indexed", -1]]))
    try:
        wait_for(capture.newest, "it starts")
        os.kill(capture.pid, signal.SIGKILL)
        start = time.monotonic()
        _, reason = take_all(capture)
        assert reason == "the capture process ended (SIGKILL)" and time.monotonic() - start < 2
    finally:
        capture.close()


def test_closing_ends_a_process_that_hangs_or_is_stopped_and_leaves_nothing_behind(tmp_path: Path) -> None:
    handles = len(list(Path("/proc/self/fd").iterdir()))
    for step in (["hang", 600], ["signal", signal.SIGSTOP]):
        capture = Capture(plan(tmp_path / f"{step[0]}", [["indexed", 1], step]))
        wait_for(capture.newest, "it starts")
        start = time.monotonic()
        capture.close()
        assert time.monotonic() - start < 2
        assert not Path(f"/proc/{capture.pid}").exists(), "no zombie stays"
        del capture
    assert len(list(Path("/proc/self/fd").iterdir())) == handles


def test_the_process_dies_with_its_parent_even_while_its_camera_hangs(tmp_path: Path) -> None:
    where = plan(tmp_path / "plan", [["indexed", 1], ["hang", 600]])
    code = (
        "import sys, time; from edge_vad.capture import Capture; c = Capture(sys.argv[1])\n"
        "while not c.newest(): time.sleep(0.01)\n"
        "print(c.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, where], stdout=subprocess.PIPE, env=importable())
    with parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    wait_for(lambda: _is_gone(child), "the child dies", 5)


def _is_gone(pid: int) -> bool:
    """A zombie has nobody here who takes it away."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_password_in_a_source_is_not_seen_in_the_process_list(tmp_path: Path) -> None:
    capture = Capture(plan(tmp_path / "user:pa55word@camera", [["indexed", -1]]))
    try:
        wait_for(capture.newest, "it starts")
        for what in ("cmdline", "environ", "comm"):
            assert b"pa55word" not in Path(f"/proc/{capture.pid}/{what}").read_bytes()
        names = [str(handle.readlink()) for handle in Path(f"/proc/{capture.pid}/fd").iterdir()]
        assert not [name for name in names if "pa55word" in name]
    finally:
        capture.close()
