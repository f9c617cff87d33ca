"""The figures of the synthetic street: people, vehicles and things as tapered capsules in three dimensions.

A body is a list of parts in its own metres: forward, left and up from the point of the ground that it stands on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edge_vad.cameras._street.scene import wave
from edge_vad.types import Float32

Point = tuple[float, float, float]
Colour = tuple[int, int, int]
# Both ends, the radius at each, RGB, and how much of the cloth's pattern shows (0..1).
Part = tuple[float, float, float, float, float, float, float, float, int, int, int, float]

SKIN: tuple[Colour, ...] = ((228, 188, 160), (205, 160, 128), (168, 120, 90), (112, 78, 58))
HAIR: tuple[Colour, ...] = ((40, 32, 28), (70, 50, 36), (120, 92, 60), (150, 145, 140), (30, 28, 30))
TOPS: tuple[Colour, ...] = (
    (40, 44, 54), (62, 66, 70), (120, 124, 128), (200, 198, 192), (150, 40, 44), (44, 72, 122), (58, 90, 66),
    (176, 148, 96), (96, 60, 84), (88, 110, 140), (214, 206, 170), (30, 30, 34),
)  # fmt: skip
BOTTOMS: tuple[Colour, ...] = ((44, 50, 66), (36, 36, 40), (72, 78, 92), (124, 112, 92), (90, 92, 94), (54, 62, 84))
SHOES: tuple[Colour, ...] = ((34, 30, 28), (70, 56, 46), (190, 190, 190))
STEEL: Colour = (52, 54, 58)
RUBBER: Colour = (26, 26, 28)
HAND_M = 0.34  # a carried suitcase is this far to the right


@dataclass(frozen=True, slots=True)
class Look:
    """What one person looks like. height: metres; build: a factor of the width; dress, sleeves: cloth on the limbs."""

    height: float
    build: float
    skin: Colour
    hair: Colour
    top: Colour
    bottom: Colour
    shoe: Colour
    dress: float
    sleeves: bool
    backpack: bool
    handbag: bool
    pattern: Float32  # (8, 8) light factors of the cloth


def random_look(rng: np.random.Generator) -> Look:
    """A person; every field is drawn independently."""
    pattern = np.ones((8, 8), np.float32)
    style = int(rng.integers(0, 5))
    if style == 1:
        pattern[::2] = 0.72  # stripes around the body
    elif style == 2:
        pattern[:, 3:5] = 0.7  # an open jacket
    elif style == 3:
        pattern[2:4, 2:6] = 1.3  # a print
    pattern *= 0.9 + 0.2 * rng.random((8, 8), dtype=np.float32)
    return Look(
        height=between(rng, 1.55, 1.90),
        build=between(rng, 0.88, 1.22),
        skin=pick(rng, SKIN),
        hair=pick(rng, HAIR),
        top=pick(rng, TOPS),
        bottom=pick(rng, BOTTOMS),
        shoe=pick(rng, SHOES),
        dress=max(0.0, between(rng, -1.2, 0.5)),
        sleeves=bool(rng.random() < 0.7),
        backpack=bool(rng.random() < 0.25),
        handbag=bool(rng.random() < 0.25),
        pattern=pattern,
    )


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A uniform draw; written out because `Generator.uniform` may round differently on another processor."""
    return low + (high - low) * float(rng.random())


def pick(rng: np.random.Generator, table: Sequence[Colour]) -> Colour:
    """One entry of a table."""
    return table[int(rng.integers(0, len(table)))]


@dataclass(frozen=True, slots=True)
class Gait:
    """How somebody moves: swing of legs and arms, bend of knees and elbows and lean of the body, all in radians."""

    legs: float
    arms: float
    knees: float
    elbows: float
    lean: float


WALK = Gait(0.42, 0.40, 0.75, 0.25, 0.04)
RUN = Gait(0.78, 0.80, 1.70, 1.50, 0.20)


