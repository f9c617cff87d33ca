"""Approximate nearest neighbours in a hierarchical small-world graph.

hnswlib builds it. Our kernel searches it, in half of hnswlib's time; where that is not compiled, hnswlib does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vad import kernels
from edge_vad.banks import _graph
from edge_vad.banks.base import Bank
from edge_vad.banks.exact import ExactBank
from edge_vad.errors import BundleFormatError
from edge_vad.plugins import require
from edge_vad.types import Float32
from edge_vad.vectors import Stored

log = logging.getLogger(__name__)

LINKS = 16
EF_BUILD = 100
SEED = 7
RECALL = 0.99  # part of the queries that must find their nearest row
# Of a search (ef): the first that is good enough.
WIDTHS = (*range(16, 32, 2), *range(32, 64, 4), *range(64, 128, 16), 128, 192, 256)
PER_NEIGHBOUR = 8  # candidates, where more than one is wanted: the width is measured on the nearest alone
N_HELD_OUT, N_PROBES = 2048, 256
MIN_FOUND = 0.99  # of the rows that are searched for when a stored graph is opened


class HnswBank(Bank):
    """HNSW with M=16. Without a graph it is built here, on one thread, so the same rows give the same graph.

    The width of its searches is measured before the last rows are added, which are searched for like new footage: the
    smallest one that finds 99 % of their nearest rows. ``recall``: what it found; nan for a stored graph.
    """

    _searcher: kernels.Graph | _Library

    def __init__(self, rows: Float32) -> None:
        self._shape = rows.shape
        index = _hnswlib().Index(space="l2", dim=rows.shape[1])
        index.init_index(len(rows), ef_construction=EF_BUILD, M=LINKS, random_seed=SEED)
        n_first = len(rows) - min(N_HELD_OUT, len(rows) // 8)
        for part in (slice(0, n_first), slice(n_first, len(rows))):
            index.add_items(rows[part], np.arange(len(rows))[part], num_threads=1)
            self._searcher = kernels.Graph(index.__getstate__()[0]) if kernels.LIBRARY else _Library(index)
            if part.start == 0:
                self.width, self.recall = self._measured(rows[:n_first], rows[n_first:])

    @classmethod
    def with_graph(cls, rows: Float32 | Stored, graph: bytes) -> HnswBank:
        rows = rows[:]
        bank = cls.__new__(cls)
        bank._shape = rows.shape
        state = _graph.decode(graph, rows, EF_BUILD, SEED)
        bank._searcher = kernels.Graph(state) if kernels.LIBRARY else _Library(_hnswlib().Index(state))
        bank.width, bank.recall = state["ef"], np.nan
        if not bank.leads_to(rows):
            raise BundleFormatError(f"{_graph.WHERE}: it does not lead to the rows of the bank")
        return bank

    def graph(self, metadata: Mapping[str, str]) -> bytes:
        """The graph at rest, for `with_graph`; metadata: what it belongs to."""
        return _graph.encode({**self._searcher.state, "ef": self.width}, metadata)

    def leads_to(self, rows: Float32) -> bool:
        """Whether its own rows are found when they are searched for, and distances are right: a device refuses a graph where
        they are not."""
        probes = rows[:: max(1, len(rows) // N_PROBES)]
        close = 1e-3 * (1 + np.linalg.norm(probes, axis=1))
        found = self.search(probes)[0][:, 0] <= close
        halves = probes / 2
        distances, ids = self.search(halves)
        right = np.abs(distances[:, 0] - np.linalg.norm(halves - rows[ids[:, 0]], axis=1)) <= close
        return bool(np.mean(found) >= MIN_FOUND and right.all())

    def search(self, queries: Float32, k: int = 1) -> tuple[Float32, NDArray[np.int64]]:
        self._check(queries, k, *self._shape)
        if not len(queries):
            return np.zeros((0, k), dtype=np.float32), np.zeros((0, k), dtype=np.int64)
        found = self._searcher.search(queries, k, min(max(self.width, PER_NEIGHBOUR * k if k > 1 else 2), self._shape[0]))
        if found is None:
            return self.exactly().search(queries, k)
        ids, squared = found
        return np.sqrt(np.maximum(squared, 0)), ids

    def exactly(self) -> Bank:
        return ExactBank(_graph.vectors(self._searcher.state))

    def _measured(self, rows: Float32, queries: Float32) -> tuple[int, float]:
        """The smallest width that reaches RECALL, and the recall that it reaches; else the largest."""
        true = ExactBank(rows).search(queries)[0][:, 0] * 1.0002 + 1e-6
        recall = 1.0
        for width in WIDTHS:
            self.width = width
            recall = float(np.mean(self.search(queries)[0][:, 0] <= true)) if len(queries) else 1.0
            if recall >= RECALL and self.leads_to(rows):
                break
        return width, recall


def search_graph(rows: Float32, metadata: Mapping[str, str], name: str) -> bytes | None:
    """The graph at rest of the bank ``name``; None, with a warning, where no width finds what exact search finds."""
    bank = HnswBank(rows)
    log.info("bank %s: HNSW finds %.1f %% of the nearest rows, %d candidates wide", name, 100 * bank.recall, bank.width)
    if bank.recall >= RECALL:
        return bank.graph(metadata)
    log.warning("bank %s: that is under %.0f %%: it has no search graph and is searched exactly", name, 100 * RECALL)
    return None


class _Library:
    """`kernels.Graph` by hnswlib, where nothing is compiled."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @property
    def state(self) -> Mapping[str, Any]:
        """A copy of it."""
        state: Mapping[str, Any] = self._index.__getstate__()[0]
        return state

    def search(self, queries: Float32, k: int, width: int) -> tuple[NDArray[np.int64], Float32] | None:
        """See `kernels.Graph.search`."""
        self._index.set_ef(width)
        try:
            ids, squared = self._index.knn_query(queries, k=k, num_threads=1)
        except RuntimeError:  # fewer than k, as among many equal rows
            return None
        return ids.astype(np.int64), squared


def _hnswlib() -> Any:
    return require("hnswlib", "hnswlib", "the bank hnsw")
