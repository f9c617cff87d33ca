"""Pictures of events: complete or not there, within their bounds, and never in the way of detection."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_vad import avi, media
from edge_vad.avi import AviWriter
from edge_vad.device import MediaSettings
from edge_vad.errors import OutputError
from edge_vad.media import Media, draw
from edge_vad.types import Frame, Region, Result

SMALL = (64, 48)


def frame(index: int, fps: float = 10.0, size: tuple[int, int] = SMALL, noisy: bool = False) -> Frame:
    """A grey picture; its brightness tells its index: 2 * index."""
    width, height = size
    image = np.full((height, width, 3), 2 * index % 256, np.uint8)
    if noisy:
        image = np.random.default_rng(index).integers(0, 256, image.shape, dtype=np.uint8)
    return Frame(image, image[:, :, 0], index / fps, index)


def result(index: int = 0, score: float = 1.5, regions: tuple[Region, ...] = ()) -> Result:
    return Result(index, index / 10, score, {}, regions, np.zeros((3, 4), np.float32), (), {})


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Media]]:
    opened: list[Media] = []

    def make(folder: Path = tmp_path, camera: str = "gate", **settings: Any) -> Media:
        opened.append(Media(folder, camera, MediaSettings(**{"min_free_mb": 0, **settings})))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("media")]


def until(holds: Callable[[], Any], seconds: float = 10) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def settled(one: Media) -> None:
    """Its thread has done all it was given."""
    until(lambda: not one._inbox and not one._n_starts)
    time.sleep(0.02)


def see(one: Media, *indices: int, **more: Any) -> None:
    for index in indices:
        until(lambda: one._n_pictures < 4)
        one.see(frame(index, **more), result(index))


def frames_of(path: Path) -> list[int]:
    """The indices of the pictures in a clip."""
    video = cv2.VideoCapture(str(path))
    found = []
    while True:
        good, image = video.read()
        if not good:
            return found
        found.append(round(float(image.mean()) / 2))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Files


def test_an_event_gets_a_snapshot_and_a_clip_from_before_until_after_it(tmp_path: Path, make: Any) -> None:
    one = make(pre_s=1.0, post_s=0.5)
    see(one, *range(20))
    files = one.start(12, result(19), frame(19))
    assert set(files) == {"snapshot", "clip"} and files["snapshot"].endswith("-12.jpg")
    stamp = datetime.strptime(files["clip"], "gate/%Y%m%dT%H%M%SZ-12.avi").replace(tzinfo=timezone.utc)
    assert abs(time.time() - stamp.timestamp()) < 5
    see(one, *range(20, 30))
    one.end(12)
    see(one, *range(30, 34))
    settled(one)
    assert names(tmp_path) == [f"gate/.{Path(files['clip']).name}.new", files["snapshot"]]
    assert not (tmp_path / files["clip"]).exists()  # not before it is complete
    see(one, *range(34, 40))
    until(lambda: (tmp_path / files["clip"]).exists())
    assert frames_of(tmp_path / files["clip"]) == list(range(9, 35))
    assert cv2.VideoCapture(str(tmp_path / files["clip"])).get(cv2.CAP_PROP_FPS) == pytest.approx(10, abs=0.01)
    settled(one)
    assert names(tmp_path) == sorted(files.values())
    status = one.status()
    assert (status["snapshots"], status["clips"], status["skipped"], status["failed"], status["open"]) == (1, 1, 0, 0, 0)


@pytest.mark.parametrize(("snapshots", "clips"), [(True, False), (False, True), (False, False)])
def test_only_what_is_wanted_is_kept(tmp_path: Path, make: Any, snapshots: bool, clips: bool) -> None:
    one = make(snapshots=snapshots, clips=clips)
    see(one, *range(5))
    files = one.start(1, result(4), frame(4))
    one.end(1)
    one.close()
    assert set(files) == {name for name, wanted in (("snapshot", snapshots), ("clip", clips)) if wanted}
    assert names(tmp_path) == sorted(files.values())
    assert bool(one._ring) == clips


def test_pictures_of_a_clip_come_at_most_at_its_rate_and_width(tmp_path: Path, make: Any) -> None:
    one = make(fps=10.0, width=32, pre_s=4.0)
    see(one, *range(100), fps=25.0)
    files = one.start(1, result(), frame(99, fps=25.0))
    one.close()
    found = frames_of(tmp_path / files["clip"])
    assert 38 <= len(found) <= 41 and max(b - a for a, b in pairwise(found)) <= 3
    video = cv2.VideoCapture(str(tmp_path / files["clip"]))
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (32, 24)
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10, abs=0.3)
    picture = cv2.imread(str(tmp_path / files["snapshot"]))
    assert picture.shape == (48, 64 + 32, 3)  # the snapshot in full


def test_a_clip_without_a_past_begins_with_the_last_picture(tmp_path: Path, make: Any) -> None:
    one = make(fps=10.0, pre_s=0.0, post_s=0.0)
    see(one, *range(12), fps=25.0)  # the last of them is not due
    files = one.start(1, result(), frame(11, fps=25.0))
    see(one, *range(12, 20), fps=25.0)
    one.close()
    assert 9 <= frames_of(tmp_path / files["clip"])[0] < 11
    other = make(camera="door")
    other.start(1, result(), frame(0))  # nothing was seen of it
    other.close()
    assert other.status()["failed"] == 1 and other.status()["snapshots"] == 1


def test_a_slow_camera_plays_at_its_own_speed(tmp_path: Path, make: Any) -> None:
    one = make(fps=10.0, pre_s=10.0)
    see(one, *range(20), fps=4.0)
    files = one.start(1, result(), frame(19, fps=4.0))
    one.close()
    assert cv2.VideoCapture(str(tmp_path / files["clip"])).get(cv2.CAP_PROP_FPS) == pytest.approx(4, abs=0.01)
    assert frames_of(tmp_path / files["clip"]) == list(range(20))


def test_the_snapshot_shows_regions_and_map() -> None:
    image = np.full((120, 300, 3), 100, np.uint8)
    heat = np.zeros((4, 10), np.float32)
    heat[:2, 5:] = 2.0
    regions = (Region(20, 10, 60, 50, score=1.4), Region(100, 60, 140, 100, score=0.4), Region(-50, 90, 9000, 100, score=2))
    drawn = draw(image, Result(0, 0.0, 1.5, {}, regions, heat, (), {}), scale=0.5)
    assert drawn.shape == (120, 400, 3) and (image == 100).all()
    assert tuple(drawn[5, 20]) == media._RED and tuple(drawn[30, 60]) == media._YELLOW
    right, left = drawn[:10, 380:].mean((0, 1)), drawn[:10, 305:330].mean((0, 1))
    assert right[2] > right[0] + 80 and abs(left[2] - left[0]) < 5
    tall = draw(np.zeros((500, 40, 3), np.uint8), Result(0, 0.0, 9.9, {}, (), np.full((2, 2), np.nan, np.float32), (), {}))
    assert tall.shape == (500, 72, 3)


def test_where_the_clock_was_never_set_names_come_from_the_boot(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Past(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Past:
            return cls(1970, 1, 1, 0, 3, tzinfo=tz)

    monkeypatch.setattr(media, "datetime", Past)
    one = make()
    see(one, 1)
    files = one.start(3, result(), frame(1))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    assert files["clip"].startswith(f"gate/boot-{boot}-0") and files["clip"].endswith("s-3.avi")


# The end of clips


def test_a_clip_ends_after_its_longest_time(tmp_path: Path, make: Any) -> None:
    one = make(max_s=3.0, pre_s=1.0)
    see(one, *range(20))
    files = one.start(1, result(), frame(19))
    see(one, *range(20, 60))
    until(lambda: one.status()["clips"])
    one.end(1)
    assert frames_of(tmp_path / files["clip"]) == list(range(9, 39))


def test_a_clip_ends_before_it_takes_a_quarter_of_the_quota(tmp_path: Path, make: Any) -> None:
    one = make(quota_mb=1, snapshots=False, width=640)
    see(one, *range(3), size=(640, 480), noisy=True)
    files = one.start(1, result(), frame(2))
    see(one, *range(3, 8), size=(640, 480), noisy=True)
    until(lambda: one.status()["clips"])
    assert 2**18 <= (tmp_path / files["clip"]).stat().st_size < 2**19


@pytest.mark.parametrize("why", ["another size", "another clock", "no pictures", "closed"])
def test_a_clip_ends_when_the_camera_begins_anew_or_stops(
    tmp_path: Path, make: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "IDLE_S", 0.3 if why == "no pictures" else 60.0)
    one = make()
    see(one, *range(10))
    files = one.start(1, result(), frame(9))
    see(one, *range(10, 15))
    if why == "another size":
        see(one, 15, 16, size=(80, 60))
    elif why == "another clock":
        see(one, 0, 1)
    elif why == "closed":
        one.close()
    until(lambda: one.status()["clips"] == 1)
    assert frames_of(tmp_path / files["clip"]) == list(range(15))
    if why.startswith("another"):
        size = {"size": (80, 60)} if why == "another size" else {}
        files = one.start(2, result(), frame(16 if size else 1, **size))
        one.close()
        assert frames_of(tmp_path / files["clip"]) == ([15, 16] if size else [0, 1])


def test_events_that_overlap_get_a_clip_each_also_with_the_same_number(tmp_path: Path, make: Any) -> None:
    one = make(pre_s=0.3, post_s=1.0)
    see(one, *range(10))
    first = one.start(1, result(), frame(9))
    one.end(1)
    see(one, *range(10, 12))
    time.sleep(1.0)  # another second, another name
    second = one.start(1, result(), frame(11))
    see(one, *range(12, 15))
    one.end(1)
    one.end(1)
    see(one, *range(15, 30))
    one.close()
    assert frames_of(tmp_path / first["clip"]) == list(range(6, 20))
    assert frames_of(tmp_path / second["clip"]) == list(range(8, 25))


def test_no_more_clips_are_open_than_allowed(tmp_path: Path, make: Any) -> None:
    one = make(snapshots=False)
    see(one, 1)
    for event in range(1, 7):
        one.start(event, result(), frame(1))
        settled(one)
    assert one.status()["open"] == media.MAX_OPEN and one.status()["failed"] == 2
    one.close()
    assert len(names(tmp_path)) == media.MAX_OPEN == one.status()["clips"]


# Bounds


def test_memory_is_bounded(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "PRE_ROLL_BYTES", 500_000)
    one = make(pre_s=1000.0)
    for index in range(60):
        see(one, index, size=(320, 240), noisy=True)
    settled(one)
    assert sum(len(jpeg) for _, _, jpeg in one._ring) == one._ring_bytes <= 500_000
    assert len(one._ring) > 3


def test_a_medium_that_hangs_stops_nobody(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    write = media.write_atomically

    def hanging(path: Path, data: bytes) -> None:
        hangs.wait(20)
        write(path, data)

    monkeypatch.setattr(media, "write_atomically", hanging)
    one = make(snapshots=True)
    see(one, *range(5), size=(640, 480))
    promised, slowest = [], 0.0
    for index in range(5, 105):
        start = time.monotonic()
        one.see(frame(index, size=(640, 480)), result())
        if index % 10 == 0:
            promised.append(one.start(index, result(), frame(index, size=(640, 480))))
            one.end(index)
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 0.2
    status = one.status()
    assert status["skipped"] >= 100 - 2 * media.QUEUE_PICTURES and one._n_pictures == media.QUEUE_PICTURES
    assert len([files for files in promised if files]) == media.QUEUE_EVENTS and status["failed"] == 12
    start = time.monotonic()
    one.close(0.3)
    assert time.monotonic() - start < 0.6
    hangs.set()
    one.close()
    assert all((tmp_path / files["snapshot"]).exists() for files in promised if files)
    assert one.start(1, result(), frame(1)) == {}
    one.see(frame(200), result())
    one.end(1)


def test_the_oldest_are_deleted_to_keep_the_quota_of_all_cameras(tmp_path: Path, make: Any) -> None:
    gate, door = (make(camera=camera, quota_mb=1, clips=False) for camera in ("gate", "door"))
    made: list[str] = []
    for event in range(1, 25):
        one = gate if event % 3 else door
        made += one.start(event, result(), frame(event, size=(400, 300), noisy=True)).values()
        settled(one)
        assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 2**20
    left = names(tmp_path)
    assert 3 < len(left) < 24 and left == sorted(made[-len(left) :])
    assert gate.status()["deleted"] + door.status()["deleted"] == 24 - len(left)


def test_after_the_wall_clock_went_back_the_oldest_still_go_first(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make(quota_mb=1, clips=False)
    made = []
    for event in range(1, 25):
        [name] = one.start(event, result(), frame(event, size=(400, 300), noisy=True)).values()
        made.append(name)
        settled(one)
        if event == 6:  # from here on, files are dated to 1970
            now = time.time()
            monkeypatch.setattr(time, "time", lambda: 1000.0)
            write = media.write_atomically

            def long_ago(path: Path, data: bytes, write: Any = write) -> None:
                write(path, data)
                os.utime(path, (1000, 1000))

            monkeypatch.setattr(media, "write_atomically", long_ago)
    left = names(tmp_path)
    assert 3 < len(left) < 18 and left == sorted(made[-len(left) :])
    assert all((tmp_path / name).stat().st_mtime > now - 60 for name in left)


def test_the_free_space_that_others_need_is_not_touched(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(media, "HOLD_OFF_S", 0.1)
    free = [50 * 2**20]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free[0]))
    one = make(min_free_mb=100)
    see(one, *range(5))
    one.start(1, result(), frame(4))
    settled(one)
    assert one.start(2, result(), frame(4)) == {}  # not so soon after that
    status = one.status()
    assert names(tmp_path) == [] and status["failed"] == 4
    assert status["last_error"] == "less than 100 MB would be free on the medium"
    assert len([entry for entry in caplog.records if "would be free" in entry.getMessage()]) == 1
    free[0] = 200 * 2**20
    time.sleep(0.15)
    files = one.start(3, result(), frame(4))
    one.close()
    assert names(tmp_path) == sorted(files.values()) and one.status()["last_error"] == ""


# Errors


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_an_error_of_the_medium_is_counted_and_tried_again_later(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch, number: int, caplog: Any
) -> None:
    monkeypatch.setattr(media, "HOLD_OFF_S", 0.0)

    def fails(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    one = make()
    see(one, *range(5))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fails)
        for event in range(1, 4):
            one.start(event, result(), frame(4))
            settled(one)
    assert one.status()["failed"] == 6 and os.strerror(number) in one.status()["last_error"]
    assert names(tmp_path) == [] and len(caplog.records) == 1
    one.start(4, result(), frame(4))
    settled(one)
    with monkeypatch.context() as patched:  # in the middle of a clip
        patched.setattr(os, "write", fails)
        see(one, *range(5, 10))
        settled(one)
    assert one.status()["failed"] == 7 and one.status()["open"] == 0
    files = one.start(5, result(), frame(9))
    with monkeypatch.context() as patched:  # at its end
        settled(one)
        patched.setattr(os, "pwrite", fails)
        one.close()
    assert one.status()["failed"] == 8
    assert [name for name in names(tmp_path) if name.endswith(("avi", "new"))] == []
    assert files["snapshot"] in names(tmp_path)


def test_a_folder_that_is_none_is_an_error_like_any_other(tmp_path: Path, make: Any) -> None:
    (tmp_path / "file").write_text("")
    one = make(folder=tmp_path / "file")
    see(one, 1, 2)
    one.start(1, result(), frame(2))
    one.close()
    assert one.status()["failed"] == 2 and one.status()["snapshots"] == 0


def test_a_picture_that_is_none_raises_nothing(make: Any, caplog: Any) -> None:
    one = make()
    for index, shape in enumerate(((0, 0, 3), (5, 0, 3), (5, 5, 2))):
        image: Any = np.zeros(shape, np.uint8)
        broken = Frame(image, image, index, index)
        one.see(broken, result())
        assert one.start(1, result(), broken) == {}
    assert one.status()["failed"] == 6 and "Traceback" in caplog.text


def test_what_a_crash_left_is_deleted_by_the_next_start(tmp_path: Path, make: Any) -> None:
    code = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_media import MediaSettings, Media, frame, result, see, settled
one = Media(Path(sys.argv[1]), "gate", MediaSettings(min_free_mb=0))
see(one, *range(20))
one.start(1, result(), frame(19))
see(one, *range(20, 40))
settled(one)
print("open", flush=True)
time.sleep(60)
"""
    here = str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), here], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "open\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (tmp_path / "door").mkdir()
    (tmp_path / "door" / ".x.avi.new").write_text("another camera's, at work")
    left = names(tmp_path)
    assert len(left) == 3 and [name.endswith(".avi.new") for name in left] == [True, True, False]
    one = make()
    until(lambda: len(names(tmp_path)) == 2)
    assert names(tmp_path) == ["door/.x.avi.new", left[2]]
    one.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_real_full_disk_that_is_freed_again(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "HOLD_OFF_S", 0.0)
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        monkeypatch.setattr(Media, "_make_room", lambda *_: None)  # the disk fills up faster than anybody looks
        one = make(folder=place)
        see(one, *range(10), size=(640, 480), noisy=True)
        files = one.start(1, result(), frame(9, size=(640, 480)))
        for index in range(10, 60):
            see(one, index, size=(640, 480), noisy=True)
        settled(one)
        assert one.status()["failed"] == 1 and "No space left" in one.status()["last_error"]
        assert names(place) == [files["snapshot"]]
        (place / files["snapshot"]).unlink()
        files = one.start(2, result(), frame(59, size=(640, 480)))
        assert files
        one.close()
        assert one.status()["snapshots"] == 2
    finally:
        subprocess.run(["umount", place], check=True)


