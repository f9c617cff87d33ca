"""Frames in, results out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from edge_vad import Detector, Frame, Region, read_bundle
from edge_vad.bundle import Bundle
from edge_vad.calibration import Calibration, Component, Tail
from edge_vad.errors import BundleFormatError, ProfileError
from edge_vad.events import EventSettings
from edge_vad.manifest import CALIBRATION, canonical_json
from edge_vad.methods.base import Method, Observation

FRAMES = tiny.clip_frames(40, seed=5, anomalies="all")
CALIBRATED = Calibration({"a": Component(0.0, 1.0, 0.0, 1.0)}, 0.05, 0.0, Tail(0, 1, 1, 1.0, 2.0, 2, 2, 1))


class Scripted(Method):
    """Raw scores by frame index; one region per frame carries them."""

    def __init__(self, raw: dict[int, float]) -> None:
        self.raw, self.seen = raw, []  # type: ignore[var-annotated]

    @classmethod
    def open(cls, bundle: object, backend: object, *, threads: int, device: str, bank: str) -> Scripted:
        raise NotImplementedError

    def observe(self, frame: Frame) -> Observation:
        self.seen.append(frame.index)
        value = np.exp(self.raw.get(frame.index, 0.0))
        regions = (Region(0, 0, 10, 20), Region(20, 0, 30, 20))
        return Observation({"a": value}, regions, {"a": np.array([value / 2, value], np.float32)})

    def reset(self) -> None:
        self.seen.clear()


def blank(index: int, fps: float = 10.0) -> Frame:
    return Frame(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8), index / fps, index)


def scripted(raw: dict[int, float], period_s: float = 0.1, **events: float) -> tuple[Detector, Scripted]:
    method = Scripted(raw)
    return Detector(method, CALIBRATED, EventSettings(**{"min_frames": 1, "cooldown_s": 0.2, **events}), period_s), method  # type: ignore[arg-type]


def test_the_score_is_1_at_the_threshold() -> None:
    detector, _ = scripted({0: 0.0, 1: 2.0, 2: 4.0})
    assert [detector.process(blank(i)).score for i in range(3)] == pytest.approx([0.0, 1.0, 2.0])


def test_regions_come_highest_first_each_with_its_own_score() -> None:
    detector, _ = scripted({0: 4.0})
    result = detector.process(blank(0))
    assert [region.x0 for region in result.regions] == [20, 0]
    assert [region.score for region in result.regions] == pytest.approx([2.0, (4 - np.log(2)) / 2])
    assert result.anomaly_map.max() == pytest.approx(2.0, rel=0.3)


def test_frames_between_processed_ones_carry_the_last_score() -> None:
    detector, method = scripted({0: 1.0, 3: 3.0, 6: 2.0}, period_s=0.3)
    results = [detector.process(blank(i)) for i in range(8)]
    assert method.seen == [0, 3, 6]
    assert [r.score for r in results] == pytest.approx([0.5] * 3 + [1.5] * 3 + [1.0] * 2)
    assert [r.index for r in results] == list(range(8))
    assert results[4].regions == results[3].regions and results[4].stage_ms == {}


def test_a_result_has_the_raw_components_also_between_processed_frames() -> None:
    detector, _ = scripted({0: 1.0, 3: np.nan, 6: 2.0}, period_s=0.3)
    raw = [detector.process(blank(i)).raw for i in range(8)]
    expected = [np.exp(1.0)] * 3 + [np.nan] * 3 + [np.exp(2.0)] * 2
    assert np.allclose([r["a"] for r in raw], expected, equal_nan=True) and all(set(r) == {"a"} for r in raw)


class Mapped(Scripted):
    """A map in the place of regions; nothing before the second frame."""

    def observe(self, frame: Frame) -> Observation:
        if frame.index == 0:
            return Observation({"a": np.nan})
        values = np.exp(np.array([[0, 1], [self.raw[frame.index], -9]], dtype=np.float32))
        return Observation({"a": float(values.max())}, maps={"a": values})


def test_the_map_of_a_method_is_in_the_unit_of_the_score() -> None:
    detector = Detector(Mapped({1: 2.0, 2: 5.0}), CALIBRATED, EventSettings(), 0.1)
    first, *results = [detector.process(blank(i)) for i in range(3)]
    assert not first.anomaly_map.any() and first.score == 0 and np.isnan(first.raw["a"])
    for result, score in zip(results, (1.0, 2.5), strict=True):
        assert result.score == pytest.approx(score)
        assert np.allclose(result.anomaly_map, [[0, 0.5], [score, 0]])


def test_a_method_without_a_document_has_no_such_score() -> None:
    assert scripted({})[0].document({"a": np.ones(3)}) is None


def test_an_event_is_told_once() -> None:
    detector, _ = scripted({2: 3.0, 3: 3.0}, period_s=0.2)
    events = [(i, event.kind) for i in range(12) for event in detector.process(blank(i)).events]
    assert events == [(2, "start"), (4, "end")]


def test_time_stamps_that_jitter_do_not_skip_frames_that_are_due() -> None:
    detector, method = scripted({}, period_s=0.2)
    generator = np.random.default_rng(0)
    for i in range(20):
        frame = blank(i)
        detector.process(Frame(frame.image, frame.luma, i / 10 + generator.uniform(-0.02, 0.02), i))
    assert method.seen == list(range(0, 20, 2))


def test_finish_ends_a_running_event() -> None:
    detector, _ = scripted(dict.fromkeys(range(30), 3.0))
    for i in range(30):
        detector.process(blank(i))
    assert [event.kind for event in detector.finish()] == ["end"]
    assert detector.finish() == []


def test_no_event_starts_before_a_full_window_has_passed() -> None:
    method = Scripted(dict.fromkeys(range(30), 3.0))
    detector = Detector(method, replace(CALIBRATED, window_s=0.9), EventSettings(min_frames=1), 0.1)
    starts = [event.start_frame for i in range(30) for event in detector.process(blank(i)).events]
    assert starts == [9]


def test_an_event_carries_the_regions_over_the_threshold() -> None:
    detector, _ = scripted(dict.fromkeys(range(30), 2.2))
    (event,) = [event for i in range(30) for event in detector.process(blank(i)).events]
    assert [region.x0 for region in event.regions] == [20]
    assert event.components == {"a": pytest.approx(2.2)}


def test_reset_gives_identical_scores_again(tiny_bundle: Path) -> None:
    detector = Detector.open(tiny_bundle)
    first = [detector.process(frame) for frame in FRAMES]
    detector.reset()
    again = [detector.process(frame) for frame in FRAMES]
    assert [r.score for r in first] == [r.score for r in again]
    assert all(
        a.regions == b.regions and np.array_equal(a.anomaly_map, b.anomaly_map) for a, b in zip(first, again, strict=True)
    )
    assert len({r.score for r in first}) > 5


def test_scores_do_not_depend_on_later_frames(tiny_bundle: Path) -> None:
    whole, part = Detector.open(tiny_bundle), Detector.open(tiny_bundle)
    scores = [whole.process(frame).score for frame in FRAMES]
    blanked = [Frame(np.zeros_like(f.image), np.zeros_like(f.luma), f.timestamp, f.index) for f in FRAMES[25:]]
    assert [part.process(frame).score for frame in [*FRAMES[:25], *blanked]][:25] == scores[:25]


def test_a_result_says_what_it_cost(tiny_bundle: Path) -> None:
    detector = Detector.open(tiny_bundle)
    stages = [detector.process(frame).stage_ms for frame in FRAMES[:20:2]][-1]
    assert {"motion", "search", "scoring"} <= set(stages) and all(ms >= 0 for ms in stages.values())


def test_the_budget_and_the_cold_start_are_those_of_the_calibration() -> None:
    detector, _ = scripted({})
    assert detector.budget_per_hour == 1.0 and detector.cold_start_frames(100.0) == 5


@pytest.mark.parametrize("key", ["calibration", "events", "period_s"])
def test_a_calibration_without_one_of_its_parts(key: str, tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    plain = bundle.calibration
    del plain[key]
    with pytest.raises(BundleFormatError, match=f"calibration.json.*{key}"):
        Detector.open(Bundle(bundle.manifest, {**bundle.members, CALIBRATION: canonical_json(plain)}))


def test_a_method_or_profile_that_does_not_exist(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(BundleFormatError, match="did you mean 'videopatchcore'"):
        Detector.open(Bundle(replace(bundle.manifest, method="videopachcore"), bundle.members))
    with pytest.raises(ProfileError, match="desktop_gpu"):
        Detector.open(bundle, "desktop_gpu")
