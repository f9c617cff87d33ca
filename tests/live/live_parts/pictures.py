"""Pictures that a test camera shows, cheap enough for a thousand a second."""

from __future__ import annotations

from functools import cache

import numpy as np

from edge_vad.types import Frame, UInt8

SIZE = (180, 120)


@cache
def street() -> UInt8:
    """Some pictures of the small generated street, (n, h, w, 3): what `tiny_bundle` was built from."""
    from edge_vad.cameras.synthetic import SyntheticStreet

    camera = SyntheticStreet("seed=1,seconds=4,anomalies=none,size={}x{}".format(*SIZE))
    return np.stack([frame.image for frame in camera.frames()])


def picture(kind: str, index: int, size: tuple[int, int] = SIZE, scene: UInt8 | None = None) -> UInt8:
    """(h, w, 3) uint8. Noise makes every picture another one, as a sensor does; a frozen one is always the same."""
    width, height = size
    if kind == "indexed":  # each picture carries its number in all of its pixels
        return np.broadcast_to(np.array([index & 255, index >> 8 & 255, index >> 16], np.uint8), (height, width, 3)).copy()
    generator = np.random.default_rng(0 if kind == "frozen" else index)
    noise = generator.integers(0, 3, (height, width, 3), np.uint8)
    if kind == "black":
        return noise
    if kind == "covered":
        return noise + np.uint8(90)
    if kind == "strange":  # blocks that jump about
        return np.kron(generator.integers(0, 2, (height // 20, width // 20, 3), np.uint8) * np.uint8(250), _BLOCK)
    pictures = street() if scene is None else scene
    base = pictures[0 if kind == "frozen" else index % len(pictures)]
    if size != SIZE:
        base = np.resize(base, (height, width, 3))
    return np.minimum(base, 250) + noise


_BLOCK = np.ones((20, 20, 1), np.uint8)


def frame(image: UInt8, timestamp: float, index: int) -> Frame:
    """A frame with the green plane as its luma."""
    return Frame(image, np.ascontiguousarray(image[..., 1]), timestamp, index)
