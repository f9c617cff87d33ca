"""python firmware_examples/custom_encoder/dinov2.py dinov2_vits14_pretrain.pth dinov2.onnx

DINOv2 (S/14, B/14, L/14; no registers): its patch tokens as a map. Source: github.com/facebookresearch/dinov2 (Apache-2.0)
"""

import sys
from pathlib import Path

import torch
from edge_vad.converters.encoders import EncoderSpec, export
from torch import Tensor, nn

# Taps are names of modules. Mean and std: of pixels 0..255, ImageNet's. A transformer knows one size: here 8 x 8 patches.
SPEC = EncoderSpec(
    taps=("grid",), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), fixed_size=112, licence="DINOv2, Apache-2.0"
)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.ones(width)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, -1, 64)).permute(2, 0, 3, 1, 4)  # heads of 64 channels
        attended = ((q @ k.transpose(2, 3) / 8).softmax(dim=3) @ v).transpose(1, 2).flatten(2)
        x = x + self.ls1["gamma"] * self.attn["proj"](attended)
        return x + self.ls2["gamma"] * self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class DinoV2(nn.Module):
    def __init__(self, stored: dict[str, Tensor], side: int) -> None:
        super().__init__()
        width, _, _, patch = stored["patch_embed.proj.weight"].shape
        cells, known = side // patch, int((stored["pos_embed"].shape[1] - 1) ** 0.5)
        places = stored["pos_embed"][:, 1:].unflatten(1, (known, known)).permute(0, 3, 1, 2)
        if cells != known:  # learned at another size; resized as DINOv2 does it
            places = nn.functional.interpolate(places, scale_factor=(cells + 0.1) / known, mode="bicubic")
        self.places, self.first = places.flatten(2).transpose(1, 2), stored["cls_token"] + stored["pos_embed"][:, :1]
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.Sequential(*(Block(width) for name in stored if name.endswith("qkv.weight")))
        self.norm, self.grid = nn.LayerNorm(width, eps=1e-6), nn.Unflatten(2, (cells, cells))
        self.load_state_dict({k: v for k, v in stored.items() if k not in ("cls_token", "pos_embed", "mask_token")})

    def forward(self, image: Tensor) -> Tensor:  # (n, 3, side, side) -> (n, width, cells, cells)
        x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2) + self.places
        x = torch.cat([0 * x[:, :1] + self.first, x], dim=1)  # not expand(): a bundle's models repeat nothing n times
        return self.grid(self.norm(self.blocks(x))[:, 1:].transpose(1, 2))


def encoder() -> DinoV2:
    return DinoV2(torch.load(sys.argv[1], "cpu", weights_only=True), SPEC.fixed_size or 0)


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(export("dinov2:encoder", SPEC, {}).model)  # compared with torch on random pictures
