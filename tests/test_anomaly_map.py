"""Where in the picture the anomaly is."""

from __future__ import annotations

import numpy as np

from edge_vad.anomaly_map import anomaly_map, score_map
from edge_vad.calibration import Calibration, Component, Tail
from edge_vad.types import Region


def region(x0: float, y0: float, x1: float, y1: float, score: float) -> Region:
    return Region(x0, y0, x1, y1, score=score)


def test_the_maximum_lies_at_the_centre_of_the_highest_region() -> None:
    regions = (region(200, 100, 230, 160, 2.0), region(30, 40, 60, 100, 1.5), region(0, 0, 360, 240, 0.5))
    heat = anomaly_map((240, 360), regions)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    x, y = (column + 0.5) * 360 / heat.shape[1], (row + 0.5) * 240 / heat.shape[0]
    assert abs(x - 215) < 9 and abs(y - 130) < 9
    assert 1.6 < heat.max() <= 2.0 and heat.dtype == np.float32


def test_it_is_zero_where_nothing_was_scored() -> None:
    heat = anomaly_map((240, 360), (region(200, 100, 230, 160, 2.0),))
    assert not heat[:, :20].any() and not heat[20:].any()
    assert not anomaly_map((240, 360), ()).any()
    assert not anomaly_map((240, 360), (region(0, 0, 50, 50, -1.0),)).any()


def test_an_object_smaller_than_a_cell_or_at_the_edge_is_still_seen() -> None:
    assert anomaly_map((240, 360), (region(100, 100, 102, 103, 1.0),)).max() > 0.4
    assert anomaly_map((240, 360), (region(-30, -30, 10, 10, 1.0),))[0, 0] > 0.4


def test_a_weaker_region_does_not_hide_a_stronger_one_below_it() -> None:
    strong, weak = region(100, 100, 140, 180, 3.0), region(90, 90, 150, 190, 1.0)
    both, alone = (anomaly_map((240, 360), regions) for regions in ((strong, weak), (strong,)))
    assert np.all(both >= alone)


# The score is half of log(a) / 2 + log(b), less 1.
CALIBRATED = Calibration(
    {"a": Component(0.0, 2.0, 0.0, 1.0), "b": Component(0.0, 1.0, 0.0, 1.0)}, 0.9, 2.0, Tail(0, 1, 1, 1.0, 4.0, 4, 4, 1)
)


def test_maps_of_a_method_are_calibrated_and_added() -> None:
    a = np.exp(np.array([[8, 6, 0], [4, 2, -50]], np.float32))
    b = np.exp(np.array([[4, 0, 0], [1, 2, 9]], np.float32))
    heat = score_map({"a": a, "b": b}, CALIBRATED)
    assert heat.dtype == np.float32
    # The last: log(a) / 2 = -25 counts as -3, no cell hides what another component says of it.
    assert np.allclose(heat, [[(4 + 4) / 2 - 1, 3 / 2 - 1, 0], [3 / 2 - 1, 3 / 2 - 1, (9 - 3) / 2 - 1]], atol=1e-5)


def test_a_cell_of_a_map_scores_what_a_frame_of_its_values_would() -> None:
    values = {"a": 7.0, "b": 30.0}
    heat = score_map({name: np.full((2, 3), value, np.float32) for name, value in values.items()}, CALIBRATED)
    total = sum(CALIBRATED.standardise(name, value) for name, value in values.items())
    assert np.allclose(heat, CALIBRATED.score(total))


def test_what_is_more_usual_than_usual_is_zero_on_the_map() -> None:
    assert score_map({"a": np.zeros((2, 2), np.float32)}, CALIBRATED).tolist() == [[0, 0], [0, 0]]
