"""The raw scores of a clip reach the document's own normalisation: repeated in between, known from the first frame on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_sets import write_pictures

from edge_vad import Detector, Frame
from edge_vad.calibration import Calibration, Component, Tail
from edge_vad.commands.evaluate import score_clip
from edge_vad.events import EventSettings
from edge_vad.footage import Clip
from edge_vad.methods.base import Method, Observation

N_UNKNOWN = 3  # frames
CALIBRATED = Calibration({"a": Component(0.0, 1.0, 0.0, 1.0)}, 0.05, 0.0, Tail(0, 1, 1, 1.0, 2.0, 2, 2, 1))


class Documented(Method):
    """The frame's index is its raw score; unknown before N_UNKNOWN, or always."""

    def __init__(self, *, known: bool = True) -> None:
        self._known = known
        self.seen: list[list[float]] = []

    @classmethod
    def open(cls, bundle: object, backend: object, *, threads: int, device: str, bank: str) -> Documented:
        raise NotImplementedError

    def observe(self, frame: Frame) -> Observation:
        return Observation({"a": float(frame.index) if self._known and frame.index >= N_UNKNOWN else np.nan})

    def reset(self) -> None:
        pass

    def document(self, series: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:  # type: ignore[override]
        self.seen.append(series["a"].tolist())
        return series["a"] / series["a"].max()


def scored(method: Method, folder: Path, period_s: float):  # type: ignore[no-untyped-def]
    write_pictures(folder / "clip", 10)
    return score_clip(Detector(method, CALIBRATED, EventSettings(), period_s), Clip("clip", folder / "clip"), None)


@pytest.mark.parametrize(
    ("period_s", "n_unknown", "expected"),
    [(0.1, 3, [3, 3, 3, 3, 4, 5, 6, 7, 8, 9]), (0.2, 4, [4, 4, 4, 4, 4, 4, 6, 6, 8, 8])],
)
def test_raw_scores_are_back_filled_and_repeated(
    tmp_path: Path, period_s: float, n_unknown: int, expected: list[float]
) -> None:
    method = Documented()
    clip = scored(method, tmp_path, period_s)
    assert method.seen == [expected] and clip.document.tolist() == [value / max(expected) for value in expected]
    assert np.isnan(clip.raw["a"]).sum() == n_unknown and clip.raw["a"][n_unknown:].tolist() == expected[n_unknown:]


def test_a_clip_of_which_nothing_is_known_has_no_such_scores(tmp_path: Path) -> None:
    method = Documented(known=False)
    clip = scored(method, tmp_path, 0.1)
    assert clip.document is None and method.seen == [] and np.isnan(clip.raw["a"]).all() and not clip.scores.any()
