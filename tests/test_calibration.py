"""Raw components to scores: causal, 1.0 at the threshold, and the threshold where the budget says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_vad.calibration import FLOOR, Calibration, Component, Scorer, Tail, calibrate

TAIL = Tail(1.0, 0.5, 60.0, 1.0, 3.0, 2.5, 3.5, 1.0)
PLAIN = Calibration({"a": Component(0.0, 1.0, 0.0, 1.0), "b": Component(1.0, 2.0, 0.0, 0.5)}, 0.3, 1.0, TAIL)


def footage(hours: float, seed: int, memory: float = 0.0, fps: float = 5.0, n_clips: int = 6) -> list:
    """Normal clips whose log distances are normal, and depend on the frame before by ``memory``."""
    generator = np.random.default_rng(seed)
    n = int(hours * 3600 * fps / n_clips)
    clips = []
    for _ in range(n_clips):
        noise = generator.normal(0, math.sqrt(1 - memory**2), n)
        logs = np.zeros(n)
        for i in range(n):
            logs[i] = memory * logs[i - 1] + noise[i]
        clips.append((np.arange(n) / fps, {"a": np.exp(0.3 * logs)}))
    return clips


def events_per_hour(calibration: Calibration, clips: list, gap_s: float = 5.0) -> float:
    count, seconds = 0, 0.0
    for times, raw in clips:
        scorer, last = Scorer(calibration), -np.inf
        for i, t in enumerate(times):
            score, _ = scorer.update(float(t), {"a": float(raw["a"][i])})
            if score >= 1:
                count += t - last > gap_s
                last = t
        seconds += times[-1]
    return count / (seconds / 3600)


def test_standardised_by_hand() -> None:
    assert PLAIN.standardise("a", math.e**2) == pytest.approx(2.0)
    assert PLAIN.standardise("b", math.e**5) == pytest.approx((5 - 1) / 2 * 0.5)
    assert PLAIN.standardise("b", np.array([1e-30, math.e])) == pytest.approx([FLOOR * 0.5, 0.0])
    assert PLAIN.score(3.0) == 1.0 and PLAIN.score(1.0) == 0.0 and PLAIN.score(2.0) == 0.5


def test_a_frame_with_nothing_to_score_is_as_normal_as_it_gets() -> None:
    with_floor = Calibration({"a": Component(0.0, 1.0, 1e-9, 2.0)}, 0.3, 0.0, TAIL)
    assert with_floor.standardise("a", 0.0) == 2 * FLOOR


def test_the_score_is_the_mean_over_the_window() -> None:
    scorer = Scorer(PLAIN)
    raws = [math.e, math.e**3, math.e**5, math.e**5]
    scores = [scorer.update(0.1 * i, {"a": raw})[0] for i, raw in enumerate(raws)]
    means = [1, (1 + 3) / 2, (1 + 3 + 5) / 3, (3 + 5 + 5) / 3]
    assert scores == pytest.approx([(m - 1) / 2 for m in means])


def test_scores_never_depend_on_later_frames() -> None:
    generator = np.random.default_rng(0)
    raw = np.exp(generator.normal(0, 1, 50))
    whole, part = Scorer(PLAIN), Scorer(PLAIN)
    scores = [whole.update(0.1 * i, {"a": v})[0] for i, v in enumerate(raw)]
    assert [part.update(0.1 * i, {"a": v})[0] for i, v in enumerate(raw[:20])] == scores[:20]


def test_what_is_not_known_yet_counts_as_usual() -> None:
    scorer = Scorer(PLAIN)
    score, shares = scorer.update(0.0, {"a": math.nan, "b": math.nan})
    assert score == 0.0 and shares == {"a": 0.0, "b": 0.0}
    score, shares = scorer.update(0.1, {"a": math.e**3, "b": math.nan})
    assert shares == {"a": pytest.approx(3.0), "b": 0.0}
    assert score == pytest.approx((3 - 1) / 2)  # the frame of which nothing was known is not in the mean


def test_reset_and_a_long_gap_forget_the_past() -> None:
    scorer = Scorer(PLAIN)
    scorer.update(0.0, {"a": math.e**9})
    scorer.reset()
    assert scorer.update(0.1, {"a": math.e})[0] == pytest.approx(0.0)
    scorer.update(0.2, {"a": math.e**9})
    assert scorer.update(60.0, {"a": math.e})[0] == pytest.approx(0.0)


def test_the_median_of_normal_footage_scores_0() -> None:
    clips = footage(0.2, 1)
    calibration = calibrate(clips, {"a": 1.0}, 0.9, 1.0)
    scores = []
    for times, raw in clips:
        scorer = Scorer(calibration)
        scores += [scorer.update(float(t), {"a": float(v)})[0] for t, v in zip(times, raw["a"], strict=True)]
    assert abs(np.median(scores)) < 0.02 and np.quantile(scores, 0.99) < 1


def test_the_threshold_grows_as_the_budget_shrinks() -> None:
    clips = footage(0.1, 2)
    tails = [calibrate(clips, {"a": 1.0}, 0.9, budget).tail for budget in (10.0, 1.0, 0.1)]
    thresholds = [tail.threshold for tail in tails]
    assert thresholds == sorted(thresholds) and len(set(thresholds)) == 3
    assert all(tail.start <= tail.low <= tail.threshold <= tail.high * 1.05 for tail in tails)
    assert tails[0].hours == pytest.approx(0.1, rel=0.03)  # less the cold start


@pytest.mark.parametrize("memory", [0.0, 0.8])
@pytest.mark.parametrize("budget", [6.0, 30.0])
def test_normal_footage_passes_the_threshold_about_as_often_as_the_budget_says(memory: float, budget: float) -> None:
    calibration = calibrate(footage(0.5, 3, memory), {"a": 1.0}, 0.9, budget)
    found = events_per_hour(calibration, footage(6.0, 4, memory))
    assert budget / 10 <= found <= budget * 3


def test_the_same_footage_gives_the_same_calibration() -> None:
    assert calibrate(footage(0.05, 5), {"a": 1.0}, 0.9, 1.0) == calibrate(footage(0.05, 5), {"a": 1.0}, 0.9, 1.0)


def test_a_component_that_was_never_seen_has_no_say() -> None:
    clips = [(times, {**raw, "never": np.zeros(len(times))}) for times, raw in footage(0.05, 6)]
    calibration = calibrate(clips, {"a": 1.0, "never": 1.0}, 0.9, 1.0)
    assert calibration.components["never"].weight == 0
    assert calibration.standardise("never", 1e6) == 0


def test_footage_that_never_changes_is_calibrated_too() -> None:
    clips = [(np.arange(50) / 5, {"a": np.ones(50)})]
    calibration = calibrate(clips, {"a": 1.0}, 0.9, 1.0)
    assert np.isfinite(calibration.tail.threshold) and calibration.tail.threshold > calibration.centre
    assert calibration.score(float(calibration.standardise("a", 5.0))) > 1
