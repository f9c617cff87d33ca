"""Label files: which frames of a clip are anomalous. Three formats in, one bool for each frame out.

    *.json   {"01": {"frames": 180, "anomalous_1based": [[61, 180]]}}         by clip name
    *.m      TestVideoFile{end+1}.gt_frame = [5:90 140:200];  % UCSD           by the order of the clips
    *.mat    cell array ``gt``; each cell 2 x k: first and last frames         by the order of the clips

All of them count frames from 1 and include both ends of an interval.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vad.errors import LabelError, did_you_mean
from edge_vad.plugins import require

Bools = NDArray[np.bool_]

_EXAMPLE = '{"01": {"frames": 180, "anomalous_1based": [[61, 180]]}}'
_ASSIGNMENT = re.compile(r"\{\s*(end\s*\+\s*1|\d+)\s*\}\s*\.\s*gt_frame\s*=\s*(\[[^\]]*\]|[^;\n]*)")


@dataclass(frozen=True, slots=True)
class ClipLabel:
    """The label of one clip.

    intervals: (first, last) anomalous frames, counted from 1, both inclusive.
    n_frames: length of the clip where the file states it.
    """

    intervals: tuple[tuple[int, int], ...]
    n_frames: int | None = None


def read_labels(path: Path, names: Sequence[str]) -> dict[str, ClipLabel]:
    """The label of each clip of ``names`` (in natural order) from a ``.json``, ``.m`` or ``.mat`` file.

    Raises LabelError when the file is malformed, or when its labels and the clips are not one to one.
    """
    if path.suffix.lower() == ".json":
        found = _read_json(path)
    else:
        ordered = _read_mat(path) if path.suffix.lower() == ".mat" else _read_m(path)
        if len(ordered) != len(names):
            raise LabelError(
                f"{path}: labels for {len(ordered)} clips, but the footage has {len(names)} test clips; "
                "this format labels clips by their order, so the numbers must agree"
            )
        found = dict(zip(names, ordered, strict=True))
    _check_one_to_one(path, found, names)
    return found


def frame_labels(label: ClipLabel, n_frames: int, clip: str, source: Path) -> Bools:
    """(n_frames,) bool, True where anomalous.

    Raises LabelError when the stated length or an interval does not fit a clip of ``n_frames`` frames.
    """
    if label.n_frames is not None and label.n_frames != n_frames:
        raise LabelError(
            f"{source}: clip {clip!r} is labelled with {label.n_frames} frames, but {n_frames} are there; "
            "complete the footage or correct the label"
        )
    labels = np.zeros(n_frames, dtype=bool)
    for first, last in label.intervals:
        if not 1 <= first <= last <= n_frames:
            raise LabelError(
                f"{source}: clip {clip!r} has the interval {first}-{last}, which does not fit frames 1-{n_frames}; "
                "complete the footage or correct the label"
            )
        labels[first - 1 : last] = True
    return labels


def _check_one_to_one(path: Path, found: dict[str, ClipLabel], names: Sequence[str]) -> None:
    for name in names:
        if name not in found:
            raise LabelError(f"{path}: clip {name!r} has no label; add one like {_EXAMPLE} or remove the clip")
    for name in found:
        if name not in names:
            raise LabelError(f"{path}: label {name!r} has no clip{did_you_mean(name, names)}; remove it or add the footage")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark in front
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error


def _read_json(path: Path) -> dict[str, ClipLabel]:
    try:
        content = json.loads(_read_text(path), object_pairs_hook=_unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise LabelError(f"{path}: not valid JSON: {error}") from error
    except KeyError as error:
        raise LabelError(f"{path}: the key {error.args[0]!r} stands there twice; keep one") from error
    if not isinstance(content, dict):
        raise LabelError(f"{path}: wanted an object with one entry for each clip, like {_EXAMPLE}")
    return {name: _json_entry(path, name, entry) for name, entry in content.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise KeyError(key)
        content[key] = value
    return content


def _json_entry(path: Path, name: str, entry: Any) -> ClipLabel:
    wanted = {"frames", "anomalous_1based"}
    if not isinstance(entry, dict) or not wanted <= set(entry):
        raise LabelError(f"{path}: clip {name!r} needs the keys 'frames' and 'anomalous_1based', like {_EXAMPLE}")
    n_frames, intervals = entry["frames"], entry["anomalous_1based"]
    if not _is_int(n_frames) or n_frames < 1:
        raise LabelError(f"{path}: clip {name!r}: 'frames' must be a whole number above 0, not {n_frames!r}")
    if not isinstance(intervals, list) or not all(_is_interval(i) for i in intervals):
        raise LabelError(
            f"{path}: clip {name!r}: 'anomalous_1based' must be a list of [first, last] frames, like {_EXAMPLE}"
        )
    return ClipLabel(tuple((first, last) for first, last in intervals), n_frames)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_int(v) for v in value)


def _read_m(path: Path) -> list[ClipLabel]:
    text = re.sub(r"%.*", "", _read_text(path)).replace("...", " ")
    assignments = _ASSIGNMENT.findall(text)
    if not assignments or len(assignments) != text.count("gt_frame"):
        raise LabelError(f"{path}: wanted one line like 'TestVideoFile{{end+1}}.gt_frame = [61:180];' for each clip")
    labels: dict[int, ClipLabel] = {}
    for place, ranges in assignments:
        index = int(place) if place.isdigit() else max(labels, default=0) + 1
        labels[index] = ClipLabel(_m_ranges(path, index, ranges))
    if sorted(labels) != list(range(1, len(labels) + 1)):
        raise LabelError(f"{path}: TestVideoFile has gaps; label the clips 1 to {max(labels)} without leaving one out")
    return [labels[index] for index in sorted(labels)]


def _m_ranges(path: Path, index: int, ranges: str) -> tuple[tuple[int, int], ...]:
    tokens = re.sub(r"\s*:\s*", ":", ranges.strip().strip("[]")).replace(",", " ").split()
    intervals = []
    for token in tokens:
        match = re.fullmatch(r"(\d+)(?::(\d+))?", token)
        if match is None:
            raise LabelError(
                f"{path}: clip {index}: {token!r} is not a range of frames; write first:last, as in [5:90 140:200]"
            )
        intervals.append((int(match[1]), int(match[2] or match[1])))
    return tuple(intervals)


def _read_mat(path: Path) -> list[ClipLabel]:
    scipy_io = require("scipy.io", "scipy", "reading .mat labels")
    try:
        content = scipy_io.loadmat(str(path))
    except Exception as error:  # scipy raises a different type for each way in which a file can be damaged
        raise LabelError(f"{path}: not a readable MATLAB file before version 7.3: {error}") from error
    cells = content.get("gt")
    if not isinstance(cells, np.ndarray) or cells.dtype != object or cells.size == 0:
        raise LabelError(f"{path}: wanted a cell array 'gt' with a 2 x k matrix of first and last frames for each clip")
    return [ClipLabel(_mat_intervals(path, i, cell)) for i, cell in enumerate(cells.ravel(order="F"), 1)]


def _mat_intervals(path: Path, index: int, cell: Any) -> tuple[tuple[int, int], ...]:
    matrix = np.asarray(cell)
    if matrix.size == 0:
        return ()
    if matrix.dtype.kind not in "uif" or matrix.ndim != 2 or matrix.shape[0] != 2 or not (matrix == np.floor(matrix)).all():
        raise LabelError(f"{path}: cell {index} of 'gt' must be a 2 x k matrix of whole frame numbers, first above last")
    return tuple((int(first), int(last)) for first, last in matrix.T)
