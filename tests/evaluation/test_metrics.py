from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from edge_vad.evaluation import metrics


def bools(text: str) -> np.ndarray:
    return np.array([c == "1" for c in text])


@pytest.mark.parametrize(
    ("scores", "labels", "auc"),
    [
        ([1, 2, 3, 4], "0011", 1.0),
        ([4, 3, 2, 1], "0011", 0.0),
        ([5, 5, 5, 5], "0101", 0.5),
        ([1, 3, 2, 4], "0011", 0.75),  # pairs: 2>1, 2<3, 4>1, 4>3
        ([1, 2, 2, 3], "0011", 0.875),  # one tie among four pairs
        ([-np.inf, 0.0, np.inf], "001", 1.0),
    ],
)
def test_frame_auc_by_hand(scores: list[float], labels: str, auc: float) -> None:
    assert metrics.frame_auc(scores, bools(labels)) == pytest.approx(auc, abs=1e-15)


def test_frame_auc_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 6, 200).astype(float), rng.random(200) < 0.3
    high, low = scores[labels][:, None], scores[~labels][None]
    assert metrics.frame_auc(scores, labels) == pytest.approx(((high > low) + 0.5 * (high == low)).mean())


def test_frame_auc_of_one_class_or_nothing_is_nan() -> None:
    assert np.isnan(metrics.frame_auc([1, 2], bools("11")))
    assert np.isnan(metrics.frame_auc([1, 2], bools("00")))
    assert np.isnan(metrics.frame_auc([], []))


def test_shapes_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(n,\)"):
        metrics.frame_auc([1, 2], bools("011"))
    with pytest.raises(ValueError, match="nan"):
        metrics.frame_auc([1, float("nan")], bools("01"))


def test_roc_with_a_tie_is_one_step() -> None:
    fpr, tpr, thresholds = metrics.roc([1, 2, 2, 3], bools("0011"))
    assert fpr.tolist() == [0, 0, 0.5, 1]
    assert tpr.tolist() == [0, 0.5, 1, 1]
    assert thresholds.tolist() == [np.inf, 3, 2, 1]
    assert len(metrics.roc([1, 2], bools("00"))[0]) == 0


def test_area_below_the_roc_is_the_auc() -> None:
    rng = np.random.default_rng(4)
    scores, labels = rng.integers(0, 9, 300).astype(float), rng.random(300) < 0.6
    fpr, tpr, _ = metrics.roc(scores, labels)
    area = float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum())
    assert area == pytest.approx(metrics.frame_auc(scores, labels))


@pytest.mark.parametrize(
    ("scores", "labels", "eer"),
    [
        ([1, 2, 3, 4], "0011", 0.0),
        ([4, 3, 2, 1], "0011", 1.0),
        ([5, 5], "01", 0.5),
        ([1, 3, 2, 4], "0011", 0.5),
        ([1, 2, 4, 3, 5, 6], "000111", 1 / 3),
        ([1, 1, 1, 0, 2], "00011", 0.5),  # between two points of the curve: (0, 1/2) and (1, 1/2)
    ],
)
def test_equal_error_rate_by_hand(scores: list[float], labels: str, eer: float) -> None:
    assert metrics.equal_error_rate(scores, bools(labels)) == pytest.approx(eer)


def test_equal_error_rate_of_one_class_is_nan() -> None:
    assert np.isnan(metrics.equal_error_rate([1, 2], bools("11")))


def test_micro_joins_frames_and_macro_averages_clips_with_both_classes() -> None:
    # Each clip is perfect in itself, but the second has another level.
    scores = [np.array([0.0, 1.0]), np.array([10.0, 11.0]), np.array([5.0, 6.0])]
    labels = [bools("01"), bools("01"), bools("11")]
    assert metrics.macro_auc(scores, labels) == 1.0
    assert metrics.micro_auc(scores, labels) == pytest.approx(5 / 8)
    assert np.isnan(metrics.macro_auc(scores[2:], labels[2:]))


def test_interval_contains_the_micro_auc_and_is_repeatable() -> None:
    rng = np.random.default_rng(5)
    labels = [rng.random(60) < 0.4 for _ in range(12)]
    scores = [rng.normal(size=60) + flags + rng.normal() * 0.3 for flags in labels]
    low, high = metrics.micro_interval(scores, labels)
    assert low < metrics.micro_auc(scores, labels) < high
    assert (low, high) == metrics.micro_interval(scores, labels)


def test_interval_agrees_with_resampling_whole_clips() -> None:
    rng = np.random.default_rng(6)
    labels = [rng.random(20) < 0.5 for _ in range(5)]
    scores = [rng.integers(0, 8, 20) + 3.0 * flags for flags in labels]
    draws = np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=200)
    places = [np.repeat(np.arange(5), draw) for draw in draws]
    aucs = [metrics.micro_auc([scores[i] for i in p], [labels[i] for i in p]) for p in places]
    assert metrics.micro_interval(scores, labels, 200) == pytest.approx(tuple(np.percentile(aucs, [2.5, 97.5])))


def test_interval_is_nan_where_it_says_nothing() -> None:
    assert np.isnan(metrics.micro_interval([np.array([1.0, 2.0])], [bools("01")])).all()
    assert np.isnan(metrics.micro_interval([np.ones(2)] * 2, [bools("11")] * 2)).all()


@pytest.mark.parametrize("n", [1, 7, 30, 200])
def test_smoothing_is_a_gaussian_with_reflected_edges(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    assert metrics.smooth_offline(scores) == pytest.approx(gaussian_filter1d(scores, 5, mode="reflect"))


def test_smoothing_keeps_a_constant_and_what_is_empty() -> None:
    assert metrics.smooth_offline(np.full(9, 0.7)) == pytest.approx(np.full(9, 0.7))
    assert len(metrics.smooth_offline([])) == 0
    assert metrics.smooth_offline([1.0, 5.0], 0).tolist() == [1.0, 5.0]


def test_runs() -> None:
    assert metrics.runs(bools("110010111")) == [(0, 2), (4, 5), (6, 9)]
    assert metrics.runs(bools("000")) == []
    assert metrics.runs(bools("")) == []


def test_false_alarms_by_hand() -> None:
    # First clip: runs 0-1 (false), 3-5 (touches the anomaly), 8 (false). The second, at 2 fps, is all alarm.
    scores = [np.array([1.0, 2, 0, 1, 1, 1, 0, 0, 1, 0]), np.array([3.0, 3, 3])]
    labels = [bools("0000110000"), bools("000")]
    found = metrics.false_alarms(scores, labels, [10.0, 2.0])
    assert found.false_events == 3
    assert found.normal_hours == pytest.approx((8 / 10 + 3 / 2) / 3600)
    assert found.events_per_hour == pytest.approx(3 / found.normal_hours)
    assert found.fpr == pytest.approx(7 / 11)
    assert found.detection_rate == 1.0


def test_the_threshold_itself_is_an_alarm() -> None:
    scores = np.array([1.0, np.nextafter(1.0, 0), 0.5, 1.0])
    assert metrics.alarm_rates(scores, bools("0011")) == (0.5, 0.5)


def test_no_normal_footage_has_no_false_alarm_rate() -> None:
    found = metrics.false_alarms([np.array([2.0, 0.0])], [bools("11")], [10.0])
    assert np.isnan(found.fpr)
    assert np.isnan(found.events_per_hour)
    assert found.detection_rate == 0.5
