"""Search graphs at rest: the same neighbours as when they were made, or refused; never a crash, never a wrong row."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzzed_graphs
import fuzzing
import numpy as np
import pytest
import small_bundle
import tiny
from numpy.typing import NDArray

from edge_vad import kernels, tensorfile
from edge_vad.banks import base, hnsw, open_bank
from edge_vad.banks._graph import decode, encode
from edge_vad.banks.base import Bank
from edge_vad.banks.exact import ExactBank
from edge_vad.banks.hnsw import HnswBank
from edge_vad.bundle import Bundle, read_bundle, write_bundle
from edge_vad.cli import main
from edge_vad.detector import Detector
from edge_vad.errors import BundleFormatError, BundleIntegrityError, MissingPackageError
from edge_vad.manifest import MANIFEST, sha256
from edge_vad.profile import Inference, Profile
from edge_vad.types import Float32

ROWS = np.random.default_rng(0).normal(0, 1, (1000, 64)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
QUERIES = np.random.default_rng(1).normal(0, 0.1, (100, 64)).astype(np.float32)
GRAPH = HnswBank(ROWS).graph({"bank": "x"})


def rows_of(n: int, width: int) -> Float32:
    return np.random.default_rng([n, width]).normal(0, 1, (n, width)).astype(np.float32)


def same(a: Bank, b: Bank, queries: Float32, k: int) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.search(queries, k), b.search(queries, k), strict=True))


@pytest.mark.parametrize("m", [2, 16, 48])
@pytest.mark.parametrize("width", [3, 64])
@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_a_stored_graph_finds_what_it_found_when_it_was_made(
    n: int, width: int, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hnsw, "LINKS", m)
    monkeypatch.setattr(hnsw, "MIN_FOUND", 0.0)  # two links a row lead to few of them, then and now
    rows = rows_of(n, width)
    made = HnswBank(rows)
    graph = made.graph({"bank": "x"})
    stored = HnswBank.with_graph(rows, graph)
    queries = np.concatenate([rows[:50], rows_of(50, width) + 0.1])
    for k in (1, min(n, 5)):
        assert same(made, stored, queries, k)
    assert tensorfile.metadata(graph, "") == {"bank": "x", "m": str(m), "ef": str(made.width)}


def test_a_stored_graph_can_be_stored_again() -> None:
    assert HnswBank.with_graph(ROWS, GRAPH).graph({"bank": "x"}) == GRAPH


def test_the_same_rows_give_the_same_graph() -> None:
    assert HnswBank(ROWS.copy()).graph({"bank": "x"}) == GRAPH
    assert HnswBank(ROWS[::-1]).graph({"bank": "x"}) != GRAPH


def test_a_graph_holds_no_vectors() -> None:
    arrays, _ = tensorfile.load(GRAPH, "")
    assert set(arrays) == {"levels", "entry", "counts", "links"} and len(GRAPH) < ROWS.nbytes / 2


def test_state_and_graph_are_the_same_thing() -> None:
    """Everything but the vectors goes out and comes back."""
    state = HnswBank(ROWS)._searcher.state
    again = decode(encode(state, {}), ROWS, state["ef_construction"], hnsw.SEED)
    assert set(again) <= set(state)
    for key in ("M", "max_M0", "max_level", "enterpoint_node", "size_data_per_element", "offset_data", "label_offset"):
        assert again[key] == state[key], key
    assert np.array_equal(again["element_levels"], state["element_levels"])


def test_damaged_graphs_are_refused_or_find_what_exact_search_finds(tmp_path: Path) -> None:
    found = fuzzing.run("fuzzed_graphs:cases", [], 4000, tmp_path)
    counts = fuzzing.counts(found)
    assert not fuzzing.of_kind(found, "wrong", "crash", "hang", "escaped", "two lines")
    assert set(counts) == {"refused", "right", "unchanged"}
    assert counts["refused"] + counts["right"] >= 3000 or fuzzing.is_timed()
    assert counts["right"] >= counts["refused"] / 20  # not everything is refused on sight


@pytest.mark.parametrize(
    "other",
    [
        fuzzed_graphs.rows_of((1000, 64), 1),
        fuzzed_graphs.rows_of((999, 64), 1),
        fuzzed_graphs.rows_of((1001, 64), 1),
        fuzzed_graphs.rows_of((1000, 3), 1),
    ],
)
def test_the_graph_of_another_bank_is_refused_or_right(other: Float32) -> None:
    graph = HnswBank(other).graph({"bank": "x"})
    try:
        bank = HnswBank.with_graph(ROWS, graph)
    except BundleFormatError as error:
        assert str(error).startswith("search graph: ")
        return
    exact = ExactBank(ROWS).search(QUERIES)[0]
    assert np.mean(bank.search(QUERIES)[0] <= exact + 1e-3) >= 0.95


def test_a_graph_that_leads_to_too_few_rows_is_refused() -> None:
    arrays, said = tensorfile.load(GRAPH, "")
    arrays["counts"] = np.zeros_like(arrays["counts"])
    arrays["links"] = arrays["links"][:0]
    with pytest.raises(BundleFormatError, match="does not lead to the rows of the bank"):
        HnswBank.with_graph(ROWS, tensorfile.save(arrays, said))


@pytest.mark.parametrize("m", ["", "1", "65", "-16", "²", "４", "1_6", "1e1", " 16"])
def test_m_is_a_number_that_hnswlib_takes(m: str) -> None:
    arrays, said = tensorfile.load(GRAPH, "")
    with pytest.raises(BundleFormatError, match=r"m must lie in 2\.\.64"):
        HnswBank.with_graph(ROWS, tensorfile.save(arrays, {**said, "m": m}))


@pytest.mark.parametrize("ef", ["", "0", "1025", "-64", "6.4", " 64"])
def test_the_width_of_a_search_is_bounded(ef: str) -> None:
    arrays, said = tensorfile.load(GRAPH, "")
    with pytest.raises(BundleFormatError, match=r"ef must lie in 1\.\.1024"):
        HnswBank.with_graph(ROWS, tensorfile.save(arrays, {**said, "ef": ef}))


def test_a_graph_that_names_no_width_is_searched_as_it_always_was() -> None:
    arrays, said = tensorfile.load(GRAPH, "")
    del said["ef"]
    assert HnswBank.with_graph(ROWS, tensorfile.save(arrays, said)).width == 64


def test_the_width_is_the_smallest_that_finds_the_nearest_rows_of_what_is_new() -> None:
    generator = np.random.default_rng(3)
    centres = generator.normal(0, 1, (40, 24))
    rows = (centres[generator.integers(0, 40, 12_000)] + generator.normal(0, 0.4, (12_000, 24))).astype(np.float32)
    bank, exact = HnswBank(rows[:10_000]), ExactBank(rows[:10_000])
    true = exact.search(rows[10_000:])[0] * 1.001

    def recall(width: int) -> float:
        bank.width = width
        return float(np.mean(bank.search(rows[10_000:])[0] <= true))

    measured, found = bank.width, bank.recall
    assert found >= hnsw.RECALL and recall(measured) >= hnsw.RECALL - 0.005
    assert recall(4) < hnsw.RECALL, "so the width matters here"


def test_a_bank_that_no_width_is_enough_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw, "WIDTHS", (1, 2))
    assert HnswBank(rows_of(4000, 24)).recall < hnsw.RECALL


def test_such_a_bank_is_delivered_without_a_graph(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(hnsw, "WIDTHS", (1,))
    monkeypatch.setattr(hnsw, "RECALL", 1.1)
    tiny.write_clip(tmp_path / "normal" / "01", 30, seed=1)
    config = tmp_path / "graphs.yaml"
    config.write_text("index: always\n")
    assert main(tiny.build_arguments(tmp_path / "normal", tmp_path / "site.evb", tiny_encoder, "--config", str(config))) == 0
    bundle = read_bundle(tmp_path / "site.evb")
    assert not bundle.manifest.indexes and not [name for name in bundle.members if name.startswith("index/")]
    assert any("has no search graph and is searched exactly" in line for line in warnings())


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LIBRARY", None)


@pytest.fixture
def without_hnswlib(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setitem(__import__("sys").modules, "hnswlib", None)
    monkeypatch.setattr(base, "find_spec", lambda name: None if name == "hnswlib" else find_spec(name))


def exact_and_right(bank: Bank) -> bool:
    return isinstance(bank, ExactBank) and same(bank, ExactBank(ROWS), QUERIES, 3)


def test_a_damaged_graph_costs_speed_and_says_so_once(warnings: Callable[[], list[str]]) -> None:
    for graph in (b"", GRAPH[:-1], small_bundle.encoder(), GRAPH + b"x"):
        assert exact_and_right(open_bank("hnsw", ROWS, graph))
    assert len(warnings()) == 4
    assert all("searching 1000 rows exactly, which is slower" in line and "\n" not in line for line in warnings())


def test_auto_is_exact_below_the_crossover_and_uses_the_graph_above(
    warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exact_and_right(open_bank("auto", ROWS, GRAPH))
    monkeypatch.setattr(base, "CROSSOVER_ROWS", 1000)
    assert isinstance(open_bank("auto", ROWS, GRAPH), HnswBank)
    assert warnings() == []


def test_a_large_bank_without_a_graph_is_searched_exactly_with_a_warning(
    warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "CROSSOVER_ROWS", 1000)
    assert exact_and_right(open_bank("auto", ROWS))
    assert warnings() == ["no search graph; searching 1000 rows exactly, which is slower"]


def test_a_large_bank_without_hnswlib_is_searched_exactly_with_a_warning(
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    without_hnswlib: None,
    without_kernels: None,
) -> None:
    monkeypatch.setattr(base, "CROSSOVER_ROWS", 1000)
    assert exact_and_right(open_bank("auto", ROWS, GRAPH))
    assert warnings() == ["hnswlib is not installed; searching 1000 rows exactly, which is slower"]


@pytest.mark.parametrize("graph", [None, GRAPH])
def test_hnsw_by_name_without_hnswlib_says_what_to_install(
    graph: bytes | None, without_hnswlib: None, without_kernels: None
) -> None:
    with pytest.raises(MissingPackageError, match="the bank hnsw needs the package hnswlib: pip install"):
        open_bank("hnsw", ROWS, graph)


@pytest.mark.skipif(kernels.LIBRARY is None, reason="the kernels are not compiled here: no C compiler")
def test_a_stored_graph_is_searched_without_hnswlib(
    warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, without_hnswlib: None
) -> None:
    monkeypatch.setattr(base, "CROSSOVER_ROWS", 1000)
    assert isinstance(open_bank("auto", ROWS, GRAPH), HnswBank) and warnings() == []
    with pytest.raises(MissingPackageError, match="hnswlib"):
        open_bank("hnsw", ROWS)


def test_hnsw_by_name_without_a_graph_makes_one(warnings: Callable[[], list[str]]) -> None:
    assert same(open_bank("hnsw", ROWS), HnswBank(ROWS), QUERIES, 3)
    assert warnings() == []


@pytest.fixture(scope="module")
def indexed(footage: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds the tiny bundle with ``index: always``, each in a folder of its own."""

    def build(name: str) -> Path:
        from edge_vad.cli import main

        folder = tmp_path_factory.mktemp("indexed")
        settings = folder / "build.yaml"
        settings.write_text("index: always\n")
        out = folder / f"{name}.evb"
        assert main(tiny.build_arguments(footage, out, tiny_encoder, "--config", str(settings))) == 0
        return out

    return build


