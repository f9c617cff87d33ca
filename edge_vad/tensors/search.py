"""Exact nearest neighbours on the device, in blocks: no full distance matrix is ever made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor

from edge_vad.backends.base import Backend, first_line
from edge_vad.bundle import Bundle
from edge_vad.errors import BackendError
from edge_vad.tensors.transfer import device_errors, upload
from edge_vad.tensors.watch import Watch, timed
from edge_vad.types import Float32

CPU_ROWS = 2048  # of a block: stays in the cache
GPU_DISTANCES = 2**24  # of a block: 64 MB


class TensorBank:
    """Rows (m, c) float32 on the device, as they are after unpacking.

    half: for the product, which finds the nearest row, rows and queries are rounded to fp16 (sums stay fp32: what tensor
    cores do); the distance to that row is computed in fp32 from what was not rounded.
    """

    def __init__(self, rows: Float32, device: torch.device, half: bool) -> None:
        self._rows = upload(rows, device)
        self._norms = (self._rows * self._rows).sum(dim=1)
        self._half = self._middle = self._scale = None
        if half:
            # From the middle of the rows and at most 1 everywhere, so that fp16 rounds small numbers and never overflows.
            self._middle = self._rows.mean(dim=0)
            shifted = self._rows - self._middle
            self._scale = shifted.abs().amax().clamp(min=1e-12)
            self._half = (shifted / self._scale).half()
            self._norms = (shifted * shifted).sum(dim=1)
            _check_product(device)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        held = (self._rows, self._norms, self._half)
        return sum(values.nbytes for values in held if values is not None)

    def distances(self, queries: Tensor) -> Tensor:
        """Euclidean distances (n,) float32 of queries (n, c) to the row nearest to each. ValueError for another width."""
        if queries.ndim != 2 or queries.shape[1] != self._rows.shape[1]:
            raise ValueError(f"queries must have shape (n, {self._rows.shape[1]}), not {tuple(queries.shape)}")
        if self._half is None:
            nearest = self._nearest(self._full_block, queries)
        else:
            nearest = self._nearest(self._half_block, self._rounded(queries))
        return torch.linalg.vector_norm(queries - self._rows[nearest], dim=1)

    def _nearest(self, block: Any, queries: Any) -> Tensor:
        """Row numbers (n,), by the blocks of |r|^2 - 2 q r that ``block(queries, start, end)`` gives, (n, end - start)."""
        n = len(queries[0] if isinstance(queries, tuple) else queries)
        step = CPU_ROWS if self._rows.device.type == "cpu" else max(GPU_DISTANCES // max(n, 1), CPU_ROWS)
        best, found = block(queries, 0, step).min(dim=1)
        for start in range(step, len(self._rows), step):
            value, place = block(queries, start, start + step).min(dim=1)
            found = torch.where(value < best, place + start, found)
            best = torch.minimum(value, best)
        return found

    def _full_block(self, queries: Tensor, start: int, end: int) -> Tensor:
        return torch.addmm(self._norms[start:end], queries, self._rows[start:end].T, alpha=-2)

    def _rounded(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries in fp16, each at most 1 everywhere, and what their products are to be multiplied with, (n, 1)."""
        shifted = queries - self._middle
        size = shifted.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        assert self._scale is not None
        return (shifted / size).half(), -2 * size * self._scale

    def _half_block(self, queries: tuple[Tensor, Tensor], start: int, end: int) -> Tensor:
        assert self._half is not None
        return torch.addcmul(self._norms[start:end], queries[1], product(queries[0], self._half[start:end].T))


def product(a: Tensor, b: Tensor) -> Tensor:
    """Product (n, m) float32 of fp16 matrices (n, c) and (c, m), summed in fp32."""
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()  # the same numbers: fp32 holds the product of two fp16 numbers exactly


def _check_product(device: torch.device) -> None:
    """BackendError where this torch cannot give fp32 sums of fp16 products."""
    small = torch.ones((16, 16), dtype=torch.float16, device=device)
    try:
        product(small, small)
    except (TypeError, RuntimeError) as error:
        raise BackendError(
            f"precision fp16 needs torch 2.8 or later on {device} ({first_line(error)}): upgrade torch, or use fp32"
        ) from error


class Banks(dict[str, TensorBank]):
    """The memory banks of a bundle by name."""


# Cameras that share a session share the banks of their bundle too: once in memory, searched as one batch.
_opened: WeakKeyDictionary[Backend, WeakValueDictionary[str, Banks]] = WeakKeyDictionary()


def open_banks(bundle: Bundle, session: Backend) -> Banks:
    """The banks of a bundle on the device of an encoder's session; raises BackendError, such as when memory is short."""
    opened = _opened.setdefault(session, WeakValueDictionary())
    banks = opened.get(bundle.id)
    if banks is None:
        device, half = torch.device(session.torch_device), session.precision == "fp16"
        with device_errors():
            banks = Banks({name: TensorBank(bundle.rows(name), device, half) for name in bundle.bank_names})
        opened[bundle.id] = banks
    return banks


@dataclass(slots=True)
class Nearest:
    """A `Request` for the distances of queries (n, c), by the name of their bank."""

    banks: Banks
    queries: Mapping[str, Tensor]
    watch: Watch
    order: ClassVar[int] = 1

    def joins(self, other: Any) -> bool:
        """The same banks."""
        return isinstance(other, Nearest) and self.banks is other.banks

    def serve(self, group: Sequence[Nearest]) -> list[dict[str, Tensor]]:
        """Distances (n,) of each by bank; each bank is searched once. Raises BackendError."""
        found: list[dict[str, Tensor]] = [{} for _ in group]
        weights = [(request.watch, sum(map(len, request.queries.values()))) for request in group]
        with device_errors(), timed("search", weights):
            for name, bank in self.banks.items():
                asking = [i for i, request in enumerate(group) if name in request.queries]
                if asking:
                    queries = [group[i].queries[name] for i in asking]
                    distances = bank.distances(torch.cat(queries)).split([len(q) for q in queries])
                    for i, values in zip(asking, distances, strict=True):
                        found[i][name] = values
        return found
