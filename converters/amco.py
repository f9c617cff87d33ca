"""AMCo (document 001): a motion branch and an appearance branch with a memory each; the next frame is predicted.

The motion branch decodes the RGB difference of its two frames where the document has optical flow. The difference is a
function of its input, so all that this branch can get wrong is what its memory and its bottleneck do not hold: unusual
motion, as in the document. The appearance decoder has the skips of MNAD, on which the document builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from edge_vad.converters.blocks import Decoder, Encoder, channels
from edge_vad.converters.memory_module import ItemMemory
from edge_vad.converters.system import System
from torch import Tensor
from torch.nn import functional

from edge_vad.networks import Target

ENCODER = (64, 128, 256, 512)
DECODER = (256, 128, 64)
GAIN = 4.0  # of the difference as an input: it is small beside the pictures, whose background would be learned first
COMPACT, SEPARATE = (
    0.01,
    0.001,
)  # the document names no values; with 0.1 (MNAD) all queries fall onto the items and say nothing


class Amco(System):
    """Two encoders, two memories, a motion and a prediction decoder."""

    n_frames = 3
    multiple: ClassVar[int] = 8
    change_of: ClassVar[str] = "appearance"
    helpers: ClassVar[tuple[str, ...]] = ("motion",)
    targets: Mapping[str, Target] = {
        "motion": Target(1, 2, "difference"),
        "appearance": Target(2, 3),
    }

    def __init__(
        self, width: float = 0.5, n_items: int = 10, memory: bool = True, motion: bool = True, skips: bool = True
    ) -> None:
        """memory, motion, skips: for ablations."""
        super().__init__()
        encoder, decoder = channels(ENCODER, width), channels(DECODER, width)
        n = encoder[-1]
        self.appearance_encoder = Encoder(6, encoder)
        self.appearance_memory = ItemMemory(n_items, n) if memory else None
        features = 2 * n if memory else n
        if motion:
            self.motion_encoder = Encoder(6, encoder)
            self.motion_memory = ItemMemory(n_items, n) if memory else None
            self.motion_decoder = Decoder(features, decoder)
        self._motion, self._skips = motion, skips
        self.appearance_decoder = Decoder(features * (2 if motion else 1), decoder, skips=encoder[-2::-1] if skips else None)
        self._queries: dict[ItemMemory, Tensor] = {}

    @property
    def memories(self) -> Mapping[str, ItemMemory]:
        named = ((name, getattr(self, name, None)) for name in ("appearance_memory", "motion_memory"))
        return {name: memory for name, memory in named if memory is not None}

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        found = self.encode(frames)
        return self.decode(found | {name: self._read(memory, found[name]) for name, memory in self.memories.items()})

    def encode(self, frames: Tensor) -> dict[str, Tensor]:
        pair = torch.cat([frames[:, 1], GAIN * (frames[:, 1] - frames[:, 0])], dim=1)
        *finer, queries = self.appearance_encoder(pair)
        found = {"frame": frames[:, 1], "appearance_memory": queries}
        if self._motion:
            found["motion_memory"] = self.motion_encoder(pair)[-1]
        if self._skips:
            found |= {f"skip{i}": maps for i, maps in enumerate(reversed(finer))}
        return found

    def decode(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pictures, joined = {}, [found["appearance_memory"]]
        if self._motion:
            pictures["motion"] = self.motion_decoder(found["motion_memory"])[:, None]
            joined.append(found["motion_memory"])
        skips = [found[f"skip{i}"] for i in range(len(DECODER))] if self._skips else ()
        predicted = found["frame"] + self.appearance_decoder(torch.cat(joined, dim=1), skips)
        return pictures | {"appearance": predicted[:, None]}

    def _read(self, memory: ItemMemory, maps: Tensor) -> Tensor:
        read, queries = memory(maps)
        if self.training:
            self._queries[memory] = queries.float()
        return read

    def losses(self, frames: Tensor, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Motion and prediction error; compactness and separateness of every memory."""
        parts = {name: functional.mse_loss(value, self.wanted(name, frames)) for name, value in found.items()}
        for memory, queries in self._queries.items():
            kind = "motion" if memory is getattr(self, "motion_memory", None) else "appearance"
            parts[f"{kind}_compact"] = COMPACT * memory.compactness(queries)
            parts[f"{kind}_separate"] = SEPARATE * memory.separateness(queries)
        return parts

    def step_done(self) -> None:
        """Move the items: the document's update, which no gradient takes part in."""
        for memory, queries in self._queries.items():
            memory.update(queries.detach())
