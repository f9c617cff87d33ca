"""The memories inside the trained networks: what a feature becomes when it may only be said in terms of normal ones."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_vad.memory_read import MemoryRead

TINY = 1e-12
SMALLEST = 1e-6


def rows_of(maps: Tensor) -> Tensor:
    """Feature maps (b, c, h, w) -> queries (b h w, c)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def maps_of(rows: Tensor, like: Tensor) -> Tensor:
    """Rows (b h w, c) -> feature maps of the shape of ``like`` (b, c, h, w)."""
    return rows.reshape(like.shape[0], like.shape[2], like.shape[3], rows.shape[1]).permute(0, 3, 1, 2)


def unit(rows: Tensor) -> Tensor:
    """Rows (n, c) or maps (n, c, h, w) of length 1 along c. (`functional.normalize` exports as an Expand by open sizes.)"""
    return rows / rows.square().sum(dim=1, keepdim=True).sqrt().clamp_min(SMALLEST)


class MemoryModule(nn.Module, ABC):
    """N items (N, c), of which queries are made again."""

    items: Tensor

    @abstractmethod
    def weights(self, queries: Tensor) -> Tensor:
        """Queries (q, c) -> what each item is worth to them (q, N)."""

    @abstractmethod
    def rule(self, k: int) -> MemoryRead:
        """The same for a bank that finds the ``k`` nearest items; with k = N nothing else comes out."""


class SparseMemory(MemoryModule):
    """N items learned by gradient and read by hard-shrunk cosine similarity (document 004, equations 1 to 4).

    The threshold lambda is 1 / N: what lies under the mean of the softmax is left out. The cosines are divided by a
    temperature first, which the document does not have: a softmax of cosines alone is nearly flat (its largest weight is
    at most e^2 times its smallest), half of the items are read for every query, and little of the query is left.
    """

    def __init__(self, n_items: int, n_channels: int, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature
        bound = n_channels**-0.5
        self.items = nn.Parameter(torch.empty(n_items, n_channels).uniform_(-bound, bound))

    def weights(self, queries: Tensor) -> Tensor:
        """Queries (q, c) -> weights (q, N) that sum to 1, most of them 0."""
        similar = unit(queries) @ unit(self.items).T  # equation 1
        soft = (similar / self._temperature).softmax(dim=1)  # equation 2
        shrunk = torch.where(soft > 1 / len(self.items), soft, 0.0)  # equation 3: (x - l)+ x / |x - l|
        return shrunk / shrunk.sum(dim=1, keepdim=True).clamp_min(SMALLEST)  # all are equal: nothing is read

    def rule(self, k: int) -> MemoryRead:
        """The nearest k, shrunk by the same threshold."""
        return MemoryRead(k, self._temperature, 1 / len(self.items))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def fill(self, queries: Tensor) -> None:
        """Start from features (q, c) of normal footage, farthest point first: random items say nothing of any of them."""
        nearest = torch.full((len(queries),), torch.inf, device=queries.device)
        chosen = 0
        for i in range(len(self.items)):
            self.items[i] = queries[chosen]
            nearest = torch.minimum(nearest, (queries - queries[chosen]).square().sum(dim=1))
            chosen = int(nearest.argmax())

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, c, h, w) -> what the memory makes of them, the same shape, and the weights (b h w, N)."""
        weights = self.weights(rows_of(maps))
        return maps_of(weights @ self.items, maps), weights  # equation 4


def sparse_loss(weights: Tensor) -> Tensor:
    """Entropy of the weights (q, N), mean over the queries (document 004, equation 8)."""
    return -(weights * (weights + TINY).log()).sum(dim=1).mean()


def latent_loss(read: Tensor, maps: Tensor, margin: float) -> Tensor:
    """max(|cos(z_hat, z)| - margin, 0), mean over the places (document 004, equation 9)."""
    return functional.relu(functional.cosine_similarity(read, maps, dim=1).abs() - margin).mean()


class ItemMemory(MemoryModule):
    """A few normalised items, read by softmax of inner products and moved by the queries that chose them (document 001)."""

    def __init__(self, n_items: int, n_channels: int) -> None:
        super().__init__()
        self.register_buffer("items", functional.normalize(torch.rand(n_items, n_channels) - 0.5, dim=1))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Query maps (b, c, h, w) -> [query, read] (b, 2 c, h, w) and the normalised queries (b h w, c)."""
        normal = unit(maps)
        queries = rows_of(normal)
        read = self.weights(queries) @ self.items
        return torch.cat([normal, maps_of(read, maps)], dim=1), queries

    def weights(self, queries: Tensor) -> Tensor:
        """Queries (q, c) of length 1 -> weights (q, N) that sum to 1, none of them 0."""
        return (queries @ self.items.T).softmax(dim=1)

    def rule(self, k: int) -> MemoryRead:
        """The nearest k; queries and items have length 1, so that their inner product is the cosine."""
        return MemoryRead(k, joined=True)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def update(self, queries: Tensor) -> None:
        """Move every item towards the queries (q, c) that are nearest to it; their shares relative to the largest one."""
        products = queries @ self.items.T  # (q, N)
        shares = products.softmax(dim=0)
        chosen = functional.one_hot(products.argmax(dim=1), len(self.items)).to(shares.dtype)
        largest = (shares * chosen).amax(dim=0, keepdim=True)
        moved = (chosen * shares / (largest + TINY)).T @ queries
        self.items.copy_(functional.normalize(self.items + moved, dim=1))

    def compactness(self, queries: Tensor) -> Tensor:
        """Squared distance of the queries (q, c) to the nearest item, mean."""
        nearest = (queries @ self.items.T).argmax(dim=1)
        return functional.mse_loss(queries, self.items[nearest])

    def separateness(self, queries: Tensor, margin: float = 1.0) -> Tensor:
        """How much closer the nearest item is than the second, under ``margin``, mean (a triplet loss)."""
        first, second = (queries @ self.items.T).topk(2, dim=1).indices.T
        return functional.triplet_margin_loss(queries, self.items[first], self.items[second], margin)
