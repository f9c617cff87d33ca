"""Boxes from the outputs of each known detector head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edge_vad.errors import BackendError
from edge_vad.object_detector import ObjectDetector, ObjectSettings
from edge_vad.perspective import Perspective

SIZE = (96, 64)  # input of the detector; the picture is half of it
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
# Two objects in input pixels: centre x, centre y, width, height; and a weak one.
OBJECTS = [((20.0, 30.0, 16.0, 40.0), 0.9), ((70.0, 40.0, 12.0, 24.0), 0.6), ((40.0, 20.0, 10.0, 20.0), 0.05)]
WANTED = [[6, 5, 14, 25], [32, 14, 38, 26]]  # halved


class Fabricated:
    """A backend whose output is what a network would say of OBJECTS."""

    def __init__(self, output: np.ndarray) -> None:
        self.output = output
        self.seen: dict[str, np.ndarray] = {}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.seen = dict(inputs)
        return {"boxes": self.output}


def cells() -> list[tuple[int, int, int]]:
    """(x, y, stride) of every cell, in the order of YOLO's outputs."""
    return [(x, y, s) for s in (8, 16, 32) for y in range(SIZE[1] // s) for x in range(SIZE[0] // s)]


def fabricated(head: str) -> np.ndarray:
    order = cells()
    rows = np.zeros((len(order), 7), np.float32)
    for (x, y, w, h), confidence in OBJECTS:
        column, row = int(x // 8), int(y // 8)
        at = order.index((column, row, 8))
        if head == "yolox":
            rows[at] = [x / 8 - column, y / 8 - row, np.log(w / 8), np.log(h / 8), 0.95, 0.1, confidence / 0.95]
        else:
            rows[at] = [x, y, w, h, 0.95, confidence / 0.95, 0.1]
    if head == "yolov8":
        decoded = np.concatenate([rows[:, :4], rows[:, 5:] * 0.95], axis=1)
        return decoded.T[None].astype(np.float32)
    if head == "yolov5":  # three anchors for each cell
        rows = np.concatenate([rows, np.zeros((2 * len(rows), 7), np.float32)])
    return rows[None]


def detector(head: str, **settings: float) -> tuple[ObjectDetector, Fabricated]:
    backend = Fabricated(fabricated(head))
    return ObjectDetector(backend, ObjectSettings("images", "boxes", head, SIZE, **settings)), backend  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["yolox", "yolov5", "yolov8"])
def test_every_head_gives_the_boxes_in_pixels_of_the_picture_best_first(head: str) -> None:
    found, _ = detector(head)
    boxes, confidence = found.detect(IMAGE)
    np.testing.assert_allclose(boxes, WANTED, atol=0.01)
    np.testing.assert_allclose(confidence, [0.9, 0.6], atol=1e-5)


@pytest.mark.parametrize(("head", "largest"), [("yolox", 255), ("yolov5", 1), ("yolov8", 1)])
def test_every_head_sees_the_pixels_that_it_was_trained_on(head: str, largest: int) -> None:
    found, backend = detector(head)
    image = np.zeros((32, 48, 3), np.uint8)
    image[..., 0] = 255  # red
    found.detect(image)
    planes = backend.seen["images"]
    assert planes.shape == (1, 3, 64, 96) and planes.dtype == np.float32
    red = 2 if head == "yolox" else 0  # YOLOX is trained on BGR
    assert planes[0, red].min() == largest and planes[0, 1].max() == 0


def test_a_picture_of_another_shape_is_padded_not_stretched() -> None:
    found, backend = detector("yolov8")
    boxes, _ = found.detect(np.zeros((64, 48, 3), np.uint8))  # fits at scale 1, half of the width is empty
    np.testing.assert_allclose(boxes, np.array(WANTED) * 2, atol=0.01)
    assert backend.seen["images"][0, :, :, :48].max() == 0
    np.testing.assert_allclose(backend.seen["images"][0, :, :, 48:], 114 / 255, atol=1e-4)


def test_the_threshold_decides_what_counts() -> None:
    assert len(detector("yolov8", threshold=0.01)[0].detect(IMAGE)[0]) == 3
    assert len(detector("yolov8", threshold=0.7)[0].detect(IMAGE)[0]) == 1
    assert detector("yolov8", threshold=0.95)[0].detect(IMAGE)[0].shape == (0, 4)


def test_boxes_are_brought_to_the_usual_size_and_small_ones_are_left_out() -> None:
    found, _ = detector("yolox")
    boxes, confidence = found(IMAGE, Perspective(20.0, 0.0, 100.0))
    np.testing.assert_allclose(boxes, [[5, 5, 15, 25], [30, 10, 40, 30]], atol=0.01)  # 10 x 20 about the same centres
    boxes, confidence = found(IMAGE, Perspective(30.0, 0.0, 100.0))
    assert confidence.tolist() == pytest.approx([0.9]) and len(boxes) == 1  # 12 is under half of 30


def test_boxes_that_cover_each_other_are_one() -> None:
    backend = Fabricated(fabricated("yolov8"))
    backend.output[0, :4, 1] = [21, 30, 16, 40]
    backend.output[0, 4:, 1] = 0.5
    found = ObjectDetector(backend, ObjectSettings("images", "boxes", "yolov8", SIZE))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.detect(IMAGE)[0], WANTED, atol=0.01)


@pytest.mark.parametrize("head", ["yolox", "yolov5", "yolov8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_an_output_without_numbers_is_an_error_not_a_box(head: str, value: float) -> None:
    output = fabricated(head)
    output[0, 0, 0] = value
    found = ObjectDetector(Fabricated(output), ObjectSettings("images", "boxes", head, SIZE))  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="the model gives numbers beyond 1e\\+09, or none, as 'boxes'"):
        found.detect(IMAGE)


@pytest.mark.parametrize("head", ["yolox", "yolov5", "yolov8"])
def test_random_outputs_give_boxes_with_an_area(head: str) -> None:
    for scale in (1.0, 100.0, 1e8):
        output = np.random.default_rng(0).normal(0, scale, fabricated(head).shape).astype(np.float32)
        found = ObjectDetector(Fabricated(output), ObjectSettings("images", "boxes", head, SIZE))  # type: ignore[arg-type]
        boxes, confidence = found(IMAGE, Perspective(20.0, 0.0, 100.0))
        assert np.isfinite(boxes).all() and np.isfinite(confidence).all()
        assert np.all(boxes[:, 2:] > boxes[:, :2])


@pytest.mark.parametrize("head", ["yolox", "yolov5", "yolov8"])
def test_an_output_of_another_layout_is_an_error(head: str) -> None:
    whole = fabricated(head)
    few = whole[:, :4] if head == "yolov8" else whole[..., :5]
    for output in (few, whole[:, :1]) if head == "yolox" else (few,):
        found = ObjectDetector(Fabricated(output), ObjectSettings("images", "boxes", head, SIZE))  # type: ignore[arg-type]
        with pytest.raises(BackendError, match=f"the detector's output of shape .* is not that of {head}"):
            found.detect(IMAGE)
