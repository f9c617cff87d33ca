"""DESDnet (document 003): a frame and the frames before it, encoded apart, decoded together.

The document has no optical flow; its weighted RGB loss is the RGB difference itself: the prediction should differ from
each of the frames before as the frame does. Reverse erasure is off by default: a device looks at whole frames, and a
network that learned from frames with parts erased found fewer pasted events (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from edge_vad.converters.blocks import Decoder, Encoder, channels
from edge_vad.converters.system import System
from torch import Tensor, nn
from torch.nn import functional

from edge_vad.networks import Target

ENCODER = (64, 128, 256, 512)  # figure C1
DECODER = (256, 128, 64)
CODE = 4  # the document has none: all channels tell the decoder what it should predict, anomalies included
MAPPING = (32, 64, 128)
INTENSITY, RGB, COMPACT = 1.0, 0.2, 0.01  # lambda_int, lambda_rgb, lambda_compact
OUTLIERS = 0.1  # v of the soft boundary: the part of normal frames that may lie outside the sphere
BEFORE = 4  # Delta: frames before the one that is reconstructed
RECENT = 32  # batches of an epoch whose masks decide what the next one erases
TINY = 1e-6


class Desd(System):
    """Reconstruction and prediction encoders, fused by a convolution, one decoder; a mapping encoder for the losses."""

    n_frames = BEFORE + 1
    multiple: ClassVar[int] = 8
    change_of: ClassVar[str] = "appearance"
    targets: Mapping[str, Target] = {"appearance": Target(BEFORE, BEFORE + 1)}
    kept: Tensor
    centre: Tensor
    radius: Tensor

    def __init__(
        self,
        width: float = 0.5,
        code: int = CODE,
        reconstruction: bool = True,
        prediction: bool = True,
        erasure: bool = False,
        compact: bool = True,
    ) -> None:
        """code: channels that the reconstruction encoder may say the frame in. reconstruction, prediction, erasure, compact:
        for ablations."""
        super().__init__()
        if not (reconstruction or prediction):
            raise ValueError("reconstruction and prediction cannot both be off")
        encoder, decoder = channels(ENCODER, width), channels(DECODER, width)
        n = encoder[-1]
        self.reconstruction = Encoder(3, encoder) if reconstruction else None
        self.code = nn.Conv2d(n, code, 1) if reconstruction else None
        self.prediction = Encoder(3 * BEFORE, encoder) if prediction else None
        self.fusion = nn.Conv2d(code * reconstruction + n * prediction, n, 3, 1, 1)
        self.decoder = Decoder(n, decoder, skips=encoder[-2::-1] if prediction else None)
        self.mapping = _Mapping(channels(MAPPING, width)) if compact else None
        self._erasure = erasure
        self.register_buffer("kept", torch.ones(1, 1, 1, 1))  # of the picture: 1 where it is not erased
        self.register_buffer("centre", torch.zeros(0))  # of the sphere; from the first batch
        self.register_buffer("radius", torch.zeros(1))
        self._masks: list[Tensor] = []
        self._distances: list[Tensor] = []

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        if self.training and self._erasure:
            frames = frames * self.kept
        coarsest, skips = [], []
        if self.reconstruction is not None and self.code is not None:
            coarsest.append(self.code(self.reconstruction(frames[:, BEFORE])[-1]))
        if self.prediction is not None:
            maps = self.prediction(frames[:, :BEFORE].flatten(1, 2))
            coarsest.append(maps[-1])
            skips = maps[-2::-1]
        return {"appearance": self.decoder(self.fusion(torch.cat(coarsest, dim=1)), skips)[:, None]}

    def losses(self, frames: Tensor, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Intensity, RGB difference to each of the frames before (the nearer, the heavier), compactness."""
        wanted, picture = self.wanted("appearance", frames), found["appearance"]
        before = frames[:, :BEFORE]
        weights = torch.arange(1, BEFORE + 1, device=frames.device, dtype=frames.dtype)
        weights = (weights / weights.sum()).reshape(1, BEFORE, 1, 1, 1)
        differences = ((picture - before).abs() - (wanted - before).abs()).abs()
        parts = {
            "intensity": INTENSITY * functional.mse_loss(picture, wanted),
            "rgb": RGB * (weights * differences).sum(dim=1).mean(),
        }
        if self._erasure:
            self._remember(picture.detach(), wanted)
        if self.mapping is not None:
            parts["compact"] = COMPACT * self._compactness(self.mapping(picture[:, 0]))
        return parts

    def _compactness(self, features: Tensor) -> Tensor:
        """Soft-boundary Deep SVDD of features (b, c): the radius, and what lies outside (Ruff et al., 2018, equation 3)."""
        features = features.float()
        if not len(self.centre):
            centre = features.detach().mean(dim=0)
            self.centre = torch.where(centre.abs() < 0.1, 0.1 * centre.sign() + (centre == 0) * 0.1, centre)
        distances = (features - self.centre).square().sum(dim=1)
        self._distances = [*self._distances[-RECENT:], distances.detach()]
        return self.radius.square().sum() + functional.relu(distances - self.radius.square()).mean() / OUTLIERS

    def _remember(self, picture: Tensor, wanted: Tensor) -> None:
        """Where the error is above the frame's mean (h, w), in any frame of the batch."""
        error = (picture - wanted).square().mean(dim=(1, 2))
        masks = error > error.mean(dim=(1, 2), keepdim=True)
        self._masks = [*self._masks[-RECENT:], masks.any(dim=0)]

    def transient(self) -> dict[str, Tensor]:
        """The masks and distances of the recent batches, which decide what the next epoch erases and its radius."""
        masks = {f"mask{i}": mask for i, mask in enumerate(self._masks)}
        return masks | {f"distance{i}": distances for i, distances in enumerate(self._distances)}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Go on in the middle of an epoch."""
        self._masks = [kept[f"mask{i}"] for i in range(sum(name.startswith("mask") for name in kept))]
        self._distances = [kept[f"distance{i}"] for i in range(sum(name.startswith("distance") for name in kept))]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def epoch_done(self) -> None:
        """Erase in the next epoch what was easy in all recent batches; put the radius where v of the frames lie outside."""
        if self._masks:
            self.kept = torch.stack(self._masks).any(dim=0)[None, None].to(torch.float32)[None]
        if self._distances:
            self.radius = torch.cat(self._distances).quantile(1 - OUTLIERS).sqrt().reshape(1)


class _Mapping(nn.Module):
    """A picture (b, 3, h, w) to a feature (b, c). No biases: a sphere can be met by them alone (Ruff et al., 2018)."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in zip((3, *sizes[:-1]), sizes, strict=True):
            layers += [nn.Conv2d(a, b, 3, 4, 1, bias=False), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        mapped: Tensor = self.layers(picture).mean(dim=(2, 3))
        return mapped
