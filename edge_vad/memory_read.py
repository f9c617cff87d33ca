"""Memories of a trained network that a bank searches, in the place of being read inside its graph (documents 001 and 004).

A memory says a query in terms of its items, each weighted by a softmax of how similar it is. The softmax is sharp and the
document's shrinkage leaves the far items out, so that the nearest ones are all that counts: a nearest-neighbour search.
The network is two graphs then. The first gives the queries; what was read of them goes into the second, its decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_vad.backends.base import Backend, checked_output
from edge_vad.banks.base import Bank, open_bank
from edge_vad.errors import BackendError, BundleFormatError
from edge_vad.strict import check_range
from edge_vad.types import Float32
from edge_vad.vectors import Stored, bank_sums

SMALLEST = 1e-6
DENSE = 16  # where one item in so many is read, or more, a product with all of them is faster than gathering those


@dataclass(frozen=True, slots=True)
class MemoryRead:
    """How a memory is read: a softmax over the ``k`` items of the largest cosine to the query.

    temperature: divides the cosines. threshold: items whose share of the softmax is not above it are left out (document 004,
    equation 3). joined: what is read comes behind the query, at length 1, that it was read with (document 001).
    """

    k: int
    temperature: float = 1.0
    threshold: float = 0.0
    joined: bool = False

    def __post_init__(self) -> None:
        check_range(1, 1e6, k=self.k)
        check_range(1e-6, 1e6, temperature=self.temperature)
        check_range(0, 1, threshold=self.threshold)


class Memory:
    """One memory: feature maps in, what it makes of them out."""

    def __init__(self, name: str, rule: MemoryRead, items: Stored, bank: Bank) -> None:
        """items: at length 1 but for rounding, with their lengths; bank: that searches them. Raises BundleFormatError."""
        if items.lengths is None or rule.k > len(items):
            lacks = "no lengths" if items.lengths is None else f"{len(items)} items, of which {rule.k} are to be read"
            raise BundleFormatError(f"the memory {name!r} has {lacks}; build the bundle again")
        rows = items[:]
        self._name, self._rule, self._bank = name, rule, bank
        self._norms = np.linalg.norm(rows, axis=1)
        self._items = rows * items.lengths[:, None]

    @property
    def kind(self) -> str:
        """The plug-in that searches it; of edge-vad's own, the plain name."""
        return type(self._bank).__module__.removeprefix("edge_vad.banks.")

    def sums(self) -> Float32:
        """`bank_sums` of the items, (3, c)."""
        return bank_sums(self._items)

    def weights(self, queries: Float32) -> tuple[Float32, NDArray[np.int64]]:
        """Of queries (q, c) at length 1: weights (q, k), which sum to 1, and the items that have them (q, k), nearest first.

        The shares are of the softmax over these k, where they are larger than over all items: the threshold keeps those of
        the k that it would keep there, and perhaps some more. With k = all items nothing differs.
        """
        distances, ids = self._bank.search(queries, self._rule.k)
        norms, length = self._norms[ids], np.einsum("qc,qc->q", queries, queries)[:, None]
        cosines = (length + norms**2 - distances**2) / (2 * np.maximum(norms, SMALLEST))
        shares = np.exp((cosines - cosines[:, :1]) / self._rule.temperature)
        shares /= shares.sum(axis=1, keepdims=True)
        shares[shares <= self._rule.threshold] = 0
        return shares / np.maximum(shares.sum(axis=1, keepdims=True), SMALLEST), ids

    def __call__(self, maps: Float32) -> Float32:
        """Feature maps (n, c, h, w) float32 -> what is read in their place, (n, c, h, w), or (n, 2 c, h, w) if joined."""
        n, c, h, w = maps.shape
        if c != self._items.shape[1]:
            raise BackendError(
                f"the network gives queries of {c} numbers to the memory {self._name!r} of {self._items.shape[1]}; "
                "build the bundle again"
            )
        queries = unit(maps.transpose(0, 2, 3, 1).reshape(-1, c))
        read = self._sum(*self.weights(queries))
        rows = np.concatenate([queries, read], axis=1) if self._rule.joined else read
        return np.ascontiguousarray(rows.reshape(n, h, w, -1).transpose(0, 3, 1, 2))

    def _sum(self, weights: Float32, ids: NDArray[np.int64]) -> Float32:
        """The weighted items, (q, c): equation 4 of document 004."""
        if DENSE * ids.shape[1] < len(self._items):
            return np.asarray((weights[:, None] @ self._items[ids])[:, 0])
        dense = np.zeros((len(ids), len(self._items)), dtype=np.float32)
        np.put_along_axis(dense, ids, weights, axis=1)
        return dense @ self._items


class Memories:
    """All memories of a network, and the graph that is behind them."""

    def __init__(self, memories: Mapping[str, Memory], decoder: Backend) -> None:
        """memories: by the name of the output that queries them, which is also that of the decoder's input."""
        self.memories = memories
        self._decoder = decoder
        self.outputs = decoder.outputs

    def __call__(self, found: Mapping[str, Float32]) -> dict[str, Float32]:
        """The outputs of the whole network, from those of its first graph."""
        return self._decoder.run({**found, **self.read(found)})

    def read(self, found: Mapping[str, Float32]) -> dict[str, Float32]:
        """What is read of every memory. Raises BackendError where the first graph gives no queries for it."""
        return {name: memory(checked_output(found, name, 4)) for name, memory in self.memories.items()}

    def kinds(self) -> dict[str, str]:
        """The plug-in that searches each memory."""
        return {name: memory.kind for name, memory in self.memories.items()}

    def sums(self) -> dict[str, Float32]:
        """`bank_sums` of each memory's items."""
        return {name: memory.sums() for name, memory in self.memories.items()}


def open_memories(
    rules: Mapping[str, MemoryRead],
    banks: Mapping[str, Stored],
    graphs: Mapping[str, bytes | None],
    bank: str,
    decoder: Backend,
) -> Memories:
    """The memories over ``banks`` and their search graphs, each searched by the plug-in ``bank``.

    Raises BundleFormatError where a memory and its items do not fit, PluginError where the plug-in is not there.
    """
    memories = {
        name: Memory(name, rule, banks[name], open_bank(bank, banks[name], graphs.get(name))) for name, rule in rules.items()
    }
    return Memories(memories, decoder)


def unit(rows: Float32) -> Float32:
    """Rows (n, c) at length 1; what is shorter than 1e-6 stays nearly 0."""
    return np.asarray(rows / np.maximum(np.sqrt(np.einsum("nc,nc->n", rows, rows))[:, None], SMALLEST), dtype=np.float32)
