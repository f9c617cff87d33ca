"""`edge_vad.features` on tensors. Source: document 000, equations 1 to 7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_vad.backends.base import LARGEST, Backend
from edge_vad.errors import BackendError
from edge_vad.features import GlobalPooling, Preprocessing, TemporalPooling, average_pooling
from edge_vad.tensors.tracks import held
from edge_vad.tensors.transfer import device_errors, upload
from edge_vad.tensors.watch import Watch, timed


class TensorEncoder:
    """An encoder behind a backend that takes tensors."""

    def __init__(self, backend: Backend, preprocessing: Preprocessing, few_sizes: bool | None = None) -> None:
        """few_sizes: bring batches to few sizes, each of which a GPU's libraries tune themselves to; default: on GPUs."""
        self.device = torch.device(backend.torch_device)
        self._few_sizes = self.device.type == "cuda" if few_sizes is None else few_sizes
        self._backend = backend
        self._preprocessing = preprocessing
        scale = 1.0 / np.array(preprocessing.std, dtype=np.float32)
        self._scale = upload(scale.reshape(3, 1, 1), self.device)
        self._shift = upload((-np.array(preprocessing.mean, dtype=np.float32) * scale).reshape(3, 1, 1), self.device)

    def same_session(self, other: TensorEncoder) -> bool:
        """Whether both may encode each other's pictures: one session, one preprocessing."""
        return self._backend is other._backend and self._preprocessing == other._preprocessing

    def __call__(self, pictures: Tensor) -> tuple[list[Tensor], Tensor]:
        """Feature maps of pictures (n, h, w, 3) uint8 RGB: per tap (n, c, h / stride, w / stride) float32.

        And whether all of their numbers are such (a bool on the device): what is no number would score as normal.
        """
        n = len(pictures)
        if self._few_sizes:
            pictures = F.pad(pictures, (0, 0, 0, 0, 0, 0, 0, batch_size(n) - n))
        if self._preprocessing.colour_order == "BGR":
            pictures = pictures.flip(-1)
        planes = pictures.permute(0, 3, 1, 2).float() * self._scale + self._shift
        outputs = self._backend.run_tensors({self._preprocessing.input_name: planes})
        maps = [self._checked(outputs, tap, len(pictures))[:n].float() for tap in self._preprocessing.taps]
        return maps, torch.stack([tap.abs().amax() for tap in maps]).amax() < LARGEST

    def _checked(self, outputs: Any, tap: str, n: int) -> Tensor:
        values: Tensor | None = outputs.get(tap)
        if values is None or not values.is_floating_point() or values.ndim != 4 or not values.numel():
            raise BackendError(f"the model gives no float values of 4 dimensions as {tap!r}")
        if len(values) != n:
            raise BackendError(f"the encoder gives {len(values)} maps of {n} pictures as {tap!r}")
        return values


