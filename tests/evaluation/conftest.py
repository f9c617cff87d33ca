"""Tiny generated data sets, and the place of the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_sets import INTERVALS, N_FRAMES, labels_json, write_masks, write_pictures

from edge_vad.evaluation import ClipScores, Dataset


@pytest.fixture
def frames_folder(tmp_path: Path) -> Path:
    """Layout (a) without labels and masks."""
    folder = tmp_path / "set"
    write_pictures(folder / "training" / "frames" / "01", 3)
    for name, n in N_FRAMES.items():
        write_pictures(folder / "testing" / "frames" / name, n)
    return folder


@pytest.fixture
def labelled_folder(frames_folder: Path) -> Path:
    """Layout (a) with labels.json and masks."""
    (frames_folder / "labels.json").write_text(json.dumps(labels_json()))
    for name, n in N_FRAMES.items():
        write_masks(frames_folder / "testing" / "masks" / name, n, INTERVALS[name])
    return frames_folder


@pytest.fixture
def fabricate() -> Callable[..., list[ClipScores]]:
    """Scores for a data set: 2.0 on anomalous and 0.5 on normal frames, peaks in the upper left corner."""

    def make(dataset: Dataset, high: float = 2.0, low: float = 0.5) -> list[ClipScores]:
        made = []
        for labelled in dataset.clips:
            n = len(labelled.labels)
            scores = np.where(labelled.labels, high, low)
            maps = [np.full((4, 6), score, np.float16) for score in scores]
            peaks = np.tile([1.0, 1.0], (n, 1))
            components = {"appearance": scores + 0.1, "speed": np.ones(n)}
            clip = labelled.clip
            stage_ms = {"encoder": 4.0 * n, "search": 2.0 * n}
            made.append(ClipScores(clip.name, clip.path, 10.0, scores, components, maps, peaks, stage_ms))
        return made

    return make


@pytest.fixture
def ped2() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "ped2"
    if not folder.is_dir():
        pytest.skip(f"UCSD Ped2 is not at {folder}")
    return folder
