"""The Raspberry Pi camera: over a fake of its API, and over the real picamera2 where a root with it was made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from cameras.fake_picamera2 import Device, install

from edge_vad.cameras import is_live, open_camera, picamera2
from edge_vad.errors import MissingPackageError, SourceError
from edge_vad.types import UInt8

ROOT = Path(__file__).resolve().parents[2]
VIRTUAL = "EDGE_VAD_PICAMERA2_ROOT"
SIZE = (640, 480)


@pytest.fixture
def scene() -> UInt8:
    """A picture without two equal channels, and smooth: what a halved colour plane can hold."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    return np.stack([x / 4 + 30, y / 3 + 20, 220 - x / 5], axis=2).astype(np.uint8)


@pytest.fixture
def device(scene: UInt8, monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device(scene)
    install(monkeypatch, made)
    monkeypatch.setattr(picamera2, "TIMEOUT_S", 0.05)
    return made


def test_frames_are_rgb_with_the_luma_of_the_small_stream_and_the_time_of_the_sensor(device: Device, scene: UInt8) -> None:
    assert is_live("picamera2:0")
    with open_camera("picamera2:0", 30, SIZE) as camera:
        first, second = islice(camera.frames(), 2)
    assert np.array_equal(first.image, scene) and first.image.flags.c_contiguous and first.image.flags.owndata
    assert first.luma.shape == (240, 320) and first.luma.flags.c_contiguous
    grey = cv2.resize(cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY), (320, 240), interpolation=cv2.INTER_AREA)
    assert cv2.absdiff(grey, first.luma).max() <= 1
    assert (first.timestamp, second.timestamp) == (0.033333, 0.066666) and (first.index, second.index) == (0, 1)


def test_the_configuration_is_headless_full_range_and_without_raw(device: Device) -> None:
    with open_camera("picamera2:0", 25, (1280, 720)) as camera:
        [opened] = device.opened
        said = opened.configuration
        assert camera.fps == 25 and opened.controls == {"FrameDurationLimits": (40_000, 40_000)}
    assert said["main"]["format"] == "BGR888" and said["main"]["size"] == (1280, 720)
    assert said["lores"]["format"] == "YUV420" and said["lores"]["size"] == (640, 360)
    assert said["raw"] is said["display"] is said["encode"] is None and said["queue"] is False
    assert said["colour_space"] == "sYCC" and 4 <= said["buffer_count"] <= 6
    assert opened.closed


@pytest.mark.parametrize(
    ("size", "lores"),
    [
        ((1920, 1080), (480, 270)),
        ((1280, 960), (320, 240)),
        ((1280, 720), (640, 360)),
        ((640, 480), (320, 240)),
        ((640, 360), (640, 360)),
        ((180, 120), (180, 120)),
        ((1014, 970), (252, 242)),
    ],
)
def test_the_small_stream_is_a_quarter_or_half_with_240_rows_where_it_can(
    size: tuple[int, int], lores: tuple[int, int]
) -> None:
    assert picamera2.lores_size(*size) == lores