def person(look: Look, gait: Gait, phase: float, pace: float) -> list[Part]:
    """Somebody on foot. phase: strides walked so far; pace: 0 (stands) to 1 (the full gait)."""
    feet, parts = [], []
    for side in (-1, 1):
        swing = wave(phase + 0.25 * (1 - side)) * gait.legs * pace
        lift = max(0.0, wave(phase + 0.25 * (1 - side) + 0.25)) * gait.knees * pace
        leg = _leg(look, side, swing + 0.4 * lift, lift + 0.04)
        feet.append(leg[-1][2])
        parts += leg
        arm_swing = -wave(phase + 0.25 * (1 - side)) * gait.arms * pace
        parts += _arm(look, side, gait.lean * pace, arm_swing, 0.12 + gait.elbows * pace)
    parts += _trunk(look, gait.lean * pace)
    return _fit(look, parts, min(feet) - 0.06)


def cyclist(look: Look, travelled: float) -> list[Part]:
    """A rider on a bicycle, who pedals."""
    parts = _bicycle(look.top)
    for side in (-1, 1):
        turn = travelled / 4.2 + 0.25 * (1 - side)
        pedal = (0.05 + 0.17 * wave(turn), 0.11 * side, 0.29 - 0.17 * wave(turn + 0.25))
        hip, knee = (-0.22, 0.1 * side, 0.98), _joint((-0.22, 0.1 * side, 0.98), pedal, 0.44)
        parts += [_part(hip, knee, 0.09, 0.065, look.bottom, 1), _part(knee, pedal, 0.065, 0.045, look.bottom, 1)]
        parts.append(_part(pedal, (pedal[0] + 0.14, pedal[1], pedal[2]), 0.045, 0.04, look.shoe))
        shoulder, hand = (0.16, 0.2 * side, 1.42), (0.44, 0.24 * side, 1.02)
        parts += [_part(shoulder, (0.25, 0.26 * side, 1.18), 0.055, 0.05, look.top, 1)]
        parts += [_part((0.25, 0.26 * side, 1.18), hand, 0.05, 0.04, look.skin)]
        parts.append(_part((-0.22, 0.08 * side, 1.0), (0.14, 0.1 * side, 1.42), 0.13, 0.15, look.top, 1))
    parts.append(_part((0.22, 0, 1.6), (0.22, 0, 1.68), 0.1, 0.1, look.skin))
    parts.append(_part((0.19, 0, 1.70), (0.23, 0, 1.73), 0.11, 0.1, look.hair))
    return parts


def skater(look: Look, travelled: float) -> list[Part]:
    """Somebody who stands sideways on a board and glides."""
    sway = 0.25 * wave(travelled / 6.0)
    parts = [_part((f, side, u), (g, side, w), a, b, c) for side in (-0.06, 0.06) for f, u, g, w, a, b, c in _BOARD]
    for side in (-1, 1):
        parts += _leg(look, 2.4 * side, 0.3, 0.5)
        parts += _arm(look, side, 0.05, 0.15 + sway * side, 0.3)
    parts += _trunk(look, 0.05)
    body = [
        _turned(part) for part in _fit(look, parts[len(_BOARD) * 2 :], min(p[5] for p in parts[len(_BOARD) * 2 :]) - 0.2)
    ]
    return parts[: len(_BOARD) * 2] + body


_BOARD = (
    (-0.42, 0.12, 0.42, 0.12, 0.05, 0.05, (150, 80, 50)),
    (-0.28, 0.05, -0.28, 0.05, 0.05, 0.05, RUBBER),
    (0.28, 0.05, 0.28, 0.05, 0.05, 0.05, RUBBER),
)


def cart(look: Look, travelled: float) -> list[Part]:
    """A small electric vehicle with a roof and a driver."""
    paint: Colour = (196, 196, 188) if look.sleeves else (70, 110, 90)
    parts = [_part((-0.95, y, 0.52), (0.95, y, 0.50), 0.24, 0.22, paint) for y in (-0.36, -0.12, 0.12, 0.36)]
    parts += [_part((-0.85, -0.38, 0.8), (-0.85, 0.38, 0.8), 0.22, 0.22, STEEL)]  # the bench
    parts += [_part((0.75, -0.3, 0.85), (0.75, 0.3, 0.85), 0.14, 0.14, paint)]
    parts += [_part((-0.9, y, 1.9), (0.8, y, 1.9), 0.09, 0.09, paint) for y in (-0.44, -0.3, -0.15, 0.0, 0.15, 0.3, 0.44)]
    for y in (-0.46, 0.46):
        parts += [_part((x, y, 0.7), (0.85 * x, y, 1.9), 0.03, 0.03, STEEL) for x in (-0.9, 0.9)]
        parts += [part for x in (-0.65, 0.68) for part in _wheel((x, 1.1 * y, 0.25), 0.14, 0.11, 6)]
    parts += [_part((-0.5, y, 0.9), (-0.5, y, 1.35), 0.14, 0.16, look.top, 1) for y in (-0.28, -0.12)]
    parts += [_part((-0.5, y, 0.9), (0.1, y, 0.85), 0.1, 0.08, look.bottom, 1) for y in (-0.3, -0.1)]
    parts += [_part((-0.45, y, 1.3), (0.1, y, 1.1), 0.06, 0.04, look.top, 1) for y in (-0.4, 0.0)]
    return [*parts, _part((-0.48, -0.2, 1.58), (-0.48, -0.2, 1.66), 0.11, 0.11, look.skin)]


