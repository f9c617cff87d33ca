"""A trained network, and the state of a training, as safetensors files: nothing in them can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from edge_vad.converters.system import System
from edge_vad.converters.systems import open_system, system_class
from torch import Tensor

from edge_vad.errors import EdgeVadError, NetworkError
from edge_vad.files import write_atomically
from edge_vad.manifest import canonical_json
from edge_vad.strict import from_plain, to_plain

NETWORK, STATE = "network.safetensors", "state.safetensors"
NETWORK_KEY, STATE_KEY = "edge_vad_network", "edge_vad_training"  # one metadata key each: the library does not sort them

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trained:
    """What is known of a trained network.

    options: all keyword arguments of its class. size: (width, height) of the pictures that it sees; image_size: of the
    footage. fps: of the footage; stride: its frames from one frame of a window to the next. held_out: (clip, first frame,
    the one behind the last) that were not trained on. epochs: that are done; seconds: that they took. n_windows: trained on.
    precision: fp32, bf16 or fp16, of the arithmetic; the weights are always fp32.
    """

    method: str
    options: dict[str, Any]
    size: tuple[int, int]
    image_size: tuple[int, int]
    fps: float
    stride: int
    held_out: tuple[tuple[str, int, int], ...]
    epochs: int
    seed: int
    seconds: float
    n_windows: int
    precision: str


@dataclass(frozen=True)
class State:
    """All that a training goes on from.

    settings: as JSON values; content: of the footage; step: optimiser steps that are done; seconds: that they took.
    parts: names of the losses, the columns of ``history`` (steps, parts) float32. scaler: of fp16. model, transient,
    moments: tensors by name, ``moments`` as ``number of the parameter/name``.
    """

    settings: dict[str, Any]
    content: str
    step: int
    seconds: float
    parts: tuple[str, ...]
    scaler: dict[str, Any]
    history: Tensor
    model: dict[str, Tensor]
    transient: dict[str, Tensor]
    moments: dict[str, Tensor]


def save_network(path: Path, system: System, trained: Trained) -> None:
    """Write the file ``path`` whole or not at all. The same network gives the same bytes. Raises OutputError."""
    _save(path, system.state_dict(), NETWORK_KEY, to_plain(trained))


def load_network(path: Path, method: str | None = None) -> tuple[System, Trained]:
    """The network of a file or a run folder, in eval mode on the CPU.

    method: that it has to be. Raises NetworkError when there is none, or it is damaged, foreign, or of another method.
    """
    path = path / NETWORK if path.is_dir() else path
    tensors, plain = _load(path, NETWORK_KEY, "a trained network")
    trained = with_options(Trained, plain, str(path))
    if method is not None and trained.method != method:
        raise NetworkError(f"{path}: is a network of {trained.method}, not of {method}; name --method {trained.method}")
    trained = replace(trained, options={**system_class(trained.method).before, **trained.options})
    system = open_system(trained.method, trained.options)
    assign(system, tensors, str(path))
    return system.eval(), trained


def save_state(path: Path, state: State) -> None:
    """Write the file ``path`` whole or not at all. Raises OutputError."""
    tensors = {"history": state.history}
    for group in ("model", "transient", "moments"):
        tensors |= {f"{group}/{name}": tensor for name, tensor in getattr(state, group).items()}
    names = ("settings", "content", "step", "seconds", "parts", "scaler")
    _save(path, tensors, STATE_KEY, {name: getattr(state, name) for name in names})


def load_state(path: Path) -> State:
    """What `save_state` wrote. Raises NetworkError."""
    tensors, plain = _load(path, STATE_KEY, "the state of a training")
    groups: dict[str, Any] = {"model": {}, "transient": {}, "moments": {}}
    try:
        history = tensors.pop("history")
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = tensor
        return State(**{**plain, "parts": tuple(plain["parts"])}, history=history, **groups)
    except (KeyError, TypeError) as error:
        raise NetworkError(f"{path}: not the state of a training: {error}") from error


def with_options(kind: type[T], plain: Any, where: str, error: type[EdgeVadError] = NetworkError) -> T:
    """A dataclass with a field ``options``, whose keys the method defines, of JSON values. Raises ``error``."""
    options = plain.get("options", {}) if isinstance(plain, dict) else {}
    if not isinstance(options, dict):
        raise error(f"{where}: options: expected keys and values, found {options!r}")
    made: Any = from_plain(kind, {**plain, "options": {}}, where, error)
    try:
        changed: T = replace(made, options=options)
    except ValueError as problem:
        raise error(f"{where}: {problem}") from problem
    return changed


def assign(system: System, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill parameters and buffers by name; a buffer takes the stored shape, since some grow while they are trained.

    Raises NetworkError where names, or shapes of parameters, differ.
    """
    parameters, buffers = dict(system.named_parameters()), dict(system.named_buffers())
    expected = system.state_dict().keys()
    odd = sorted(expected ^ tensors.keys())
    if odd:
        raise NetworkError(f"{where}: {odd[0]} is {'missing' if odd[0] in expected else 'not of this method'}; train again")
    for name, tensor in tensors.items():
        if name in parameters:
            if tensor.shape != parameters[name].shape:
                shapes = f"{tuple(tensor.shape)}, not {tuple(parameters[name].shape)}"
                raise NetworkError(f"{where}: {name} has the shape {shapes}; the file is damaged or of another version")
            with torch.no_grad():
                parameters[name].copy_(tensor)
        else:
            owner, _, last = name.rpartition(".")
            setattr(system.get_submodule(owner), last, tensor.to(buffers[name]))


def _save(path: Path, tensors: Mapping[str, Tensor], key: str, plain: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    apart = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    write_atomically(path, save(apart, metadata={key: canonical_json(plain).decode()}))


def _load(path: Path, key: str, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise NetworkError(f"{path}: no such file; edge-vad train writes it")
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(key)
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise NetworkError(f"{path}: not {what}, or cut off: {reason}") from error
    try:
        plain = json.loads(said or "")
    except ValueError as error:
        raise NetworkError(f"{path}: a safetensors file, but not {what} of edge-vad train") from error
    return tensors, plain
