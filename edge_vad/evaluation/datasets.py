"""Labelled data sets: a folder in one of two layouts, or videos with a label file.

(a)  training/frames/01/*   testing/frames/01/*     testing/masks/01/*.png      labels.json, *.m, *.mat
(b)  Train/Train001/*       Test/Test001/*          Test/Test001_gt/*.bmp       Test/*.m  (UCSD as published)
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from edge_vad.cameras import open_camera
from edge_vad.errors import LabelError, MissingPackageError, SourceError, did_you_mean
from edge_vad.evaluation.labels import Bools, ClipLabel, frame_labels, read_labels
from edge_vad.evaluation.masks import mask_labels, mask_paths
from edge_vad.footage import Clip, find_clips, pictures_in

_log = logging.getLogger(__name__)

LABEL_SETS = ("official", "mat")
_JSON_NAMES = ("frame_labels_official.json", "labels.json")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledClip:
    """A test clip and its ground truth.

    labels: (n,) bool, True where the frame is anomalous.
    masks: folder with one mask for each frame, or None.
    """

    clip: Clip
    labels: Bools
    masks: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled test clips.

    labels: where the labels come from: ``official`` (the data set's own), ``mat`` (the file of most published code), or
        ``file`` (the user's own).
    other: further label sets by name; in each, (n,) bool by clip name.
    """

    clips: tuple[LabelledClip, ...]
    labels: str
    other: dict[str, dict[str, Bools]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Layout:
    training: Path
    testing: Path
    folders: tuple[Path, ...]  # where label files may lie

    def masks(self, clip: Clip) -> Path | None:
        for folder in (self.testing.parent / "masks" / clip.name, self.testing / f"{clip.name}_gt"):
            if pictures_in(folder):
                return folder
        return None


def open_dataset(folder: Path, labels: str = "official") -> Dataset:
    """The test clips of a data set folder with the label set ``official`` (JSON, else .m, else masks) or ``mat``.

    The other set is put into ``Dataset.other`` where it is there and can be read; a warning says when it cannot.
    Raises SourceError when the folder has neither layout, LabelError when labels are missing or do not fit the footage.
    """
    if labels not in LABEL_SETS:
        raise LabelError(f"no label set {labels!r}{did_you_mean(labels, LABEL_SETS)}")
    layout = _layout(folder)
    clips = _test_clips(layout)
    found = _label_set(labels, layout, clips)
    if found is None:
        raise LabelError(_nothing_found(folder, labels))
    labelled = tuple(LabelledClip(clip, found[clip.name], _checked_masks(layout, clip, found)) for clip in clips)
    return Dataset(labelled, labels, _other_sets(labels, layout, clips))


def videos_dataset(videos: Path, labels_json: Path) -> Dataset:
    """The clips below ``videos`` (files or folders of pictures), labelled by name in a JSON file; no masks.

    Raises SourceError when there is no footage, LabelError when labels are missing, malformed or do not fit.
    """
    clips = find_clips([videos])
    if labels_json.suffix.lower() != ".json":
        raise LabelError(f"{labels_json}: the labels of videos are a .json file")
    found = _from_file(labels_json, clips)
    return Dataset(tuple(LabelledClip(clip, found[clip.name]) for clip in clips), "file")


def normal_clips(folder: Path) -> list[Clip]:
    """The training clips of a data set folder, in natural order. Raises SourceError when there are none."""
    return find_clips([_layout(folder).training])


def _layout(folder: Path) -> _Layout:
    candidates = (
        _Layout(folder / "training" / "frames", folder / "testing" / "frames", (folder, folder / "testing")),
        _Layout(folder / "Train", folder / "Test", (folder, folder / "Test")),
    )
    for layout in candidates:
        if layout.testing.is_dir() or layout.training.is_dir():
            return layout
    raise SourceError(
        f"{folder}: not a data set folder (wanted: training/frames/ and testing/frames/, or Train/ and Test/ as UCSD)"
    )


def _test_clips(layout: _Layout) -> list[Clip]:
    clips = [clip for clip in find_clips([layout.testing]) if not clip.name.endswith("_gt")]
    if not clips:
        raise SourceError(f"{layout.testing}: no test clips, only masks")
    return clips


def _label_set(name: str, layout: _Layout, clips: list[Clip]) -> dict[str, Bools] | None:
    """(n,) bool by clip name, or None when the folder does not hold this label set."""
    path = _label_file(name, layout)
    if path is not None:
        return _from_file(path, clips)
    return _from_masks(layout, clips) if name == "official" else None


def _label_file(name: str, layout: _Layout) -> Path | None:
    if name == "mat":
        return _only([p for folder in layout.folders for p in sorted(folder.glob("*.mat"))])
    for json_name in _JSON_NAMES:
        for folder in layout.folders:
            if (folder / json_name).is_file():
                return folder / json_name
    scripts = (p for folder in layout.folders for p in sorted(folder.glob("*.m")))
    return _only([p for p in scripts if b"gt_frame" in p.read_bytes()])


def _only(paths: list[Path]) -> Path | None:
    paths = [p for p in paths if not p.name.startswith(".")]
    if len(paths) > 1:
        raise LabelError(f"{paths[0]} and {paths[1]}: more than one label file of this kind; keep one")
    return paths[0] if paths else None


def _from_file(path: Path, clips: list[Clip]) -> dict[str, Bools]:
    labels = read_labels(path, [clip.name for clip in clips])
    return {c.name: frame_labels(labels[c.name], _count_frames(c, labels[c.name]), c.name, path) for c in clips}


def _count_frames(clip: Clip, label: ClipLabel) -> int:
    if clip.path.is_dir():
        return len(pictures_in(clip.path))
    with open_camera(clip.path) as camera:
        # The header of a video may be off by some frames: believed where it agrees with the label, counted otherwise.
        if camera.n_frames is not None and camera.n_frames == label.n_frames:
            return camera.n_frames
        return sum(1 for _ in camera.frames())


def _from_masks(layout: _Layout, clips: list[Clip]) -> dict[str, Bools] | None:
    folders = {clip.name: layout.masks(clip) for clip in clips}
    if not any(folders.values()):
        return None
    labels = {}
    for clip in clips:
        folder = folders[clip.name]
        if folder is None:
            raise LabelError(f"{clip.path}: clip {clip.name!r} has no masks but others have; add them, or a labels.json")
        labels[clip.name] = mask_labels(folder, _count_frames(clip, ClipLabel(())), clip.name)
    return labels


def _checked_masks(layout: _Layout, clip: Clip, labels: dict[str, Bools]) -> Path | None:
    folder = layout.masks(clip)
    if folder is not None:
        mask_paths(folder, len(labels[clip.name]), clip.name)
    return folder


def _other_sets(labels: str, layout: _Layout, clips: list[Clip]) -> dict[str, dict[str, Bools]]:
    other = {}
    for name in LABEL_SETS:
        if name == labels:
            continue
        try:
            found = _label_set(name, layout, clips)
        except (LabelError, MissingPackageError) as error:
            _log.warning("label set %r is left out: %s", name, error)
            continue
        if found is not None:
            other[name] = found
    return other


def _nothing_found(folder: Path, labels: str) -> str:
    if labels == "mat":
        return f"{folder}: no .mat file with labels; use the official labels, or add the file"
    hint = "; the .mat file there is used with --labels mat" if any(folder.glob("*.mat")) else ""
    return f"{folder}: no labels (wanted: labels.json, a UCSD .m file, or masks){hint}"
