from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from small_sets import HEIGHT, INTERVALS, N_FRAMES, WIDTH, expected, labels_json, write_masks, write_pictures

from edge_vad.errors import LabelError, MissingPackageError, SourceError
from edge_vad.evaluation import Dataset, normal_clips, open_dataset, videos_dataset
from edge_vad.evaluation import labels as labels_module
from edge_vad.evaluation.masks import read_mask


def write_mat(path: Path, intervals: dict[str, list[tuple[int, int]]]) -> None:
    cells = np.empty((1, len(intervals)), dtype=object)
    for index, pairs in enumerate(intervals.values()):
        cells[0, index] = np.array(pairs, float).T if pairs else np.empty((0, 0))
    scipy.io.savemat(path, {"gt": cells})


def write_m(path: Path) -> None:
    ranges = [" ".join(f"{first}:{last}" for first, last in pairs) for pairs in INTERVALS.values()]
    path.write_text("".join(f"TestVideoFile{{end+1}}.gt_frame = [{text}];\n" for text in ranges))


def check(dataset: Dataset, names: list[str] | None = None) -> None:
    assert [c.clip.name for c in dataset.clips] == (names or ["01", "02", "10"])
    for labelled, name in zip(dataset.clips, N_FRAMES, strict=True):
        assert labelled.labels.dtype == bool
        assert labelled.labels.tolist() == expected(name)


@pytest.fixture
def ucsd_folder(tmp_path: Path) -> Path:
    """Layout (b), its masks and labels as published."""
    folder = tmp_path / "UCSD"
    write_pictures(folder / "Train" / "Train001", 2, ".tif")
    for name, n in N_FRAMES.items():
        write_pictures(folder / "Test" / f"Test0{name}", n, ".tif")
        write_masks(folder / "Test" / f"Test0{name}_gt", n, INTERVALS[name], ".bmp")
    return folder


