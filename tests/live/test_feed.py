"""The feed of a live camera: retries, stalls, and one record for each loss and each return."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from live_parts.pictures import frame, picture
from live_stage import Stage, plan, source, wait_for

from edge_vad import feed as feed_module
from edge_vad.errors import SourceError
from edge_vad.feed import LiveFeed, Notice, StoredFeed, open_feed
from edge_vad.types import Frame


class Clock:
    """Monotonic seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


class Device:
    """A camera in the place of a capture process: there or not, with frames that the test puts in."""

    def __init__(self) -> None:
        self.there = True
        self.frames: list[Frame] = []
        self.opened_at: list[float] = []
        self.clock = Clock()
        self.n_closed = 0

    def __call__(self, source: str, fps: float | None, size: tuple[int, int] | None) -> Device:
        self.opened_at.append(self.clock.now)
        return self

    def newest(self) -> Frame | None:
        if not self.there:
            raise SourceError("No such device")
        return self.frames.pop(0) if self.frames else None

    def close(self) -> None:
        self.n_closed += 1

    def put(self, index: int) -> None:
        self.frames.append(frame(picture("indexed", index), self.clock.now, index))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr("edge_vad.feed.Capture", device)
    return device


@pytest.fixture
def feed(device: Device) -> LiveFeed:
    return LiveFeed(source("gate"), clock=device.clock)


def poll_for(feed: LiveFeed, device: Device, seconds: float, step: float = 0.01) -> list[Notice]:
    """Let time pass; returns what was told."""
    told = []
    for _ in range(round(seconds / step)):
        device.clock.now += step
        told += feed.poll()[1]
    return told


def connect(feed: LiveFeed, device: Device) -> list[Notice]:
    """Poll until the first frame came."""
    device.there = True
    device.put(0)
    told = []
    for _ in range(4000):
        device.clock.now += 0.01
        taken, notices = feed.poll()
        told += notices
        if taken:
            return told
    raise AssertionError("it is not connected again")


def test_retries_come_after_1_2_4_to_30_seconds_with_jitter_and_the_loss_is_told_once(
    feed: LiveFeed, device: Device
) -> None:
    connect(feed, device)
    device.there = False
    device.opened_at.clear()
    lost_at = device.clock.now
    told = poll_for(feed, device, 200, 0.05)
    assert [(n.type, n.kind, n.data) for n in told] == [("camera", "lost", {"reason": "No such device"})]
    waits = [b - a for a, b in itertools.pairwise([lost_at, *device.opened_at])]
    for wait, base in zip(waits, (1, 2, 4, 8, 16, 30, 30, 30), strict=False):
        assert 0.8 * base - 0.1 <= wait <= 1.2 * base + 0.2
    assert len(waits) >= 8 and len({round(wait, 1) for wait in waits[5:8]}) > 1, "with jitter"
    assert feed.counters.lost == 1 and not feed.connected
    gap_from = device.clock.now
    told = connect(feed, device)
    [back] = told
    assert (back.type, back.kind) == ("camera", "back")
    assert back.data["gap_s"] == pytest.approx(device.clock.now - lost_at, abs=0.2)
    assert device.clock.now - gap_from < 37
    assert feed.connected


def test_retries_start_from_the_beginning_after_a_steady_stream_only(feed: LiveFeed, device: Device) -> None:
    def wait_after_a_stream_of(seconds: float) -> float:
        connect(feed, device)
        for index in range(round(seconds / 0.5)):
            device.put(index + 1)
            poll_for(feed, device, 0.5, 0.1)
        device.there = False
        lost_at, n_opened = device.clock.now, len(device.opened_at)
        assert [n.kind for n in poll_for(feed, device, 0.05)] == ["lost"]
        device.there = True
        while len(device.opened_at) == n_opened:
            poll_for(feed, device, 0.05)
        return device.opened_at[-1] - lost_at

    waits = [wait_after_a_stream_of(seconds) for seconds in (1, 1, 1, 12)]
    for wait, base in zip(waits, (1, 2, 4, 1), strict=True):
        assert 0.8 * base <= wait <= 1.2 * base + 0.1


def test_a_camera_that_was_never_there_is_told_once_and_comes_with_its_gap(feed: LiveFeed, device: Device) -> None:
    device.there = False
    told = poll_for(feed, device, 60, 0.05)
    assert [n.kind for n in told] == ["lost"]
    assert [n.kind for n in connect(feed, device)] == ["back"]


def test_a_stream_that_is_silent_for_five_seconds_is_opened_again(feed: LiveFeed, device: Device) -> None:
    connect(feed, device)
    device.put(1)
    assert poll_for(feed, device, 4.9) == []
    [lost] = poll_for(feed, device, 0.3)
    assert (lost.kind, lost.data) == ("lost", {"reason": "no frame for 5.0 s"})
    assert device.n_closed == 1


