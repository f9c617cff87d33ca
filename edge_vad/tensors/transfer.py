"""The way to the device and back. Nothing else in this folder moves data to the host or waits for the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from edge_vad.backends.base import first_line
from edge_vad.errors import BackendError
from edge_vad.tensors.watch import Watch, timed

ARRAYS = {torch.bool: np.bool_, torch.uint8: np.uint8, torch.int64: np.int64, torch.float32: np.float32}
TENSORS = {np.dtype(array): tensor for tensor, array in ARRAYS.items()}


@contextmanager
def device_errors() -> Iterator[None]:
    """What torch says of a device that fails, as a BackendError."""
    try:
        yield
    except RuntimeError as error:
        raise BackendError(f"backend torch failed: {first_line(error)}") from error


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of the array on the device. The host does not wait: pinned memory is given back when the copy is made."""
    host = torch.empty(array.shape, dtype=TENSORS[array.dtype], pin_memory=device.type == "cuda")
    host.numpy()[...] = array
    return host.to(device, non_blocking=True)


def download(tensors: Sequence[Tensor], timing: AbstractContextManager[None] | None = None) -> list[np.ndarray]:
    """Copies of tensors of one device as arrays, in one transfer; waits until the device has computed them.

    timing: entered around what is queued. An event behind the wait would not be reached when the times are read.
    """
    with timing or nullcontext():
        packed = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors])
        there = packed.device
        copy = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=there.type == "cuda")
        copy.copy_(packed, non_blocking=True)
    _wait(there)
    host = copy.numpy()
    ends = np.cumsum([tensor.nbytes for tensor in tensors])[:-1]
    parts = zip(np.split(host, ends), tensors, strict=True)
    # tobytes: a part may begin anywhere, an array of floats may not
    return [np.frombuffer(bytearray(part.tobytes()), ARRAYS[t.dtype]).reshape(t.shape) for part, t in parts]


def _wait(device: torch.device) -> None:
    """Until the device has done everything that was queued."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


@dataclass(slots=True)
class Download:
    """A `Request` for tensors as arrays; those of several cameras come in one transfer."""

    tensors: list[Tensor]
    watch: Watch
    order: ClassVar[int] = 2

    def joins(self, other: Any) -> bool:
        """One device."""
        return isinstance(other, Download) and self.tensors[0].device == other.tensors[0].device

    def serve(self, group: Sequence[Download]) -> list[list[np.ndarray]]:
        """The arrays of each. Raises BackendError."""
        timing = timed("download", [(request.watch, 1) for request in group])
        with device_errors():
            arrays = iter(download([tensor for request in group for tensor in request.tensors], timing))
            return [[next(arrays) for _ in request.tensors] for request in group]
