"""The memory-bank plug point: nearest neighbours among the rows that normal footage left behind."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from edge_vad.plugins import load
from edge_vad.types import Float32

# `auto` changes from exact search to HNSW here: the crossover that `benchmarks/search.py` measures for the queries of one
# frame (49 to 75, 64 to 152 dimensions). Below it a matrix product over all rows is faster, and has no build time and no
# recall to watch.
CROSSOVER_ROWS = 40_000


class Bank(ABC):
    """A searchable memory. A new bank is one new file in this folder (or any module of yours) with one subclass.

    The constructor takes the rows (m, c) float32. Distances are Euclidean.

    Required
    --------
    search(queries, k)   the k nearest rows of each query.
    """

    @abstractmethod
    def __init__(self, rows: Float32) -> None: ...

    @abstractmethod
    def search(self, queries: Float32, k: int = 1) -> tuple[Float32, NDArray[np.int64]]:
        """Distances (n, k) float32, ascending, and row numbers (n, k) int64 for queries (n, c) float32.

        ValueError when the widths differ or k exceeds the number of rows; an empty batch gives empty arrays.
        """

    def _check(self, queries: Float32, k: int, n_rows: int, width: int) -> None:
        if queries.ndim != 2 or queries.shape[1] != width:
            raise ValueError(f"queries must have shape (n, {width}), not {queries.shape}")
        if not 1 <= k <= n_rows:
            raise ValueError(f"k must lie in 1..{n_rows}, not {k}")


def open_bank(name: str, rows: Float32) -> Bank:
    """The bank called ``name`` over rows (m, c); ``auto`` is exact search up to the crossover and HNSW above it."""
    if name == "auto":
        name = "exact" if len(rows) < CROSSOVER_ROWS else "hnsw"
    return load("banks", name, Bank)(rows)
