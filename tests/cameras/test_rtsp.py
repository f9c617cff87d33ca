"""A network camera: through the feed, from a real server that is killed, stalled and started again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cameras.network_camera import NetworkCamera

from edge_vad import feed as feed_module
from edge_vad.cameras import is_live, open_camera
from edge_vad.cameras.rtsp import StreamClock, masked
from edge_vad.errors import SourceError
from edge_vad.feed import LiveFeed, Notice
from edge_vad.types import Frame


@pytest.fixture
def network_camera() -> Iterator[NetworkCamera]:
    camera = NetworkCamera()
    yield camera
    camera.kill()


class Watched:
    """A feed with all that it said and delivered."""

    def __init__(self, source: str) -> None:
        self.feed = LiveFeed(source)
        self.frames: list[Frame] = []
        self.notices: list[Notice] = []

    def until(self, happened: Callable[[], bool], limit_s: float) -> float:
        """Poll until it happened; how long it took."""
        started = time.monotonic()
        while not happened():
            assert time.monotonic() - started < limit_s, (self.notices, len(self.frames))
            frame, notices = self.feed.poll()
            self.notices += notices
            self.frames += [frame] if frame is not None else []
            time.sleep(0.005)
        return time.monotonic() - started

    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Watched]]:
    monkeypatch.setattr(feed_module, "FIRST_RETRY_S", 0.3)
    made: list[Watched] = []

    def start(source: str) -> Watched:
        made.append(Watched(source))
        return made[-1]

    yield start
    for watched in made:
        watched.feed.close()


def test_a_killed_server_is_a_lost_camera_and_a_started_one_brings_it_back(
    network_camera: NetworkCamera, watch: Callable[[str], Watched]
) -> None:
    watched = watch(network_camera.address)
    opened_s = watched.until(lambda: len(watched.frames) >= 40, 15)
    frames = watched.frames[-25:]
    assert frames[0].image.shape == (240, 320, 3) and frames[0].luma.shape == (240, 320)
    stamps = np.array([frame.timestamp for frame in frames])
    steps = np.diff([frame.index for frame in frames])
    assert np.median(np.diff(stamps) / steps) == pytest.approx(0.04, abs=0.005)
    assert stamps.max() <= time.monotonic() and time.monotonic() - stamps[-1] < 1
    assert watched.notices == [] and watched.feed.connected

    network_camera.kill()
    lost_s = watched.until(lambda: watched.kinds() == ["lost"], 3)
    assert "ended" in watched.notices[0].data["reason"] and not watched.feed.connected
    time.sleep(0.5)
    network_camera.start()
    back_s = watched.until(lambda: watched.kinds() == ["lost", "back"], 15)
    assert watched.notices[1].data["gap_s"] == pytest.approx(0.5 + back_s, abs=0.5)
    assert watched.feed.counters.lost == 1
    print(f"\n40 frames after {opened_s:.2f} s; killed: lost after {lost_s:.3f} s, back {back_s:.2f} s after the restart")


def test_a_server_that_stalls_is_lost_after_five_seconds_and_comes_back(
    network_camera: NetworkCamera, watch: Callable[[str], Watched]
) -> None:
    watched = watch(network_camera.address)
    watched.until(lambda: len(watched.frames) >= 10, 15)
    network_camera.stall()
    lost_s = watched.until(lambda: watched.kinds() == ["lost"], 8)
    assert 4.5 < lost_s < 6.5
    network_camera.go_on()
    before = len(watched.frames)
    back_s = watched.until(lambda: watched.kinds() == ["lost", "back"] and len(watched.frames) > before + 10, 15)
    stamps = [frame.timestamp for frame in watched.frames]
    assert stamps == sorted(stamps)
    reason, gap_s = watched.notices[0].data["reason"], watched.notices[1].data["gap_s"]
    print(f"\nstalled: lost after {lost_s:.2f} s ({reason}); back {back_s:.2f} s after it went on, a gap of {gap_s} s")


def test_a_path_that_the_server_does_not_have_is_a_source_error(network_camera: NetworkCamera) -> None:
    with pytest.raises(SourceError, match="/other: no stream within 5 s; check the network, the address, user"):
        open_camera(network_camera.address.replace("/camera", "/other"))


def test_nobody_listening_is_told_at_once_and_without_the_password() -> None:
    code = "import sys; from edge_vad.cameras import open_camera; open_camera(sys.argv[1])"
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code, "rtsp://guard:s3cret@127.0.0.1:1/camera"], capture_output=True, text=True
    )
    assert time.monotonic() - started < 5
    assert "SourceError: rtsp://***@127.0.0.1:1/camera: no stream" in ended.stderr
    assert "s3cret" not in ended.stdout + ended.stderr and "guard" not in ended.stderr


def test_addresses_are_live_and_others_are_refused() -> None:
    assert is_live("rtsp://host/x") and is_live("rtsps://host/x")
    with pytest.raises(SourceError, match="rtsp:host: not an address of the form rtsp://"):
        open_camera("rtsp:host")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://guard:s3cret@host:554/a?b=c", "rtsp://***@host:554/a?b=c"),
        ("rtsp://guard:s3/c@ret@host/a", "rtsp://***@host/a"),
        ("rtsp://host/a", "rtsp://host/a"),
        ('rtspsrc location="rtsp://u:p@h/x" ! y', 'rtspsrc location="rtsp://***@h/x" ! y'),
        ('rtspsrc user-id=me user-pw="my word" ! x', "rtspsrc user-id=*** user-pw=*** ! x"),
    ],
)
def test_passwords_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def at(clock: StreamClock, pairs: list[tuple[float, float]]) -> list[float]:
    return [round(clock.at(position, now), 3) for position, now in pairs]


def test_positions_keep_their_distances_however_the_frames_arrive() -> None:
    assert at(StreamClock(), [(5.0, 100.0), (5.04, 100.09), (5.08, 100.091), (5.12, 100.13)]) == [
        100,
        100.04,
        100.08,
        100.12,
    ]


def test_a_burst_after_connecting_is_laid_before_now() -> None:
    burst = [(0.0, 50.0), (0.04, 50.001), (0.08, 50.002), (1.2, 50.01), (1.24, 50.05), (1.28, 50.12)]
    assert at(StreamClock(), burst) == [50.0, 50.001, 50.002, 50.01, 50.05, 50.09]


def test_a_stream_without_positions_is_stamped_on_arrival() -> None:
    assert at(StreamClock(), [(0.0, 10.0), (0.0, 10.05), (-1.0, 10.1), (0.04, 10.15), (0.0, 10.2)]) == [
        10.0,
        10.05,
        10.1,
        10.15,
        10.2,
    ]


def test_a_clock_that_drifts_or_jumps_is_laid_anew_and_never_runs_back() -> None:
    clock = StreamClock()
    assert at(clock, [(100.0, 10.0), (100.5, 11.4), (101.0, 12.1)]) == [10.0, 10.5, 12.1]
    assert at(clock, [(1.0, 13.0), (1.04, 13.05), (9000.0, 13.1), (9000.04, 13.2)]) == [13.0, 13.04, 13.1, 13.14]
    assert at(clock, [(9000.0, 13.2)]) == [13.14]
