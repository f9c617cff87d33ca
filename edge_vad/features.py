"""The features of VideoPatchCore: what one frame or crop becomes before it meets a memory bank.

Source: document 000, equations 1 to 7; the names are the paper's. Shared by the runtime and the converters, so that a
bank is filled by the very code that later searches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from edge_vad.backends.base import Backend, checked_output
from edge_vad.errors import BackendError
from edge_vad.strict import check_range
from edge_vad.types import Float32, UInt8

TemporalPooling = Literal["last", "average", "maximum", "average+maximum"]
GlobalPooling = Literal["average", "maximum"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pixels enter the encoder: (pixel - mean) / std per channel, in this colour order; sizes in pixels.

    multiple: width and height of a picture must be multiples of it; fixed_size: the only side that the encoder takes, or
    None. taps: outputs that are used, finest first.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colour_order: Literal["RGB", "BGR"]
    multiple: int
    taps: tuple[str, ...]
    input_name: str
    fixed_size: int | None = None

    def __post_init__(self) -> None:
        for mean, std in zip(self.mean, self.std, strict=True):
            check_range(-1e6, 1e6, mean=mean)
            check_range(1e-6, 1e6, std=std)
        check_range(1, 1024, multiple=self.multiple)
        check_range(8, 1024, fixed_size=self.fixed_size)
        if not 1 <= len(self.taps) <= 16:
            raise ValueError(f"taps: {len(self.taps)} of them; 1 to 16 can be used")


class Encoder:
    """An encoder behind a backend: pictures in, the feature maps of its taps out."""

    def __init__(self, backend: Backend, preprocessing: Preprocessing) -> None:
        self._backend = backend
        self._preprocessing = preprocessing
        self._order = (0, 1, 2) if preprocessing.colour_order == "RGB" else (2, 1, 0)
        self._scale = 1.0 / np.array(preprocessing.std, dtype=np.float32)
        self._shift = -np.array(preprocessing.mean, dtype=np.float32) * self._scale

    def same_session(self, other: Encoder) -> bool:
        """Whether both may encode each other's pictures: one session, one preprocessing."""
        return self._backend is other._backend and self._preprocessing == other._preprocessing

    def __call__(self, pictures: UInt8) -> list[Float32]:
        """Feature maps of pictures (n, h, w, 3) uint8 RGB: per tap (n, c, h / stride, w / stride) float32."""
        planes = np.empty((len(pictures), 3, *pictures.shape[1:3]), dtype=np.float32)
        for channel, source in enumerate(self._order):  # one channel at a time: six times faster than a transposed copy
            plane = planes[:, channel]
            plane[...] = pictures[..., source]
            plane *= self._scale[channel]
            plane += self._shift[channel]
        outputs = self._backend.run({self._preprocessing.input_name: planes})
        maps = [checked_output(outputs, tap, 4) for tap in self._preprocessing.taps]
        if any(len(m) != len(pictures) for m in maps):
            raise BackendError(f"the encoder gives {[len(m) for m in maps]} maps of {len(pictures)} pictures")
        return maps


@cache
def average_pooling(size: int, target: int) -> Float32:
    """Matrix (size, target): 3-wide average pooling, stride 1, edges repeated, then means of size / target cells."""
    pooled = np.zeros((size, size), dtype=np.float32)
    for cell in range(size):
        for neighbour in (cell - 1, cell, cell + 1):
            pooled[min(max(neighbour, 0), size - 1), cell] += 1 / 3
    position = (np.arange(target, dtype=np.float32) + 0.5) * size / target
    brought = np.zeros((size, target), dtype=np.float32)
    for cell in range(target):
        span = slice(int(position[cell] - size / target / 2), max(int(np.ceil(position[cell] + size / target / 2)), 1))
        brought[span, cell] = 1 / (span.stop - span.start)
    return pooled @ brought


def local_features(taps: Sequence[Float32], split_channels: int | None = None) -> Float32:
    """Locally aware features of crops, equation 1 and split pooling: taps (n, c_i, h_i, w_i) -> (n, h, w, c').

    Every tap is average-pooled (3x3, stride 1) and brought to the size of the coarsest; channels are concatenated and,
    where split_channels is set, averaged in that many groups.
    """
    rows, columns = taps[-1].shape[2:]
    n_channels = sum(tap.shape[1] for tap in taps)
    features = np.empty((len(taps[-1]), rows, columns, n_channels), dtype=np.float32)  # concatenate keeps channels apart
    np.concatenate([_pooled(tap, rows, columns) for tap in taps], axis=3, out=features)
    return split_pooling(features, split_channels) if split_channels else features


