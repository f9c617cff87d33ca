"""A backend that fails is tried again, then started anew; what is no number is never taken for one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from edge_vad.backends.base import Backend
from edge_vad.errors import BackendError
from edge_vad.types import Float32

log = logging.getLogger(__name__)
OnFault = Callable[[str, str], None]  # kind of the record (retried, rebuilt), reason


def recovering(kind: type[Backend], on_fault: OnFault) -> type[Backend]:
    """A backend class that runs ``kind``: one retry, then one new session, then BackendError."""

    class Recovering(Backend):
        package = kind.package

        def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
            self._make: Callable[[], Backend] = partial(kind, model, threads=threads, device=device)
            self._backend = self._make()
            self.outputs = self._backend.outputs

        def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
            try:
                return self._once(inputs)
            except BackendError as error:
                on_fault("retried", str(error))
            try:
                return self._once(inputs)
            except BackendError as error:
                on_fault("rebuilt", str(error))
            self._backend = self._make()
            return self._once(inputs)

        def _once(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
            outputs = self._backend.run(inputs)
            for name, values in outputs.items():
                # One NaN or infinity is in the sum too: one pass, no array of booleans.
                if not np.isfinite(values.sum(dtype=np.float64)):
                    raise BackendError(f"the output {name!r} holds values that are not finite")
            return outputs

    return Recovering
