"""The compiled inner loops against what stands beside their callers in NumPy and hnswlib; and what happens without them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from edge_vad import kernels
from edge_vad.banks.hnsw import HnswBank
from edge_vad.detector import Detector
from edge_vad.motion import suppress
from edge_vad.sampling import crops, windows
from edge_vad.velocity import _correlate

compiled = pytest.mark.skipif(kernels.LIBRARY is None, reason="the kernels are not compiled here: no C compiler")
GENERATOR = np.random.default_rng(11)
IMAGE = GENERATOR.integers(0, 256, (61, 83, 3), dtype=np.uint8)
EDGES = [
    [-50, -50, 5, 5],
    [70, 50, 200, 90],
    [0, 0, 83, 61],
    [200, 200, 300, 300],
    [10, 10, 10.001, 10.001],
    [40, 30, 20, 10],
]


def boxes(n: int) -> np.ndarray:
    """Boxes in and around the picture, and such that lead outside or nowhere."""
    corners = GENERATOR.uniform(-10, 60, (n, 2))
    usual = np.concatenate([corners, corners + GENERATOR.uniform(2, 60, (n, 2))], axis=1)
    return np.concatenate([usual, EDGES]).astype(np.float32)


def in_both(monkeypatch: pytest.MonkeyPatch, call: Callable[[], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What the kernels find, and what is found without them."""
    fast = call()
    with monkeypatch.context() as without:
        without.setattr(kernels, "LIBRARY", None)
        return fast, call()


@compiled
@pytest.mark.parametrize(("width", "height"), [(1, 1), (12, 24), (64, 64), (7, 130)])
def test_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> None:
    around = boxes(40)
    for image in (IMAGE, IMAGE[:, ::-1], IMAGE[3:40:2, 5:50]):  # views, too
        fast, slow = in_both(monkeypatch, lambda image=image: crops(image, around, width, height))  # type: ignore[misc]
        assert np.array_equal(fast, slow) and fast.dtype == slow.dtype
        fast, slow = in_both(monkeypatch, lambda image=image: windows(image[..., 1], around, width, height))  # type: ignore[misc]
        np.testing.assert_allclose(fast, slow, atol=1e-3)


@compiled
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_box_that_is_not_a_number_reads_no_foreign_memory() -> None:
    bad = np.array([[np.nan, 0, 5, np.nan], [np.inf, -np.inf, np.nan, 3]], np.float32)
    assert crops(IMAGE, bad, 9, 9).shape == (2, 9, 9, 3)
    assert windows(IMAGE[..., 0], bad, 9, 9).shape == (2, 9, 9)


@compiled
def test_a_grey_picture_reads_no_foreign_memory() -> None:
    for grey in (IMAGE[..., :1], IMAGE[..., 0]):
        with pytest.raises((ValueError, IndexError)):
            crops(grey, boxes(3), 8, 8)


@compiled
def test_a_fourth_channel_is_left_out() -> None:
    four = np.concatenate([IMAGE, IMAGE[..., :1]], axis=2)
    around = boxes(5)
    assert np.array_equal(crops(four, around, 8, 8), crops(IMAGE, around, 8, 8))


@compiled
@pytest.mark.parametrize(
    ("template", "area"),
    [((24, 12), (46, 46)), ((24, 12), (24, 12)), ((3, 5), (40, 9)), ((1, 1), (2, 70)), ((24, 12), (33, 30))],
)
def test_correlations_are_the_same(
    monkeypatch: pytest.MonkeyPatch, template: tuple[int, int], area: tuple[int, int]
) -> None:
    within = GENERATOR.uniform(0, 255, (9, *area)).astype(np.float32)
    within[0] = 128  # flat
    wanted = within[:, : template[0], : template[1]].copy()
    wanted[5:] = GENERATOR.uniform(0, 255, (4, *template))
    wanted -= wanted.mean(axis=(1, 2), keepdims=True)
    fast, slow = in_both(monkeypatch, lambda: _correlate(wanted, within))
    np.testing.assert_allclose(fast, slow, atol=1e-3)
    assert np.abs(fast).max() > 0.4 or template == (1, 1)


@compiled
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_the_same_boxes_are_kept(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    many = boxes(300)
    fast, slow = in_both(monkeypatch, lambda: suppress(many, 0.25, limit))
    assert np.array_equal(fast, slow) and 1 <= len(fast) <= limit
    assert not len(suppress(many[:0], 0.25, limit))


@compiled
@pytest.mark.parametrize(("n", "k"), [(3000, 1), (3000, 5), (40, 40), (1, 1)])
def test_a_graph_leads_to_the_rows_that_hnswlib_finds(monkeypatch: pytest.MonkeyPatch, n: int, k: int) -> None:
    rows = GENERATOR.standard_normal((n, 19)).astype(np.float32)
    queries = GENERATOR.standard_normal((200, 19)).astype(np.float32)
    fast, slow = in_both(monkeypatch, lambda: HnswBank(rows).search(queries, k)[0])
    np.testing.assert_allclose(fast, slow, rtol=1e-5)


@compiled
def test_equal_rows_are_all_found() -> None:
    """Their graph may lead to fewer than are asked for: then they are searched exactly."""
    rows = np.ones((500, 4), np.float32)
    distances, found = HnswBank(rows).search(rows[:3], 20)
    assert not distances.any() and all(len(set(row)) == 20 for row in found.tolist())


@compiled
def test_more_queries_than_marks_fit_into_16_bits() -> None:
    rows = GENERATOR.standard_normal((30, 3)).astype(np.float32)
    queries = np.tile(rows, (2200, 1))
    distances, found = HnswBank(rows).search(queries)
    assert not distances.any() and np.array_equal(found[:, 0], np.tile(np.arange(30), 2200))


@compiled
def test_scores_are_the_same(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    frames = tiny.clip_frames(60, seed=5, anomalies="all")

    def scores() -> np.ndarray:
        detector = Detector.open(tiny_bundle)
        return np.array([detector.process(frame).score for frame in frames])

    fast, slow = in_both(monkeypatch, scores)
    np.testing.assert_allclose(fast, slow, atol=1e-3)
    assert np.ptp(fast) > 0


def test_a_variable_leaves_them_alone() -> None:
    command = [sys.executable, "-c", "from edge_vad import kernels; print(kernels.LIBRARY)"]
    said = subprocess.run(command, env={**os.environ, "EDGE_VAD_KERNELS": "off"}, capture_output=True, text=True, check=True)
    assert said.stdout == "None\n" and said.stderr == ""


@pytest.mark.parametrize("source", [None, "int edge_vad_version(void) { return 99; }", "int other(void) { return 1; }"])
def test_a_file_that_does_not_fit_is_left_alone_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    monkeypatch.delenv("EDGE_VAD_KERNELS", raising=False)
    path = tmp_path / kernels.NAME
    if source is None:
        path.write_bytes(b"no library")
    elif not shutil.which("cc"):
        pytest.skip("no C compiler")
    else:
        (tmp_path / "other.c").write_text(source)
        subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "other.c", "-o", path], check=True)
    with caplog.at_level(logging.WARNING):
        assert kernels._load(path) is None
    (line,) = caplog.messages
    assert str(path) in line and "install edge-vad again" in line and "\n" not in line


def test_without_a_file_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert kernels._load(tmp_path / kernels.NAME) is None and not caplog.messages
