"""The street of the synthetic camera: its views, its ground plane and its empty picture.

Everything is drawn with single additions, products, divisions and square roots, which IEEE 754 rounds alike everywhere;
sin, exp, matrix products and normal() are not used, so that every machine draws the same bytes.

Street coordinates are metres along (s) and across (q) the street; world coordinates are metres right of (x), above (y)
and in front of (z) the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_vad.types import UInt8

Float64 = NDArray[np.float64]

FACADE_HEIGHT_M = 10.0
WINDOWS_EVERY_M, FLOOR_M = 3.4, 3.2
DOORS_EVERY_M, DOOR_M = 3 * WINDOWS_EVERY_M, 1.75  # along the street, and the middle of the first door
BLOTCH_M, PATCH_M, GRAIN_M = 5.0, 0.9, 0.16  # sizes of the three layers of surface texture


@dataclass(frozen=True, slots=True)
class Material:
    """A surface: mean RGB colour, contrast of its texture layers, size of its tiles and darkness of their joints."""

    colour: tuple[int, int, int]
    blotch: float
    patch: float
    grain: float
    tile_m: tuple[float, float] = (0.0, 0.0)
    joint: float = 0.0


MATERIALS = {
    "grass": Material((90, 106, 66), 0.20, 0.25, 0.40),
    "paving": Material((158, 152, 142), 0.08, 0.08, 0.10, (0.9, 0.9), 0.16),
    "slabs": Material((140, 136, 134), 0.10, 0.08, 0.10, (1.6, 0.8), 0.14),
    "cobble": Material((122, 112, 104), 0.12, 0.12, 0.14, (0.3, 0.3), 0.22),
    "asphalt": Material((96, 98, 102), 0.14, 0.10, 0.16),
    "kerb": Material((182, 180, 174), 0.05, 0.08, 0.08, (1.0, 9.0), 0.25),
    "line": Material((205, 204, 196), 0.06, 0.12, 0.14),
    "brick": Material((138, 92, 76), 0.10, 0.10, 0.16, (0.5, 0.2), 0.14),
    "render": Material((176, 166, 146), 0.12, 0.10, 0.06),
    "concrete": Material((132, 132, 128), 0.14, 0.12, 0.08, (2.4, 1.5), 0.15),
    "glass": Material((58, 66, 76), 0.35, 0.45, 0.05),
    "frame": Material((196, 194, 188), 0.06, 0.05, 0.05),
}


@dataclass(frozen=True, slots=True)
class View:
    """One fixed camera and the street before it.

    height_m: camera above the ground. horizon: its row as a fraction of the picture height (negative: above the
    picture). focal: focal length as a fraction of the picture width. along: unit vector (x, z) of the street.
    strips: what lies on the ground, as (q from, material), nearest first; facade: (q, material) of the houses.
    walkways: (q from, q to) where people walk; one_way: they only ever walk along +s there.
    crossing: (q from, q to) where an ``against``, and nobody else, goes across (where the street is one way: along -s).
    groups_per_s: how often somebody arrives. shadow: (x, z) metres per metre of height, and its darkness 0..1.
    tint: light as RGB factors; noise: sensor noise in grey levels (standard deviation); blur: passes of a 3x3 binomial.
    furniture: (kind, s, q) of what stands around.
    """

    height_m: float
    horizon: float
    focal: float
    along: tuple[float, float]
    strips: tuple[tuple[float, str], ...]
    facade: tuple[float, str]
    walkways: tuple[tuple[float, float], ...]
    crossing: tuple[float, float]
    groups_per_s: float
    shadow: tuple[float, float, float]
    tint: tuple[float, float, float]
    noise: float
    blur: int
    furniture: tuple[tuple[str, float, float], ...]
    one_way: bool = False


VIEWS = (
    View(  # a path between lawns, seen obliquely from a roof
        13.5, -0.50, 1.30, (0.6, 0.8),
        ((-99, "asphalt"), (6.0, "kerb"), (6.3, "grass"), (11.0, "kerb"), (11.2, "paving"), (18.0, "kerb"),
         (18.2, "grass"), (25.0, "slabs")),
        (29.0, "brick"), ((11.8, 17.4),), (-40.0, 28.7), 0.26, (0.55, -0.25, 0.42), (1.0, 0.99, 0.96), 2.0, 1,
        (("lamp", 27.0, 18.6), ("lamp", 15.0, 18.6), ("tree", 21.5, 21.0), ("tree", 22.0, 9.0)),
    ),
    View(  # a promenade in front of houses, walkers go across the picture
        5.5, 0.10, 1.20, (1.0, 0.0),
        ((-99, "grass"), (15.6, "kerb"), (15.8, "slabs"), (27.5, "paving")),
        (30.0, "render"), ((16.6, 27.0),), (-10.0, 29.7), 0.45, (-0.7, -0.3, 0.38), (1.02, 1.0, 0.94), 1.6, 1,
        (("lamp", -5.2, 15.2), ("tree", 7.6, 28.6), ("bin", -2.0, 29.2), ("bin", 2.8, 29.2)),
    ),
    View(  # a path away from the camera, walkers come and go
        14.5, -0.55, 1.20, (-0.28, 0.96),
        ((-99, "slabs"), (-22.0, "grass"), (-10.9, "kerb"), (-10.6, "slabs"), (-3.6, "kerb"), (-3.3, "grass"),
         (6.0, "asphalt")),
        (40.0, "brick"), ((-10.1, -4.2),), (-60.0, 39.0), 0.36, (0.35, 0.5, 0.34), (0.98, 1.0, 1.02), 2.2, 1,
        (("tree", 27.0, 1.0), ("tree", 26.0, -14.0), ("lamp", 20.0, -11.4)),
    ),
    View(  # a one-way passage under an overcast sky, dense
        12.0, -0.40, 1.10, (0.8, -0.6),
        ((-99, "concrete"), (9.0, "kerb"), (9.2, "asphalt"), (13.0, "line"), (13.15, "cobble"), (20.5, "kerb"),
         (20.7, "concrete")),
        (25.0, "concrete"), ((13.7, 20.0),), (13.7, 20.0), 0.34, (0.04, 0.02, 0.30), (0.86, 0.90, 0.94), 2.4, 1,
        (("lamp", -9.0, 9.1), ("bin", -14.5, 21.4), ("lamp", -19.0, 21.2)), True,
    ),
    View(  # two pavements and an empty road at dusk: a soft lens and a noisy sensor
        7.0, 0.04, 1.45, (0.96, -0.28),
        ((-99, "grass"), (19.0, "kerb"), (19.2, "paving"), (24.4, "kerb"), (24.6, "asphalt"), (28.0, "line"),
         (28.15, "asphalt"), (31.4, "kerb"), (31.6, "paving")),
        (38.0, "concrete"), ((20.0, 23.8), (32.2, 36.6)), (-10.0, 37.7), 0.50, (0.25, -0.1, 0.22), (0.74, 0.68, 0.60),
        3.2, 2,
        (("lamp", -9.5, 24.2), ("lamp", 3.0, 24.2), ("tree", -14.0, 30.9)),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ground:
    """The pinhole camera above the ground plane: size (width, height), focal length and horizon row in pixels."""

    size: tuple[int, int]
    focal: float
    horizon: float
    height_m: float
    along: tuple[float, float]

    @classmethod
    def of(cls, view: View, size: tuple[int, int]) -> Ground:
        """The ground of a view in a picture of ``size``; the picture is never narrower than the view."""
        width, height = size
        return cls(size, view.focal * width, view.horizon * height, view.height_m, view.along)

    def scale(self, z: float) -> float:
        """Pixels per metre at distance ``z``."""
        return self.focal / z

    def pixel(self, x: float, z: float) -> tuple[float, float]:
        """Column and row of a point of the ground."""
        return self.size[0] / 2 + self.focal * x / z, self.horizon + self.focal * self.height_m / z

    def world(self, s: float, q: float) -> tuple[float, float]:
        """(x, z) of a point given along and across the street."""
        ax, az = self.along
        return s * ax - q * az, s * az + q * ax


def wave(phase: float) -> float:
    """A sine of period 1 made of parabolas, exact to the bit everywhere (math.sin is not)."""
    x = phase - math.floor(phase + 0.5)
    y = 8.0 * x * (1.0 - 2.0 * abs(x))
    return y * (0.775 + 0.225 * abs(y))


def paint_street(view: View, size: tuple[int, int], number: int) -> UInt8:
    """The empty street of view ``number``: (H, W, 3) uint8 RGB, the same under every seed."""
    width, height = size
    table = np.random.Generator(np.random.PCG64([7, number])).integers(0, 256, (256, 256)) / 255
    cells = np.zeros((2 * height, 2 * width, 3))
    rows = 32  # bounds the memory of large pictures
    for top in range(0, 2 * height, rows):
        below = min(top + rows, 2 * height)
        u, v = np.meshgrid((np.arange(2 * width) + 0.5) / 2, (np.arange(top, below) + 0.5) / 2)
        cells[top:below] = _trace(view, Ground.of(view, size), table, u, v)
    cells *= np.array(view.tint)
    small = (cells[::2, ::2] + cells[1::2, ::2] + cells[::2, 1::2] + cells[1::2, 1::2]) * 0.25
    padded = np.pad(np.clip(small, 0, 255).astype(np.uint16), ((view.blur,) * 2, (view.blur,) * 2, (0, 0)), "edge")
    return smooth(padded, view.blur).astype(np.uint8)


def smooth(pixels: NDArray[np.uint16], passes: int) -> NDArray[np.uint16]:
    """Binomial 3x3 blur of (h, w, C) values below 4096; every pass takes one pixel off each edge."""
    for _ in range(passes):
        pixels = pixels[:-2] + 2 * pixels[1:-1] + pixels[2:]
        pixels = (pixels[:, :-2] + 2 * pixels[:, 1:-1] + pixels[:, 2:] + np.uint16(8)) // np.uint16(16)
    return pixels


def _trace(view: View, ground: Ground, table: Float64, u: Float64, v: Float64) -> Float64:
    """Colours (h, w, 3) where the rays through the pixels (u, v) meet the facade, the ground or the sky."""
    right, down = (u - ground.size[0] / 2) / ground.focal, (v - ground.horizon) / ground.focal
    ax, az = view.along
    forward = ax - az * right  # metres across the street, for each metre of depth
    far = 1e6
    to_facade = np.where(forward > 1e-3, view.facade[0] / np.maximum(forward, 1e-3), far)
    to_ground = np.where(down > 1e-4, view.height_m / np.maximum(down, 1e-4), far)
    facade_y = view.height_m - down * to_facade
    on_facade = (to_facade < to_ground) & (facade_y < FACADE_HEIGHT_M)
    on_ground = ~on_facade & (to_ground < far)
    colours = np.empty((*u.shape, 3))
    colours[:] = np.array([196, 206, 216]) + np.minimum(down, 0)[..., None] * 60  # sky
    z = np.where(on_facade, to_facade, to_ground)
    s, q = (ax * right + az) * z, forward * z
    colours[on_ground] = _ground(view, table, s[on_ground], q[on_ground])
    colours[on_facade] = _facade(view.facade[1], table, s[on_facade], facade_y[on_facade])
    return colours


def _ground(view: View, table: Float64, s: Float64, q: Float64) -> Float64:
    colours = np.zeros((len(s), 3))
    starts = [start for start, _ in view.strips]
    strip = np.searchsorted(np.array(starts), q, side="right") - 1
    for number, (_, name) in enumerate(view.strips):
        inside = strip == number
        colours[inside] = _surface(MATERIALS[name], table, s[inside], q[inside])
    off_wall = np.clip((view.facade[0] - q) / 2.5, 0, 1)  # houses keep the sky's light off the ground before them
    return np.asarray(colours * (0.7 + 0.3 * off_wall)[:, None])


def _facade(name: str, table: Float64, s: Float64, y: Float64) -> Float64:
    """A house front with windows every 3.4 m, floors every 3.2 m, and doors."""
    colours = _surface(MATERIALS[name], table, s, y)
    column, floor = np.floor(s / WINDOWS_EVERY_M), np.floor((y - 0.3) / FLOOR_M)
    across, up = s - column * WINDOWS_EVERY_M, y - 0.3 - floor * FLOOR_M
    door = (column.astype(np.int64) % 3 == 0) & (floor <= 0)
    sill = np.where(door, -1, 0.8)
    for edge, material in ((0.14, "frame"), (0.0, "glass")):
        pane = (across > 1.0 - edge) & (across < 2.5 + edge) & (up > sill - edge) & (up < 2.4 + edge)
        colours[pane] = _surface(MATERIALS[material], table, s[pane] * 3 + floor[pane] * 7, y[pane])
    colours[y < 0.35] *= 0.72
    return colours


def _surface(material: Material, table: Float64, a: Float64, b: Float64) -> Float64:
    """Colours (n, 3) of a material at the surface coordinates (a, b) in metres."""
    light = np.ones_like(a)
    for size, contrast in ((BLOTCH_M, material.blotch), (PATCH_M, material.patch), (GRAIN_M, material.grain)):
        light += 2 * contrast * (_noise(table, a / size, b / size) - 0.5)
    if material.joint:
        light *= _tiles(material, table, a, b)
    warm = 0.06 * (_noise(table, b / 2.3, a / 2.3) - 0.5)
    tones = np.stack([light + warm, light, light - warm], axis=-1)
    return np.asarray(tones * np.array(material.colour))


def _tiles(material: Material, table: Float64, a: Float64, b: Float64) -> Float64:
    """Light factors of tiles: each has its own shade, and dark joints around it."""
    width, height = material.tile_m
    row = np.floor(b / height)
    offset = a / width + 0.5 * (row - 2 * np.floor(row / 2))  # every second row is shifted by half a tile
    column = np.floor(offset)
    shade = table[row.astype(np.int64) & 255, column.astype(np.int64) & 255]
    gap_a = np.minimum(offset - column, 1 - (offset - column)) * width
    gap_b = (b / height - row) * height
    joint = np.where(np.minimum(gap_a, gap_b) < 0.05, material.joint, 0)
    return np.asarray((1 - joint) * (0.94 + 0.12 * shade))


def _noise(table: Float64, a: Float64, b: Float64) -> Float64:
    """Value noise 0..1: the table's cells, interpolated bilinearly."""
    a0, b0 = np.floor(a), np.floor(b)
    fa, fb = a - a0, b - b0
    i, j = a0.astype(np.int64) & 255, b0.astype(np.int64) & 255
    i1, j1 = (i + 1) & 255, (j + 1) & 255
    near = table[j, i] + fa * (table[j, i1] - table[j, i])
    far = table[j1, i] + fa * (table[j1, i1] - table[j1, i])
    return np.asarray(near + fb * (far - near))
