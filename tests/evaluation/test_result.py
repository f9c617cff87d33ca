from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sets import INTERVALS

from edge_vad.errors import LabelError
from edge_vad.evaluation import ClipScores, Dataset, open_dataset, summarise, table, to_json
from edge_vad.evaluation.localisation import image_size, localisation, peak_in_mask
from edge_vad.evaluation.scores import back_filled, paired

Fabricate = Callable[..., list[ClipScores]]


def summary(dataset: Dataset, scores: list[ClipScores], **changes: Any) -> dict[str, Any]:
    facts = {"budget_per_hour": 0.5, "cold_start_frames": 2, "peak_rss_mb": 100.0, "bundle_bytes": 2_000_000, **changes}
    return summarise(dataset, scores, **facts)


def test_every_number_is_there(labelled_folder: Path, fabricate: Fabricate) -> None:
    dataset = open_dataset(labelled_folder)
    result = summary(dataset, fabricate(dataset))
    assert set(result) == {
        *(
            "causal",
            "offline",
            "document",
            "labels",
            "other_labels",
            "false_alarms",
            "localisation",
            "cold_start",
            "n_frames",
        ),
        *("cpu_ms_per_frame", "peak_rss_mb", "bundle_bytes", "clips"),
    }
    assert result["causal"] == {
        "frame_auc": {"micro": 1.0, "macro": 1.0},
        "micro_interval_95": [1.0, 1.0],
        "eer": 0.0,
        "components": {"appearance": {"micro": 1.0, "macro": 1.0}, "speed": {"micro": 0.5, "macro": 0.5}},
    }
    assert set(result["offline"]) == set(result["causal"])
    assert result["labels"] == "official"
    assert result["false_alarms"] == {
        "budget_per_hour": 0.5,
        "fpr_on_normal_test_frames": 0.0,
        "detection_rate": 1.0,
        "events_per_hour_on_normal_test_frames": 0.0,
        "false_events": 0,
        "normal_test_hours": pytest.approx(15 / 10 / 3600),
    }
    assert result["n_frames"] == 24
    assert result["cpu_ms_per_frame"] == {"total": 6.0, "encoder": 4.0, "search": 2.0}
    row = {"name": "02", "n_frames": 6, "n_anomalous": 0, "auc": None, "fpr": 0.0, "detection_rate": None}
    assert result["clips"][1] == row


def test_other_labels_are_scored_too(labelled_folder: Path, fabricate: Fabricate) -> None:
    dataset = open_dataset(labelled_folder)
    scores = fabricate(dataset)
    swapped = {c.clip.name: ~c.labels for c in dataset.clips}
    other = summary(replace(dataset, other={"mat": swapped}), scores)["other_labels"]
    assert other["mat"]["causal"] == {"frame_auc": {"micro": 0.0, "macro": 0.0}}
    assert set(other["mat"]) == {"causal", "offline"}


def test_the_document_is_scored_apart_and_says_that_it_looks_ahead(labelled_folder: Path, fabricate: Fabricate) -> None:
    dataset = open_dataset(labelled_folder)
    plain = fabricate(dataset)
    assert summary(dataset, plain)["document"] is None and "document" not in table(summary(dataset, plain))
    scores = [replace(s, document=np.where(c.labels, 0.2, 0.7)) for c, s in paired(dataset, plain)]
    swapped = {c.clip.name: ~c.labels for c in dataset.clips}
    result = summary(replace(dataset, other={"mat": swapped}), scores)
    assert result["document"] == {
        "note": "looks ahead: for comparison with published numbers only",
        "frame_auc": {"micro": 0.0, "macro": 0.0},
        "other_labels": {"mat": {"micro": 1.0, "macro": 1.0}},
    }
    assert result["causal"]["frame_auc"] == {"micro": 1.0, "macro": 1.0}
    lines = table(result).split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("document (looks ahead)"))
    assert lines[at].split()[3:] == ["0.000", "0.000"] and lines[at + 1].split() == [
        "with",
        "mat",
        "labels",
        "1.000",
        "1.000",
    ]
    assert any(line.startswith("document ") and "for comparison with published numbers only" in line for line in lines)
    assert all(len(line) <= 120 for line in lines)


def test_one_clip_without_a_document_leaves_it_out(labelled_folder: Path, fabricate: Fabricate) -> None:
    dataset = open_dataset(labelled_folder)
    first, *others = fabricate(dataset)
    assert summary(dataset, [replace(s, document=s.scores) for s in (first, *others)])["document"] is not None
    assert summary(dataset, [first, *(replace(s, document=s.scores) for s in others)])["document"] is None


def test_unknown_raw_scores_at_the_start_are_the_first_known_one() -> None:
    nan = np.nan
    filled = back_filled(np.array([nan, nan, 3.0, 1.0, 2.0]))
    assert filled is not None and filled.tolist() == [3, 3, 3, 1, 2]
    known = np.array([1.0, 2.0])
    assert np.array_equal(back_filled(known), known)  # type: ignore[arg-type]
    assert back_filled(np.array([nan, nan])) is None and back_filled(np.zeros(0)) is None


