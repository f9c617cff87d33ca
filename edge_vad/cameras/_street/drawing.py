"""How the figures of the synthetic street become pixels: capsules seen by the camera, shaded and laid over each other.

Sums over more than two values and matrix products are avoided: their order of rounding differs between processors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_vad.cameras._street.figures import Part
from edge_vad.cameras._street.scene import Float64, Ground, View, smooth
from edge_vad.types import Float32, UInt8

UInt16 = NDArray[np.uint16]
Window = tuple[int, int, int, int]  # top, bottom, left, right; bottom and right exclusive

THINNEST = 0.45  # pixels; a thinner capsule would fall between the pixels
SHADING = 0.22  # how much darker the side of a limb is that the light does not reach


@dataclass(frozen=True, slots=True)
class Pose:
    """A body where it stands: place (x, z) in metres, heading (x, z) as a unit vector, pattern (8, 8) of its cloth."""

    parts: list[Part]
    place: tuple[float, float]
    heading: tuple[float, float]
    pattern: Float32


@dataclass(frozen=True, slots=True)
class Sprite:
    """A figure or a shadow as pixels: alpha (h, w, 1) uint16 0..256, colour (h, w, 3) uint16 already times alpha."""

    window: tuple[slice, slice]
    alpha: UInt16
    colour: UInt16 | int = 0

    def paint(self, picture: UInt8) -> None:
        """Lay the sprite over the (H, W, 3) picture."""
        below = picture[self.window]
        picture[self.window] = ((below * (256 - self.alpha)) >> 8) + self.colour

    def solid(self) -> NDArray[np.bool_]:
        """(h, w) bool: the pixels of the window that show more of the figure than of what is behind it."""
        return self.alpha[..., 0] >= 128


def figure(pose: Pose, view: View, ground: Ground) -> Sprite | None:
    """The body as the camera sees it; None outside the picture."""
    rows = np.array(pose.parts, np.float64)
    x, up, z = _in_world(rows, pose.heading)
    depth = z - ground.height_m / pose.place[1] * up
    order = np.argsort(depth[:, 0] + depth[:, 1] - rows[:, 6] - rows[:, 7], kind="stable")  # nearest first
    rows = rows[order]
    capsules = _on_screen(rows, x[order], up[order], z[order], pose.place, ground)
    window = _window(capsules, ground.size, 0)
    if window is None:
        return None
    alpha, owner, across, along = _cover(capsules, window, view.blur)
    paint = (rows[:, 8:11] * np.array(view.tint)).astype(np.float32)
    light = _light(rows[:, 11].astype(np.float32), owner, across, along, pose.pattern, view)
    colour = np.minimum(paint[owner] * light[..., None], np.float32(255)).astype(np.uint16)
    layers = smooth(np.concatenate([(colour * alpha) >> 8, alpha], axis=-1), view.blur)
    return Sprite(_slices(window), layers[..., 3:], layers[..., :3])


def shadow(pose: Pose, view: View, ground: Ground) -> Sprite | None:
    """What the body darkens on the ground; the limbs alone, as thin parts cast none that could be seen."""
    rows = np.array([part for part in pose.parts if part[6] > 0.05], np.float64)
    x, up, z = _in_world(rows, pose.heading)
    right, away, darkness = view.shadow
    capsules = _on_screen(rows, x + up * right, 0 * up, z + up * away, pose.place, ground)
    capsules[:, 4:] *= np.float32(0.85)  # flattened on the ground
    window = _window(capsules, ground.size, 1)
    if window is None:
        return None
    inside = _distances(capsules, window, 0)[0].max(axis=0)
    alpha = np.clip(inside * np.float32(0.35) + np.float32(0.5), 0, 1) * np.float32(256 * darkness)
    return Sprite(_slices(window), alpha.astype(np.uint16)[..., None])


def _in_world(rows: Float64, heading: tuple[float, float]) -> tuple[Float64, Float64, Float64]:
    """Ends of the parts, each (n, 2): metres to the right, up and away from where the body stands."""
    forward, left, up = rows[:, 0:6:3], rows[:, 1:6:3], rows[:, 2:6:3]
    return forward * heading[0] - left * heading[1], up, forward * heading[1] + left * heading[0]


def _on_screen(rows: Float64, x: Float64, up: Float64, z: Float64, place: tuple[float, float], ground: Ground) -> Float32:
    """Capsules (n, 6) float32: column and row of both ends and their radii, in pixels.

    A body is small against its distance, so that one scale serves all of it.
    """
    scale = ground.scale(place[1])
    column, row = ground.pixel(*place)
    capsules = np.empty((len(rows), 6), np.float32)
    capsules[:, 0:4:2] = column + scale * x
    capsules[:, 1:4:2] = row - scale * (up + (ground.height_m / place[1]) * z)
    capsules[:, 4:] = np.maximum(scale * rows[:, 6:8], THINNEST)
    return capsules


def _window(capsules: Float32, size: tuple[int, int], margin: int) -> Window | None:
    """The part of the picture that the capsules can touch."""
    width, height = size
    reach = capsules[:, 4:].max(axis=1, keepdims=True) + np.float32(1 + margin)
    low, high = (
        np.minimum(capsules[:, 0:2], capsules[:, 2:4]) - reach,
        np.maximum(capsules[:, 0:2], capsules[:, 2:4]) + reach,
    )
    left, top = max(0, int(low[:, 0].min())), max(0, int(low[:, 1].min()))
    right, bottom = min(width, int(high[:, 0].max()) + 1), min(height, int(high[:, 1].max()) + 1)
    return (top, bottom, left, right) if top < bottom and left < right else None


def _slices(window: Window) -> tuple[slice, slice]:
    return slice(window[0], window[1]), slice(window[2], window[3])


def _distances(capsules: Float32, window: Window, margin: int) -> tuple[Float32, Float32, Float32, Float32]:
    """For every capsule and pixel, each (n, h, w): how deep it is inside the capsule, its offset from the axis in
    columns and in rows (all in pixels), and its position along the axis (0..1)."""
    top, bottom, left, right = window
    u = np.arange(left - margin, right + margin, dtype=np.float32)[None, None, :]
    v = np.arange(top - margin, bottom + margin, dtype=np.float32)[None, :, None]
    au, av, bu, bv, ra, rb = (capsules[:, i, None, None] for i in range(6))
    du, dv = bu - au, bv - av
    length2 = np.maximum(du * du + dv * dv, np.float32(1e-6))
    eu, ev = u - au, v - av
    t = eu * (du / length2) + ev * (dv / length2)
    np.clip(t, 0, 1, out=t)
    eu = eu - t * du
    ev = ev - t * dv
    inside = ra + t * (rb - ra)
    inside -= np.sqrt(eu * eu + ev * ev)
    return inside, eu, ev, t


def _cover(capsules: Float32, window: Window, margin: int) -> tuple[UInt16, NDArray[np.intp], Float32, Float32]:
    """alpha (h, w, 1) 0..256, the capsule (h, w) that shows, and where on it (h, w): across -1..1 and along 0..1."""
    inside, eu, ev, t = _distances(capsules, window, margin)
    deepest = inside.max(axis=0)
    alpha = np.clip(deepest + np.float32(0.5), 0, 1) * np.float32(256)
    owner = np.where(deepest > 0, (inside > 0).argmax(axis=0), inside.argmax(axis=0))
    height, width = owner.shape
    cell = owner * (height * width) + np.arange(height * width).reshape(height, width)
    radius = np.maximum(capsules[:, 4], capsules[:, 5])[owner]
    across = (eu.ravel()[cell] + np.float32(0.6) * ev.ravel()[cell]) / radius
    return alpha.astype(np.uint16)[..., None], owner, across, t.ravel()[cell]


def _light(
    cloth: Float32, owner: NDArray[np.intp], across: Float32, along: Float32, pattern: Float32, view: View
) -> Float32:
    """Light factors (h, w): limbs are round, and cloth has a pattern."""
    facing = np.float32(SHADING if view.shadow[0] > 0 else -SHADING)  # the sun stands opposite the shadows
    columns = np.clip(across * 4 + 4, 0, 7).astype(np.intp)
    weave = pattern[(along * np.float32(7.99)).astype(np.intp), columns]
    return np.asarray((1 - facing * across) * (1 + cloth[owner] * (weave - 1)), np.float32)
