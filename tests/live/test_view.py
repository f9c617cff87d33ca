"""Frozen, black and covered pictures are found after a while, and nothing that a street does is one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_vad import view as view_module
from edge_vad.cameras.synthetic import SyntheticStreet
from edge_vad.types import UInt8
from edge_vad.view import AFTER_S, View, ViewMonitor

SIZE = (180, 120)
PERIOD_S = 0.1
Spoil = Callable[[UInt8, int], UInt8]


class Camera:
    """Luma of a generated street: a minute of it, which goes to and fro, with noise of its own in every frame."""

    def __init__(self, view: int, n: int = 60, fps: float = 1.0) -> None:
        street = SyntheticStreet(f"seed=3,view={view},seconds={n / fps},fps={fps},size={SIZE[0]}x{SIZE[1]}")
        self._pictures = [frame.luma for frame in street.frames()]
        self._dice = np.random.default_rng(view)

    def __call__(self, index: int) -> UInt8:
        n = len(self._pictures)
        there = index % (2 * n)
        picture = self._pictures[there if there < n else 2 * n - 1 - there]
        noise = self._dice.integers(-2, 3, picture.shape).astype(np.int16)
        return np.clip(picture + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera(0, 20)


def watch(monitor: ViewMonitor, camera: Camera, seconds: float, start_s: float = 0.0, spoil: Spoil | None = None) -> list:
    """(seconds, state) of each change."""
    changes = []
    for i in range(round(seconds / PERIOD_S)):
        luma = camera(i) if spoil is None else spoil(camera(i), i)
        at = start_s + i * PERIOD_S
        changed = monitor.update(luma, at)
        if changed is not None:
            changes.append((round(at - start_s, 1), changed))
    return changes


@pytest.mark.parametrize("view", range(5))
def test_ten_clear_minutes_never_report_anything(view: int) -> None:
    monitor = ViewMonitor()
    assert watch(monitor, Camera(view, 40), 600) == []
    assert monitor.state == "clear"


def black(luma: UInt8, i: int) -> UInt8:
    return np.random.default_rng(i).integers(0, 12, luma.shape, np.uint8)


def no_light(luma: UInt8, i: int) -> UInt8:
    return np.zeros_like(luma)


def covered(luma: UInt8, i: int) -> UInt8:
    return np.random.default_rng(i).integers(88, 92, luma.shape, np.uint8)


def fogged(luma: UInt8, i: int) -> UInt8:
    """A tenth of the contrast is left."""
    return (128 + (luma.astype(np.float32) - 128) / 12).astype(np.uint8) + np.uint8(i % 2)


def glaring(luma: UInt8, i: int) -> UInt8:
    return np.random.default_rng(i).integers(252, 256, luma.shape, dtype=np.uint8)


def frozen(luma: UInt8, i: int) -> UInt8:
    return np.arange(luma.size, dtype=np.int64).reshape(luma.shape).astype(np.uint8)


STATES: list[tuple[Spoil, View]] = [
    (black, "black"),
    (no_light, "black"),
    (covered, "covered"),
    (fogged, "covered"),
    (glaring, "covered"),
    (frozen, "frozen"),
]


@pytest.mark.parametrize(("spoil", "state"), STATES, ids=lambda value: getattr(value, "__name__", value))
def test_each_state_is_found_after_it_lasted_and_is_cleared_soon(camera: Camera, spoil: Spoil, state: View) -> None:
    monitor = ViewMonitor()
    assert watch(monitor, camera, 10) == []
    [(found_s, found)] = watch(monitor, camera, 20, 10, spoil)
    assert found == monitor.state == state
    assert AFTER_S <= found_s <= AFTER_S + 0.5
    [(clear_s, clear)] = watch(monitor, camera, 10, 30)
    assert clear == monitor.state == "clear" and clear_s <= 1.5


@pytest.mark.parametrize(("spoil", "state"), STATES, ids=lambda value: getattr(value, "__name__", value))
def test_what_lasts_for_less_is_none(camera: Camera, spoil: Spoil, state: View) -> None:
    monitor = ViewMonitor()
    start_s = 0.0
    for _ in range(5):
        assert watch(monitor, camera, 6, start_s) == []
        assert watch(monitor, camera, AFTER_S - 0.5, start_s + 6, spoil) == []
        start_s += 6 + AFTER_S


def truck(luma: UInt8, i: int) -> UInt8:
    """A flat side covers most of the picture for four seconds."""
    passed = luma.copy()
    left = round(luma.shape[1] * (i / 20 - 1))
    passed[:, max(0, left) : max(0, left + luma.shape[1])] = 120
    return passed


def light_switch(luma: UInt8, i: int) -> UInt8:
    """A third of the light, from one frame to the next."""
    return (luma // 3) + np.uint8(8)


def test_a_passing_truck_and_a_light_switch_are_none(camera: Camera) -> None:
    monitor = ViewMonitor()
    assert watch(monitor, camera, 10) == []
    assert watch(monitor, camera, 4, 10, truck) == []
    assert watch(monitor, camera, 30, 14) == []
    assert watch(monitor, camera, 30, 44, light_switch) == []
    assert watch(monitor, camera, 30, 74) == []


def test_dusk_over_half_an_hour_is_no_cover(camera: Camera) -> None:
    monitor = ViewMonitor()
    n = 900  # a frame every two seconds
    changes = []
    for i in range(n):
        light = 1 - 0.88 * i / n
        luma = np.clip(20 + (camera(i).astype(np.float32) - 20) * light, 0, 255).astype(np.uint8)
        changed = monitor.update(luma, 2.0 * i)
        changes += [changed] if changed else []
    assert changes == []


def test_a_gap_keeps_the_state_until_another_one_is_seen(camera: Camera) -> None:
    """Who was told of a cover must be told of its end, also where the camera was away when it was taken off."""
    monitor = ViewMonitor()
    watch(monitor, camera, 10)
    assert [state for _, state in watch(monitor, camera, 10, 10, covered)] == ["covered"]
    monitor.reset()
    assert monitor.state == "covered"
    assert [state for _, state in watch(monitor, camera, 5, 100)] == ["clear"]
    watch(monitor, camera, 10, 200, covered)
    monitor.reset()
    assert watch(monitor, camera, 10, 300, covered) == [], "it is still covered and was told"
    assert monitor.state == "covered"


def test_another_size_of_the_picture_is_no_error(camera: Camera) -> None:
    monitor = ViewMonitor()
    watch(monitor, camera, 3)
    for i in range(20):
        assert monitor.update(camera(i)[:60], 3 + i / 10) is None


def test_the_waiting_time_is_what_the_documents_say() -> None:
    assert view_module.AFTER_S == 5.0