def batch_size(n: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: at most a third of a batch is empty."""
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if power > 2 and n <= power * 3 // 4 else power


@dataclass(slots=True)
class TensorEncoding:
    """A `Request` for the taps of pictures (n, h, w, 3) uint8 on the device; stage: where their time is counted."""

    encoder: TensorEncoder
    pictures: Tensor
    watch: Watch
    stage: str
    order: ClassVar[int] = 0

    def joins(self, other: Any) -> bool:
        """One session and one size of pictures."""
        return (
            isinstance(other, TensorEncoding)
            and self.encoder.same_session(other.encoder)
            and self.pictures.shape[1:] == other.pictures.shape[1:]
        )

    def serve(self, group: Sequence[TensorEncoding]) -> list[tuple[list[Tensor], Tensor]]:
        """Taps, and whether they are numbers, of each; encoded as one batch. Raises BackendError."""
        counts = [len(request.pictures) for request in group]
        weights = [(request.watch, count) for request, count in zip(group, counts, strict=True)]
        with device_errors(), timed(self.stage, weights):
            pictures = torch.cat([request.pictures for request in group]) if len(group) > 1 else self.pictures
            taps, finite = self.encoder(pictures)
            split = [tap.split(counts) for tap in taps]
        return [([parts[i] for parts in split], finite) for i in range(len(group))]


class LocalPooling:
    """`edge_vad.features.local_features` for taps of one size: its pooling as one matrix for each tap, on the device."""

    def __init__(self, split_channels: int | None) -> None:
        self._split_channels = split_channels
        self._matrices: dict[tuple[int, int, int, int], Tensor] = {}

    def __call__(self, taps: Sequence[Tensor]) -> Tensor:
        """Taps (n, c_i, h_i, w_i) -> (n, h, w, c'), h and w those of the coarsest."""
        rows, columns = taps[-1].shape[2:]
        maps = []
        for tap in taps:
            cells = tap.permute(0, 2, 3, 1).flatten(1, 2)  # no copy where the encoder works in channels_last
            maps.append(self._matrix(tap, rows, columns) @ cells)
        features = torch.cat(maps, dim=2).unflatten(1, (rows, columns))
        if self._split_channels is None:
            return features
        n_channels = features.shape[-1]
        if n_channels % self._split_channels:
            raise ValueError(f"{n_channels} channels cannot be split into {self._split_channels} equal groups")
        return features.unflatten(-1, (self._split_channels, -1)).mean(dim=-1)

    def _matrix(self, tap: Tensor, rows: int, columns: int) -> Tensor:
        """(rows * columns, h * w): pools along both sides at once."""
        key = (tap.shape[2], tap.shape[3], rows, columns)
        if key not in self._matrices:
            both = np.kron(average_pooling(key[0], rows), average_pooling(key[1], columns))
            self._matrices[key] = upload(np.ascontiguousarray(both.T, dtype=np.float32), tap.device)
        return self._matrices[key]


def temporal_pooling(history: Tensor, lengths: Tensor, kind: TemporalPooling) -> Tensor:
    """Temporal global pooling of equation 4 over histories (n, d, h, w, c) of ``lengths`` (n,) -> (n, h, w, c)."""
    if kind == "last":
        return history[:, -1]
    there = held(history, lengths)[:, :, None, None, None]
    pooled = []
    if kind != "maximum":
        pooled.append(torch.where(there, history, 0.0).sum(dim=1) / lengths[:, None, None, None])
    if kind != "average":
        pooled.append(torch.where(there, history, -torch.inf).amax(dim=1))
    return pooled[0] if len(pooled) == 1 else pooled[0] + pooled[1]


def spatial_patches(features: Tensor, kernel: int, margin: int = 0) -> Tensor:
    """Spatial partition, equation 4: average pooling (kernel, stride 1) over (n, h, w, c) -> (n, h' w', c)."""
    inner = features[:, :, margin : features.shape[2] - margin]
    if min(inner.shape[1:3]) < kernel:
        size = f"{features.shape[1]}x{features.shape[2]}"
        raise ValueError(f"maps of {size} are too small for kernel {kernel}, margin {margin}")
    pooled = F.avg_pool2d(inner.permute(0, 3, 1, 2), kernel, stride=1)
    return pooled.flatten(2).transpose(1, 2)


def temporal_patches(now: Tensor, before: Tensor, pooling: GlobalPooling) -> Tensor:
    """Temporal partition, equations 5 and 6: |now - before| (n, h, w, c), globally pooled over space -> (n, 1, c)."""
    difference = (now - before).abs()
    pooled = difference.mean(dim=(1, 2)) if pooling == "average" else difference.amax(dim=(1, 2))
    return pooled[:, None]


def global_features(taps: Sequence[Tensor]) -> Tensor:
    """Globally aware features, equations 2 and 3: global average + global maximum pooling of each tap -> (n, C)."""
    return torch.cat([tap.mean(dim=(2, 3)) + tap.amax(dim=(2, 3)) for tap in taps], dim=1)


def highlevel_patch(clip: Sequence[Tensor], levels: int) -> Tensor:
    """High-level partition, equation 7, for the newest frame of a clip of global features (C,) -> (C,)."""
    total = widest = clip[-1]
    for level in range(1, levels + 1):
        widest = torch.maximum(widest, clip[max(len(clip) - 1 - level, 0)])
        total = total + widest
    return total


def normalised(rows: Tensor) -> Tensor:
    """Rows (..., c) at length 1."""
    return rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp(min=1e-6)
