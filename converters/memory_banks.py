"""The memories of a trained network as memory banks: `edge-vad build --memory-read bank`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from edge_vad.converters.settings import BuildSettings
from edge_vad.converters.system import System

from edge_vad.backends.base import Backend
from edge_vad.errors import NetworkError, ProfileError
from edge_vad.memory_read import Memories, MemoryRead, unit
from edge_vad.types import Float32
from edge_vad.vectors import VectorType, compress

TOP_K = 8


def memory_rules(system: System, settings: BuildSettings) -> dict[str, MemoryRead]:
    """How the memories are read that become banks, by name; none where they stay in the graph.

    Raises NetworkError where the network has no memory, ProfileError where one has less than k items.
    """
    if settings.memory_read == "graph":
        return {}
    if not system.memories:
        raise NetworkError("the network has no memory that a bank could search: leave --memory-read out")
    k = settings.top_k or TOP_K
    for name, memory in system.memories.items():
        if k > len(memory.items):
            raise ProfileError(f"--top-k {k}: {name} has {len(memory.items)} items; name at most as many")
    return {name: memory.rule(k) for name, memory in system.memories.items()}


def stored_items(system: System, vectors: VectorType) -> dict[str, dict[str, np.ndarray]]:
    """The items of every memory as bank rows: at length 1, as they are searched, and the lengths that they had."""
    stored = {}
    for name, memory in system.memories.items():
        items = memory.items.detach().numpy()
        lengths = np.linalg.norm(items, axis=1).astype(np.float32)
        stored[name] = {**compress(unit(items), vectors), "lengths": lengths}
    return stored


def decoder_inputs(
    session: Backend, memories: Memories, windows: Iterable[Mapping[str, Float32]]
) -> Iterator[dict[str, Float32]]:
    """What the decoder is given for windows by name, as the runtime does it."""
    for window in windows:
        found = session.run(window)
        yield {**found, **memories.read(found)}
