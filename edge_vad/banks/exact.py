"""Exact nearest neighbours: a matrix product over blocks of rows that stay in the cache."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_vad.banks.base import Bank
from edge_vad.types import Float32
from edge_vad.vectors import Stored, blocks

FEW = 16  # up to so many neighbours, a search for the smallest after the other is faster than a partition


class ExactBank(Bank):
    """Brute force, fused: |q - r|^2 = |q|^2 - 2 q r + |r|^2 block by block; no full distance matrix is ever made."""

    _rows: Float32 | Stored

    def __init__(self, rows: Float32) -> None:
        self._hold(np.ascontiguousarray(rows, dtype=np.float32))

    def search(self, queries: Float32, k: int = 1) -> tuple[Float32, NDArray[np.int64]]:
        self._check(queries, k, *self._rows.shape)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        best = np.full((len(queries), k), np.inf, dtype=np.float32)
        ids = np.zeros((len(queries), k), dtype=np.int64)
        doubled = queries * np.float32(-2)
        start = 0
        for rows in blocks(self._rows):
            block = doubled @ rows.T
            block += self._norms[start : start + len(rows)]
            _merge(best, ids, block, start)
            start += len(rows)
        return _distances(queries, self._rows, ids)

    def _hold(self, rows: Float32 | Stored) -> None:
        self._rows = rows
        self._norms = np.concatenate([np.einsum("ij,ij->i", block, block) for block in blocks(rows)])


def _distances(queries: Float32, rows: Float32 | Stored, ids: NDArray[np.int64]) -> tuple[Float32, NDArray[np.int64]]:
    """Distances (n, k) to the rows ``ids`` (n, k), ascending. The sum above cancels out for rows that are close by: its
    error is a thousandth of their length; this one has none."""
    gaps = queries[:, None] - rows[ids]
    distances = np.sqrt(np.einsum("nkc,nkc->nk", gaps, gaps))
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _merge(best: Float32, ids: NDArray[np.int64], block: Float32, start: int) -> None:
    """Fold the distances of one block (n, b) into the running best (n, k)."""
    k = best.shape[1]
    if k == 1:
        nearest = block.argmin(axis=1)
        distance = block[np.arange(len(block)), nearest]
        closer = distance < best[:, 0]
        best[closer, 0] = distance[closer]
        ids[closer, 0] = nearest[closer] + start
        return
    near = _nearest(block, min(k, block.shape[1]))
    distances = np.concatenate([best, np.take_along_axis(block, near, axis=1)], axis=1)
    numbers = np.concatenate([ids, near + start], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    best[:] = np.take_along_axis(distances, order, axis=1)
    ids[:] = np.take_along_axis(numbers, order, axis=1)


def _nearest(block: Float32, k: int) -> NDArray[np.int64]:
    """Columns (n, k) of the k smallest values of each row of a block (n, b), in their order."""
    if k > FEW:
        return np.sort(np.argpartition(block, k - 1, axis=1)[:, :k], axis=1)
    left, rows = block.copy(), np.arange(len(block))
    near = np.empty((len(block), k), dtype=np.int64)
    for i in range(k):
        near[:, i] = left.argmin(axis=1)
        left[rows, near[:, i]] = np.inf
    return np.sort(near, axis=1)
