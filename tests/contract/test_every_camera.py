"""What every camera must do, run over every module in the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from cameras.fake_picamera2 import Device, install

from edge_vad.cameras import Camera, find_camera, is_live, open_camera
from edge_vad.errors import SourceError
from edge_vad.plugins import available, load

N_FRAMES = 8
LIVE = {  # devices that a test machine does not have: their own tests deliver frames; and an address that is not there
    "gstreamer": "gst:filesrc location=/no-such-place ! decodebin",
    "picamera2": "picamera2:/no-such-place",
    "rtsp": "rtsp://127.0.0.1:1/no-such-place",
    "v4l2": "v4l2:/no-such-place",
}


def location(name: str, folder: Path) -> str:
    """Footage of N_FRAMES frames for the camera ``name``. A new camera needs a line here."""
    if name == "images":
        return str(tiny.write_clip(folder / "pictures", N_FRAMES))
    if name == "opencv":
        return str(tiny.write_video(folder / "clip.avi", N_FRAMES))
    assert name == "synthetic", f"tell this test how to make footage for the camera {name}"
    return f"seed=1,seconds={N_FRAMES / 10},size={tiny.SIZE[0]}x{tiny.SIZE[1]}"


@pytest.fixture(params=[name for name in available("cameras") if name not in LIVE])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:{location(request.param, tmp_path)}"


def test_frames_have_the_shapes_types_and_order_of_the_contract(source: str) -> None:
    with open_camera(source) as camera:
        assert camera.fps == 10 and camera.n_frames == N_FRAMES and not camera.live and not is_live(source)
        frames = list(camera.frames())
    assert len(frames) == N_FRAMES
    for frame in frames:
        assert frame.image.shape == (tiny.SIZE[1], tiny.SIZE[0], 3) and frame.image.dtype == np.uint8
        assert frame.luma.ndim == 2 and frame.luma.dtype == np.uint8
        assert frame.image.flags.c_contiguous
    assert [frame.index for frame in frames] == list(range(N_FRAMES))
    np.testing.assert_allclose([frame.timestamp for frame in frames], np.arange(N_FRAMES) / 10)


def test_frames_stay_as_they_were_when_the_next_one_comes(source: str) -> None:
    with open_camera(source) as camera:
        frames = camera.frames()
        first = next(frames)
        copy = first.image.copy()
        list(frames)
    assert np.array_equal(first.image, copy)


def test_a_stated_frame_rate_moves_the_time_stamps(source: str) -> None:
    with open_camera(source, fps=4) as camera:
        frames = list(camera.frames())
    assert camera.fps == 4 and frames[2].timestamp == 0.5


def test_colours_are_rgb_and_luma_is_theirs(source: str) -> None:
    true = tiny.clip_frames(1, anomalies="all" if source.startswith("synthetic") else "none")[0]
    with open_camera(source) as camera:
        frame = next(camera.frames())
    assert (
        np.abs(frame.image.astype(int) - true.image).mean()
        < 4
        < np.abs(frame.image[..., ::-1].astype(int) - true.image).mean()
    )
    weighted = frame.image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(weighted - frame.luma).max() <= 1


@pytest.mark.parametrize("name", [name for name in available("cameras") if name not in LIVE])
def test_a_location_that_is_not_there_is_a_source_error_that_names_it(name: str) -> None:
    with pytest.raises(SourceError, match="no-such-place"):
        load("cameras", name, Camera)("/no-such-place")


@pytest.mark.parametrize("name", LIVE)
def test_a_live_address_that_is_not_there_is_a_source_error_that_names_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "gstreamer":
        pytest.importorskip("gi", reason="the Python bindings of GStreamer belong to the system's Python")
    install(monkeypatch, Device(np.zeros((480, 640, 3), np.uint8)))
    with pytest.raises(SourceError, match="no-such-place"):
        open_camera(LIVE[name])


@pytest.mark.parametrize("name", LIVE)
def test_a_live_camera_says_so_before_it_is_opened(name: str) -> None:
    kind, _ = find_camera(LIVE[name])
    assert kind.live and is_live(LIVE[name]) and kind.n_frames is None
    assert kind.__module__ == f"edge_vad.cameras.{name}"
