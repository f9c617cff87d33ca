"""Stored footage: which clips lie below the paths that a user names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_vad.errors import SourceError

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
VIDEOS = frozenset({".mp4", ".avi", ".mpg", ".mpeg", ".mkv", ".mov"})


@dataclass(frozen=True, slots=True)
class Clip:
    """One continuous piece of footage: a folder of pictures or a video file."""

    name: str
    path: Path


def find_clips(paths: Iterable[str | Path]) -> list[Clip]:
    """The clips below ``paths``, in natural order, with unique names.

    A path is a video file, a folder of pictures (one clip), or a folder of such folders and files (one clip each).
    Raises SourceError for a path that does not exist or holds no footage.
    """
    clips = [clip for path in paths for clip in _clips_at(Path(path))]
    seen: dict[str, int] = {}
    unique = []
    for clip in clips:
        seen[clip.name] = seen.get(clip.name, 0) + 1
        unique.append(clip if seen[clip.name] == 1 else Clip(f"{clip.name}-{seen[clip.name]}", clip.path))
    return unique


def _clips_at(path: Path) -> list[Clip]:
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() not in VIDEOS:
            raise SourceError(f"{path}: not a video ({', '.join(sorted(VIDEOS))}) and not a folder")
        return [Clip(path.stem, path)]
    if pictures_in(path):
        return [Clip(path.name, path)]
    children = sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=natural_key)
    clips = []
    for child in children:
        if child.is_dir() and pictures_in(child):
            clips.append(Clip(child.name, child))
        elif child.is_file() and child.suffix.lower() in VIDEOS:
            clips.append(Clip(child.stem, child))
    if not clips:
        raise SourceError(f"{path}: no footage in this folder (wanted: pictures, folders of pictures, or videos)")
    return clips


def pictures_in(folder: Path) -> list[Path]:
    """The pictures directly in ``folder``, in natural order (2 before 10)."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
    return sorted(found, key=natural_key)


def natural_key(path: Path) -> tuple[tuple[int, str], ...]:
    """Sort key under which ``frame2`` stands before ``frame10``."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
