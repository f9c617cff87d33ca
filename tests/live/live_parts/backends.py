"""Backends that fail on command: ONNX Runtime underneath."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.errors import BackendError
from edge_vad.types import Float32


class Shaky(OnnxRuntime):
    """Does what the next entry of `script` says: error, nan, inf, bug; runs well when there is none.

    always: what is done for ever, once `script` is used up. n_made: sessions since it was set to 0.
    """

    script: ClassVar[list[str]] = []
    always: ClassVar[str] = ""
    n_made: ClassVar[int] = 0

    def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
        super().__init__(model, threads=threads, device=device)
        type(self).n_made += 1

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        what = self.script.pop(0) if self.script else self.always
        if what == "error":
            raise BackendError("the device is gone")
        if what == "bug":
            raise RuntimeError("a driver's own error")
        outputs = super().run(inputs)
        if what in ("nan", "inf", "infs"):
            for values in outputs.values():
                values.flat[0] = np.nan if what == "nan" else np.inf
                values.flat[-1] = -np.inf if what == "infs" else values.flat[-1]
        return outputs


class Wrong(OnnxRuntime):
    """Computes something else than it should: only the self-test finds it."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        return {name: values * np.float32(1.5) for name, values in super().run(inputs).items()}


class Missing(OnnxRuntime):
    """Its package is not installed."""

    def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
        from edge_vad.errors import MissingPackageError

        raise MissingPackageError("the backend missing needs the package nothing")
