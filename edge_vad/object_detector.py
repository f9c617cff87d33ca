"""The optional object detector: better boxes than motion gives, where the device can afford it.

Any class counts as an object: what is unusual is decided by the memory, not by a class list. Boxes are brought to the
usual object size at their image row, so that crops and speeds keep one scale (method.md, section 5, lessons 1 and 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from edge_vad.backends.base import Backend, checked_output
from edge_vad.errors import BackendError
from edge_vad.motion import ASPECT, suppress
from edge_vad.perspective import Perspective
from edge_vad.sampling import resize
from edge_vad.strict import check_range
from edge_vad.types import Float32, UInt8

MULTIPLE = 32  # of the input's sides: the coarsest stride
MIN_SIDE = 1.0  # input pixels: smaller boxes are none
MAX_EXPONENT = 10.0  # of a box in strides: larger than any picture
PAD = 114  # grey of the letterbox, as YOLO models are trained


@dataclass(frozen=True, slots=True)
class ObjectSettings:
    """How boxes are made. head: output layout of the model (YOLOX raw, YOLOv5 decoded, YOLOv8/11 decoded).

    input_size: (width, height), multiples of 32. threshold: lowest confidence. max_overlap: of two boxes, as part of
    the smaller. min_height: of a box, as part of the usual object height at its row.
    """

    input_name: str
    output_name: str
    head: Literal["yolox", "yolov5", "yolov8"]
    input_size: tuple[int, int]
    threshold: float = 0.12
    max_overlap: float = 0.7
    min_height: float = 0.5
    max_objects: int = 60

    def __post_init__(self) -> None:
        check_range(MULTIPLE, 4096, width=self.input_size[0], height=self.input_size[1])
        if any(side % MULTIPLE for side in self.input_size):
            raise ValueError(f"input_size must be multiples of {MULTIPLE}, not {self.input_size}")
        check_range(0, 1, threshold=self.threshold, max_overlap=self.max_overlap)
        check_range(0, 100, min_height=self.min_height)
        check_range(1, 1000, max_objects=self.max_objects)


class ObjectDetector:
    """Class-agnostic boxes of one picture."""

    def __init__(self, backend: Backend, settings: ObjectSettings) -> None:
        self._backend = backend
        self._settings = settings

    def __call__(self, image: UInt8, perspective: Perspective) -> tuple[Float32, Float32]:
        """Boxes (n, 4) of the usual object size and confidences (n,) of an image (H, W, 3) uint8 RGB, best first."""
        return self.of_usual_size(*self.detect(image), perspective)

    def of_usual_size(self, boxes: Float32, confidence: Float32, perspective: Perspective) -> tuple[Float32, Float32]:
        """Boxes (n, 4) brought to the usual object size at their row; those that are far too low are left out."""
        feet = boxes[:, 3]
        usual = perspective.height(feet)
        tall = boxes[:, 3] - boxes[:, 1] > self._settings.min_height * usual
        boxes, confidence, usual = boxes[tall], confidence[tall], usual[tall]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = np.stack([ASPECT * usual / 2, usual / 2], axis=1)
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32), confidence

    def detect(self, image: UInt8) -> tuple[Float32, Float32]:
        """Boxes as the model sees them, (n, 4) in pixels of ``image``, and confidences (n,), best first."""
        picture = _letterbox(image, self._settings.input_size)
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32)
        if self._settings.head == "yolox":
            planes = planes[:, ::-1].copy()  # trained on BGR, 0..255
        else:
            planes /= 255
        outputs = self._backend.run({self._settings.input_name: planes})
        output = checked_output(outputs, self._settings.output_name, 3)[0]
        return self.chosen(output, scale_of(image.shape, self._settings.input_size))

    def chosen(self, output: Float32, scale: float) -> tuple[Float32, Float32]:
        """Boxes (n, 4) in pixels of an image at ``scale`` and confidences (n,), best first, of the network's output."""
        centre, size, confidence = _decode(output, self._settings)
        possible = (size >= MIN_SIDE) & (centre > 0) & (centre < self._settings.input_size)
        kept = np.flatnonzero((confidence > self._settings.threshold) & possible.all(axis=1))
        kept = kept[np.argsort(-confidence[kept], kind="stable")]
        boxes = np.concatenate([centre[kept] - size[kept] / 2, centre[kept] + size[kept] / 2], axis=1) / scale
        chosen = suppress(boxes.astype(np.float32), self._settings.max_overlap, self._settings.max_objects)
        return boxes[chosen].astype(np.float32), confidence[kept][chosen].astype(np.float32)


def _decode(output: Float32, settings: ObjectSettings) -> tuple[Float32, Float32, Float32]:
    """Centres (n, 2), sizes (n, 2) in input pixels and confidences (n,) of one picture's output."""
    rows = output.T if settings.head == "yolov8" else output
    grid, stride = _yolox_grid(settings.input_size)
    least = 5 if settings.head == "yolov8" else 6
    if rows.shape[1] < least or (settings.head == "yolox" and len(rows) != len(grid)):
        raise BackendError(f"the detector's output of shape {output.shape} is not that of {settings.head}")
    if settings.head == "yolov8":
        return rows[:, :2], rows[:, 2:4], rows[:, 4:].max(axis=1)
    confidence = output[:, 4] * output[:, 5:].max(axis=1)
    if settings.head == "yolov5":
        return output[:, :2], output[:, 2:4], confidence
    return (output[:, :2] + grid) * stride, np.exp(np.minimum(output[:, 2:4], MAX_EXPONENT)) * stride, confidence


@lru_cache(maxsize=4)
def _yolox_grid(size: tuple[int, int]) -> tuple[Float32, Float32]:
    cells, strides = [], []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: size[1] // stride, : size[0] // stride]
        cells.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def scale_of(shape: Sequence[int], size: tuple[int, int]) -> float:
    """By how much an image of a shape (H, W, ...) is scaled to fit (width, height)."""
    return min(size[0] / shape[1], size[1] / shape[0])


def _letterbox(image: UInt8, size: tuple[int, int]) -> Float32:
    """The image scaled to fit (width, height), padded at the right and below."""
    scale = scale_of(image.shape, size)
    width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
    picture = np.full((size[1], size[0], 3), PAD, dtype=np.float32)
    picture[:height, :width] = resize(image, width, height)
    return picture