@pytest.mark.parametrize("padding", [0, 64])
@pytest.mark.parametrize("lores", ["YUV420", "NV12"])
@pytest.mark.parametrize("main", ["BGR888", "RGB888", "XBGR8888", "XRGB8888", "NV12", "YUV420"])
def test_what_libcamera_made_of_the_request_is_read_back(
    device: Device, scene: UInt8, main: str, lores: str, padding: int
) -> None:
    def adjust(first: dict[str, Any], second: dict[str, Any]) -> None:
        first |= {"format": main, "size": (320, 200)}
        second |= {"format": lores, "size": (160, 100)}

    device.adjust, device.padding = adjust, padding
    with open_camera("picamera2:0", 30, SIZE) as camera:
        frame = next(iter(camera.frames()))
    expected = cv2.resize(scene, (320, 200), interpolation=cv2.INTER_AREA)
    difference = cv2.absdiff(frame.image, expected)
    assert frame.image.flags.c_contiguous and difference.max() <= (0 if main.endswith("8") else 3)
    grey = cv2.cvtColor(cv2.resize(scene, (160, 100), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    assert frame.luma.shape == (100, 160) and cv2.absdiff(frame.luma, grey).max() <= 1


def test_an_unknown_format_is_named(device: Device) -> None:
    device.adjust = lambda main, lores: main.update(format="MJPEG")
    with pytest.raises(SourceError, match="picamera2:0: delivers MJPEG and YUV420, expected one of BGR888.*dev/video0"):
        open_camera("picamera2:0")
    assert device.opened[0].closed


def test_frames_that_the_camera_dropped_leave_gaps_in_the_index(device: Device) -> None:
    ms = 1_000_000
    device.stamps_ns = [100 * ms, 133 * ms, 234 * ms, 266 * ms, 267 * ms]
    with open_camera("picamera2:0", 30, SIZE) as camera:
        assert [frame.index for frame in islice(camera.frames(), 5)] == [0, 1, 4, 5, 6]


def test_gaps_are_counted_in_the_frame_duration_that_the_sensor_states(device: Device) -> None:
    device.stamps_ns, device.metadata = [0, 100_000_000, 300_000_000], {"FrameDuration": 100_000}
    with open_camera("picamera2:0", 30, SIZE) as camera:
        assert [frame.index for frame in islice(camera.frames(), 3)] == [0, 1, 3]


def test_a_rate_beyond_the_sensors_mode_becomes_its_limit(device: Device) -> None:
    with open_camera("picamera2:0", 200, SIZE) as camera:
        assert camera.fps == pytest.approx(60, abs=0.01)
    device.limits = None
    with open_camera("picamera2:0", 10, SIZE) as camera:
        assert camera.fps == 10 and device.opened[-1].controls == {}


def test_odd_sizes_become_even(device: Device) -> None:
    with open_camera("picamera2:0", 10, (361, 241)) as camera:
        assert next(iter(camera.frames())).image.shape == (240, 360, 3)


def test_a_late_frame_is_waited_for_with_the_same_question(device: Device) -> None:
    device.stamps_ns = [None, None, 33_333_000, None, 66_666_000]
    with open_camera("picamera2:0", 30, SIZE) as camera:
        assert [frame.index for frame in islice(camera.frames(), 2)] == [0, 1]


def test_a_camera_that_falls_silent_is_the_end_and_can_be_closed(device: Device) -> None:
    device.stamps_ns = [33_333_000]
    with open_camera("picamera2:0", 30, SIZE) as camera:
        frames = camera.frames()
        next(frames)
        with pytest.raises(SourceError, match="picamera2:0: no frame for .* check the ribbon cable"):
            next(frames)
    assert device.opened[0].closed


def test_buffers_are_given_back_also_when_a_frame_cannot_be_read(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_camera("picamera2:0", 30, SIZE) as camera:
        monkeypatch.setattr(cv2, "resize", None)
        with pytest.raises(TypeError):
            next(iter(camera.frames()))
        assert device.opened[0].held == 0


def test_cameras_are_found_by_number_id_and_model(device: Device) -> None:
    device.cameras += ({"Id": "/base/usb-1", "Model": "webcam", "Num": 1},)
    for location, number in (("0", 0), ("1", 1), ("", 0), ("/base/usb-1", 1), ("imx708", 0)):
        with open_camera(f"picamera2:{location}"):
            assert device.opened[-1].number == number
    with pytest.raises(SourceError, match=r"picamera2:2: no such camera .found: 0 = imx708, /base/axi.*, 1 = webcam"):
        open_camera("picamera2:2")
    device.cameras = ()
    with pytest.raises(SourceError, match="picamera2:0: no camera found; check the ribbon cable"):
        open_camera("picamera2:0")


def test_a_camera_in_use_or_that_refuses_says_why(device: Device) -> None:
    device.opening_error = RuntimeError("Failed to acquire camera: Device or resource busy")
    with pytest.raises(SourceError, match="is another program using it.*Device or resource busy"):
        open_camera("picamera2:0")
    device.opening_error, device.configuring_error = None, RuntimeError("Configuration failed")
    with pytest.raises(SourceError, match=r"cannot be set up for \(640, 480\): Configuration failed"):
        open_camera("picamera2:0", 30, SIZE)
    assert device.opened[-1].closed


@pytest.mark.parametrize("module", ["picamera2", "libcamera"])
def test_without_the_packages_of_the_system_it_says_what_to_install(
    device: Device, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match="apt install python3-picamera2.*--system-site-packages"):
        open_camera("picamera2:0")


@pytest.fixture
def in_virtual_root(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs virtual_picamera2.py in a root of make_virtual_root.sh, over the folder tmp_path / frames."""
    root = Path(os.environ.get(VIRTUAL, ""))
    if VIRTUAL not in os.environ:
        pytest.skip(f"{VIRTUAL} is not set; tests/cameras/make_virtual_root.sh makes such a root")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, and unshare of util-linux, for the mounts in the root")
    python = "opt/venv/bin/python"
    assert os.path.lexists(root / python), f"{VIRTUAL}={root}: not a root of tests/cameras/make_virtual_root.sh"
    yaml = "usr/share/libcamera/pipeline/virtual/virtual.yaml"
    rates = "frame_rates: [1, 60]"
    sizes = [f"{{width: {SIZE[0] // n}, height: {SIZE[1] // n}, {rates}}}" for n in (1, 2)]
    (tmp_path / "virtual.yaml").write_text(
        f'"Virtual0":\n  supported_formats: [{", ".join(sizes)}]\n  frames: {{path: "/opt/clip/frames/"}}\n'
        '  location: "CameraLocationFront"\n  model: "Virtual Video Device"\n'
    )
    mounts = [
        f"mount --bind {ROOT} {root}/opt/edge-vad",
        f"mount --bind {tmp_path} {root}/opt/clip",
        f"mount --bind {tmp_path}/virtual.yaml {root}/{yaml}",
        f"mount -t proc proc {root}/proc",
        f"mount --rbind /sys {root}/sys",
        f"mount --rbind /dev {root}/dev",
        f'exec chroot {root} env PYTHONPATH=/opt/edge-vad PYTHONDONTWRITEBYTECODE=1 "$@"',
    ]

    def run(**options: Any) -> dict[str, Any]:
        script = ["/opt/edge-vad/tests/cameras/virtual_picamera2.py", json.dumps(options)]
        command = ["unshare", "--mount", "sh", "-ec", "\n".join(mounts), "sh", f"/{python}", *script]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return run


def test_the_real_picamera2_delivers_a_clip_that_is_scored(
    in_virtual_root: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    from edge_vad.cli import main

    tiny.write_clip(tmp_path / "normal" / "01", 30, seed=1, size=SIZE)
    tiny.write_clip(tmp_path / "normal" / "02", 30, seed=2, size=SIZE)
    (tmp_path / "tiny.onnx").write_bytes(tiny.encoder_model())
    build = tiny.build_arguments(tmp_path / "normal", tmp_path / "tiny.evb", tmp_path / "tiny.onnx")
    assert main(build) == 0
    (tmp_path / "frames").mkdir()
    for frame in tiny.clip_frames(40, seed=3, size=SIZE, anomalies="cyclist"):
        path = str(tmp_path / "frames" / f"{frame.index}.jpg")  # shown four times: 10 pictures/s at 40 frames/s
        cv2.imwrite(path, frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])

    fps, pause_at = 40, 100
    said = in_virtual_root(fps=fps, size=SIZE, frames=150, pause_at=pause_at, bundle="/opt/clip/tiny.evb")
    frames = said["frames"]
    columns = {key: np.array([frame[key] for frame in frames]) for key in frames[0]}
    index, stamps = columns["index"], columns["timestamp"]
    assert said["fps"] == fps and said["streams"]["space"].endswith("'sYCC'>")
    assert said["streams"]["main"]["format"] == said["streams"]["lores"]["format"] == "NV12"  # adjusted without a word
    assert set(map(tuple, columns["image"])) == {(480, 640, 3)} and set(map(tuple, columns["luma"])) == {(240, 320)}
    assert columns["luma_error"].max() <= 1 and said["stayed"] and said["opened_again"] == [480, 640, 3]

    steps = np.diff(index)
    assert index[0] == 0 and steps.min() == 1 and steps[pause_at - 1] == pytest.approx(0.5 * fps, abs=5)
    assert (index[-1] - index[0]) / (stamps[-1] - stamps[0]) == pytest.approx(fps, rel=0.05)
    assert (np.diff(stamps) > 0).all() and 0 < np.median(columns["age_ms"]) < 1000 / fps
    assert np.isfinite(columns["score"]).all() and np.unique(columns["score"]).size > 5
    delivered = (len(frames) - 1) / (stamps[-1] - stamps[0] - 0.5)
    dropped = int((steps - 1).sum() - steps[pause_at - 1] + 1)
    print(
        f"\n{delivered:.1f} frames/s delivered, {np.median(np.diff(stamps) / steps) * 1000:.2f} ms apart, "
        f"{np.median(columns['age_ms']):.1f} ms old, {dropped} dropped outside the pause, "
        f"luma differs by {columns['luma_error'].max():.2f} levels, "
        f"scores {columns['score'].min():.2f} to {columns['score'].max():.2f}"
    )
