"""python firmware_examples/custom_encoder/clip_resnet.py clip_rn50.safetensors clip.onnx

The visual trunk of CLIP's RN50 or RN101, VideoPatchCore's own encoder, as far as its third stage. The weights have the
names visual.*, as OpenCLIP writes them. Source of names and sums: github.com/openai/CLIP (MIT)
"""

import sys
from pathlib import Path

from edge_vad.converters.encoders import EncoderSpec, export
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

# Taps are names of modules, of strides 8 and 16. Mean and std: of pixels 0..255, CLIP's. Sides: any multiples of 16.
SPEC = EncoderSpec(
    taps=("layer2", "layer3"), mean=(122.77, 116.75, 104.09), std=(68.5, 66.63, 70.32), multiple=16, licence="CLIP, MIT"
)


def convolution(weight: Tensor, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride, weight.shape[2] // 2, bias=False)


class Bottleneck(nn.Module):
    def __init__(self, stored: dict[str, Tensor], name: str, stride: int = 1, first: int = 1) -> None:
        super().__init__()
        self.stride, self.downsample = stride, nn.Identity()
        for i in (1, 2, 3):
            self.add_module(f"conv{i}", convolution(stored[f"{name}conv{i}.weight"], first if i == 1 else 1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(len(stored[f"{name}bn{i}.weight"])))
        if (weight := stored.get(f"{name}downsample.0.weight")) is not None:
            self.downsample = nn.Sequential(convolution(weight), nn.BatchNorm2d(len(weight)))

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))
        return relu(self.bn3(self.conv3(avg_pool2d(y, self.stride))) + self.downsample(avg_pool2d(x, self.stride)))


class Trunk(Bottleneck):  # whose stem has the same six layers
    def __init__(self, stored: dict[str, Tensor]) -> None:
        super().__init__(stored, "", first=2)
        for stage, stride in ((1, 1), (2, 2), (3, 2)):
            names = [f"layer{stage}.{i}." for i in range(99) if f"layer{stage}.{i}.conv1.weight" in stored]
            blocks = [Bottleneck(stored, name, stride if name == names[0] else 1) for name in names]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.load_state_dict({name: stored[name] for name in self.state_dict()})

    def forward(self, image: Tensor) -> Tensor:  # (n, 3, h, w) -> (n, c, h / 16, w / 16)
        x = relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(image))))))
        return self.layer3(self.layer2(self.layer1(avg_pool2d(relu(self.bn3(self.conv3(x))), 2))))


def encoder() -> Trunk:
    return Trunk({name.removeprefix("visual."): value.float() for name, value in load_file(sys.argv[1]).items()})


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(export("clip_resnet:encoder", SPEC, {}).model)  # compared with torch on random pictures
