"""The memory-bank plug point: nearest neighbours among the rows that normal footage left behind."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from edge_vad import kernels
from edge_vad.errors import BundleFormatError
from edge_vad.plugins import load
from edge_vad.types import Float32
from edge_vad.vectors import Stored

log = logging.getLogger(__name__)

# `auto` changes from exact search to HNSW here: the crossover that `benchmarks/search.py` measures with hnswlib's search for
# the queries of one frame (49 to 75, 64 to 152 dimensions). With ours it lies at half of that, where little is won and a
# matrix product over all rows has no build time and no recall to watch.
CROSSOVER_ROWS = 20_000


class Bank(ABC):
    """A searchable memory. A new bank is one new file in this folder (or any module of yours) with one subclass.

    The constructor takes the rows (m, c) float32. Distances are Euclidean.

    Required
    --------
    search(queries, k)   the k nearest rows of each query.

    Optional
    --------
    with_graph(rows, graph)   the same with a search graph that was made earlier; BundleFormatError when it is damaged.
    over(rows)                the same where rows as they lie in the bundle need not be unpacked as a whole.
    exactly()                 a bank that misses no nearest row: what the self-test compares with.
    """

    @abstractmethod
    def __init__(self, rows: Float32) -> None: ...

    @abstractmethod
    def search(self, queries: Float32, k: int = 1) -> tuple[Float32, NDArray[np.int64]]:
        """Distances (n, k) float32, ascending, and row numbers (n, k) int64 for queries (n, c) float32.

        ValueError when the widths differ or k exceeds the number of rows; an empty batch gives empty arrays.
        """

    @classmethod
    def with_graph(cls, rows: Float32 | Stored, graph: bytes) -> Bank:
        """The bank over rows (m, c) with a stored search graph; a bank that has none leaves it alone."""
        return cls.over(rows)

    @classmethod
    def over(cls, rows: Float32 | Stored) -> Bank:
        """The bank over rows (m, c) in memory or as they lie in the bundle; most banks unpack those: ``rows[:]``."""
        return cls(rows[:])

    def exactly(self) -> Bank:
        """The bank over the same rows that misses none of the nearest; most banks are."""
        return self

    def _check(self, queries: Float32, k: int, n_rows: int, width: int) -> None:
        if queries.ndim != 2 or queries.shape[1] != width:
            raise ValueError(f"queries must have shape (n, {width}), not {queries.shape}")
        if not 1 <= k <= n_rows:
            raise ValueError(f"k must lie in 1..{n_rows}, not {k}")


def open_bank(name: str, rows: Float32 | Stored, graph: bytes | None = None) -> Bank:
    """The bank called ``name`` over rows (m, c), in memory or as they are stored, with the search graph that came with them.

    ``auto`` is exact search up to the crossover in rows and HNSW above it, where a graph is at hand: building one takes
    minutes that a starting device does not have. A graph that is damaged is replaced by exact search, with a warning.
    """
    if name == "auto":
        name = "exact" if len(rows) < CROSSOVER_ROWS else _auto(len(rows), graph)
    kind = load("banks", name, Bank)
    if graph is None:
        return kind.over(rows)
    try:
        return kind.with_graph(rows, graph)
    except BundleFormatError as error:
        log.warning("%s; searching %d rows exactly, which is slower: install the bundle again", error, len(rows))
        return load("banks", "exact", Bank)(rows[:])


def _auto(n_rows: int, graph: bytes | None) -> str:
    """HNSW, or exact search with a warning that says what is missing."""
    can_search = kernels.LIBRARY or find_spec("hnswlib")
    missing = "no search graph" if graph is None else "" if can_search else "hnswlib is not installed"
    if missing:
        log.warning("%s; searching %d rows exactly, which is slower", missing, n_rows)
    return "exact" if missing else "hnsw"
