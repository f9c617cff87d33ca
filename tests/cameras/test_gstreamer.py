"""GStreamer pipelines: their text, and real runs in which NVIDIA's elements are replaced by those of every machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cameras.network_camera import PYTHON, NetworkCamera

from edge_vad.cameras import find_camera, gstreamer, is_live, open_camera
from edge_vad.cameras.gstreamer import csi_pipeline, pipeline, rtsp_pipeline
from edge_vad.errors import MissingPackageError, SourceError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("gstreamer_run.py")
TAIL = "videoconvert ! video/x-raw,format=RGB ! appsink drop=true max-buffers=1 sync=false"
Run = Callable[..., dict[str, Any]]


def on_any_machine(text: str) -> str:
    """A pipeline of a Jetson without NVIDIA's elements: all but they are tried with it."""
    replaced = {
        "nvarguscamerasrc sensor-id=0": "videotestsrc is-live=true",
        "nvvidconv": "videoconvert",
        "nvv4l2decoder": "avdec_h264",
        "(memory:NVMM)": "",
    }
    for name, other in replaced.items():
        text = text.replace(name, other)
    assert "nv" not in text.replace("videoconvert", "")
    return f"gst:{text}"


def test_the_camera_connector_of_a_jetson() -> None:
    assert pipeline("csi://0", 25, (1280, 720)) == (
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=25/1 ! "
        f"nvvidconv ! video/x-raw,format=BGRx ! {TAIL}"
    )
    assert "sensor-id=1 ! video/x-raw(memory:NVMM),framerate=30/1 !" in csi_pipeline("1")
    with pytest.raises(SourceError, match="csi://front: expected the number of the camera"):
        pipeline("csi://front")


def test_a_network_camera_through_the_decoder_of_a_jetson() -> None:
    expected = (
        'rtspsrc location="rtsp://u:p@host/a" protocols=tcp latency=200 ! rtph264depay ! h264parse ! nvv4l2decoder ! '
        f"nvvidconv ! video/x-raw,format=BGRx ! {TAIL}"
    )
    assert pipeline("gst:rtsp://u:p@host/a") == rtsp_pipeline("rtsp://u:p@host/a") == expected
    assert "! rtph265depay ! h265parse ! nvv4l2decoder !" in rtsp_pipeline("rtsp://host/a", "h265")


def test_a_pipeline_of_your_own_gets_the_sink_that_it_lacks() -> None:
    assert pipeline("gst:videotestsrc") == f"videotestsrc ! {TAIL}"
    own = "videotestsrc ! video/x-raw,format=BGR ! appsink name=mine"
    assert pipeline(f"gst:{own}") == pipeline(own) == own
    assert pipeline("gst:rtspsrc location=rtsp://h/a ! x").startswith("rtspsrc location=rtsp://h/a ! x ! videoconvert")


@pytest.mark.parametrize("source", ["csi://0", "gst:videotestsrc", "gstreamer:videotestsrc"])
def test_sources_that_mean_gstreamer(source: str) -> None:
    assert find_camera(source)[0] is gstreamer.GStreamerPipeline and is_live(source)


