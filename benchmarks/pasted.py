"""Events pasted into real normal footage, to choose settings without any benchmark's labels.

A sprite is a moving blob of one clip, followed over time; it is pasted into another clip where it moves too fast, glides
without a gait, is too large, or has another texture. Every choice that costs or wins accuracy is made on these.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_vad.types import Frame, UInt8

KINDS = ("fast", "glide", "large", "texture")
MIN_TRACK = 20


@dataclass(slots=True)
class Sprite:
    """A followed blob: pictures and masks per frame, left and top of the first, pixels per frame to the right."""

    pictures: list[UInt8]
    masks: list[NDArray[np.bool_]]
    feet: float
    velocity: float
    height: float


def sprites(frames: list[Frame]) -> list[Sprite]:
    """Isolated upright blobs that move across the picture of one clip."""
    lumas = [frame.luma for frame in frames]
    background = np.median(np.stack(lumas[::5]), axis=0).astype(np.float32)
    live: list[list[tuple]] = []
    done: list[list[tuple]] = []
    for t, luma in enumerate(lumas):
        for blob in _blobs(frames[t].image, luma, background, t):
            track = max(live, key=lambda k: _overlap(k[-1][1], blob[1]), default=None)
            if track is not None and track[-1][0] == t - 1 and _overlap(track[-1][1], blob[1]) > 0.6:
                track.append(blob)
            else:
                live.append([blob])
        done += [track for track in live if track[-1][0] < t and len(track) >= MIN_TRACK]
        live = [track for track in live if track[-1][0] == t]
    return [s for s in map(_sprite, done + [k for k in live if len(k) >= MIN_TRACK]) if s is not None]


def _blobs(image: UInt8, luma: UInt8, background: NDArray[np.float32], t: int) -> list[tuple]:
    moving = (np.abs(cv2.GaussianBlur(luma, (3, 3), 0) - background) > 14).astype(np.uint8)
    moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    moving = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, np.ones((7, 5), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(moving)
    found = []
    for number, (x, y, w, h, _) in enumerate(stats[1:], 1):
        inside = x > 2 and y > 2 and x + w < luma.shape[1] - 2 and y + h < luma.shape[0] - 2
        if inside and h >= 16 and 1.5 < h / w < 4:
            window = (slice(y - 2, y + h + 2), slice(x - 2, x + w + 2))
            found.append((t, (x, y, x + w, y + h), image[window], labels[window] == number))
    return found


def _overlap(a: tuple, b: tuple) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def _sprite(track: list[tuple]) -> Sprite | None:
    boxes = np.array([blob[1] for blob in track], dtype=float)
    heights = boxes[:, 3] - boxes[:, 1]
    velocity = float(np.mean(boxes[-1, [0, 2]]) - np.mean(boxes[0, [0, 2]])) / len(track)
    if abs(velocity) < 0.3 or heights.std() > 0.12 * heights.mean():
        return None
    return Sprite([b[2] for b in track], [b[3] for b in track], boxes[0, 3], velocity, float(np.median(heights)))


def paste(
    frames: list[Frame], sprite: Sprite, kind: str, generator: np.random.Generator
) -> tuple[list[Frame], NDArray[np.bool_]]:
    """The clip with one event, and its labels (n,)."""
    fast = {"fast": (2.2, 3.2), "glide": (1.8, 2.5), "large": (1.0, 1.0), "texture": (1.0, 2.0)}[kind]
    velocity = sprite.velocity * generator.uniform(*fast)
    scale = generator.uniform(1.5, 1.9) if kind == "large" else 1.0
    width = frames[0].image.shape[1]
    length = int(min(generator.integers(45, 70), (width - 30) / abs(velocity)))
    first = int(generator.integers(min(20, len(frames) // 3), max(21, len(frames) - length - 10)))
    travel = abs(velocity) * length
    start = generator.uniform(10, max(11, width - 20 - travel))
    x = start if velocity > 0 else width - start
    texture = _texture(generator, int(sprite.height * generator.uniform(0.7, 1.2)))
    out, labels = list(frames), np.zeros(len(frames), dtype=bool)
    for step, t in enumerate(range(first, min(first + length, len(frames)))):
        i = 0 if kind == "glide" else step % (2 * len(sprite.pictures) - 2)
        i = min(i, 2 * len(sprite.pictures) - 2 - i)
        picture, mask = texture if kind == "texture" else (sprite.pictures[i], sprite.masks[i])
        left = x + velocity * step - picture.shape[1] * scale / 2
        image, n_pixels = _blend(frames[t].image, picture, mask, left, sprite.feet - picture.shape[0] * scale + 2, scale)
        if n_pixels > 60:
            labels[t] = True
            luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            out[t] = Frame(image, luma, frames[t].timestamp, frames[t].index)
    return out, labels


def _blend(image: UInt8, picture: UInt8, mask: NDArray, x: float, y: float, scale: float) -> tuple[UInt8, int]:
    size = (image.shape[1], image.shape[0])
    place = np.array([[scale, 0, x], [0, scale, y]], dtype=np.float32)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0.8)
    alpha = cv2.warpAffine(soft, place, size)[:, :, None]
    drawn = cv2.warpAffine(picture.astype(np.float32), place, size)
    return np.clip(image * (1 - alpha) + drawn * alpha, 0, 255).astype(np.uint8), int((alpha > 0.5).sum())


def _texture(generator: np.random.Generator, height: int) -> tuple[UInt8, NDArray[np.bool_]]:
    width = int(height * generator.uniform(0.9, 1.6))
    coarse = generator.integers(40, 220, (max(2, height // 5), max(2, width // 5), 3)).astype(np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    mask = np.ones((height, width), dtype=np.uint8)
    if generator.integers(2):
        mask[:] = 0
        cv2.ellipse(mask, (width // 2, height // 2), (width // 2 - 1, height // 2 - 1), 0, 0, 360, 1, -1)
    return picture, mask > 0
