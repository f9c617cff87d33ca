from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from edge_vad.errors import OutputError, SourceError
from edge_vad.evaluation import ClipScores, Dataset, charts, open_dataset, pictures, summarise, write_report
from edge_vad.evaluation.report import check_folder
from edge_vad.evaluation.scores import paired
from edge_vad.footage import Clip

Fabricate = Callable[..., list[ClipScores]]
Made = tuple[dict[str, Any], Dataset, list[ClipScores]]


class Tags(HTMLParser):
    """Checks that tags are closed in order and collects their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def summary(dataset: Dataset, scores: list[ClipScores]) -> dict[str, Any]:
    return summarise(dataset, scores, budget_per_hour=1.0, cold_start_frames=0, peak_rss_mb=1.0, bundle_bytes=10)


@pytest.fixture
def made(labelled_folder: Path, fabricate: Fabricate) -> Made:
    dataset = open_dataset(labelled_folder)
    scores = fabricate(dataset)
    return summary(dataset, scores), dataset, scores


def test_report_is_complete_and_needs_nothing_else(tmp_path: Path, made: Made) -> None:
    write_report(tmp_path / "new" / "deep", *made)
    folder = tmp_path / "new" / "deep"
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "result.json"]
    assert json.loads((folder / "result.json").read_text()) == made[0]
    text = (folder / "report.html").read_text()
    tags = Tags(text)
    sources = [value for _, name, value in tags.attributes if name in ("src", "href", "srcset", "data")]
    assert sources
    assert all(value.startswith("data:image/jpeg;base64,") for value in sources)
    assert not re.search(r"https?:|@import|url\(|<script|<link", text)
    for heading in ("Frame level accuracy", "Score over time", "Worst misses", "Worst false alarms", "Best detections"):
        assert heading in text
    assert text.count("<svg") == len(made[1].clips) + 2  # with the ROC and the bars of the stages


def test_a_report_shows_the_document_where_there_is_one(tmp_path: Path, made: Made) -> None:
    write_report(tmp_path / "without", *made)
    assert "looks ahead" not in (tmp_path / "without" / "report.html").read_text()
    _, dataset, scores = made
    scores = [replace(s, document=s.scores) for s in scores]
    write_report(tmp_path / "with", summary(dataset, scores), dataset, scores)
    text = (tmp_path / "with" / "report.html").read_text()
    Tags(text)
    assert "<td>document (looks ahead)</td>" in text
    assert "looks ahead: for comparison with published numbers only; no device can do it" in text


def test_charts_are_well_formed(made: Made, tmp_path: Path) -> None:
    write_report(tmp_path / "out", *made)
    for svg in re.findall(r"<svg.*?</svg>", (tmp_path / "out" / "report.html").read_text(), re.DOTALL):
        root = ElementTree.fromstring(svg)
        assert root.get("aria-label")
        assert "nan" not in svg


def test_names_are_escaped(tmp_path: Path, made: Made) -> None:
    _, dataset, scores = made
    name = 'x"><script>alert(1)</script>&'
    first = replace(dataset.clips[0], clip=Clip(name, dataset.clips[0].clip.path))
    evil = Dataset((first, *dataset.clips[1:]), "file")
    evil_scores = [
        replace(scores[0], name=name, components={"<b>": scores[0].scores}, stage_ms={"<i>": 1.0}),
        *scores[1:],
    ]
    evil_scores[1:] = [replace(s, components={"<b>": s.scores}) for s in evil_scores[1:]]
    write_report(tmp_path / "out", summary(evil, evil_scores), evil, evil_scores)
    text = (tmp_path / "out" / "report.html").read_text()
    Tags(text)
    assert "<script" not in text
    assert "<i>" not in text
    assert "&lt;script&gt;" in text


def test_one_class_no_maps_and_no_stages(tmp_path: Path, made: Made) -> None:
    _, dataset, scores = made
    normal = Dataset(dataset.clips[1:2], "mat")
    bare = [ClipScores("02", scores[1].path, 10.0, scores[1].scores)]
    write_report(tmp_path / "out", summary(normal, bare), normal, bare)
    text = (tmp_path / "out" / "report.html").read_text()
    Tags(text)
    assert "No ROC curve" in text
    assert "There are none." in text


def test_writing_again_replaces_the_report_and_keeps_the_rest(tmp_path: Path, made: Made) -> None:
    folder = tmp_path / "out"
    write_report(folder, *made)
    (folder / "mine.txt").write_text("keep")
    (folder / "report.html").write_text("old")
    write_report(folder, *made)
    assert sorted(p.name for p in folder.iterdir()) == ["mine.txt", "report.html", "result.json"]
    assert (folder / "report.html").read_text() != "old"


@pytest.mark.parametrize("inside", [".", "deep/er"])
def test_target_that_is_a_file_is_refused(tmp_path: Path, made: Made, inside: str) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="not a folder"):
        write_report(tmp_path / "taken" / inside, *made)
    assert (tmp_path / "taken").read_text() == "a file"


def test_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root, who runs tests in containers, may write anywhere
    with pytest.raises(OutputError, match="no permission"):
        check_folder(tmp_path / "out")


def test_impossible_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        check_folder(tmp_path / ("x" * 300))


@pytest.mark.parametrize("existing", [True, False])
def test_nothing_is_left_when_the_disk_is_full(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    folder = tmp_path / "reports" / "today"
    if existing:
        folder.mkdir(parents=True)
        (folder / "report.html").write_text("old")
    before = sorted(p for p in tmp_path.rglob("*") if "set" not in p.parts)
    write_text = Path.write_text

    def full(path: Path, text: str, **options: Any) -> int:
        if path.name == "report.html":
            write_text(path, text[:100], **options)
            raise OSError(28, "No space left on device")
        return write_text(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        write_report(folder, *made)
    assert "\n" not in str(caught.value)
    assert sorted(p for p in tmp_path.rglob("*") if "set" not in p.parts) == before
    if existing:
        assert (folder / "report.html").read_text() == "old"


def test_nothing_is_left_when_a_picture_cannot_be_read_again(tmp_path: Path, made: Made, labelled_folder: Path) -> None:
    for picture in (labelled_folder / "testing" / "frames" / "01").iterdir():
        picture.unlink()
    with pytest.raises(SourceError):
        write_report(tmp_path / "out", *made)
    assert not (tmp_path / "out").exists()


def test_footage_that_became_shorter_is_refused(labelled_folder: Path) -> None:
    with pytest.raises(SourceError, match="ends before frame 99"):
        pictures.frames_at(labelled_folder / "testing" / "frames" / "01", {0, 99})


def clip_of(n: int, anomalous: list[tuple[int, int]], scores: np.ndarray, name: str) -> tuple[Any, ClipScores]:
    labels = np.zeros(n, bool)
    for start, stop in anomalous:
        labels[start:stop] = True
    clip = Clip(name, Path(name))
    return pictures.LabelledClip(clip, labels), ClipScores(name, clip.path, 10.0, scores)


def test_false_alarms_are_spread_over_time_and_clips() -> None:
    rng = np.random.default_rng(0)
    pairs = [clip_of(200, [(0, 50)], rng.random(200) + level, str(level)) for level in range(4)]
    picks = pictures.worst_false_alarms(pairs, limit=6)
    assert [pick.clip for pick in picks] == [3, 3, 2, 2, 1, 1]
    assert all(pick.index >= 50 for pick in picks)
    assert [pick.score for pick in picks] == sorted((pick.score for pick in picks), reverse=True)
    for one, two in zip(picks[::2], picks[1::2], strict=True):
        assert abs(one.index - two.index) >= pictures.MIN_GAP


def test_misses_come_from_different_events() -> None:
    scores = np.full(60, 2.0)
    scores[[12, 13, 31, 50]] = 0.1, 0.2, 0.5, 0.05  # frame 50 is normal
    pairs = [clip_of(60, [(10, 20), (30, 40)], scores, "a")]
    assert [(pick.index, pick.score) for pick in pictures.worst_misses(pairs)] == [(12, 0.1), (31, 0.5)]


def test_best_detections_are_one_for_each_clip() -> None:
    pairs = [clip_of(9, [(3, 6)], np.arange(9.0) + level, str(level)) for level in range(6)]
    assert [(pick.clip, pick.index) for pick in pictures.best_detections(pairs)] == [(5, 5), (4, 5), (3, 5), (2, 5)]


def test_overlay_tints_what_is_anomalous_only() -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    heat = np.zeros((6, 8), np.float16)
    heat[:, 4:] = 3.0
    drawn = pictures.overlay(image, heat, None, None)
    assert drawn.shape == image.shape
    assert (drawn[:, :30] == 100).all()
    assert (drawn[:, 60:, 0] > drawn[:, 60:, 2] + 50).all()
    assert (image == 100).all()


def test_overlay_shrinks_large_frames_and_takes_a_mask_of_another_size() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:5, 2:5] = True
    drawn = pictures.overlay(np.zeros((900, 1600, 3), np.uint8), None, np.array([800.0, 450.0]), mask)
    assert drawn.shape == (315, pictures.MAX_WIDTH, 3)
    assert drawn.any()


def test_a_long_clip_is_drawn_with_its_peak() -> None:
    scores = np.zeros(50_000)
    scores[31_234] = 1.4
    svg = charts.score_chart(scores, np.zeros(50_000, bool), (0.0, 1.5), "long")
    assert len(svg) < 20_000
    assert f",{8 + (104 - 8) * (1 - 1.4 / 1.5):.1f}" in svg


def test_charts_of_a_single_frame_and_of_many_points() -> None:
    ElementTree.fromstring(charts.score_chart(np.array([0.4]), np.array([True]), (0.0, 1.5), "one"))
    curve = charts.Curve("causal", np.linspace(0, 1, 9000), np.linspace(0, 1, 9000), "a")
    assert len(charts.roc_chart([curve], None, "ROC")) < 20_000
    ElementTree.fromstring(charts.stage_bars({"a" * 40: 0.0}, "none"))


def test_report_on_real_data(ped2: Path, tmp_path: Path) -> None:
    dataset = open_dataset(ped2)
    rng = np.random.default_rng(1)
    scores = []
    for labelled in dataset.clips:
        n = len(labelled.labels)
        maps = [rng.random((6, 9)).astype(np.float16) for _ in range(n)]
        values = 0.8 + 0.4 * labelled.labels + rng.normal(0, 0.2, n)
        path = labelled.clip.path
        scores.append(ClipScores(labelled.clip.name, path, 10.0, values, {}, maps, rng.random((n, 2)) * 200))
    result = summary(dataset, scores)
    assert result["localisation"]["anomalous_frames"] == result["localisation"]["true_positive_frames"] + sum(
        int((s.scores[c.labels] < 1).sum()) for c, s in paired(dataset, scores)
    )
    write_report(tmp_path / "out", result, dataset, scores)
    text = (tmp_path / "out" / "report.html").read_text()
    Tags(text)
    assert text.count("<img") == 16
    assert len(text) < 1_500_000


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, edge_vad.evaluation; print({'cv2', 'scipy', 'matplotlib', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
