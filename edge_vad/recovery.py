"""A backend that fails is tried again, then started anew; what is no number is never taken for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np

from edge_vad.backends.base import Backend, load_backend
from edge_vad.errors import BackendError
from edge_vad.manifest import sha256
from edge_vad.profile import Choice, Inference
from edge_vad.types import Float32

OnFault = Callable[[str, str], None]  # kind of the record (retried, rebuilt), reason


def recovering(kind: type[Backend], on_fault: OnFault) -> type[Backend]:
    """A backend class that runs ``kind``: one retry, then one new session, then BackendError."""

    class Recovering(Backend):
        def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
            self._make: Callable[[], Backend] = partial(kind, model, threads=threads, device=device)
            self._backend = self._make()
            self.outputs = self._backend.outputs
            self.torch_device, self.precision = self._backend.torch_device, self._backend.precision

        def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
            return self._persistently(lambda: self._once(inputs))

        def run_tensors(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
            # Whether they are finite is seen where the frame's scores are read: to look here would wait for the device.
            return self._persistently(lambda: self._backend.run_tensors(inputs))

        def _persistently(self, once: Callable[[], dict[str, Any]]) -> dict[str, Any]:
            try:
                return once()
            except BackendError as error:
                on_fault("retried", str(error))
            try:
                return once()
            except BackendError as error:
                on_fault("rebuilt", str(error))
            self._backend = self._make()
            return once()

        def _once(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
            outputs = self._backend.run(inputs)
            for name, values in outputs.items():
                # One NaN or infinity is in the sum too: one pass, no array of booleans.
                with np.errstate(invalid="ignore"):  # infinities of both signs
                    total = values.sum(dtype=np.float64)
                if not np.isfinite(total):
                    raise BackendError(f"the output {name!r} holds values that are not finite")
            return outputs

    return Recovering


class Sessions:
    """The sessions of a unit: cameras that use the same model share one, and the memory it takes.

    started: folder of a store -> id of the bundle that this unit's start took from it.
    """

    def __init__(self, on_fault: OnFault) -> None:
        self._on_fault = on_fault
        self.started: dict[str, str] = {}
        self._open: dict[tuple[Choice, str, int, str], Backend] = {}
        self._epochs: dict[Choice, int] = {}

    def backend(self, inference: Inference) -> type[Backend]:
        """The backend class that ``inference`` names, whose instances are shared."""
        return cast(type[Backend], partial(self._session, inference))

    def epoch(self, choice: Choice) -> int:
        """How often the sessions of a backend on a device were discarded."""
        return self._epochs.get(choice, 0)

    def discard(self, choice: Choice, epoch: int) -> None:
        """Forget the sessions of a backend that failed on a device: the next one that asks gets a new one.

        epoch: in which the failed session was opened; of cameras that shared it, the first one discards it for all.
        """
        if epoch == self.epoch(choice):
            self._epochs[choice] = epoch + 1
            self._open = {key: session for key, session in self._open.items() if key[0] != choice}

    def _session(self, inference: Inference, model: bytes, *, threads: int = 1, device: str = "cpu") -> Backend:
        key = (Choice(inference.backend, device), sha256(model), threads, inference.precision)
        if key not in self._open:
            kind = recovering(load_backend(inference), self._on_fault)
            self._open[key] = kind(model, threads=threads, device=device)
        return self._open[key]