def bag(look: Look) -> list[Part]:
    """A suitcase on the ground."""
    parts = [_part((x, y, 0.12), (x, y, 0.58), 0.11, 0.11, look.top, 0.5) for x in (-0.16, 0.0, 0.16) for y in (-0.04, 0.04)]
    return [*parts, _part((-0.08, 0, 0.78), (0.08, 0, 0.78), 0.03, 0.03, STEEL)]


def carried_bag(look: Look) -> list[Part]:
    """The same suitcase in somebody's right hand."""
    return [(p[0], p[1] - HAND_M, p[2] + 0.12, p[3], p[4] - HAND_M, p[5] + 0.12, *p[6:]) for p in bag(look)]


def furniture(kind: str, rng: np.random.Generator) -> list[Part]:
    """A ``lamp``, a ``bin`` or a ``tree``."""
    if kind == "lamp":
        return [
            _part((0, 0, 0), (0, 0, 5.2), 0.09, 0.06, STEEL),
            _part((0, 0, 5.2), (0.9, 0, 5.3), 0.06, 0.12, (190, 190, 184)),
        ]
    if kind == "bin":
        return [_part((0, y, 0.25), (0, y, 0.85), 0.2, 0.22, (70, 84, 74)) for y in (-0.12, 0.12)]
    parts = [_part((0, 0, 0), (0.1, 0, 2.8), 0.17, 0.12, (86, 72, 58))]
    for _ in range(150):
        x, y, up = between(rng, -1.0, 1.0), between(rng, -1.0, 1.0), between(rng, -1.0, 1.0)
        if x * x + y * y + up * up > 1.0:
            continue
        shade = 0.95 + 0.25 * up + between(rng, -0.25, 0.25)
        leaf: Colour = (int(72 * shade), int(88 * shade), int(52 * shade))
        a = (1.3 * x, 1.3 * y, 3.5 + 1.2 * up)
        parts.append(_part(a, (a[0] + 0.2, a[1], a[2] + 0.1), between(rng, 0.12, 0.34), 0.2, leaf, 1))
    return parts


def _part(a: Point, b: Point, ra: float, rb: float, colour: Colour, cloth: float = 0.0) -> Part:
    return (*a, *b, ra, rb, *colour, cloth)


def _leg(look: Look, side: float, angle: float, bend: float) -> list[Part]:
    """Thigh, shin and foot; angle: of the thigh, forward; bend: of the knee."""
    hip = (0.0, 0.09 * side, 0.92)
    knee = _along(hip, 0.45, angle)
    ankle = _along(knee, 0.44, angle - bend)
    toe = _along(ankle, 0.17, angle - bend + 1.35)
    stout = look.build
    bare = look.skin if look.dress > 0.2 else look.bottom
    cloth = look.top if look.dress > 0.2 else look.bottom
    return [
        _part(hip, knee, 0.095 * stout + 0.1 * look.dress, 0.07 + 0.16 * look.dress, cloth, 1),
        _part(knee, ankle, 0.068, 0.045, bare, 1),
        _part(toe, ankle, 0.04, 0.05, look.shoe),
    ]


def _arm(look: Look, side: float, lean: float, angle: float, bend: float) -> list[Part]:
    shoulder = (0.5 * lean, 0.2 * look.build * side, 1.42)
    elbow = _along(shoulder, 0.28, angle)
    hand = _along(elbow, 0.28, angle + bend)
    lower = look.top if look.sleeves else look.skin
    elbow, hand = (elbow[0], elbow[1] + 0.03 * side, elbow[2]), (hand[0], hand[1] + 0.02 * side, hand[2])
    return [_part(shoulder, elbow, 0.06, 0.05, look.top, 1), _part(elbow, hand, 0.05, 0.04, lower, 1)]


