"""How good a detector is on labelled footage: data sets, metrics, the result and its report."""

from __future__ import annotations

from edge_vad.evaluation.datasets import Dataset, LabelledClip, normal_clips, open_dataset, videos_dataset
from edge_vad.evaluation.report import check_folder, write_report
from edge_vad.evaluation.result import summarise, table, to_json
from edge_vad.evaluation.scores import ClipScores

__all__ = [
    "ClipScores",
    "Dataset",
    "LabelledClip",
    "check_folder",
    "normal_clips",
    "open_dataset",
    "summarise",
    "table",
    "to_json",
    "videos_dataset",
    "write_report",
]
