"""The backend plug point: what runs an encoder or a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edge_vad.errors import BackendError
from edge_vad.types import Float32

LARGEST = 1e9  # value of an output: the squares of a row of them still have a sum


class Backend(ABC):
    """Runs one ONNX model. A new backend is one new file in this folder (or any module of yours) with one subclass.

    The constructor takes the model's bytes (never a path: bytes were verified), the number of threads and the device
    (``cpu``, ``cuda:0``). It raises `BackendError` when it cannot run there, and never falls back to another device.

    Required
    --------
    run(inputs)   name -> (n, ...) float32 array, to output name -> float32 array.
    outputs       the names that run() returns.

    Optional
    --------
    package       the pip package it needs.
    """

    package: ClassVar[str] = ""
    outputs: tuple[str, ...]

    @abstractmethod
    def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None: ...

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        """Run the model once; raises BackendError when the model or the device fails."""


def checked_output(outputs: Mapping[str, Float32], name: str, n_dims: int) -> Float32:
    """The output ``name``; BackendError where it is no float32 array of that many dimensions and of finite numbers.

    A NaN would find nothing and score as normal.
    """
    values = outputs.get(name)
    if values is None or values.dtype != np.float32 or values.ndim != n_dims or not values.size:
        raise BackendError(f"the model gives no float32 values of {n_dims} dimensions as {name!r}")
    if not (values.min() > -LARGEST and values.max() < LARGEST):
        raise BackendError(f"the model gives numbers beyond {LARGEST:g}, or none, as {name!r}")
    return values
