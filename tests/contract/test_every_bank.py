"""What every memory bank must do, run over every module in the folder."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from edge_vad.banks import Bank, open_bank
from edge_vad.banks.exact import ExactBank
from edge_vad.banks.hnsw import HnswBank
from edge_vad.errors import BundleFormatError
from edge_vad.plugins import available, load
from edge_vad.vectors import VECTOR_TYPES, Stored, VectorType, compress

ROWS = np.random.default_rng(0).normal(0, 1, (3000, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(0, 1, (60, 16)).astype(np.float32)


@pytest.fixture(scope="module", params=available("banks"))
def bank(request: pytest.FixtureRequest) -> Bank:
    return load("banks", request.param, Bank)(ROWS)


def brute_force(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = np.sqrt(((queries[:, None].astype(np.float64) - ROWS[None]) ** 2).sum(axis=2))
    ids = np.argsort(distances, axis=1)[:, :k]
    return np.take_along_axis(distances, ids, axis=1), ids


@pytest.mark.parametrize("k", [1, 5, 40, 2500])
def test_neighbours_are_those_of_brute_force(bank: Bank, k: int) -> None:
    distances, ids = bank.search(QUERIES, k)
    true_distances, true_ids = brute_force(QUERIES, k)
    recall = np.mean([len(set(a) & set(b)) / k for a, b in zip(ids, true_ids, strict=True)])
    assert recall >= (1.0 if isinstance(bank, ExactBank) else 0.95)
    same = ids == true_ids
    np.testing.assert_allclose(distances[same], true_distances[same], rtol=1e-4)


def test_the_self_test_can_search_it_exactly(bank: Bank) -> None:
    distances, ids = bank.exactly().search(QUERIES, 5)
    true_distances, true_ids = brute_force(QUERIES, 5)
    np.testing.assert_array_equal(ids, true_ids)
    np.testing.assert_allclose(distances, true_distances, rtol=1e-4)


def test_distances_ascend_and_have_the_types_of_the_contract(bank: Bank) -> None:
    distances, ids = bank.search(QUERIES, 7)
    assert distances.shape == ids.shape == (60, 7)
    assert distances.dtype == np.float32 and ids.dtype == np.int64
    assert np.all(np.diff(distances, axis=1) >= 0)
    assert all(len(set(row)) == 7 for row in ids)


def test_a_row_finds_itself_at_no_distance(bank: Bank) -> None:
    distances, ids = bank.search(ROWS[[5, 2999]])
    assert ids[:, 0].tolist() == [5, 2999]
    assert np.all(distances < 5e-3)


def test_another_width_or_shape_is_a_value_error(bank: Bank) -> None:
    for wrong in (QUERIES[:, :15], QUERIES[0], np.zeros((2, 17), np.float32)):
        with pytest.raises(ValueError, match=r"\(n, 16\)"):
            bank.search(wrong)


@pytest.mark.parametrize("k", [0, -1, 3001])
def test_k_beyond_the_rows_is_a_value_error(bank: Bank, k: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.3000"):
        bank.search(QUERIES, k)


def test_an_empty_batch_gives_empty_arrays(bank: Bank) -> None:
    distances, ids = bank.search(np.zeros((0, 16), np.float32), 3)
    assert distances.shape == ids.shape == (0, 3)


@pytest.mark.parametrize("name", available("banks"))
def test_a_bank_of_one_row_and_all_rows_at_once(name: str) -> None:
    kind = load("banks", name, Bank)
    distances, ids = kind(np.ones((1, 4), np.float32)).search(np.zeros((2, 4), np.float32))
    assert distances[:, 0].tolist() == [2.0, 2.0] and ids[:, 0].tolist() == [0, 0]
    few = ROWS[:70]
    assert sorted(kind(few).search(QUERIES[:1], 70)[1][0].tolist()) == list(range(70))


@pytest.mark.parametrize("name", available("banks"))
def test_equal_rows_are_rows_of_their_own(name: str) -> None:
    rows = np.repeat(ROWS[:3], 40, axis=0)
    distances, ids = load("banks", name, Bank)(rows).search(ROWS[:3], 120)
    assert np.all(distances[:, :40] < 5e-3) and np.all(distances[:, 40:] > 1)
    assert all(sorted(row.tolist()) == list(range(120)) for row in ids)


@pytest.mark.parametrize("name", available("banks"))
@pytest.mark.parametrize("width", [1, 3, 152])
def test_any_width_and_any_scale(name: str, width: int) -> None:
    for scale in (1e-3, 1.0, 1e3):
        rows = np.random.default_rng(width).normal(0, scale, (200, width)).astype(np.float32)
        distances, ids = load("banks", name, Bank)(rows).search(rows[::-1], 1)
        far = np.linalg.norm(rows[ids[:, 0]] - rows[::-1], axis=1)
        assert np.all(far <= 1e-3 * np.sqrt(width) * scale) and np.all(distances[:, 0] <= 1e-2 * np.sqrt(width) * scale)


@pytest.mark.parametrize("name", available("banks"))
@pytest.mark.parametrize("length", [1.0, 100.0])
def test_the_distance_of_a_near_row_is_as_exact_as_that_of_a_far_one(name: str, length: float) -> None:
    """|q|^2 - 2 q r + |r|^2 is not: its terms cancel out, and every bank would have another self-test."""
    rows = (ROWS[:300] * length).astype(np.float32)
    for gap in (0.0, 1e-3, 1e-1):
        queries = rows[:50].copy()
        queries[:, 0] += np.float32(gap * length)
        distances, ids = load("banks", name, Bank)(rows).search(queries)
        true = np.linalg.norm(queries.astype(np.float64) - rows[ids[:, 0]], axis=1)
        np.testing.assert_allclose(distances[:, 0], true, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", available("banks"))
def test_the_layout_of_the_rows_in_memory_does_not_matter(name: str) -> None:
    rows = np.asfortranarray(ROWS[:100])
    kind = load("banks", name, Bank)
    assert np.array_equal(kind(rows).search(QUERIES, 2)[1], kind(np.ascontiguousarray(rows)).search(QUERIES, 2)[1])
    assert np.array_equal(kind(rows[::2]).search(QUERIES, 2)[1], kind(rows[::2].copy()).search(QUERIES, 2)[1])


@pytest.mark.parametrize("name", available("banks"))
def test_a_graph_makes_no_other_neighbours(name: str) -> None:
    """A bank without graphs leaves it alone; one with graphs uses it or says that it is damaged."""
    kind = load("banks", name, Bank)
    graph = HnswBank(ROWS).graph({"bank": "x"})
    with_graph = kind.with_graph(ROWS, graph)
    assert np.array_equal(with_graph.search(QUERIES, 3)[1], kind(ROWS).search(QUERIES, 3)[1])
    with contextlib.suppress(BundleFormatError):
        damaged = kind.with_graph(ROWS, graph[:-4])
        assert np.array_equal(damaged.search(QUERIES, 3)[1], kind(ROWS).search(QUERIES, 3)[1])


@pytest.mark.parametrize("name", available("banks"))
def test_the_same_rows_give_the_same_answers(name: str) -> None:
    kind = load("banks", name, Bank)
    one, other = (kind(ROWS.copy()).search(QUERIES, 3) for _ in range(2))
    assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


@pytest.mark.parametrize("kind", VECTOR_TYPES)
@pytest.mark.parametrize("name", available("banks"))
def test_rows_as_they_are_stored_are_searched_like_rows_in_memory(name: str, kind: VectorType) -> None:
    stored = Stored(compress(ROWS, kind))
    distances, ids = open_bank(name, stored).search(QUERIES, 3)
    true, numbers = open_bank(name, stored[:]).search(QUERIES, 3)
    assert np.array_equal(ids, numbers)
    np.testing.assert_allclose(distances, true, rtol=1e-5)
