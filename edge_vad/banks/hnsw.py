"""Approximate nearest neighbours in a hierarchical small-world graph (hnswlib)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vad.banks import _graph
from edge_vad.banks.base import Bank
from edge_vad.banks.exact import ExactBank
from edge_vad.errors import BundleFormatError
from edge_vad.plugins import require
from edge_vad.types import Float32

LINKS = 16
EF_BUILD = 200
EF_SEARCH = 64
SEED = 7
N_PROBES, MIN_FOUND = 256, 0.99  # rows that a graph must lead to when they are searched for


class HnswBank(Bank):
    """HNSW with M=16. Without a graph it is built here, on one thread, so the same rows give the same graph."""

    def __init__(self, rows: Float32) -> None:
        self._shape = rows.shape
        self._index = _hnswlib().Index(space="l2", dim=rows.shape[1])
        self._index.init_index(len(rows), ef_construction=EF_BUILD, M=LINKS, random_seed=SEED)
        self._index.add_items(rows, np.arange(len(rows)), num_threads=1)

    @classmethod
    def with_graph(cls, rows: Float32, graph: bytes) -> HnswBank:
        bank = cls.__new__(cls)
        bank._shape = rows.shape
        bank._index = _hnswlib().Index(_graph.decode(graph, rows, EF_BUILD, SEED))
        probes = rows[:: max(1, len(rows) // N_PROBES)]
        distances, _ = bank.search(probes)
        close = 1e-3 * (1 + np.linalg.norm(probes, axis=1))
        if np.mean(distances[:, 0] <= close) < MIN_FOUND:
            raise BundleFormatError(f"{_graph.WHERE}: it does not lead to the rows of the bank")
        return bank

    def graph(self, metadata: Mapping[str, str]) -> bytes:
        """The graph at rest, for `with_graph`; metadata: what it belongs to."""
        state: dict[str, Any] = self._index.__getstate__()[0]
        return _graph.encode(state, metadata)

    def search(self, queries: Float32, k: int = 1) -> tuple[Float32, NDArray[np.int64]]:
        self._check(queries, k, *self._shape)
        if not len(queries):
            return np.zeros((0, k), dtype=np.float32), np.zeros((0, k), dtype=np.int64)
        self._index.set_ef(min(max(EF_SEARCH, 2 * k), self._shape[0]))
        try:
            ids, squared = self._index.knn_query(queries, k=k, num_threads=1)
        except RuntimeError:  # its links lead to fewer than k rows, as among many equal ones
            return ExactBank(self._index.get_items(np.arange(self._shape[0]), "numpy")).search(queries, k)
        return np.sqrt(np.maximum(squared, 0)), ids.astype(np.int64)


def _hnswlib() -> Any:
    return require("hnswlib", "hnswlib", "the bank hnsw")
