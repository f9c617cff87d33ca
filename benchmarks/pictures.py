"""The pictures of docs/how-it-works.md: python benchmarks/pictures.py demo_out (what edge-vad demo has left).

One frame of the generated street, what moves in it, its anomaly map, and the score of the whole clip.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edge_vad import Detector, Frame, Region, Result, open_camera, read_bundle
from edge_vad.errors import BundleFormatError
from edge_vad.evaluation.charts import score_chart, shared_range
from edge_vad.motion import CELL, RgbDifference
from edge_vad.page.live import draw
from edge_vad.streams import Settings
from edge_vad.strict import from_plain
from edge_vad.types import UInt8

SCALE = 2  # pixels of a picture per pixel of the camera
GREEN, WHITE = np.array((60, 200, 90), np.uint8), (255, 255, 255)  # red, green, blue
STYLE = """<style>svg { background: #fff; font: 11px system-ui, sans-serif; } svg text { fill: #5d6873; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } .a { stroke: #1f6394; }
.threshold { stroke: #5d6873; stroke-dasharray: 3 3; } .truth { fill: #e8b04a40; }
.hit { fill: #2c8a68; } .false { fill: #c8423b; }</style>"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="the folder of edge-vad demo")
    parser.add_argument("--clip", default="01", help="of the test clips")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    street, bundle = options.demo / "street", options.demo / "street.evb"
    with open_camera(street / "testing" / "frames" / options.clip) as camera:
        frames = list(camera.frames())
    detector = Detector.open(bundle)
    results = [detector.process(frame) for frame in frames]
    number = max(range(len(frames)), key=lambda n: (bool(results[n].stage_ms), results[n].score))
    options.out.mkdir(parents=True, exist_ok=True)
    save(options.out / "how_frame.jpg", frames[number].image)
    save(options.out / "how_motion.jpg", motion_picture(bundle, frames[: number + 1], results[number]))
    (options.out / "how_map.jpg").write_bytes(draw(enlarged(frames[number].image), magnified(results[number])))
    (options.out / "how_score.svg").write_text(chart(results, street, options.clip), encoding="utf-8")
    print(f"frame {number} of {len(frames)}, score {results[number].score:.2f}, {results[number].components}")


def motion_picture(bundle: Path, frames: list[Frame], result: Result) -> UInt8:
    """The last frame, darkened, with its moving pixels in green and its regions as boxes."""
    settings = from_plain(Settings, read_bundle(bundle).preprocessing, "preprocessing.json", BundleFormatError)
    difference = RgbDifference(settings.motion)
    for frame in frames[:: settings.stride]:
        moving, _ = difference.update(frame.image, frame.luma, frame.timestamp)
    picture = (frames[-1].image // 2).astype(np.uint8)
    picture[np.kron(moving, np.ones((CELL, CELL), bool))] = GREEN
    picture = enlarged(picture)
    for region in result.regions:
        corners = [round(SCALE * side) for side in (region.x0, region.y0, region.x1, region.y1)]
        cv2.rectangle(picture, (corners[0], corners[1]), (corners[2], corners[3]), WHITE, 1)
    return picture


def chart(results: list[Result], street: Path, clip: str) -> str:
    """The score of each frame as a picture of its own; true intervals are shaded, the threshold is dashed."""
    scores = np.array([result.score for result in results])
    labels = np.zeros(len(scores), bool)
    for first, last in json.loads((street / "labels.json").read_text())[clip]["anomalous_1based"]:
        labels[first - 1 : last] = True
    drawn = score_chart(scores, labels, shared_range([scores]), f"Anomaly score of clip {clip}")
    head, body = drawn.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" width="760">{STYLE}{body}\n'


def enlarged(image: UInt8) -> UInt8:
    return np.asarray(cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_LINEAR))


def magnified(result: Result) -> Result:
    """The result with its regions in the pixels of an enlarged picture."""

    def grown(region: Region) -> Region:
        return replace(region, **{side: SCALE * getattr(region, side) for side in ("x0", "y0", "x1", "y1")})

    return replace(result, regions=tuple(grown(region) for region in result.regions))


def save(path: Path, image: UInt8) -> None:
    """Write RGB as JPEG; JPEG, as sensor noise makes a PNG ten times as large."""
    image = image if max(image.shape) > 500 else enlarged(image)
    cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])


if __name__ == "__main__":
    main()
