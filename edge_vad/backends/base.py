"""The backend plug point: what runs an encoder or a network."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from edge_vad.engines import cache_folder
from edge_vad.errors import BackendError
from edge_vad.plugins import load
from edge_vad.types import Float32

if TYPE_CHECKING:
    from edge_vad.profile import Inference

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
    devices       the kinds of devices that it knows, without numbers.
    precision     keyword of the constructor: ``fp32`` or ``fp16``, how to compute. A constructor without it computes in
                  fp32, and is refused where a profile asks for fp16.
    cache         keyword of the constructor: a folder (`pathlib.Path`) for what it compiles for this device, or None.
    torch_device  where `run_tensors` takes torch tensors and leaves its outputs; empty: it takes arrays only. A method may
                  then keep everything there; `precision`, an attribute too, says what it computes in.
    """

    package: ClassVar[str] = ""
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    outputs: tuple[str, ...]
    torch_device: str = ""
    precision: str = "fp32"

    @abstractmethod
    def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None: ...

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        """Run the model once; raises BackendError when the model or the device fails."""

    def run_tensors(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """`run` for callers that hold torch tensors on `torch_device`: what comes back lies there too."""
        raise NotImplementedError


def load_backend(inference: Inference) -> type[Backend]:
    """The class that a profile names, which computes as the profile says; `Method.open` gives it model and device.

    Raises PluginError, and BackendError where the backend knows no fp16 and the profile asks for it.
    """
    kind = load("backends", inference.backend, Backend)
    parameters = inspect.signature(kind).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    known = {parameter.name for parameter in parameters}
    if inference.precision != "fp32" and not takes_all and "precision" not in known:
        raise BackendError(f"backend {inference.backend} computes in fp32 only: set inference.precision to fp32")
    said: dict[str, Any] = {"precision": inference.precision, "cache": cache_folder(inference.engine_cache)}
    return cast(type[Backend], partial(kind, **{key: v for key, v in said.items() if takes_all or key in known}))


def split_device(backend: str, device: str, kinds: Sequence[str]) -> tuple[str, str]:
    """Kind and number ("" where it has none) of a device; BackendError where the backend knows no such kind."""
    kind, colon, number = device.partition(":")
    if kind not in kinds or (colon and (kind == "cpu" or not re.fullmatch("[0-9]{1,3}", number))):
        known = ", ".join(kind if kind == "cpu" else f"{kind}:0" for kind in kinds)
        raise BackendError(f"backend {backend}: no device {device!r} (known: {known})")
    return kind, number


def first_line(error: Exception) -> str:
    """What a runtime says of its error, on one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__


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