def test_without_the_bindings_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(MissingPackageError, match="apt install python3-gi .*--system-site-packages"):
        open_camera("gst:videotestsrc")


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs gstreamer_run.py. NumPy and OpenCV come from this environment where it is of the same Python version."""
    if not Path(PYTHON).exists():
        pytest.skip(f"no {PYTHON}, to which the bindings of GStreamer belong")
    version = subprocess.run(
        [PYTHON, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    path = [str(ROOT)]
    if version.stdout.strip() == str(sys.version_info[:2]):
        path.append(str(Path(np.__file__).parents[1]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [PYTHON, str(SCRIPT), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    checked = start("--check")
    if checked.returncode:
        said = (checked.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        pytest.skip(
            f"GStreamer cannot be used under {PYTHON}: {said} (Debian: python3-gi gir1.2-gstreamer-1.0 "
            "gstreamer1.0-plugins-{base,good,ugly} gstreamer1.0-libav, and python3-numpy python3-opencv)"
        )

    def run(*arguments: object) -> dict[str, Any]:
        ended = start(*arguments)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return run


@pytest.fixture
def network_camera() -> Iterator[NetworkCamera]:
    camera = NetworkCamera()
    yield camera
    camera.kill()


def test_the_pipeline_of_the_camera_connector_delivers_frames(run: Run) -> None:
    said = run(on_any_machine(pipeline("csi://0", 20, (322, 242))), 20)
    frames = said["frames"]
    assert said["error"] is None and said["fps"] == 20
    assert all(frame["image"] == [242, 322, 3] and frame["luma"] == [242, 322] and frame["contiguous"] for frame in frames)
    stamps = np.array([frame["timestamp"] for frame in frames])
    steps = np.diff([frame["index"] for frame in frames])
    assert np.median(np.diff(stamps) / steps) == pytest.approx(0.05, abs=0.01)
    assert all(0 <= frame["age_ms"] < 1000 for frame in frames)


@pytest.mark.parametrize("form", ["RGB", "BGR"])
def test_padded_rows_and_both_orders_of_colours(run: Run, form: str) -> None:
    source = "gst:videotestsrc num-buffers=3 pattern=solid-color foreground-color=0xff0a14c8"
    said = run(f"{source} ! video/x-raw,format={form},width=321,height=5 ! appsink", 2)
    assert said["error"] is None and [frame["image"] for frame in said["frames"]] == [[5, 321, 3]] * 2
    for frame in said["frames"]:
        assert frame["pixel"] == frame["last"] == [10, 20, 200]


def test_an_image_stays_as_it_was_and_dropped_frames_leave_gaps(run: Run) -> None:
    said = run("gst:videotestsrc is-live=true ! video/x-raw,framerate=100/1,width=1920,height=1080", 40)
    index = [frame["index"] for frame in said["frames"]]
    stamps = [frame["timestamp"] for frame in said["frames"]]
    assert (index[-1] - index[0]) / (stamps[-1] - stamps[0]) == pytest.approx(100, rel=0.15)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("gst:videotestsrc num-buffers=5", "the stream ended"),
        ("gst:nosuchelement", 'no element "nosuchelement"'),
        ("gst:videotestsrc !", "syntax error"),
        ("gst:filesrc location=/nowhere ! decodebin", 'filesrc0: Resource not found. No such file "/nowhere"'),
        ("gst:videotestsrc ! video/x-raw,format=NV12 ! appsink", "the appsink gets NV12; put videoconvert"),
        ("gst:videotestsrc ! tee name=t ! appsink t. ! appsink", "expected one appsink in the pipeline, found 2"),
        ("gst:videotestsrc num-buffers=9 ! x264enc ! avdec_h264 ! identity error-after=3", "identity0: Failed after"),
    ],
)
def test_errors_name_the_element_and_the_end_is_one(run: Run, source: str, reason: str) -> None:
    said = run(source, 50)
    assert said["error"].startswith(f"SourceError: {source}: ") and reason in said["error"]
    assert "\n" not in said["error"]


def test_a_jetson_without_its_elements_is_told(run: Run) -> None:
    assert run("csi://0", 1)["error"] == 'SourceError: csi://0: no element "nvarguscamerasrc"'


def test_passwords_are_not_in_the_errors(run: Run) -> None:
    said = run(on_any_machine(rtsp_pipeline("rtsp://guard:s3cret@127.0.0.1:1/a")), 1)["error"]
    assert "rtsp://***@127.0.0.1:1/a" in said and "Failed to connect" in said
    assert "s3cret" not in said and "guard" not in said


def test_a_network_camera_is_decoded_and_its_end_is_an_error(run: Run, network_camera: NetworkCamera) -> None:
    source = on_any_machine(rtsp_pipeline(network_camera.address))
    said = run(source, 50)
    assert said["error"] is None and said["fps"] == 25
    stamps = [frame["timestamp"] for frame in said["frames"]]
    assert stamps == sorted(stamps) and np.median(np.diff(stamps)) == pytest.approx(0.04, abs=0.01)
    assert said["frames"][-1]["age_ms"] < 1000
    killer = threading.Timer(3.0, network_camera.kill)
    killer.start()
    assert run(source, 1000)["error"].endswith(" ...: the stream ended")
    killer.join()


def test_through_the_capture_process_an_end_is_a_lost_camera(run: Run) -> None:
    said = run(
        "gst:videotestsrc is-live=true num-buffers=30 ! video/x-raw,framerate=30/1,width=160,height=120", 1000, "feed"
    )
    assert 15 < len(said["frames"]) <= 30
    assert [notice["kind"] for notice in said["notices"]] == ["lost"] and "ended" in said["notices"][0]["reason"]
