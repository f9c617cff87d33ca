"""How far the scene has moved from normal footage."""

from __future__ import annotations

import math

import pytest

from edge_vad.drift import Drift


def test_a_scene_like_the_footage_does_not_drift_and_another_one_does() -> None:
    drift = Drift({"spatial": 1.0, "speed": 0.5, "temporal": 0.0})
    assert drift.values() == {}
    for i in range(100):
        drift.update(i * 0.2, {"spatial": (-1.0) ** i, "speed": 1.0, "temporal": 9.0})
    assert drift.values() == {"spatial": 0.0, "speed": 2.0}, "in deviations: the weight is taken out; no weight, no drift"


def test_the_last_half_hour_counts() -> None:
    drift = Drift({"spatial": 1.0})
    for hour, share in enumerate((0.0, 0.0, 3.0)):
        for i in range(3600):
            drift.update(3600.0 * hour + i, {"spatial": share})
    assert drift.values()["spatial"] == pytest.approx(3 * (1 - math.exp(-2)), abs=0.02)


def test_the_mean_of_everything_forgets_nothing() -> None:
    drift = Drift({"spatial": 1.0}, math.inf)
    for i, share in enumerate((1.0, 2.0, 6.0)):
        drift.update(1000.0 * i, {"spatial": share})
    assert drift.values() == {"spatial": 3.0}


def test_components_that_are_not_there_yet_and_clocks_that_jump_back_do_no_harm() -> None:
    drift = Drift({"spatial": 1.0, "highlevel": 1.0})
    for timestamp in (5.0, 6.0, 2.0):
        drift.update(timestamp, {"spatial": 1.0, "highlevel": math.nan})
    assert drift.values() == {"spatial": 1.0, "highlevel": 0.0}
