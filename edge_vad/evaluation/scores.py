"""What a detector said about one clip: the input of every metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_vad.errors import LabelError
from edge_vad.evaluation.datasets import Dataset, LabelledClip

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ClipScores:
    """The output of a detector over the n frames of one clip. Raises ValueError when shapes do not agree.

    fps: frames per second of the footage.
    scores: (n,) float64, causal anomaly scores; 1.0 is the threshold. Finite.
    components: calibrated components by name, (n,) float64 each. Finite.
    maps: n anomaly maps (h, w) float16 in the unit of ``scores``; empty when they were not kept.
    peaks: (n, 2) float64, x and y of the anomaly map's maximum in pixels of the image; nan where nothing was scored.
    stage_ms: CPU milliseconds over the whole clip, by stage; stages do not overlap.
    raw: components before calibration by name, (n,) float64 each; nan where too little past was known.
    document: (n,) float64, what `Method.document` makes of the raw components; None where it makes nothing of them. Finite.
    """

    name: str
    path: Path
    fps: float
    scores: Floats
    components: dict[str, Floats] = field(default_factory=dict)
    maps: list[NDArray[np.float16]] = field(default_factory=list)
    peaks: Floats = field(default_factory=lambda: np.empty((0, 2)))
    stage_ms: dict[str, float] = field(default_factory=dict)
    raw: dict[str, Floats] = field(default_factory=dict)
    document: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        finite = {"scores": self.scores, **self.components}
        if self.document is not None:
            finite["document"] = self.document
        for name, values in finite.items():
            if values.shape != (n,) or not np.isfinite(values).all():
                raise ValueError(f"clip {self.name}: {name} must be ({n},) and finite, has shape {values.shape}")
        for name, values in self.raw.items():
            if values.shape != (n,):
                raise ValueError(f"clip {self.name}: raw {name} must be ({n},), has shape {values.shape}")
        if self.peaks.shape not in ((n, 2), (0, 2)) or len(self.maps) not in (n, 0):
            raise ValueError(f"clip {self.name}: {n} scores, but {len(self.peaks)} peaks and {len(self.maps)} maps")
        if not self.fps > 0:
            raise ValueError(f"clip {self.name}: fps must be above 0, not {self.fps}")


def back_filled(values: Floats) -> Floats | None:
    """Raw scores (n,) of a clip with the first known one in the place of the unknown ones before it; None: none is known."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return None
    filled = values.copy()
    filled[: known[0]] = values[known[0]]
    return filled


def paired(dataset: Dataset, clip_scores: Sequence[ClipScores]) -> list[tuple[LabelledClip, ClipScores]]:
    """Each labelled clip with its scores, in the order of the data set.

    Raises ValueError when clips and scores are not one to one, LabelError when a clip had not as many frames as
    labels.
    """
    by_name = {scores.name: scores for scores in clip_scores}
    names = [labelled.clip.name for labelled in dataset.clips]
    if len(clip_scores) != len(names) or set(by_name) != set(names):
        raise ValueError(f"scores for the clips {sorted(by_name)}, labels for {sorted(names)}")
    pairs = [(labelled, by_name[labelled.clip.name]) for labelled in dataset.clips]
    for labelled, scores in pairs:
        if len(labelled.labels) != len(scores.scores):
            raise LabelError(
                f"clip {scores.name!r}: {len(labelled.labels)} frames are labelled, but {len(scores.scores)} were "
                "scored; correct the label or copy the footage again"
            )
    return pairs
