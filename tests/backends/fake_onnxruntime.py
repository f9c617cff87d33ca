"""An ONNX Runtime whose providers, and what of them really runs, a test decides; it computes the identity."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np


class FakeOnnxRuntime:
    """Stands in `sys.modules` in the place of onnxruntime. claimed: what it says it has; running: what sessions get."""

    __version__ = "1.99"

    def __init__(self, claimed: list[str], running: list[str]) -> None:
        self.claimed, self.running = claimed, running
        self.sessions: list[Session] = []

    class SessionOptions:
        def add_session_config_entry(self, key: str, value: str) -> None: ...

    def get_available_providers(self) -> list[str]:
        return self.claimed

    def InferenceSession(self, model: bytes, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Session:
        self.sessions.append(Session(providers, self.running))
        return self.sessions[-1]


class Session:
    """Remembers what it was asked for and the size of every batch."""

    shape: ClassVar[list[Any]] = ["n", 3, "h", "w"]

    def __init__(self, wanted: list[tuple[str, dict[str, str]]], running: list[str]) -> None:
        self.wanted, self.running = wanted, running
        self.batches: list[tuple[int, ...]] = []

    def get_providers(self) -> list[str]:
        return self.running

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="image", shape=self.shape)]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="fine", shape=self.shape)]

    def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        [values] = inputs.values()
        self.batches.append(values.shape)
        return [values]
