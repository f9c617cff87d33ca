"""What the methods of the four trained networks share: a network on a stream, its errors over patches, the worst patch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vad.backends.base import Backend
from edge_vad.bundle import Bundle
from edge_vad.errors import BundleFormatError
from edge_vad.memory_read import open_memories
from edge_vad.methods.base import Method, Observation, component_rows
from edge_vad.networks import CHANGE, Network, NetworkSettings, Window, patch_errors
from edge_vad.patches import Patches, worst, worst_mean
from edge_vad.streams import Stopwatch, checked_size
from edge_vad.strict import from_plain, numbers, to_plain
from edge_vad.types import Float32, Frame, Region

Series = Mapping[str, NDArray[np.float64]]
REBUILD = "build the bundle again"
GRID = (4, 6)  # means of a picture that the self-test compares


@dataclass(frozen=True, slots=True)
class Scored:
    """What a method makes of the patch errors of a frame. maps: component -> (rows, columns); at: component -> the patch
    that it is taken from. values: components that belong to no place."""

    maps: Mapping[str, Float32]
    at: Mapping[str, tuple[int, int]]
    values: Mapping[str, float]


class NetworkMethod(Method):
    """Scores frames by how badly a network trained on normal footage reconstructs or predicts them.

    Required
    --------
    names          of the raw scores; one that is an output of the network is left out where the network has not that output.
    score(patches, values)   patch errors by output to scores.
    document(series)         the document's own score of a whole video, which may look ahead.

    Optional
    --------
    pictures, odds, values   the outputs that `score` knows what to do with. Only the first picture is always there: an
                             ablation may lack the others.
    shares                   of the components in the calibrated sum, 1 where not given.
    """

    names: ClassVar[tuple[str, ...]]
    pictures: ClassVar[tuple[str, ...]] = ("appearance", "motion")
    odds: ClassVar[tuple[str, ...]] = ()
    values: ClassVar[tuple[str, ...]] = ()
    shares: ClassVar[Mapping[str, float]] = {}

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every component in the calibrated sum."""
        return {name: self.shares.get(name, 1.0) for name in self.components}

    def __init__(self, settings: NetworkSettings, network: Network, plain: Mapping[str, Any] | None = None) -> None:
        """plain: the settings as they stand in the bundle. Raises BundleFormatError where they are another method's."""
        self._check(settings)
        self._settings = settings
        self._network = network
        self._window = Window(settings)
        self._plain = to_plain(settings) if plain is None else plain
        self._patches = settings.patches or Patches(*settings.size, *settings.size)
        self.image_size = settings.image_size
        outputs = {*settings.scored, *settings.values}
        self.components = tuple(name for name in self.names if name in outputs) or self.names
        self.reset()

    @classmethod
    def open(cls, bundle: Bundle, backend: type[Backend], *, threads: int, device: str, bank: str) -> Method:
        """See `Method.open`."""
        settings = from_plain(NetworkSettings, bundle.preprocessing, "preprocessing.json", BundleFormatError)
        if sorted(settings.memories) != bundle.bank_names:
            wanted = sorted(settings.memories)
            raise BundleFormatError(
                f"the network needs the banks {wanted}, the bundle has {bundle.bank_names}; build it again"
            )
        session, memories = backend(bundle.model("network"), threads=threads, device=device), None
        if settings.memories:
            decoder = backend(bundle.model("decoder"), threads=threads, device=device)
            stored = {name: bundle.stored(name) for name in bundle.bank_names}
            graphs = {name: bundle.graph(name) for name in bundle.bank_names}
            memories = open_memories(settings.memories, stored, graphs, bank, decoder)
        return cls(settings, Network(session, settings, memories))

    def _check(self, settings: NetworkSettings) -> None:
        """Names that a bundle made up would be a KeyError in the middle of a stream."""
        told = ((settings.targets, self.pictures), (settings.odds, self.odds), (settings.values, self.values))
        odd = [name for names, known in told for name in names if name not in known]
        odd += [CHANGE] if settings.change_of and CHANGE not in self.names else []
        if odd:
            raise BundleFormatError(f"preprocessing.json: {min(odd)!r} is no output that this method scores; {REBUILD}")
        for key, known, wanted in (
            ("targets", settings.targets, {self.pictures[0]}),
            ("means", settings.means, {self.pictures[0], *settings.scored}),
        ):
            missing = wanted - set(known)
            if missing:
                raise BundleFormatError(f"preprocessing.json: {key}: {min(missing)!r} is missing; {REBUILD}")

    @abstractmethod
    def score(self, patches: Mapping[str, Float32], values: Mapping[str, float]) -> Scored:
        """Raw scores from the mean errors of all patches (rows, columns) and the network's own values, by output."""

    @staticmethod
    @abstractmethod
    def document(series: Series) -> NDArray[np.float64]:
        """The document's normalised score (n,) of a video, from the raw components (n,) of all its frames."""

    def reset(self) -> None:
        self._window.reset()
        self._countdown = 0
        self._last: Observation | None = None

    def observe(self, frame: Frame) -> Observation:
        checked_size(frame, self._settings.image_size)
        watch = Stopwatch()
        with watch("window"):
            window = self._window.add(frame.image)
        if window is None:
            return Observation(dict.fromkeys(self.components, np.nan), stage_ms=watch.stage_ms)
        self._countdown -= 1
        if self._countdown > 0 and self._last is not None:
            last = self._last
            return Observation(last.components, last.regions, last.region_components, last.maps, watch.stage_ms)
        self._countdown = self._settings.every
        with watch("network"):
            found = self._network(window)
        with watch("patches"):
            patches = patch_errors(self._settings, window, found)
            scored = self.score(patches, {name: float(found[name][0]) for name in self._settings.values})
        self._last = self._observation(scored, watch.stage_ms)
        return self._last

    def _observation(self, scored: Scored, stage_ms: Mapping[str, float]) -> Observation:
        places = list(dict.fromkeys(scored.at.values()))
        raw = {name: worst_mean(scores) for name, scores in scored.maps.items()}
        of_regions = {
            name: np.array([raw[name] if scored.at[name] == place else 0 for place in places], dtype=np.float32)
            for name in scored.at
        }
        components = {**raw, **scored.values}
        maps = {name: self._patches.spread(scores, self._settings.size) for name, scores in scored.maps.items()}
        return Observation(components, tuple(map(self._region, places)), of_regions, maps, stage_ms)

    def _region(self, place: tuple[int, int]) -> Region:
        """A patch in pixels of the camera's picture."""
        x0, y0, x1, y1 = self._patches.box(*place)
        width, height = self._settings.size
        x, y = self._settings.image_size[0] / width, self._settings.image_size[1] / height
        return Region(x0 * x, y0 * y, min(x1, width) * x, min(y1, height) * y)

    def as_read(self) -> dict[str, np.ndarray]:
        """``settings.network``: the numbers in the settings; ``bank.NAME``: the sums of every memory in a bank."""
        sums = self._network.memories.sums() if self._network.memories else {}
        return {"settings.network": np.array(numbers(self._plain)), **{f"bank.{name}": v for name, v in sums.items()}}

    def bank_kinds(self) -> dict[str, str]:
        return self._network.memories.kinds() if self._network.memories else {}

    def golden(self, frames: list[Frame]) -> dict[str, np.ndarray]:
        """``embedding.OUTPUT``: means of the network's pictures over a grid, each channel; and the components."""
        self.reset()
        seen = [self.observe(frame) for frame in frames]
        self._window.reset()
        windows = [self._window.add(frame.image) for frame in frames]
        found = [self._network(window) for window in windows if window is not None]
        self.reset()
        pictures = {
            f"embedding.{name}": np.stack([_grid(outputs[name]) for outputs in found]) for name in self._settings.targets
        }
        return {"components": component_rows(seen), **pictures}


def lone(name: str, scores: Float32) -> Scored:
    """One component, taken from its worst patch."""
    return Scored({name: scores}, {name: worst(scores)}, {})


def between(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (n,) of a video between its own minimum and maximum: 0..1. It looks ahead."""
    low, high = float(scores.min()), float(scores.max())
    return (scores - low) / max(high - low, 1e-12)


def _grid(pictures: Float32) -> Float32:
    """Pictures (k, 3, h, w) -> the means (72,) of a coarse grid over the last of them."""
    parts = [np.array_split(row, GRID[1], axis=2) for row in np.array_split(pictures[-1], GRID[0], axis=1)]
    return np.array([part.mean(axis=(1, 2)) for row in parts for part in row], dtype=np.float32).reshape(-1)