def _trunk(look: Look, lean: float) -> list[Part]:
    parts = []
    for side in (-1, 1):
        parts.append(
            _part(
                (0, 0.07 * side, 0.95),
                (0.5 * lean, 0.1 * look.build * side, 1.40),
                0.12 * look.build,
                0.125,
                look.top,
                1,
            )
        )
    parts.append(_part((0.6 * lean, 0, 1.58), (0.6 * lean + 0.01, 0, 1.66), 0.085, 0.1, look.skin))
    parts.append(_part((0.6 * lean - 0.035, 0, 1.63), (0.6 * lean - 0.02, 0, 1.69), 0.095, 0.1, look.hair))
    if look.backpack:
        parts.append(_part((-0.2, 0, 1.1), (-0.18, 0, 1.36), 0.13, 0.12, look.bottom, 1))
    if look.handbag:
        parts.append(_part((-0.03, 0.28, 0.8), (0.1, 0.28, 0.8), 0.1, 0.1, look.shoe))
    return parts


def _fit(look: Look, parts: list[Part], drop: float) -> list[Part]:
    """The parts set down on the ground (by ``drop`` metres) and scaled to the person's height."""
    k = look.height / 1.76
    return [
        (p[0] * k, p[1] * k, (p[2] - drop) * k, p[3] * k, p[4] * k, (p[5] - drop) * k, p[6] * k, p[7] * k, *p[8:])
        for p in parts
    ]


def _turned(part: Part) -> Part:
    """The part after a turn of the body by 53 degrees to its left."""
    return (0.6 * part[0] - 0.8 * part[1], 0.8 * part[0] + 0.6 * part[1], part[2],
            0.6 * part[3] - 0.8 * part[4], 0.8 * part[3] + 0.6 * part[4], *part[5:])  # fmt: skip


def _bicycle(paint: Colour) -> list[Part]:
    back, front = (-0.52, 0.0, 0.34), (0.54, 0.0, 0.34)
    pedals, saddle, head = (0.05, 0.0, 0.29), (-0.2, 0.0, 0.88), (0.4, 0.0, 0.9)
    tubes = ((pedals, saddle), (pedals, head), (saddle, head), (back, pedals), (back, saddle), (head, front))
    parts = _wheel(back, 0.33, 0.025, 10) + _wheel(front, 0.33, 0.025, 10)
    parts += [_part(a, b, 0.025, 0.025, paint) for a, b in tubes]
    return [*parts, _part((0.42, -0.25, 1.0), (0.42, 0.25, 1.0), 0.02, 0.02, STEEL)]


def _wheel(hub: Point, radius: float, tyre: float, n_pieces: int) -> list[Part]:
    turns = [n / n_pieces for n in range(n_pieces + 1)]
    rim = [(hub[0] + radius * wave(turn + 0.25), hub[1], hub[2] + radius * wave(turn)) for turn in turns]
    return [_part(a, b, tyre, tyre, RUBBER) for a, b in pairwise(rim)]


def _along(start: Point, length: float, angle: float) -> Point:
    """The end of a limb that hangs from ``start``, turned forward by ``angle`` radians (a Taylor series: exact)."""
    a2 = angle * angle
    sine = angle * (1 - a2 / 6 * (1 - a2 / 20 * (1 - a2 / 42)))
    cosine = 1 - a2 / 2 * (1 - a2 / 12 * (1 - a2 / 30))
    return start[0] + length * sine, start[1], start[2] - length * cosine


def _joint(hip: Point, foot: Point, limb: float) -> Point:
    """The knee between hip and foot, bent forward, with two limbs of equal length."""
    dx, du = foot[0] - hip[0], foot[2] - hip[2]
    span = math.sqrt(dx * dx + du * du)
    out = math.sqrt(max(0.0, limb * limb - span * span / 4)) / span
    return (hip[0] + foot[0]) / 2 - du * out, (hip[1] + foot[1]) / 2, (hip[2] + foot[2]) / 2 + dx * out
