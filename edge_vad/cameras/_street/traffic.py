"""Who is on the synthetic street at which moment. Every position is a function of time alone, so that any frame can be
drawn, and its truth be told, without those before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edge_vad.cameras._street import figures
from edge_vad.cameras._street.drawing import Pose
from edge_vad.cameras._street.figures import Look, Part, between, random_look
from edge_vad.cameras._street.scene import DOOR_M, DOORS_EVERY_M, Ground, View, wave
from edge_vad.errors import SourceError

ANOMALIES = ("cyclist", "runner", "cart", "against", "skater", "object")

SLOT_S = 2.0  # arrivals are drawn for pieces of time of this length
LONGEST_STAY_S = 80.0  # nobody is in the picture for longer
GAP_S = (5.0, 10.0)  # normal time between two anomalies
STAY_S = (9.0, 13.0)  # how long an object is left behind
SPEEDS = {"walker": (1.12, 1.68), "runner": (3.6, 4.4), "cyclist": (4.0, 6.0), "cart": (3.0, 4.0), "skater": (2.7, 3.3)}
RAMP_S = 0.7  # how long somebody takes to stop or to set off

Vector = tuple[float, float]  # (x, z) in metres; of times: (from, until) in seconds


@dataclass(frozen=True, slots=True)
class Way:
    """A line on the ground: from start (x, z) along a unit vector, weaving to both sides by ``weave`` metres."""

    start: Vector
    direction: Vector
    length: float
    weave: float = 0.0
    period: float = 30.0
    phase: float = 0.0

    def at(self, metres: float) -> Vector:
        """World (x, z) after so many metres."""
        aside = self.weave * wave(metres / self.period + self.phase)
        (x, z), (dx, dz) = self.start, self.direction
        return x + dx * metres - dz * aside, z + dz * metres + dx * aside

    def heading(self, metres: float) -> Vector:
        """Unit vector of the direction after so many metres."""
        (x0, z0), (x1, z1) = self.at(metres - 0.2), self.at(metres + 0.2)
        length = math.sqrt((x1 - x0) * (x1 - x0) + (z1 - z0) * (z1 - z0))
        return (x1 - x0) / length, (z1 - z0) / length


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody or something that is in the street from ``enters`` to ``leaves`` (seconds).

    figure: how it looks and moves; anomaly: its kind of anomaly, "" for normal traffic.
    pause: (middle, half of its length) in seconds of a stop on the way; carries: (from, until) it has the suitcase.
    """

    figure: str
    anomaly: str
    look: Look
    path: Way
    speed: float
    enters: float
    leaves: float
    phase: float = 0.0
    pause: Vector | None = None
    carries: Vector | None = None

    def travelled(self, t: float) -> float:
        """Metres since it entered."""
        if self.pause is None:
            return self.speed * (t - self.enters)
        middle, half = self.pause
        after = _eased(abs(t - middle), half)
        return self.speed * (_eased(middle - self.enters, half) + (after if t > middle else -after))

    def pace(self, t: float) -> float:
        """0 while it stands, 1 at full speed."""
        if self.pause is None:
            return 1.0
        middle, half = self.pause
        return min(1.0, max(0.0, (abs(t - middle) - half) / RAMP_S))

    def pose(self, t: float) -> Pose:
        """Its body at ``t``, where it stands then."""
        metres = self.travelled(t)
        return Pose(self._parts(t, metres), self.path.at(metres), self.path.heading(metres), self.look.pattern)

    def _parts(self, t: float, metres: float) -> list[Part]:
        if self.figure == "object":
            return figures.bag(self.look)
        if self.figure in ("walker", "runner"):
            gait = figures.RUN if self.figure == "runner" else figures.WALK
            stride = 0.55 * self.look.height + 0.35 * self.speed
            parts = figures.person(self.look, gait, metres / stride + self.phase, self.pace(t))
            carries = self.carries is not None and self.carries[0] <= t < self.carries[1]
            return parts + figures.carried_bag(self.look) if carries else parts
        draw = {"cyclist": figures.cyclist, "cart": figures.cart, "skater": figures.skater}[self.figure]
        return draw(self.look, metres)


@dataclass(frozen=True, slots=True)
class Incident:
    """One anomaly: its actors, and when the first is in the picture (if nothing hides it) and the last no longer is."""

    actors: tuple[Actor, ...]
    begins: float
    ends: float


