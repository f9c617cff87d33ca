"""STPAG (document 002): two 3-D autoencoders, of frames and of motion, trained against pseudo-anomalies; a discriminator.

Motion is the size of the RGB difference in the place of optical flow: speed shows as how much of it there is. A
pseudo-anomaly goes in, the normal clip is what has to come out, so that what is not normal is reconstructed badly. The
document's autoencoders see the whole clip; these are not shown its end, which is what is scored: a small network draws too
well whatever it is shown (benchmarks/README.md).

The document's discriminator tells whole frames with a pseudo-anomaly from normal ones, by features of ViFi-CLIP, which no
small device runs. Features of an encoder of pictures in its place say next to nothing of how something moves, so this one is
trained from scratch: it sees the newest frames together, and says of every place whether what lies there is made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from edge_vad.converters import pseudo_anomalies
from edge_vad.converters.blocks import SLOPE, channels
from edge_vad.converters.implants import SEEN, implanted
from edge_vad.converters.system import System
from torch import Tensor, nn
from torch.nn import functional

from edge_vad.networks import Target

ENCODER = (96, 128, 256, 256)  # table 2
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
JUDGED = (64, 128, 256)  # channels of the discriminator's layers that halve a picture
SPATIAL, TEMPORAL = 0.4, 0.5  # p_s, p_t (figure 4)
LENGTH = 4  # frames of a clip; the document has 16, which a stream would wait for and a device would compute again and again
SHORTEST = 4  # with less, PyTorch 2.13 gives NaN in bfloat16 now and then
UNSEEN = 1  # newest frames of a clip that are drawn without being shown
NEWEST = 2  # frames of a clip whose errors count where all are shown: over more, what moves would be smeared over its way
CELL = 8  # pixels: motion is also compared in sum over cells, as in maam.py; the discriminator judges cells
STRANGE = (0.007, 0.024)  # of 0..2: a cell that is off by less is normal, by more made up; between them nobody says
VARIANTS = 3  # of each window, with other implants: the discriminator costs a fraction of the autoencoders
CONTRAST, LIGHT = 0.1, 0.05  # the discriminator trains in other light by so much, at most
LOGIT = 11.0  # odds stay numbers, in fp16 as well


class Stpag(System):
    """A spatial and a temporal autoencoder and a discriminator."""

    n_frames = LENGTH + 1
    multiple: ClassVar[int] = 16
    before: ClassVar[Mapping[str, Any]] = {"unseen": 0}
    targets: Mapping[str, Target] = {
        "appearance": Target(1, LENGTH + 1, newest=UNSEEN),
        "motion": Target(1, LENGTH + 1, "change", power=1, newest=UNSEEN),
    }
    odds: ClassVar[tuple[str, ...]] = ("semantic",)

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
        self.discriminator = _Discriminator(channels(JUDGED, width)) if discriminator else None
        self._strange: Tensor | None = None  # (n, h, w): by how much the frames that it was shown are not normal

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        clip, change, newest = frames[:, 1:], changes(frames), frames[:, -SEEN:].mean(dim=2)
        if self.training:
            clip, change = self._disturbed(frames)
            newest = self._implanted(frames)
        found = {"appearance": self.appearance(clip * self.shown), "motion": self.motion(change * self.shown)}
        if self.discriminator is not None:
            found["semantic"] = self.discriminator(newest)
        return found

    def losses(self, frames: Tensor, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Squared errors to the clip as it was before anything was made up; cross entropy of the discriminator."""
        change = found["motion"].flatten(0, 1), self.wanted("motion", frames).flatten(0, 1)
        parts = {
            "appearance": functional.mse_loss(found["appearance"], self.wanted("appearance", frames)),
            "motion": functional.l1_loss(*change),
            "energy": functional.l1_loss(*(functional.avg_pool2d(one, CELL) for one in change)),
        }
        if "semantic" in found and self._strange is not None:
            parts["semantic"] = discrimination(found["semantic"], self._strange)
        return parts

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _disturbed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The clips (b, k, 3, h, w) and changes of windows (b, k + 1, 3, h, w), some with a pseudo-anomaly in them.

        What is blended in moves: it is in the changes, too.
        """
        generator = _generator()
        frames, chosen = frames.clone(), generator.random((len(frames), 2)) < (self._spatial, self._temporal)
        pixels = _pixels(frames)
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
        return drawn[:, 1:], change

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _implanted(self, frames: Tensor) -> Tensor:
        """What the discriminator is shown of windows (b, n, 3, h, w): (VARIANTS b, SEEN, h, w), in another light each."""
        windows = _pixels(frames.mean(dim=2)).cpu().numpy()
        made = implanted(_generator(), np.concatenate([windows] * VARIANTS))
        self._strange = torch.from_numpy(made.strange).to(frames.device) / 127.5
        shown = torch.from_numpy(made.frames).to(frames.device) / 127.5 - 1
        contrast, light = torch.rand(2, len(shown), 1, 1, 1).to(frames.device) * 2 - 1
        return shown * (1 + CONTRAST * contrast) + LIGHT * light


def discrimination(odds: Tensor, strange: Tensor) -> Tensor:
    """Mean cross entropy of the odds (b, 1, h / CELL, w / CELL) that a cell is made up, over those of which it is known;
    strange: (b, h, w), by how much every pixel is not normal."""
    off = functional.avg_pool2d(strange[:, None], CELL)
    normal, made_up = off < STRANGE[0], off > STRANGE[1]
    each = functional.binary_cross_entropy_with_logits(odds.log(), made_up.float(), reduction="none")
    return each[normal | made_up].mean()


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
    """The newest frames to the odds that what lies in a cell of them was made up."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in zip((SEEN, *sizes[:-1]), sizes, strict=True):
            layers += _judging(a, b, stride=2)
        for dilation in (1, 2, 1):  # a cell is judged by the 79 pixels around it
            layers += _judging(sizes[-1], sizes[-1], dilation=dilation)
        self.layers = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 1))

    def forward(self, newest: Tensor) -> Tensor:
        """(b, SEEN, h, w) in -1..1 -> odds (b, 1, h / CELL, w / CELL)."""
        odds: Tensor = self.layers(newest).float().clamp(-LOGIT, LOGIT).exp()
        return odds


def _judging(n_in: int, n_out: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, 3, stride, dilation, dilation, bias=False), nn.BatchNorm2d(n_out), nn.LeakyReLU(SLOPE)
    ]  # fmt: skip


def _generator() -> np.random.Generator:
    """Follows torch's seed."""
    return np.random.default_rng(int(torch.randint(2**31, ())))


def _pixels(frames: Tensor) -> Tensor:
    """Frames in -1..1 as uint8."""
    return ((frames + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _to_numpy(pictures: Tensor) -> np.ndarray:
    """(k, 3, h, w) -> (k, h, w, 3)."""
    return np.ascontiguousarray(pictures.permute(0, 2, 3, 1).cpu().numpy())


def _from_numpy(pictures: np.ndarray) -> Tensor:
    """(k, h, w, 3) -> (k, 3, h, w)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)
