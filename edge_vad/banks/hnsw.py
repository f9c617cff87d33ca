"""Approximate nearest neighbours in a hierarchical small-world graph (hnswlib)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_vad.banks.base import Bank
from edge_vad.plugins import require
from edge_vad.types import Float32

LINKS = 16
EF_BUILD = 200
EF_SEARCH = 64
SEED = 7


class HnswBank(Bank):
    """HNSW with M=16; the graph is built here from the rows, on one thread, so the same rows give the same graph."""

    def __init__(self, rows: Float32) -> None:
        hnswlib = require("hnswlib", "hnswlib", "the bank hnsw")
        self._shape = rows.shape
        self._index = hnswlib.Index(space="l2", dim=rows.shape[1])
        self._index.init_index(len(rows), ef_construction=EF_BUILD, M=LINKS, random_seed=SEED)
        self._index.add_items(rows, np.arange(len(rows)), num_threads=1)
        self._index.set_ef(min(EF_SEARCH, max(len(rows), 1)))

    def search(self, queries: Float32, k: int = 1) -> tuple[Float32, NDArray[np.int64]]:
        self._check(queries, k, *self._shape)
        if not len(queries):
            return np.zeros((0, k), dtype=np.float32), np.zeros((0, k), dtype=np.int64)
        self._index.set_ef(min(max(EF_SEARCH, 2 * k), self._shape[0]))
        ids, squared = self._index.knn_query(queries, k=k, num_threads=1)
        return np.sqrt(np.maximum(squared, 0)), ids.astype(np.int64)
