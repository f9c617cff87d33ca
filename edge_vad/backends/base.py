"""The backend plug point: what runs an encoder or a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edge_vad.types import Float32


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
