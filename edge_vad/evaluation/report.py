"""The report of an evaluation: ``result.json`` and one ``report.html`` that needs nothing else."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_vad.errors import OutputError
from edge_vad.evaluation.datasets import Dataset
from edge_vad.evaluation.page import page
from edge_vad.evaluation.result import to_json
from edge_vad.evaluation.scores import ClipScores, paired


def write_report(folder: Path, result: dict[str, Any], dataset: Dataset, clip_scores: Sequence[ClipScores]) -> None:
    """Write ``result.json`` and ``report.html`` into ``folder``, which is made where it is missing.

    A report that is there already is replaced, other files in the folder stay.
    Raises OutputError when it cannot be written (nothing half-written is left), SourceError or LabelError when footage
    or a mask cannot be read again.
    """
    check_folder(folder)  # before the pictures are read again, which takes longest
    files = {"result.json": to_json(result), "report.html": page(result, paired(dataset, clip_scores))}
    try:
        _write_together(folder.absolute(), files)
    except OSError as error:
        raise OutputError(f"{folder}: the report cannot be written: {error.strerror or error}") from error


def check_folder(folder: Path) -> None:
    """Raise OutputError when a report could not be written to ``folder``; a long evaluation asks before it starts."""
    try:
        existing = _first_existing(folder.absolute())
        writable = os.access(existing, os.W_OK | os.X_OK)
    except OSError as error:
        raise OutputError(f"{folder}: the report cannot be written: {error.strerror or error}") from error
    if not existing.is_dir():
        raise OutputError(f"{existing}: not a folder, so the report cannot be written there; name another folder")
    if not writable:
        raise OutputError(f"{existing}: no permission to write the report there; name another folder")


def _first_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _write_together(folder: Path, files: dict[str, str]) -> None:
    """Write the files beside their place first and move them in when all are complete.

    Folders that are missing are built aside as well and appear in one step.
    """
    existing = _first_existing(folder)
    missing = folder.relative_to(existing).parts
    aside = existing / f".report-{uuid.uuid4().hex[:12]}"
    try:
        build = aside.joinpath(*missing)
        build.mkdir(parents=True)
        for name, text in files.items():
            (build / name).write_text(text, encoding="utf-8")
        if missing:
            (aside / missing[0]).rename(existing / missing[0])
        else:
            for name in files:
                (build / name).replace(folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