def test_a_slow_camera_has_ten_of_its_periods_and_a_new_one_twenty_seconds(device: Device) -> None:
    feed = LiveFeed(source("gate"), fps=1, clock=device.clock)
    assert poll_for(feed, device, 19.9) == []
    device.put(0)
    assert poll_for(feed, device, 9.9) == []
    assert [n.data["reason"] for n in poll_for(feed, device, 0.3)] == ["no frame for 10.0 s"]
    other = LiveFeed(source("door"), clock=device.clock)
    assert [n.data["reason"] for n in poll_for(other, device, 20.2)] == ["no frame for 20.0 s"]


def test_counters_go_on_over_connections(feed: LiveFeed, device: Device) -> None:
    connect(feed, device)
    for index in (1, 4, 5):
        device.put(index)
        poll_for(feed, device, 0.05)
    device.there = False
    poll_for(feed, device, 0.05)
    connect(feed, device)
    device.put(3)
    poll_for(feed, device, 0.05)
    counters = feed.counters
    assert (counters.captured, counters.taken, counters.dropped, counters.lost) == (6 + 4, 4 + 2, 2 + 2, 1)


def test_a_wall_clock_that_steps_changes_nothing(feed: LiveFeed, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(feed, device)
    for wall in (0.0, 2e9, 1e5):
        monkeypatch.setattr("time.time", lambda wall=wall: wall)
        device.put(1)
        assert poll_for(feed, device, 1) == []


def stop_it(feed: LiveFeed) -> None:
    assert feed.pid
    os.kill(feed.pid, signal.SIGSTOP)


def kill_it(feed: LiveFeed) -> None:
    assert feed.pid
    os.kill(feed.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("steps", "harm", "reason"),
    [
        ([["street", -1]], stop_it, "no frame for "),
        ([["street", 3], ["hang", 600]], None, "no frame for "),
        ([["street", -1]], kill_it, "the capture process ended (SIGKILL)"),
        ([["street", 3]], None, "the stream ended"),
    ],
    ids=["SIGSTOP", "a read that never returns", "kill -9", "a clean end"],
)
def test_a_real_capture_process_that_fails_is_ended_and_started_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    street_file: Path,
    steps: list[list[object]],
    harm: Callable[[LiveFeed], None] | None,
    reason: str,
) -> None:
    monkeypatch.setattr(feed_module, "STALL_S", 0.6)
    monkeypatch.setattr(feed_module, "STALL_PERIODS", 0)
    monkeypatch.setattr(feed_module, "FIRST_RETRY_S", 0.05)
    feed = LiveFeed(plan(tmp_path / "plan", steps, [["street", -1]], fps=20, street=street_file))
    told: list[Notice] = []
    frames: list[Frame] = []

    def poll() -> None:
        taken, notices = feed.poll()
        told.extend(notices)
        frames.extend([taken] if taken else [])

    try:
        wait_for(lambda: poll() or frames, "it starts")
        first, began = feed.pid, time.monotonic()
        if harm:
            harm(feed)
        wait_for(lambda: poll() or told, "the loss is told")
        assert time.monotonic() - began < 3
        assert told[0].kind == "lost" and str(told[0].data["reason"]).startswith(reason)
        assert first and not Path(f"/proc/{first}").exists(), "the old process is gone"
        wait_for(lambda: poll() or len(told) > 1, "it is back")
        assert told[1].kind == "back" and 0 < told[1].data["gap_s"] < 15
        n_frames = len(frames)
        wait_for(lambda: poll() or len(frames) > n_frames + 3, "frames come again")
        assert len(told) == 2 and feed.pid != first
    finally:
        feed.close()


def test_stored_footage_is_taken_frame_by_frame_and_ends(footage: Path) -> None:
    feed = open_feed(str(footage / "01"), 10)
    assert isinstance(feed, StoredFeed) and not feed.live
    indices = []
    while not feed.ended:
        taken, notices = feed.poll()
        assert notices == []
        indices += [taken.index] if taken else []
    feed.close()
    assert indices == list(range(40))
    assert (feed.counters.captured, feed.counters.taken, feed.counters.dropped) == (40, 40, 0)


def test_staged_cameras_count_as_real_ones(stage: Stage) -> None:
    """What the tests of faults stand on."""
    feed = LiveFeed(source("gate"))
    stage.show(source("gate"), "street", 3, step=2)
    stage.fail(source("gate"), "unplugged")
    told: list[str] = []
    wait_for(lambda: told.extend(n.kind for n in feed.poll()[1]) or len(told) == 2, "lost and back")
    assert told == ["lost", "back"]
    assert (feed.counters.captured, feed.counters.taken, feed.counters.dropped) == (6, 4, 2)
