"""Opens a GStreamer source under the Python of the system, which has the bindings, and prints what came as JSON.

/usr/bin/python3 gstreamer_run.py --check
/usr/bin/python3 gstreamer_run.py SOURCE N_FRAMES [feed]    feed: through the capture process, as in a unit
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from edge_vad.cameras import gstreamer, open_camera
from edge_vad.errors import EdgeVadError
from edge_vad.feed import LiveFeed
from edge_vad.types import Frame

ELEMENTS = ("videotestsrc", "videoconvert", "appsink", "x264enc", "avdec_h264", "rtspsrc")


def main(arguments: list[str]) -> None:
    if arguments == ["--check"]:
        gst = gstreamer._gstreamer()
        __import__("cv2")
        missing = [name for name in ELEMENTS if gst.ElementFactory.find(name) is None]
        sys.exit(f"GStreamer lacks {', '.join(missing)}" if missing else 0)
    source, n = arguments[0], int(arguments[1])
    said: dict[str, Any] = {"frames": [], "error": None}
    try:
        if arguments[2:] == ["feed"]:
            said |= through_feed(source, n)
        else:
            with open_camera(source, None, None) as camera:
                said["fps"] = camera.fps
                said["frames"] = [described(frame) for frame in first(n, camera.frames())]
    except EdgeVadError as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(said))


def first(n: int, frames: Iterator[Frame]) -> Iterator[Frame]:
    for _ in range(n):
        yield next(frames)


def described(frame: Frame) -> dict[str, Any]:
    return {
        "index": frame.index,
        "timestamp": frame.timestamp,
        "age_ms": 1000 * (time.monotonic() - frame.timestamp),
        "image": frame.image.shape,
        "luma": frame.luma.shape,
        "contiguous": frame.image.flags.c_contiguous,
        "pixel": frame.image[0, 0].tolist(),
        "last": frame.image[-1, -1].tolist(),
        "hash": hashlib.sha256(frame.image).hexdigest(),
    }


def through_feed(source: str, n: int) -> dict[str, Any]:
    """Frames and notices until the camera is lost, or n frames."""
    feed = LiveFeed(source)
    frames, notices = [], []
    until = time.monotonic() + 20
    while len(frames) < n and not notices and time.monotonic() < until:
        frame, told = feed.poll()
        frames += [described(frame)] if frame is not None else []
        notices += [{"kind": notice.kind, **notice.data} for notice in told]
        time.sleep(0.005)
    feed.close()
    return {"frames": frames, "notices": notices}


if __name__ == "__main__":
    main(sys.argv[1:])