def test_cold_start_frames_are_left_out_of_their_own_number_only(labelled_folder: Path, fabricate: Fabricate) -> None:
    dataset = open_dataset(labelled_folder)
    scores = fabricate(dataset)
    for clip in scores:
        clip.scores[:2] = 9.0
    result = summary(dataset, scores)
    assert result["cold_start"] == {"frames": 2, "frame_auc_without": {"micro": 1.0, "macro": 1.0}}
    assert result["causal"]["frame_auc"]["micro"] < 1.0
    assert summary(dataset, scores, cold_start_frames=50)["cold_start"]["frame_auc_without"]["micro"] is None


def test_nan_is_null_in_json(labelled_folder: Path, fabricate: Fabricate) -> None:
    dataset = open_dataset(labelled_folder)
    normal = Dataset(dataset.clips[1:2], "official")
    result = summary(normal, fabricate(normal), budget_per_hour=None, peak_rss_mb=None, bundle_bytes=None)
    assert result["causal"]["frame_auc"] == {"micro": None, "macro": None}
    assert result["causal"]["micro_interval_95"] == [None, None]
    assert json.loads(to_json(result)) == result
    assert "NaN" not in to_json({"a": float("nan"), "b": [float("inf")]})
    assert "nan" not in table(result)


def test_table_is_short_and_aligned(labelled_folder: Path, fabricate: Fabricate) -> None:
    dataset = open_dataset(labelled_folder)
    lines = table(summary(dataset, fabricate(dataset))).split("\n")
    assert all(len(line) <= 120 for line in lines)
    assert lines[0].split()[:4] == ["frame", "AUC", "(official", "labels)"]
    assert lines[0].index("micro") + len("micro") == lines[1].index("1.000") + len("1.000")
    assert any("budget 0.5 per hour" in line for line in lines)


def test_scores_must_fit_the_clips(labelled_folder: Path, fabricate: Fabricate) -> None:
    dataset = open_dataset(labelled_folder)
    scores = fabricate(dataset)
    with pytest.raises(ValueError, match="labels for"):
        paired(dataset, scores[1:])
    short = ClipScores("01", scores[0].path, 10.0, np.zeros(7))
    with pytest.raises(LabelError, match="clip '01': 8 frames are labelled, but 7 were scored"):
        paired(dataset, [short, *scores[1:]])
    with pytest.raises(ValueError, match="components"):
        summary(dataset, [replace(scores[0], components={}), *scores[1:]])


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": np.array([0.0, np.nan])},
        {"components": {"speed": np.zeros(3)}},
        {"peaks": np.zeros((1, 2))},
        {"maps": [np.zeros((2, 2), np.float16)]},
        {"fps": 0.0},
        {"raw": {"motion": np.zeros(3)}},
        {"document": np.zeros(3)},
        {"document": np.array([0.0, np.nan])},
    ],
)
def test_clip_scores_check_their_shapes(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="clip 01"):
        ClipScores(**{"name": "01", "path": Path("01"), "fps": 10.0, "scores": np.zeros(2), **wrong})


def test_raw_scores_may_be_unknown() -> None:
    assert ClipScores("01", Path("01"), 10.0, np.zeros(2), raw={"motion": np.array([np.nan, 1.0])}).raw


def test_localisation_by_hand(labelled_folder: Path, fabricate: Fabricate) -> None:
    # Anomalous are frames 2-5 of clip 01 and 0, 1, 7-9 of clip 10; masks cover the upper left quarter, at half size.
    dataset = open_dataset(labelled_folder)
    scores = fabricate(dataset)
    scores[0].peaks[2] = 47, 31
    scores[0].peaks[3] = np.nan
    scores[2].scores[7] = 0.9
    found = localisation(paired(dataset, scores))
    assert found == {
        "true_positive_frames": 8,
        "inside_on_true_positives": pytest.approx(6 / 8),
        "anomalous_frames": 9,
        "inside_on_anomalous": pytest.approx(7 / 9),
        "chance": pytest.approx(0.25),
    }


def test_peak_is_scaled_to_the_mask_and_stays_inside_it() -> None:
    mask = np.zeros((10, 20), bool)
    mask[9, 19] = True
    assert peak_in_mask(np.array([39.9, 19.9]), mask, (40, 20))
    assert peak_in_mask(np.array([40.0, 20.0]), mask, (40, 20))
    assert not peak_in_mask(np.array([37.9, 19.9]), mask, (40, 20))
    assert not peak_in_mask(np.array([np.nan, 1.0]), mask, (40, 20))


def test_no_masks_or_peaks_is_no_localisation(labelled_folder: Path, fabricate: Fabricate) -> None:
    dataset = open_dataset(labelled_folder)
    without = [replace(scores, peaks=np.empty((0, 2))) for scores in fabricate(dataset)]
    assert localisation(paired(dataset, without)) is None
    normal = Dataset(dataset.clips[1:2], "official")
    found = localisation(paired(normal, fabricate(normal)))
    assert found is not None
    assert found["anomalous_frames"] == 0 == sum(last for _, last in INTERVALS["02"])
    assert np.isnan(found["inside_on_anomalous"])


def test_image_size(labelled_folder: Path) -> None:
    assert image_size(labelled_folder / "testing" / "frames" / "01") == (48, 32)