# The container


@pytest.mark.parametrize("n", [1, 2, 25])
@pytest.mark.parametrize("size", [(64, 48), (61, 47)])
def test_clips_are_read_by_independent_readers(tmp_path: Path, n: int, size: tuple[int, int]) -> None:
    path = tmp_path / "clip.avi"
    writer = AviWriter(path, size)
    for index in range(n):
        image = np.full((size[1], size[0], 3), 10 * index, np.uint8)
        writer.add(cv2.imencode(".jpg", image)[1].tobytes())
    writer.finish(7.5)
    assert writer.n_frames == n and writer.n_bytes == path.stat().st_size
    for reader in (cv2.CAP_FFMPEG, cv2.CAP_OPENCV_MJPEG):
        video = cv2.VideoCapture(str(path), reader)
        assert video.isOpened() and video.get(cv2.CAP_PROP_FRAME_COUNT) == n
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(7.5, abs=0.01)
        levels = [float(image.mean()) for good, image in iter(video.read, (False, None)) if good]
        assert levels == pytest.approx([10 * index for index in range(n)], abs=2)


def test_a_clip_that_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "write", full)
        AviWriter(tmp_path / "clip.avi", SMALL)
    assert names(tmp_path) == [] and avi._HEADER_BYTES == 224
    with pytest.raises(OutputError):
        media.write_atomically(tmp_path / "nowhere" / "x", b"")
