"""The layers that the four trained networks share, and the width that makes edge-sized variants of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

MIN_CHANNELS = 4
SLOPE = 0.2  # of leaky rectifiers (document 002, table 2)


def channels(published: Sequence[int], width: float) -> list[int]:
    """The published numbers of channels times ``width``, in steps of 4 so that vector units are full."""
    return [max(MIN_CHANNELS, 4 * round(n * width / 4)) for n in published]


def convolution(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, batch norm, ReLU: (b, n_in, h, w) -> (b, n_out, h / stride, w / stride)."""
    layers = [nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def deconvolution(n_in: int, n_out: int, dropout: float = 0.0) -> nn.Sequential:
    """3 x 3 transposed convolution, batch norm, dropout, ReLU: (b, n_in, h, w) -> (b, n_out, 2 h, 2 w)."""
    layers = [nn.ConvTranspose2d(n_in, n_out, 3, 2, 1, output_padding=1, bias=False), nn.BatchNorm2d(n_out)]
    dropped = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, *dropped, nn.ReLU(inplace=True))


class Encoder(nn.Module):
    """Convolutions, the first at full size and every other one with stride 2; keeps what each gives, finest first."""

    def __init__(self, n_in: int, sizes: Sequence[int]) -> None:
        super().__init__()
        inputs = (n_in, *sizes[:-1])
        self.blocks = nn.ModuleList(
            convolution(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(zip(inputs, sizes, strict=True))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(b, n_in, h, w) -> (b, sizes[i], h / 2^i, w / 2^i) for every i."""
        kept: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            kept.append(x)
        return kept


class Decoder(nn.Module):
    """Transposed convolutions back to full size and a last convolution to pixels; with skips, each is given finer maps."""

    def __init__(
        self, n_in: int, sizes: Sequence[int], n_out: int = 3, skips: Sequence[int] | None = None, dropout: float = 0.0
    ) -> None:
        """skips: channels of the maps that join behind each transposed convolution, coarsest first."""
        super().__init__()
        joined = list(skips or [0] * len(sizes))
        inputs = [n_in, *(a + b for a, b in zip(sizes[:-1], joined[:-1], strict=True))]
        self.blocks = nn.ModuleList(deconvolution(a, b, dropout) for a, b in zip(inputs, sizes, strict=True))
        self.last = nn.Conv2d(sizes[-1] + joined[-1], n_out, 3, 1, 1)

    def forward(self, x: Tensor, skips: Sequence[Tensor] = ()) -> Tensor:
        """(b, n_in, h, w) and the skips, coarsest first -> (b, n_out, H, W)."""
        import torch

        for i, block in enumerate(self.blocks):
            x = block(x)
            if skips:
                x = torch.cat([x, skips[i]], dim=1)
        return self.last(x)