class Traffic:
    """Everybody who comes along a street, by seed; ``kinds`` of anomalies come again and again, each once per round."""

    def __init__(self, view: View, ground: Ground, seed: int, kinds: tuple[str, ...], first_gap: float = GAP_S[1]) -> None:
        self._view, self._ground, self._seed, self._kinds = view, ground, seed, kinds
        self._first_gap = first_gap
        self._slots: dict[int, list[Actor]] = {}
        self._incidents: list[Incident] = []  # the latest ones
        self._n_incidents = 0

    def actors(self, t: float) -> list[Actor]:
        """Who is in the street at ``t`` seconds."""
        last = math.floor(t / SLOT_S)
        slots = range(last - int(LONGEST_STAY_S / SLOT_S), last + 1)
        here = [actor for slot in slots for actor in self._arrivals(slot)]
        here += [actor for incident in self._around(t) for actor in incident.actors]
        return [actor for actor in here if actor.enters <= t < actor.leaves]

    def _arrivals(self, slot: int) -> list[Actor]:
        if slot not in self._slots:
            if len(self._slots) > 4 * LONGEST_STAY_S:
                self._slots.clear()  # an endless stream must not grow
            rng = np.random.Generator(np.random.PCG64([self._seed, 1, slot + 1000]))
            groups = math.floor(self._view.groups_per_s * SLOT_S + float(rng.random()))
            self._slots[slot] = [walker for _ in range(groups) for walker in self._group(rng, slot)]
        return self._slots[slot]

    def _group(self, rng: np.random.Generator, slot: int) -> list[Actor]:
        """One to three people side by side; some stop on their way."""
        size = 1 + int(rng.random() < 0.3) + int(rng.random() < 0.1)
        path = self._street_path(rng, spare=0.65 * (size - 1))
        if path is None:
            return []
        speed, enters = between(rng, *SPEEDS["walker"]), SLOT_S * (slot + float(rng.random()))
        pause = None
        if rng.random() < 0.18:
            half = between(rng, 1.5, 4.5)
            pause = (enters + between(rng, 0.25, 0.7) * path.length / speed + half, half)
        members = []
        for n in range(size):
            beside = _beside(path, 0.65 * n, between(rng, -0.25, 0.25))
            carries = (-math.inf, math.inf) if rng.random() < 0.15 else None
            members.append(_walker(beside, random_look(rng), speed, enters, pause, float(rng.random()), carries))
        return members

    def _street_path(self, rng: np.random.Generator, spare: float = 0.0, straight: bool = False) -> Way | None:
        """A way through the picture along one of the walkways; None where the picture does not show it."""
        low, high = self._view.walkways[int(rng.integers(0, len(self._view.walkways)))]
        room = (high - low - spare) / 2
        weave = 0.0 if straight else room * between(rng, 0.0, 1.0) * float(rng.random())
        q = low + weave + between(rng, 0.0, 2 * (room - weave))
        ax, az = self._view.along
        turn = -1.0 if rng.random() < 0.5 and not self._view.one_way else 1.0
        if turn < 0:
            q += spare  # the others of the group walk to the left of the first
        path = self._through(self._ground.world(0.0, q), (ax * turn, az * turn), weave)
        if path is None:
            return None
        return replace(path, weave=weave, period=between(rng, 22, 45), phase=float(rng.random()))

    def _through(self, point: Vector, direction: Vector, margin: float = 0.0, limits: Vector = (-90.0, 90.0)) -> Way | None:
        """The piece of a line through ``point`` that lies in the picture, and a little more on both sides."""
        steps = np.arange(limits[0], limits[1], 0.5)
        x, z = point[0] + steps * direction[0], point[1] + steps * direction[1]
        scale = self._ground.focal / np.maximum(z, 4.0)
        u, v = self._ground.size[0] / 2 + scale * x, self._ground.horizon + scale * self._ground.height_m
        side, (width, height) = (1.6 + margin) * scale, self._ground.size
        seen = np.flatnonzero((z > 4.0) & (u > -side) & (u < width + side) & (v > -0.5 * scale) & (v - 2.0 * scale < height))
        if not len(seen):
            return None
        first, last = float(steps[seen[0]]), float(steps[seen[-1]])
        return Way((point[0] + first * direction[0], point[1] + first * direction[1]), direction, last - first)

    def _around(self, t: float) -> list[Incident]:
        """The incidents whose actors may be in the street at ``t``."""
        if self._incidents and t < self._incidents[0].begins - LONGEST_STAY_S:
            self._incidents, self._n_incidents = [], 0  # asked for a time that was forgotten: begin again
        while self._kinds and (not self._incidents or self._incidents[-1].begins < t + LONGEST_STAY_S):
            latest = self._incident(self._n_incidents)
            self._incidents = [*self._incidents[-99:], latest]  # an endless stream must not grow
            self._n_incidents += 1
        return [i for i in self._incidents if i.begins - LONGEST_STAY_S < t < i.ends + LONGEST_STAY_S]

    def _incident(self, number: int) -> Incident:
        rounds, place = divmod(number, len(self._kinds))
        order = np.random.Generator(np.random.PCG64([self._seed, 3, rounds])).permutation(len(self._kinds))
        rng = np.random.Generator(np.random.PCG64([self._seed, 2, number]))
        gap = between(rng, *GAP_S)
        begins = self._incidents[-1].ends + gap if self._incidents else min(gap, self._first_gap)
        kind = self._kinds[int(order[place])]
        for _ in range(100):
            found = self._left_object(rng, begins) if kind == "object" else self._mover(rng, kind, begins)
            if found is not None:
                return found
        raise SourceError(
            f"a picture of {self._ground.size[0]}x{self._ground.size[1]} does not show this street; use size=360x240"
        )

    def _mover(self, rng: np.random.Generator, kind: str, begins: float) -> Incident | None:
        """Somebody who should not be here, or not like this, on the way through the picture."""
        path = self._forbidden_path(rng) if kind == "against" else self._street_path(rng, straight=True)
        if path is None:
            return None
        figure = "walker" if kind == "against" else kind
        speed = between(rng, *SPEEDS[figure])
        ends = begins + path.length / speed
        actor = Actor(figure, kind, random_look(rng), path, speed, begins, ends, float(rng.random()))
        return Incident((actor,), begins, ends)

    def _forbidden_path(self, rng: np.random.Generator) -> Way | None:
        """Where nobody walks: against the one way, else straight across the street, from or to a door."""
        ax, az = self._view.along
        low, high = self._view.crossing
        if self._view.one_way:
            return self._through(self._ground.world(0.0, between(rng, low, high)), (-ax, -az))
        walkway = self._through(self._ground.world(0.0, self._view.walkways[0][0]), (ax, az))
        if walkway is None:
            return None
        x, z = walkway.at(walkway.length * between(rng, 0.25, 0.65))
        s = DOORS_EVERY_M * math.floor((x * ax + z * az) / DOORS_EVERY_M) + DOOR_M
        turn = -1.0 if rng.random() < 0.5 else 1.0
        limits = (low, high) if turn > 0 else (-high, -low)
        return self._through(self._ground.world(s, 0.0), (-az * turn, ax * turn), limits=limits)

    def _left_object(self, rng: np.random.Generator, begins: float) -> Incident | None:
        """Somebody stops, puts a suitcase down and goes, and takes it back later; alone, the suitcase is anomalous."""
        path = self._street_path(rng, straight=True)
        if path is None:
            return None
        spot = path.length * between(rng, 0.1, 0.9)
        if not self._in_sight(path.at(spot)):
            return None
        ends = begins + between(rng, *STAY_S)
        look = random_look(rng)
        first = self._bearer(rng, look, path, spot, begins, (-math.inf, begins))
        second = self._bearer(rng, look, path, spot, ends, (ends, math.inf))
        (x, z), (dx, dz) = path.at(spot), path.direction
        place = (x + figures.HAND_M * dz, z - figures.HAND_M * dx)
        case = Actor("object", "object", look, Way(place, path.direction, 0.0), 0.0, begins, ends)
        return Incident((first, second, case), begins, ends)

    def _in_sight(self, place: Vector) -> bool:
        """Whether a thing on the ground at ``place`` is well inside the picture, and not behind what stands around."""
        column, row = self._ground.pixel(*place)
        width, height = self._ground.size
        if not (0.15 * width < column < 0.85 * width and 0.35 * height < row < 0.85 * height):
            return False
        for _, s, q in self._view.furniture:
            x, z = self._ground.world(s, q)
            if z < place[1] and abs(self._ground.pixel(x, z)[0] - column) < 1.8 * self._ground.scale(z):
                return False
        return True

    def _bearer(self, rng: np.random.Generator, look: Look, path: Way, spot: float, when: float, carries: Vector) -> Actor:
        """A walker who stands at ``spot`` metres of the path at the time ``when``."""
        speed, half = between(rng, *SPEEDS["walker"]), 0.8
        enters = when - spot / speed - half - RAMP_S / 2
        return _walker(path, look, speed, enters, (when, half), float(rng.random()), carries)


def _walker(
    path: Way,
    look: Look,
    speed: float,
    enters: float,
    pause: Vector | None,
    phase: float,
    carries: Vector | None = None,
) -> Actor:
    lost = 0.0 if pause is None else 2 * pause[1] + RAMP_S
    leaves = enters + path.length / speed + lost
    return Actor("walker", "", look, path, speed, enters, leaves, phase, pause, carries)


def _beside(path: Way, left: float, ahead: float) -> Way:
    (x, z), (dx, dz) = path.start, path.direction
    return replace(path, start=(x - dz * left + dx * ahead, z + dx * left + dz * ahead))


def _eased(away: float, half: float) -> float:
    """Seconds at full speed that somebody makes good within ``away`` seconds of the middle of a stop."""
    beyond = max(0.0, away - half)
    return beyond * beyond / (2 * RAMP_S) if beyond < RAMP_S else beyond - RAMP_S / 2
