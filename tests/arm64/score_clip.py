"""Scores of a clip, on the unit and here: python score_clip.py BUNDLE CLIP N_FRAMES PROFILE

Prints one JSON object: the scores and regions of each frame, what every component said before calibration, and a hash of
the pixels that were scored.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from itertools import islice

from edge_vad import Detector, open_camera


def main(bundle: str, clip: str, n_frames: str, profile: str) -> None:
    detector = Detector.open(bundle, profile=profile)
    pixels = hashlib.sha256()
    scores, regions, raw = [], [], []
    with open_camera(clip) as camera:
        for frame in islice(camera.frames(), int(n_frames)):
            pixels.update(frame.image.tobytes())
            result = detector.process(frame)
            scores.append(result.score)
            regions.append([[region.x0, region.y0, region.x1, region.y1] for region in result.regions])
            raw.append(dict(result.raw))
    said = {"machine": platform.machine(), "python": platform.python_version(), "pixels": pixels.hexdigest()}
    print(json.dumps({**said, "scores": scores, "regions": regions, "raw": raw}))


if __name__ == "__main__":
    main(*sys.argv[1:])
