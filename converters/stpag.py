"""STPAG (document 002): two 3-D autoencoders, of frames and of motion, trained against pseudo-anomalies; a discriminator.

Motion is the size of the RGB difference in the place of optical flow: speed shows as how much of it there is. A
pseudo-anomaly goes in, the normal clip is what has to come out, so that what is not normal is reconstructed badly. The
document's autoencoders see the whole clip; these are not shown its end, which is what is scored: a small network draws too
well whatever it is shown (benchmarks/README.md). The discriminator judges features of the default embedded encoder in the
place of ViFi-CLIP's, which no small device runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from edge_vad.converters import pseudo_anomalies
from edge_vad.converters.blocks import SLOPE, channels
from edge_vad.converters.efficientnet_lite import efficientnet_lite0
from edge_vad.converters.system import System
from torch import Tensor, nn
from torch.nn import functional

from edge_vad.networks import Target

ENCODER = (96, 128, 256, 256)  # table 2
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
ENCODER_CHANNELS = 112  # of the last layer of EfficientNet-Lite0 that is used
FEATURES, HIDDEN = 512, 128  # table 1
SPATIAL, TEMPORAL = 0.4, 0.5  # p_s, p_t (figure 4)
LENGTH = 4  # frames of a clip; the document has 16, which a stream would wait for and a device would compute again and again
SHORTEST = 4  # with less, PyTorch 2.13 gives NaN in bfloat16 now and then
UNSEEN = 1  # newest frames of a clip that are drawn without being shown
NEWEST = 2  # frames of a clip whose errors count where all are shown: over more, what moves would be smeared over its way
CELL = 8  # pixels: motion is also compared in sum over cells, as in maam.py
DISCRIMINATION = 0.01
LOGIT = 12.0  # odds stay numbers


class Stpag(System):
    """A spatial and a temporal autoencoder and a discriminator."""

    n_frames = LENGTH + 1
    multiple: ClassVar[int] = 16
    before: ClassVar[Mapping[str, Any]] = {"unseen": 0}
    fixed: ClassVar[tuple[str, ...]] = ("discriminator.encoder.",)
    targets: Mapping[str, Target] = {
        "appearance": Target(1, LENGTH + 1, newest=UNSEEN),
        "motion": Target(1, LENGTH + 1, "change", power=1, newest=UNSEEN),
    }
    values: ClassVar[tuple[str, ...]] = ("semantic",)

    shown: Tensor  # 1 for the frames of a clip that the autoencoders see, 0 for the others: (1, k, 1, 1, 1)

    def __init__(
        self,
        width: float = 0.25,
        spatial: float = SPATIAL,
        temporal: float = TEMPORAL,
        discriminator: bool = True,
        blocks: int = 4,
        length: int = LENGTH,
        unseen: int = UNSEEN,
    ) -> None:
        """blocks: of the encoders. With 3, not the document's 4, pictures of half the size keep as many features for
        a person. length: frames of a clip; a stream has no score before its first clip is whole. unseen: newest frames of it
        that the autoencoders are not shown; their errors are the score. 0 is the document's.
        spatial, temporal: how often a clip gets a pseudo-anomaly; 0 and discriminator: for ablations."""
        super().__init__()
        if not 2 <= blocks <= len(ENCODER):
            raise ValueError(f"blocks must lie in 2..{len(ENCODER)}, not {blocks}")
        if not SHORTEST <= length <= 32:
            raise ValueError(f"length must lie in {SHORTEST}..32, not {length}")
        if not 0 <= unseen < length:
            raise ValueError(f"unseen must lie in 0..{length - 1}, not {unseen}")
        self._spatial, self._temporal = spatial, temporal
        self.n_frames = length + 1
        newest = unseen or NEWEST
        self.targets = {name: replace(target, stop=length + 1, newest=newest) for name, target in type(self).targets.items()}
        shown = (torch.arange(length) < length - unseen).float().view(1, -1, 1, 1, 1)
        self.register_buffer("shown", shown, persistent=False)
        self.appearance = _Autoencoder(channels(ENCODER[:blocks], width), length)
        self.motion = _Autoencoder(channels(ENCODER[:blocks], width), length)
        self.discriminator = _Discriminator() if discriminator else None
        self._made_up: Tensor | None = None  # (b,): 1 where the clip holds a spatial pseudo-anomaly

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        clip, change = frames[:, 1:], changes(frames)
        if self.training:
            clip, change = self._disturbed(frames)
        found = {"appearance": self.appearance(clip * self.shown), "motion": self.motion(change * self.shown)}
        if self.discriminator is not None:
            found["semantic"] = self.discriminator(clip[:, -1])
        return found

    def losses(self, frames: Tensor, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Squared errors to the clip as it was before anything was made up; cross entropy of the discriminator."""
        change = found["motion"].flatten(0, 1), self.wanted("motion", frames).flatten(0, 1)
        parts = {
            "appearance": functional.mse_loss(found["appearance"], self.wanted("appearance", frames)),
            "motion": functional.l1_loss(*change),
            "energy": functional.l1_loss(*(functional.avg_pool2d(one, CELL) for one in change)),
        }
        if self._made_up is not None and "semantic" in found:
            odds = found["semantic"][:, 0].log()
            parts["semantic"] = DISCRIMINATION * functional.binary_cross_entropy_with_logits(odds, self._made_up)
        return parts

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _disturbed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The clips (b, k, 3, h, w) and changes of windows (b, k + 1, 3, h, w), some with a pseudo-anomaly in them.

        What is blended in moves: it is in the changes, too.
        """
        generator = np.random.default_rng(int(torch.randint(2**31, ())))  # follows torch's seed
        frames, chosen = frames.clone(), generator.random((len(frames), 2)) < (self._spatial, self._temporal)
        pixels = [((window + 1) * 127.5).round().clamp(0, 255).to(torch.uint8) for window in frames]
        drawn = frames.clone()
        for i in np.flatnonzero(chosen[:, 0]):
            slides = generator.random() < 0.5
            make = pseudo_anomalies.blended if slides else pseudo_anomalies.inpainted
            drawn[i] = _from_numpy(make(generator, _to_numpy(pixels[i]))).to(frames) / 127.5 - 1
            if slides:
                frames[i] = drawn[i]
        change = changes(frames)
        for i in np.flatnonzero(chosen[:, 1]):
            make_change = pseudo_anomalies.hurried if generator.random() < 0.5 else pseudo_anomalies.distorted
            made = make_change(generator, _to_numpy(change[i]), _to_numpy(pixels[i]))
            change[i] = _from_numpy(made).to(change)
        self._made_up = torch.from_numpy(chosen[:, 0].astype(np.float32)).to(frames.device)
        return drawn[:, 1:], change


def changes(frames: Tensor) -> Tensor:
    """Sizes of the RGB differences of windows (b, k + 1, 3, h, w): (b, k, 3, h, w)."""
    return (frames[:, 1:] - frames[:, :-1]).abs()


class _Autoencoder(nn.Module):
    """Table 2. Its decoder has one layer fewer than its encoder, which does not give the clip's size back; here it has as
    many."""

    def __init__(self, sizes: Sequence[int], length: int) -> None:
        super().__init__()
        encoder: list[nn.Module] = []
        strides = _strides(len(sizes), length)
        for a, b, stride in zip((3, *sizes[:-1]), sizes, strides, strict=True):
            encoder += [nn.Conv3d(a, b, 3, stride, 1, bias=False), nn.BatchNorm3d(b), nn.LeakyReLU(SLOPE)]
        decoder: list[nn.Module] = []
        for a, b, stride in zip(sizes[::-1], (*sizes[-2::-1], 3), strides[::-1], strict=True):
            grown = [n - 1 for n in stride]
            decoder.append(nn.ConvTranspose3d(a, b, 3, stride, 1, output_padding=grown, bias=b == 3))
            decoder += [nn.BatchNorm3d(b), nn.LeakyReLU(SLOPE)] if b != 3 else [nn.Tanh()]
        self.layers = nn.Sequential(*encoder, *decoder)

    def forward(self, clip: Tensor) -> Tensor:
        """(b, k, 3, h, w) -> the same shape."""
        found: Tensor = self.layers(clip.transpose(1, 2)).transpose(1, 2)
        return found


def _strides(blocks: int, length: int) -> list[tuple[int, int, int]]:
    """(time, height, width) of every block: table 2's, but a number of frames that is odd stays what it is."""
    strides = []
    for stride in STRIDES[:blocks]:
        in_time = stride[0] if length % stride[0] == 0 else 1
        strides.append((in_time, *stride[1:]))
        length //= in_time
    return strides


class _Discriminator(nn.Module):
    """A frame to the odds that it was made up. The encoder is fixed; its pooled features are projected (table 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = efficientnet_lite0().requires_grad_(False)
        # The features are far from 0 mean and unit length: without the first layer training often ended in one constant.
        layers = [
            nn.LayerNorm(2 * ENCODER_CHANNELS),
            nn.Linear(2 * ENCODER_CHANNELS, FEATURES),
            nn.Linear(FEATURES, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 1),
        ]
        self.head = nn.Sequential(*layers)

    def train(self, mode: bool = True) -> _Discriminator:
        """The encoder's batch statistics stay those of its own training."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, frame: Tensor) -> Tensor:
        """(b, 3, h, w) in -1..1 -> odds (b, 1)."""
        maps = self.encoder(frame)
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        odds: Tensor = self.head(pooled).float().clamp(-LOGIT, LOGIT).exp()
        return odds


def _to_numpy(pictures: Tensor) -> np.ndarray:
    """(k, 3, h, w) -> (k, h, w, 3)."""
    return np.ascontiguousarray(pictures.permute(0, 2, 3, 1).cpu().numpy())


def _from_numpy(pictures: np.ndarray) -> Tensor:
    """(k, h, w, 3) -> (k, 3, h, w)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)
