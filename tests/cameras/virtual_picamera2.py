"""Runs inside the root of make_virtual_root.sh: the real picamera2, on the virtual camera of libcamera.

    python virtual_picamera2.py '{"fps": 40, "size": [640, 480], "frames": 200, "pause_at": 100, "bundle": "some.evb"}'

Prints one JSON object of what edge-vad's camera delivered; after one of the frames it pauses for half a second.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import virtual_pipeline


def main(options: dict[str, Any]) -> None:
    virtual_pipeline.install(options["fps"])

    import cv2

    import edge_vad
    from edge_vad.cameras import open_camera
    from edge_vad.detector import Detector

    edge_vad.__path__.append(str(Path(edge_vad.__file__).parents[1]))  # edge_vad.profiles, where nothing is installed
    detector = Detector.open(options["bundle"])
    source = ("picamera2:0", options["fps"], tuple(options["size"]))
    said: dict[str, Any] = {"frames": []}
    with open_camera(*source) as camera:
        said |= {"fps": camera.fps, "streams": streams(camera._camera.camera_configuration())}  # type: ignore[attr-defined]
        frames = camera.frames()
        for _ in range(options["frames"]):
            frame = next(frames)
            age_s = time.monotonic() - frame.timestamp
            grey = cv2.resize(
                cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), frame.luma.shape[::-1], None, 0, 0, cv2.INTER_AREA
            )
            begun = time.process_time()
            score = detector.process(frame).score
            said["frames"].append(
                {
                    "index": frame.index,
                    "timestamp": frame.timestamp,
                    "age_ms": 1000 * age_s,
                    "image": frame.image.shape,
                    "luma": frame.luma.shape,
                    "luma_error": float(cv2.absdiff(grey, frame.luma).mean()),
                    "score": score,
                    "scoring_ms": 1000 * (time.process_time() - begun),
                }
            )
            if len(said["frames"]) == options["pause_at"]:
                kept, copy = frame, frame.image.copy()
                time.sleep(0.5)
    said["stayed"] = bool((kept.image == copy).all())
    with open_camera(*source) as camera:
        said["opened_again"] = next(camera.frames()).image.shape
    print(json.dumps(said))


def streams(configuration: dict[str, Any]) -> dict[str, Any]:
    return {name: configuration[name] for name in ("main", "lores")} | {"space": str(configuration["colour_space"])}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
