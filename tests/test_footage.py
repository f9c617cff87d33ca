"""Which clips lie below a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_vad.errors import SourceError
from edge_vad.footage import Clip, find_clips, natural_key, pictures_in


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_natural_order_puts_2_before_10() -> None:
    names = ["10.jpg", "frame10", "2.jpg", "frame2", "frame2b", "a", "010.jpg"]
    assert sorted(map(Path, names), key=natural_key) == [
        Path(n) for n in ("2.jpg", "10.jpg", "010.jpg", "a", "frame2", "frame2b", "frame10")
    ]


def test_pictures_are_found_whatever_the_case_of_their_ending(tmp_path: Path) -> None:
    touch(tmp_path, "10.JPG", "9.png", "8.tif", "notes.txt", ".hidden.png", "7.bmp", "6.jpeg")
    assert [path.name for path in pictures_in(tmp_path)] == ["6.jpeg", "7.bmp", "8.tif", "9.png", "10.JPG"]
    assert pictures_in(tmp_path / "nowhere") == []


def test_a_folder_of_pictures_is_one_clip(tmp_path: Path) -> None:
    folder = touch(tmp_path / "yard", "1.png", "2.png")
    assert find_clips([folder]) == [Clip("yard", folder)]


def test_folders_and_videos_side_by_side_are_clips_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path / "10", "1.png")
    touch(tmp_path / "2", "1.png")
    touch(tmp_path / "empty")
    touch(tmp_path / ".cache", "1.png")
    touch(tmp_path, "3.mp4", "notes.txt", "4.AVI")
    assert [clip.name for clip in find_clips([tmp_path])] == ["2", "3", "4", "10"]


def test_names_are_unique_over_all_paths(tmp_path: Path) -> None:
    paths = [touch(tmp_path / day / "01", "1.png").parent for day in ("monday", "tuesday", "friday")]
    clips = find_clips(paths)
    assert [clip.name for clip in clips] == ["01", "01-2", "01-3"]
    assert [clip.path.parent.name for clip in clips] == ["monday", "tuesday", "friday"]


def test_a_video_is_a_clip(tmp_path: Path) -> None:
    touch(tmp_path, "gate.MOV")
    assert find_clips([tmp_path / "gate.MOV"]) == [Clip("gate", tmp_path / "gate.MOV")]


@pytest.mark.parametrize(
    ("name", "words"), [("nowhere", "no such file or folder"), ("notes.txt", "not a video"), ("empty", "no footage")]
)
def test_a_path_without_footage_is_named(name: str, words: str, tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    touch(tmp_path / "empty", "readme")
    with pytest.raises(SourceError, match=words) as caught:
        find_clips([tmp_path / name])
    assert str(tmp_path / name) in str(caught.value)