def _pooled(tap: Float32, rows: int, columns: int) -> Float32:
    """A tap (n, c, h, w) averaged to (n, rows, columns, c): one matrix product for each axis, not one for each map."""
    n, n_channels, height, width = tap.shape
    across = tap.reshape(-1, width) @ average_pooling(width, columns)
    down = across.reshape(-1, height, columns).transpose(0, 2, 1).reshape(-1, height) @ average_pooling(height, rows)
    return down.reshape(n, n_channels, columns, rows).transpose(0, 3, 2, 1)


def split_pooling(features: Float32, n_groups: int) -> Float32:
    """Average the channels (last axis) in ``n_groups`` groups of neighbours; ValueError when they do not divide."""
    n_channels = features.shape[-1]
    if n_channels % n_groups:
        raise ValueError(f"{n_channels} channels cannot be split into {n_groups} equal groups")
    return features.reshape(*features.shape[:-1], n_groups, n_channels // n_groups).mean(axis=-1)


def temporal_pooling(clip: Sequence[Float32], kind: TemporalPooling) -> Float32:
    """Temporal global pooling of equation 4 over a clip of feature maps, oldest first; their shape is kept."""
    if kind == "last" or (len(clip) == 1 and kind != "average+maximum"):
        return clip[-1]
    stack = np.stack(clip)
    if kind == "average":
        return np.asarray(stack.mean(axis=0))
    if kind == "maximum":
        return np.asarray(stack.max(axis=0))
    return np.asarray(stack.mean(axis=0) + stack.max(axis=0))


def spatial_patches(features: Float32, kernel: int, margin: int = 0) -> Float32:
    """Spatial partition, equation 4: average pooling (kernel, stride 1) over (n, h, w, c) -> (n, h' w', c).

    margin columns are left out on both sides first: a square crop around an upright object shows its surroundings there.
    """
    inner = features[:, :, margin : features.shape[2] - margin]
    rows, columns = inner.shape[1] - kernel + 1, inner.shape[2] - kernel + 1
    if rows < 1 or columns < 1:
        raise ValueError(
            f"maps of {features.shape[1]}x{features.shape[2]} are too small for kernel {kernel}, margin {margin}"
        )
    pooled = np.zeros((len(features), rows, columns, features.shape[3]), dtype=np.float32)
    for r, c in np.ndindex(kernel, kernel):
        pooled += inner[:, r : r + rows, c : c + columns]
    pooled /= kernel * kernel
    return pooled.reshape(len(features), rows * columns, -1)


def temporal_patches(now: Float32, before: Float32, pooling: GlobalPooling) -> Float32:
    """Temporal partition, equations 5 and 6: |now - before| (n, h, w, c), globally pooled over space -> (n, 1, c)."""
    difference = np.abs(now - before)
    pooled = difference.mean(axis=(1, 2)) if pooling == "average" else difference.max(axis=(1, 2))
    return np.asarray(pooled[:, None])


def global_features(taps: Sequence[Float32]) -> Float32:
    """Globally aware features, equations 2 and 3: global average + global maximum pooling of each tap -> (n, C)."""
    return np.concatenate([t.mean(axis=(2, 3)) + t.max(axis=(2, 3)) for t in taps], axis=1)


def highlevel_patch(clip: Sequence[Float32], levels: int) -> Float32:
    """High-level partition, equation 7, for the newest frame of a clip of global features (C,) -> (C,).

    Temporal pyramid: maximum pooling (2, stride 1) applied l = 0 .. levels times looks l frames back; the levels are
    summed. A clip shorter than a level repeats its oldest frame.
    """
    total = clip[-1].copy()
    widest = clip[-1]
    for level in range(1, levels + 1):
        widest = np.maximum(widest, clip[max(len(clip) - 1 - level, 0)])
        total += widest
    return total


def normalised(rows: Float32) -> Float32:
    """Rows (..., c) at length 1: Euclidean distances then order as cosine distances do."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.float32(1e-6))