def write_video(path: Path, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    for index in range(n):
        writer.write(np.full((HEIGHT, WIDTH, 3), 10 * index, np.uint8))
    writer.release()


def test_labels_json_and_masks(labelled_folder: Path) -> None:
    dataset = open_dataset(labelled_folder)
    check(dataset)
    assert dataset.labels == "official"
    assert dataset.other == {}
    assert [c.masks for c in dataset.clips] == [labelled_folder / "testing" / "masks" / name for name in N_FRAMES]
    assert [clip.name for clip in normal_clips(labelled_folder)] == ["01"]


def test_m_file_in_the_folder(frames_folder: Path) -> None:
    write_m(frames_folder / "set.m")
    (frames_folder / "plot.m").write_text("% some other script\nx = 1;\n")
    dataset = open_dataset(frames_folder)
    check(dataset)
    assert all(c.masks is None for c in dataset.clips)


def test_masks_are_labels_where_there_is_no_file(frames_folder: Path) -> None:
    for name, n in N_FRAMES.items():
        write_masks(frames_folder / "testing" / "masks" / name, n, INTERVALS[name])
    check(open_dataset(frames_folder))


def test_mat_is_the_other_set_or_the_chosen_one(labelled_folder: Path) -> None:
    write_mat(labelled_folder / "set.mat", {**INTERVALS, "01": [(5, 6)]})
    dataset = open_dataset(labelled_folder)
    check(dataset)
    assert np.flatnonzero(dataset.other["mat"]["01"]).tolist() == [4, 5]
    chosen = open_dataset(labelled_folder, "mat")
    assert chosen.labels == "mat"
    assert np.flatnonzero(chosen.clips[0].labels).tolist() == [4, 5]
    assert chosen.other["official"]["01"].tolist() == expected("01")


def test_only_a_mat_file_says_how_to_use_it(frames_folder: Path) -> None:
    write_mat(frames_folder / "set.mat", INTERVALS)
    with pytest.raises(LabelError, match="--labels mat"):
        open_dataset(frames_folder)
    check(open_dataset(frames_folder, "mat"))


def test_broken_other_set_is_a_warning(labelled_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (labelled_folder / "set.mat").write_text("damaged")
    with caplog.at_level(logging.WARNING):
        assert open_dataset(labelled_folder).other == {}
    assert "'mat' is left out" in caplog.text
    with pytest.raises(LabelError, match="not a readable MATLAB file"):
        open_dataset(labelled_folder, "mat")


def test_mat_without_scipy(labelled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, package: str, purpose: str) -> None:
        raise MissingPackageError(f"{purpose} needs the package {package}")

    write_mat(labelled_folder / "set.mat", INTERVALS)
    monkeypatch.setattr(labels_module, "require", missing)
    assert open_dataset(labelled_folder).other == {}
    with pytest.raises(MissingPackageError, match="scipy"):
        open_dataset(labelled_folder, "mat")


def test_ucsd_layout_by_masks_and_by_m_file(ucsd_folder: Path) -> None:
    names = ["Test001", "Test002", "Test010"]
    dataset = open_dataset(ucsd_folder)
    check(dataset, names)
    assert dataset.clips[0].masks == ucsd_folder / "Test" / "Test001_gt"
    write_m(ucsd_folder / "Test" / "set.m")
    check(open_dataset(ucsd_folder), names)
    assert [clip.name for clip in normal_clips(ucsd_folder)] == ["Train001"]


def test_ucsd_with_masks_of_some_clips_needs_labels(ucsd_folder: Path) -> None:
    for mask in (ucsd_folder / "Test" / "Test002_gt").iterdir():
        mask.unlink()
    with pytest.raises(LabelError, match="clip 'Test002' has no masks"):
        open_dataset(ucsd_folder)
    write_m(ucsd_folder / "Test" / "set.m")
    assert [c.masks is None for c in open_dataset(ucsd_folder).clips] == [False, True, False]


def test_missing_frame_or_mask_is_named(labelled_folder: Path) -> None:
    (labelled_folder / "testing" / "masks" / "10" / "4.png").unlink()
    with pytest.raises(LabelError, match=r"9 masks for the 10 frames of clip '10'; complete or remove"):
        open_dataset(labelled_folder)
    (labelled_folder / "testing" / "frames" / "10" / "4.png").unlink()
    with pytest.raises(LabelError, match="clip '10' is labelled with 10 frames, but 9 are there"):
        open_dataset(labelled_folder)


def test_clip_and_label_must_be_one_to_one(labelled_folder: Path) -> None:
    write_pictures(labelled_folder / "testing" / "frames" / "11", 2)
    with pytest.raises(LabelError, match="clip '11' has no label"):
        open_dataset(labelled_folder)


def test_folders_without_footage_or_labels(tmp_path: Path, frames_folder: Path) -> None:
    with pytest.raises(SourceError, match="not a data set folder"):
        open_dataset(tmp_path)
    with pytest.raises(LabelError, match="no labels"):
        open_dataset(frames_folder)
    with pytest.raises(LabelError, match=r"no \.mat file"):
        open_dataset(frames_folder, "mat")
    with pytest.raises(LabelError, match="did you mean 'official'"):
        open_dataset(frames_folder, "offical")


def test_two_files_of_one_kind_are_refused(frames_folder: Path) -> None:
    write_m(frames_folder / "a.m")
    write_m(frames_folder / "b.m")
    with pytest.raises(LabelError, match="more than one label file"):
        open_dataset(frames_folder)


def test_videos_with_their_own_labels(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name, n in N_FRAMES.items():
        write_video(videos / f"{name}.avi", n)
    labels = tmp_path / "mine.json"
    labels.write_text(json.dumps(labels_json()))
    dataset = videos_dataset(videos, labels)
    check(dataset)
    assert dataset.labels == "file"
    write_video(videos / "02.avi", 5)
    with pytest.raises(LabelError, match="clip '02' is labelled with 6 frames, but 5 are there"):
        videos_dataset(videos, labels)
    with pytest.raises(LabelError, match=r"a \.json file"):
        videos_dataset(videos, tmp_path / "mine.txt")


def test_damaged_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(LabelError, match="not a readable mask"):
        read_mask(tmp_path / "0.png")


def test_mask_with_colour_and_alpha(tmp_path: Path) -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[..., 3] = 255
    mask[1, 2, 1] = 9
    cv2.imwrite(str(tmp_path / "0.png"), mask)
    assert np.argwhere(read_mask(tmp_path / "0.png")).tolist() == [[1, 2]]


def test_label_sets_of_real_data_agree_as_documented(ped2: Path) -> None:
    dataset = open_dataset(ped2)
    mat = dataset.other["mat"]
    differing = {c.clip.name: np.flatnonzero(c.labels != mat[c.clip.name]) for c in dataset.clips}
    starts = {name: places.tolist() for name, places in differing.items() if len(places)}
    assert starts == {name: [0, 1, 2, 3] for name in ("03", "05", "08", "09", "10", "11")}
    assert all(c.masks is not None for c in dataset.clips)