@pytest.fixture(scope="module")
def with_graphs(indexed: Callable[[str], Path]) -> Path:
    return indexed("site")


def hnsw_profile() -> Profile:
    return Profile("test", "", Inference(bank="hnsw"))


def test_graphs_in_a_bundle_belong_to_its_banks_and_are_used(with_graphs: Path, warnings: Callable[[], list[str]]) -> None:
    bundle = read_bundle(with_graphs)
    assert set(bundle.manifest.indexes) == set(bundle.manifest.banks)
    for name, bank in bundle.manifest.banks.items():
        graph = bundle.graph(name)
        assert graph is not None
        assert tensorfile.metadata(graph, name)["bank"] == sha256(bundle.members[bank.file])
        assert isinstance(open_bank("hnsw", bundle.rows(name), graph), HnswBank)
    frames = tiny.clip_frames(12, seed=5)
    by_graph, exact = Detector.open(bundle, hnsw_profile()), Detector.open(bundle)
    assert [by_graph.process(f).score for f in frames] == pytest.approx([exact.process(f).score for f in frames], abs=1e-4)
    assert warnings() == []


def test_rows_that_a_graph_misses_do_not_fail_the_self_test(with_graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = HnswBank.search

    def second(bank: HnswBank, queries: Float32, k: int = 1) -> tuple[Float32, NDArray[np.int64]]:
        """The second nearest row in the place of the nearest, unless that is the query itself."""
        distances, ids = search(bank, queries, k + 1)
        first = distances[:, :1] < 1e-3
        return np.where(first, distances[:, :k], distances[:, 1:]), np.where(first, ids[:, :k], ids[:, 1:])

    monkeypatch.setattr(HnswBank, "search", second)
    frames = tiny.clip_frames(12, seed=5)
    by_graph, exact = Detector.open(with_graphs, hnsw_profile()), Detector.open(with_graphs)
    assert set(by_graph.bank_kinds.values()) == {"hnsw"}
    assert max(by_graph.process(f).score - exact.process(f).score for f in frames) > 0.001


def test_a_graph_whose_search_measures_wrong_distances_is_not_used(
    with_graphs: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    search = HnswBank.search
    monkeypatch.setattr(HnswBank, "search", lambda *given: (search(*given)[0] * np.float32(0.9), search(*given)[1]))
    assert set(Detector.open(with_graphs, hnsw_profile()).bank_kinds.values()) == {"exact"}
    assert all("searching" in warning for warning in warnings())


def test_a_build_with_graphs_gives_the_same_bytes_again(with_graphs: Path, indexed: Callable[[str], Path]) -> None:
    assert indexed("site").read_bytes() == with_graphs.read_bytes()


def test_a_bundle_has_no_graphs_of_small_banks(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert bundle.manifest.indexes == {} and bundle.graph("spatial") is None


def remade(bundle: Bundle, path: Path, changes: dict[str, bytes]) -> Path:
    """The bundle with other members and all hashes made again."""
    plain: dict[str, Any] = json.loads(bundle.members[MANIFEST])
    members = {**bundle.members, **changes}
    del members[MANIFEST]
    for name, entry in plain["files"].items():
        entry.update(size=len(members[name]), sha256=sha256(members[name]))
    write_bundle(path, members, plain)
    return path


def test_a_graph_of_another_bank_with_all_hashes_made_again_is_refused(with_graphs: Path, tmp_path: Path) -> None:
    bundle = read_bundle(with_graphs)
    files = {name: entry.file for name, entry in bundle.manifest.indexes.items()}
    for taken in ({files["spatial"]: bundle.members[files["velocity"]]}, {files["spatial"]: GRAPH}):
        with pytest.raises(BundleIntegrityError, match=r"index/spatial\.safetensors was made with other bank"):
            remade(bundle, tmp_path / "mixed.evb", taken)


def test_a_damaged_graph_that_says_the_right_bank_costs_only_speed(
    with_graphs: Path, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    bundle = read_bundle(with_graphs)
    file = bundle.manifest.indexes["spatial"].file
    arrays, said = tensorfile.load(bundle.members[file], file)
    arrays["links"] = arrays["links"][::-1].copy()
    path = remade(bundle, tmp_path / "damaged.evb", {file: tensorfile.save(arrays, said)})
    detector, exact = Detector.open(path, hnsw_profile()), Detector.open(with_graphs)
    assert len(warnings()) == 1 and "searching" in warnings()[0]
    frames = tiny.clip_frames(12, seed=5)
    assert [detector.process(f).score for f in frames] == pytest.approx([exact.process(f).score for f in frames], abs=1e-4)
