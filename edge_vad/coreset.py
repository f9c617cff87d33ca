"""Greedy k-centre coreset: few rows that leave no row of normal footage far from the nearest one kept.

Source: Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", 2018, as PatchCore
and document 000 use it; one coreset per clip, then concatenated (document 000, table 7).

Each kept row is the one farthest from all kept before it. Distances only shrink, so as long as the farthest row of a small
pool is farther than any row outside it was, it is the farthest of all: rows are picked from the pool one by one, and all
rows meet the picked ones together, in one matrix product.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_vad.types import Float32

POOL = 1024  # rows to pick from
BATCH = 256  # rows picked before all others meet them
BLOCK_ROWS = 4096  # block x batch distances fit the second-level cache


def coreset(rows: Float32, n_kept: int) -> NDArray[np.intp]:
    """Indices of ``n_kept`` rows of (m, c), farthest point first; deterministic: starts at the row nearest the mean.

    O(m c) operations for each kept row, no distance matrix. ValueError when n_kept is not in 1..m.
    """
    if not 1 <= n_kept <= len(rows):
        raise ValueError(f"cannot keep {n_kept} of {len(rows)} rows")
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    norms = np.einsum("ij,ij->i", rows, rows)
    picked = np.array([np.argmin(norms - 2 * (rows @ rows.mean(axis=0)))])
    distance = np.full(len(rows), np.inf, dtype=np.float32)
    chosen = [picked]
    n_left = n_kept - 1
    while n_left:
        _meet(distance, rows, norms, picked)
        picked = _pick(distance, rows, norms, min(n_left, BATCH))
        chosen.append(picked)
        n_left -= len(picked)
    return np.concatenate(chosen)


def _meet(distance: Float32, rows: Float32, norms: Float32, picked: NDArray[np.intp]) -> None:
    """Bring the squared distances (m,) to the nearest kept row up to date, for newly kept ones."""
    doubled, lengths = rows[picked] * np.float32(-2), norms[picked, None]
    for start in range(0, len(rows), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        block = doubled @ rows[part].T
        block += lengths
        np.minimum(distance[part], block.min(axis=0) + norms[part], out=distance[part])
    distance[picked] = -np.inf  # never twice, also among equal rows


def _pick(distance: Float32, rows: Float32, norms: Float32, n_most: int) -> NDArray[np.intp]:
    """The next rows of the greedy order, 1 to n_most: as many as the pool is sure of."""
    n_outside = max(len(rows) - POOL, 0)
    order = np.argpartition(distance, n_outside)
    bound = distance[order[:n_outside]].max(initial=-np.inf)
    pool = np.sort(order[n_outside:])
    gap, pool_rows, pool_norms = distance[pool], rows[pool], norms[pool]
    picked: list[np.intp] = []
    while len(picked) < n_most:
        i = int(gap.argmax())
        if gap[i] < bound:
            break
        picked.append(pool[i])
        np.minimum(gap, pool_norms + (norms[pool[i]] - 2 * (pool_rows @ pool_rows[i])), out=gap)
        gap[i] = -np.inf
    return np.array(picked, dtype=np.intp)


def n_kept(n_rows: int, ratio: float) -> int:
    """Rows to keep of ``n_rows``: the ratio, at least one."""
    return max(1, round(n_rows * ratio))
