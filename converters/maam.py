"""MAAM-Net (document 004): one frame through one memory, then its appearance and its motion.

Motion is the RGB difference to the next frame where the document has optical flow: three channels in the place of two,
and nothing moves sideways in it, so that speed shows as the size and strength of the difference. The motion decoder
predicts the difference from a single frame, as the document predicts flow.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from edge_vad.converters.blocks import Decoder, Encoder, channels
from edge_vad.converters.memory_module import SparseMemory, latent_loss, rows_of, sparse_loss
from edge_vad.converters.system import System
from torch import Tensor
from torch.nn import functional

from edge_vad.networks import Target

ENCODER = (64, 128, 256, 512, 512)  # table 1
DECODER = (256, 256, 128, 64)
DROPOUT = 0.3
CELL = 8  # pixels: the change is also compared in sum over cells, where it does not matter which contour moved
WARM_UP, RECENT = 500, 32  # steps
MOTION, SPARSE, LATENT, MARGIN = 2.0, 0.0003, 0.001, 0.1  # lambda_m, alpha, beta, zeta


class Maam(System):
    """Encoder, memory, appearance and motion decoders without skips (document 004, table 1)."""

    n_frames = 2
    targets: Mapping[str, Target] = {
        "appearance": Target(0, 1),
        "motion": Target(1, 2, "change", power=1),
    }

    warm_up: Tensor

    def __init__(
        self,
        width: float = 0.5,
        blocks: int = 4,
        n_items: int = 500,
        memory: bool = True,
        motion: bool = True,
        sparse: float = SPARSE,
        latent: float = LATENT,
        temperature: float = 0.05,
    ) -> None:
        """blocks: of the encoder. The document has 5 for pictures of 256 pixels; 4 leave pictures of half that size as many
        queries for a person. memory, motion, sparse, latent, temperature (1: the document's): for ablations."""
        super().__init__()
        if not 2 <= blocks <= len(ENCODER):
            raise ValueError(f"blocks must lie in 2..{len(ENCODER)}, not {blocks}")
        encoder, decoder = channels(ENCODER[:blocks], width), channels(DECODER[-(blocks - 1) :], width)
        dropout = DROPOUT if width >= 1 else 0.0  # a narrow network has nothing to spare
        self.encoder = Encoder(3, encoder)
        self.memory = SparseMemory(n_items, encoder[-1], temperature) if memory else None
        self.appearance = Decoder(encoder[-1], decoder, dropout=dropout)
        self.motion = Decoder(encoder[-1], decoder, dropout=dropout) if motion else None
        self._sparse, self._latent = sparse, latent
        self._read: tuple[Tensor, Tensor, Tensor] | None = None
        self.register_buffer("warm_up", torch.tensor(WARM_UP))  # steps before the memory is filled and used
        self._queries: list[Tensor] = []

    @property
    def memories(self) -> Mapping[str, SparseMemory]:
        return {} if self.memory is None else {"memory": self.memory}

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        maps = read = self.encode(frames)["memory"]
        self._read = None
        if self.memory is not None and not (self.training and self.warm_up > 0):
            read, weights = self.memory(maps)
            self._read = maps, read, weights
        elif self.memory is not None:
            self._queries = [*self._queries[-RECENT:], rows_of(maps.detach()).float()]
        return self.decode({"memory": read})

    def encode(self, frames: Tensor) -> dict[str, Tensor]:
        return {"memory": self.encoder(frames[:, 0])[-1]}

    def decode(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pictures = {"appearance": self.appearance(found["memory"])[:, None]}
        if self.motion is not None:
            pictures["motion"] = self.motion(found["memory"])[:, None]
        return pictures

    def losses(self, frames: Tensor, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Equation 10: squared appearance and absolute motion error, entropy of the reads, margin of the latent."""
        parts = {"appearance": functional.mse_loss(found["appearance"], self.wanted("appearance", frames))}
        if "motion" in found:
            change = found["motion"][:, 0], self.wanted("motion", frames)[:, 0]
            parts["motion"] = MOTION * functional.l1_loss(*change)
            parts["energy"] = MOTION * functional.l1_loss(*(functional.avg_pool2d(c, CELL) for c in change))
        if self._read is not None:
            maps, read, weights = (value.float() for value in self._read)
            parts["sparse"] = self._sparse * sparse_loss(weights)
            parts["latent"] = self._latent * latent_loss(read, maps, MARGIN)
        return parts

    def transient(self) -> dict[str, Tensor]:
        """The features that the memory will start from."""
        return {f"queries{i}": queries for i, queries in enumerate(self._queries)}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Go on in the middle of the warm-up."""
        self._queries = [kept[f"queries{i}"] for i in range(len(kept))]

    def step_done(self) -> None:
        """At the end of the warm-up the memory starts from the features of the recent batches."""
        if self.training and self.warm_up > 0:
            self.warm_up -= 1
            if self.warm_up == 0 and self.memory is not None:
                self.memory.fill(torch.cat(self._queries))
                self._queries = []
