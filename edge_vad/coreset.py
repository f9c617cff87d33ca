"""Greedy k-centre coreset: few rows that leave no row of normal footage far from the nearest one kept.

Source: Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", 2018, as PatchCore
and document 000 use it; one coreset per clip, then concatenated (document 000, table 7).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_vad.types import Float32


def coreset(rows: Float32, n_kept: int) -> NDArray[np.intp]:
    """Indices of ``n_kept`` rows of (m, c), farthest point first; deterministic: starts at the row nearest the mean.

    One matrix-vector product per kept row: O(m c) each, no distance matrix. ValueError when n_kept is not in 1..m.
    """
    if not 1 <= n_kept <= len(rows):
        raise ValueError(f"cannot keep {n_kept} of {len(rows)} rows")
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    norms = np.einsum("ij,ij->i", rows, rows)
    chosen = np.empty(n_kept, dtype=np.intp)
    mean = rows.mean(axis=0)
    chosen[0] = int(np.argmin(norms - 2 * (rows @ mean)))
    distance = np.full(len(rows), np.inf, dtype=np.float32)
    for i in range(n_kept):
        if i:
            chosen[i] = int(distance.argmax())
        squared = norms + norms[chosen[i]] - 2 * (rows @ rows[chosen[i]])
        np.minimum(distance, squared, out=distance)
        distance[chosen[i]] = -np.inf  # never twice, also among equal rows
    return chosen


def n_kept(n_rows: int, ratio: float) -> int:
    """Rows to keep of ``n_rows``: the ratio, at least one."""
    return max(1, round(n_rows * ratio))
