from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from edge_vad.errors import LabelError
from edge_vad.evaluation.labels import ClipLabel, frame_labels, read_labels


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def save_mat(path: Path, cells: list[object], name: str = "gt") -> Path:
    content = np.empty((1, len(cells)), dtype=object)
    for index, cell in enumerate(cells):
        content[0, index] = cell
    scipy.io.savemat(path, {name: content})
    return path


def refused(path: Path, names: list[str]) -> str:
    with pytest.raises(LabelError) as caught:
        read_labels(path, names)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_json_by_clip_name_with_byte_order_mark(tmp_path: Path) -> None:
    text = '\ufeff{"02": {"frames": 9, "anomalous_1based": []}, "01": {"frames": 5, "anomalous_1based": [[2, 3], [5, 5]]}}'
    labels = read_labels(write(tmp_path / "labels.json", text), ["01", "02"])
    assert labels == {"01": ClipLabel(((2, 3), (5, 5)), 5), "02": ClipLabel((), 9)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "one entry for each clip"),
        ('{"01": 3}', "'01' needs the keys"),
        ('{"01": {"frames": 5}}', "anomalous_1based"),
        ('{"01": {"frames": 5, "anomalous": []}}', "'01' needs the keys"),
        ('{"01": {"frames": "5", "anomalous_1based": []}}', "'frames' must be a whole number"),
        ('{"01": {"frames": true, "anomalous_1based": []}}', "'frames' must be a whole number"),
        ('{"01": {"frames": 5, "anomalous_1based": [1, 2]}}', "list of [first, last]"),
        ('{"01": {"frames": 5, "anomalous_1based": [[1, 2.5]]}}', "list of [first, last]"),
        ('{"01": {"frames": 5, "anomalous_1based": []}, "01": {"frames": 5, "anomalous_1based": []}}', "twice"),
        ("{}", "clip '01' has no label"),
        ('{"1": {"frames": 5, "anomalous_1based": []}}', "clip '01' has no label"),
    ],
)
def test_broken_json_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused(write(tmp_path / "labels.json", text), ["01"])


def test_json_label_without_clip_is_refused(tmp_path: Path) -> None:
    entry = '{"frames": 5, "anomalous_1based": []}'
    path = write(tmp_path / "labels.json", f'{{"01": {entry}, "13": {entry}}}')
    assert "label '13' has no clip" in refused(path, ["01"])


def test_file_that_is_no_text_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(tmp_path / "labels.json", ["01"])
    assert "cannot be read" in refused(tmp_path / "other.json", ["01"])


def test_m_with_several_ranges_comments_and_explicit_places(tmp_path: Path) -> None:
    text = """
    % gt_frame in a comment does not count
    TestVideoFile = {};
    TestVideoFile{end+1}.gt_frame = [61:180];
    TestVideoFile{end+1}.gt_frame = [5:90, 140:200]; % two events
    TestVideoFile{ 4 }.gt_frame = [7 9:11 ...
        20 : 21];
    TestVideoFile{3}.gt_frame = [];
    TestVideoFile{end + 1}.gt_frame = 2:4
    """
    labels = read_labels(write(tmp_path / "set.m", text), list("abcde"))
    found = [labels[name].intervals for name in "abcde"]
    assert found == [((61, 180),), ((5, 90), (140, 200)), (), ((7, 7), (9, 11), (20, 21)), ((2, 4),)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 3;", "wanted one line like"),
        ("T{end+1}.gt_frame = [1:2:9];", "'1:2:9' is not a range"),
        ("T{end+1}.gt_frame = [a:b];", "'a:b' is not a range"),
        ("T{end+1}.gt_frame = [1:3]; T.gt_frame = [4:5];", "wanted one line like"),
        ("T{2}.gt_frame = [1:3];", "gaps"),
        ("T{end+1}.gt_frame = [1:3]; T{end+1}.gt_frame = [1:3];", "labels for 2 clips, but the footage has 1"),
    ],
)
def test_broken_m_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused(write(tmp_path / "set.m", text), ["01"])


def test_mat_with_several_intervals_and_small_integers(tmp_path: Path) -> None:
    # uint8 is what MATLAB's files often hold; 250 to 255 must not wrap around.
    cells = [np.array([[5, 250], [90, 255]], np.uint8), np.empty((0, 0)), np.array([[300.0], [310.0]])]
    labels = read_labels(save_mat(tmp_path / "gt.mat", cells), ["a", "b", "c"])
    assert [labels[name].intervals for name in "abc"] == [((5, 90), (250, 255)), (), ((300, 310),)]


def test_broken_mat_is_refused(tmp_path: Path) -> None:
    assert "not a readable MATLAB file" in refused(write(tmp_path / "text.mat", "no matlab"), ["a"])
    assert "cell array 'gt'" in refused(save_mat(tmp_path / "name.mat", [np.ones((2, 1))], "truth"), ["a"])
    assert "2 x k" in refused(save_mat(tmp_path / "shape.mat", [np.ones((3, 1))]), ["a"])
    assert "whole frame numbers" in refused(save_mat(tmp_path / "half.mat", [np.array([[1.5], [2]])]), ["a"])
    assert "labels for 1 clips" in refused(save_mat(tmp_path / "few.mat", [np.ones((2, 1))]), ["a", "b"])


def test_frame_labels_count_from_1_and_include_both_ends(tmp_path: Path) -> None:
    labels = frame_labels(ClipLabel(((1, 1), (3, 4)), 5), 5, "01", tmp_path)
    assert labels.dtype == bool
    assert labels.tolist() == [True, False, True, True, False]


@pytest.mark.parametrize("interval", [(0, 2), (3, 2), (5, 6)])
def test_interval_outside_the_clip_is_refused(tmp_path: Path, interval: tuple[int, int]) -> None:
    with pytest.raises(LabelError, match=r"clip '01' has the interval .* does not fit frames 1-5"):
        frame_labels(ClipLabel((interval,)), 5, "01", tmp_path)


def test_stated_length_must_fit(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"clip '01' is labelled with 180 frames, but 179 are there; complete"):
        frame_labels(ClipLabel((), 180), 179, "01", tmp_path)
