"""Few rows that stay near all of them."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vad.coreset import coreset, n_kept

ROWS = np.random.default_rng(0).normal(0, 1, (400, 6)).astype(np.float32) ** 3


def cover_radius(rows: np.ndarray, kept: np.ndarray) -> float:
    return float(np.sqrt(((rows[:, None] - rows[None, kept]) ** 2).sum(axis=2)).min(axis=1).max())


@pytest.mark.parametrize("n", [4, 20, 100])
def test_no_row_is_left_as_far_away_as_by_chance(n: int) -> None:
    generator = np.random.default_rng(1)
    by_chance = min(cover_radius(ROWS, generator.choice(len(ROWS), n, replace=False)) for _ in range(20))
    assert cover_radius(ROWS, coreset(ROWS, n)) <= by_chance


@pytest.mark.parametrize(("pool", "batch"), [(1024, 256), (16, 256), (64, 3), (1, 1)])
def test_every_kept_row_is_the_farthest_of_all(pool: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_vad.coreset.POOL", pool)
    monkeypatch.setattr("edge_vad.coreset.BATCH", batch)
    rows = np.random.default_rng(2).integers(0, 9, (600, 4)).astype(np.float32)  # exact squares, and many equal distances
    kept = coreset(rows, 150)
    squared = ((rows[:, None] - rows[None, kept]) ** 2).sum(axis=2)
    for i in range(1, len(kept)):
        nearest = squared[:, :i].min(axis=1)
        assert nearest[kept[i]] == nearest.max()


def test_farthest_point_first_by_hand() -> None:
    rows = np.array([[0], [1], [2], [10], [11]], np.float32)
    assert coreset(rows, 3).tolist() == [2, 4, 0]  # 2 is nearest the mean 4.8; then 11, then 0


def test_the_same_rows_give_the_same_coreset_and_more_rows_extend_it() -> None:
    assert np.array_equal(coreset(ROWS, 30), coreset(ROWS.copy(), 30))
    assert np.array_equal(coreset(ROWS, 30)[:10], coreset(ROWS, 10))


def test_no_row_is_kept_twice_also_among_equal_rows() -> None:
    rows = np.repeat(ROWS[:3], 5, axis=0)
    assert len(set(coreset(rows, 15).tolist())) == 15
    assert len(set(map(tuple, rows[coreset(rows, 3)]))) == 3


@pytest.mark.parametrize("n", [0, -1, 401])
def test_more_rows_than_there_are_cannot_be_kept(n: int) -> None:
    with pytest.raises(ValueError, match="of 400 rows"):
        coreset(ROWS, n)


def test_the_ratio_keeps_at_least_one_row() -> None:
    assert [n_kept(n, 0.01) for n in (1, 40, 100, 1000)] == [1, 1, 1, 10]
    assert n_kept(7, 1.0) == 7
