"""The field's metrics for frame scores. A frame is called anomalous where its score is 1.0 or above.

Everything here takes scores as (n,) float and labels as (n,) bool (True = anomalous), or a sequence of each with one
array for each clip, at least one. What is not defined (an AUC of one class, a rate over no frames) is nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLD = 1.0
NAN = float("nan")


def frame_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the chance that an anomalous frame scores above a normal one, a tie counting half.

    nan when there is only one class. Raises ValueError when the shapes differ or a score is nan.
    """
    values, flags = _checked(scores, labels)
    n_anomalous = int(flags.sum())
    n_normal = len(flags) - n_anomalous
    if n_anomalous == 0 or n_normal == 0:
        return NAN
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mid_ranks[place][flags].sum())
    return (rank_sum - n_anomalous * (n_anomalous + 1) / 2) / (n_anomalous * n_normal)


def roc(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """False-positive rate, true-positive rate and the threshold of each point, from (0, 0) to (1, 1).

    Equal scores are one point. Three empty arrays when there is only one class.
    """
    values, flags = _checked(scores, labels)
    if flags.all() or not flags.any():
        return np.empty(0), np.empty(0), np.empty(0)
    order = np.argsort(-values, kind="stable")
    values, flags = values[order], flags[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    hits = np.cumsum(flags)[last_of_tie]
    alarms = last_of_tie + 1 - hits
    tpr = np.concatenate(([0.0], hits / flags.sum()))
    fpr = np.concatenate(([0.0], alarms / (~flags).sum()))
    return fpr, tpr, np.concatenate(([np.inf], values[last_of_tie]))


def equal_error_rate(scores: ArrayLike, labels: ArrayLike) -> float:
    """The rate where false positives and misses are equally frequent, on the ROC's segments; nan for one class."""
    fpr, tpr, _ = roc(scores, labels)
    if len(fpr) == 0:
        return NAN
    excess = fpr - (1 - tpr)  # rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    before = after - 1
    share = -excess[before] / (excess[after] - excess[before])
    return float(fpr[before] + share * (fpr[after] - fpr[before]))


def micro_auc(scores: Sequence[Floats], labels: Sequence[Bools]) -> float:
    """Frame AUC over the frames of all clips together (the published convention)."""
    return frame_auc(np.concatenate(scores), np.concatenate(labels))


def macro_auc(scores: Sequence[Floats], labels: Sequence[Bools]) -> float:
    """Mean of the clips' frame AUCs, over the clips that have both classes; nan when none has."""
    aucs = [frame_auc(s, flags) for s, flags in zip(scores, labels, strict=True)]
    defined = [auc for auc in aucs if not np.isnan(auc)]
    return float(np.mean(defined)) if defined else NAN


def micro_interval(
    scores: Sequence[Floats], labels: Sequence[Bools], n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval (percentiles) of the micro AUC over whole clips: frames of a clip are not independent.

    (nan, nan) for fewer than two clips, or when no resample has both classes.
    """
    if len(scores) < 2:
        return NAN, NAN
    wins = _wins(scores, labels)
    n_anomalous = np.array([flags.sum() for flags in labels], dtype=np.float64)
    n_normal = np.array([(~flags).sum() for flags in labels], dtype=np.float64)
    n_clips = len(scores)
    draws = np.random.default_rng(seed).multinomial(n_clips, np.full(n_clips, 1 / n_clips), size=n_resamples).astype(float)
    pairs = (draws @ n_anomalous) * (draws @ n_normal)
    aucs = ((draws @ wins) * draws).sum(axis=1)[pairs > 0] / pairs[pairs > 0]
    if len(aucs) == 0:
        return NAN, NAN
    low, high = np.percentile(aucs, [2.5, 97.5])
    return float(low), float(high)


def _wins(scores: Sequence[Floats], labels: Sequence[Bools]) -> Floats:
    """(clips, clips): how often an anomalous frame of the row's clip beats a normal one of the column's clip."""
    anomalous = [s[flags] for s, flags in zip(scores, labels, strict=True)]
    normal = [np.sort(s[~flags]) for s, flags in zip(scores, labels, strict=True)]
    wins = np.zeros((len(scores), len(scores)))
    for row, high in enumerate(anomalous):
        for column, low in enumerate(normal):
            below_and_tied = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
            wins[row, column] = below_and_tied.sum() / 2
    return wins


def smooth_offline(scores: ArrayLike, sigma_frames: float = 5) -> Floats:
    """(n,) float64: gaussian mean over past and future frames of one clip, edges reflected.

    Not causal: no device can do it.
    """
    values = np.asarray(scores, dtype=np.float64)
    if len(values) == 0 or sigma_frames <= 0:
        return values.copy()
    radius = int(4 * sigma_frames + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma_frames) ** 2)
    return np.convolve(np.pad(values, radius, mode="symmetric"), kernel / kernel.sum(), mode="valid")


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """What the threshold does on test footage.

    fpr: share of the normal frames at or above the threshold; detection_rate: the same of the anomalous frames.
    false_events: runs of consecutive frames at or above the threshold without an anomalous frame in them.
    normal_hours: duration of the normal frames.
    """

    fpr: float
    detection_rate: float
    false_events: int
    normal_hours: float

    @property
    def events_per_hour(self) -> float:
        """False events per hour of normal footage; nan when there is none."""
        return self.false_events / self.normal_hours if self.normal_hours > 0 else NAN


def false_alarms(scores: Sequence[Floats], labels: Sequence[Bools], fps: Sequence[float]) -> FalseAlarms:
    """False alarms and detections over all clips; fps is that of each clip."""
    fpr, detection_rate = alarm_rates(np.concatenate(scores), np.concatenate(labels))
    events, hours = 0, 0.0
    for values, flags, rate in zip(scores, labels, fps, strict=True):
        events += sum(not flags[start:stop].any() for start, stop in runs(values >= THRESHOLD))
        hours += float((~flags).sum()) / rate / 3600
    return FalseAlarms(fpr, detection_rate, events, hours)


def alarm_rates(scores: Floats, labels: Bools) -> tuple[float, float]:
    """False-positive rate on normal and detection rate on anomalous frames; nan where there are no such frames."""
    alarms = scores >= THRESHOLD
    return _share(alarms[~labels]), _share(alarms[labels])


def runs(flags: Bools) -> list[tuple[int, int]]:
    """Stretches of True as (start, stop), stop exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _share(flags: Bools) -> float:
    return float(flags.mean()) if len(flags) else NAN


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Bools]:
    values, flags = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    if values.ndim != 1 or values.shape != flags.shape:
        raise ValueError(f"scores {values.shape} and labels {flags.shape} must be (n,) both")
    if np.isnan(values).any():
        raise ValueError("a score is nan, so frames cannot be ordered")
    return values, flags
