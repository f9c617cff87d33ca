"""VideoPatchCore and one trained network on the same stream; their components join in the calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_vad.backends.base import Backend
from edge_vad.batch import Steps, run_alone
from edge_vad.bundle import Bundle
from edge_vad.errors import BundleFormatError
from edge_vad.manifest import PREPROCESSING, canonical_json
from edge_vad.methods.base import Method, Observation, component_rows
from edge_vad.plugins import available, load
from edge_vad.strict import check_range, from_plain
from edge_vad.types import Float32, Frame

ENSEMBLE, MEMORY = "ensemble", "videopatchcore"
MEMBERS = ("maam", "amco", "desd", "stpag")  # what may stand beside VideoPatchCore


@dataclass(frozen=True, slots=True)
class EnsembleSettings:
    """``preprocessing.json``. videopatchcore, network: the settings of either; method: of the network; every: processed
    frames from one run of either to its next."""

    videopatchcore: dict[str, Any]
    network: dict[str, Any]
    method: str
    every: tuple[int, int]

    def __post_init__(self) -> None:
        check_range(1, 1000, videopatchcore=self.every[0], network=self.every[1])
        if self.method not in MEMBERS:
            raise ValueError(f"method: {self.method!r} cannot stand beside VideoPatchCore (known: {', '.join(MEMBERS)})")


class Ensemble(Method):
    """Runs both, each at its own stride, and gives the components of both; those of the network begin with its name."""

    without_network = frozenset(("motion", "velocity", "speed"))

    def __init__(self, memory: Method, network: Method, settings: EnsembleSettings) -> None:
        self._methods = (memory, network)
        self._every = settings.every
        self._prefixes = ("", f"{settings.method}_")
        self.image_size = memory.image_size
        self.components = tuple(
            prefix + name for prefix, one in zip(self._prefixes, self._methods, strict=True) for name in one.components
        )
        self.reset()

    @classmethod
    def open(cls, bundle: Bundle, backend: type[Backend], *, threads: int, device: str, bank: str) -> Method:
        """See `Method.open`."""
        settings = from_plain(EnsembleSettings, bundle.preprocessing, PREPROCESSING, BundleFormatError)
        said = {"threads": threads, "device": device, "bank": bank}
        memory = _open(MEMORY, bundle, settings.videopatchcore, backend, said)
        network = _open(settings.method, without_banks(bundle), settings.network, backend, said)
        if memory.image_size != network.image_size:
            raise BundleFormatError(f"{PREPROCESSING}: its two methods are for pictures of different sizes; build it again")
        return cls(memory, network, settings)

    def reset(self) -> None:
        for method in self._methods:
            method.reset()
        self._number = 0
        self._last: list[Observation | None] = [None, None]

    def observe(self, frame: Frame) -> Observation:
        return run_alone(self.steps(frame))

    def steps(self, frame: Frame) -> Steps[Observation]:
        stage_ms: dict[str, float] = {}
        for i, (method, every) in enumerate(zip(self._methods, self._every, strict=True)):
            if self._number % every == 0:
                seen = yield from method.steps(frame)
                self._last[i] = seen
                for stage, ms in seen.stage_ms.items():
                    stage_ms[stage] = stage_ms.get(stage, 0.0) + ms
        self._number += 1
        return self._joined([seen for seen in self._last if seen is not None], stage_ms)

    def _joined(self, seen: list[Observation], stage_ms: Mapping[str, float]) -> Observation:
        """The components and regions of both; a region has 0 for the components of the other."""
        n_regions = sum(len(one.regions) for one in seen)
        components: dict[str, float] = {}
        per_region: dict[str, Float32] = {}
        start = 0
        for prefix, one in zip(self._prefixes, seen, strict=True):
            components |= {prefix + name: value for name, value in one.components.items()}
            for name, values in one.region_components.items():
                per_region[prefix + name] = np.zeros(n_regions, dtype=np.float32)
                per_region[prefix + name][start : start + len(values)] = values
            start += len(one.regions)
        return Observation(components, tuple(r for one in seen for r in one.regions), per_region, {}, stage_ms)

    def as_read(self) -> dict[str, np.ndarray]:
        """Of both."""
        return {name: values for method in self._methods for name, values in method.as_read().items()}

    def bank_kinds(self) -> dict[str, str]:
        return self._methods[0].bank_kinds()

    def golden(self, frames: list[Frame]) -> dict[str, np.ndarray]:
        """Of both, each on the frames that it processes, and the joined components."""
        found: dict[str, np.ndarray] = {}
        for prefix, method, every in zip(self._prefixes, self._methods, self._every, strict=True):
            values = method.golden(frames[::every])
            del values["components"]
            found |= {name.replace(".", f".{prefix}", 1): value for name, value in values.items()}
        self.reset()
        seen = [self.observe(frame) for frame in frames]
        self.reset()
        return {**found, "components": component_rows(seen)}


def _open(name: str, bundle: Bundle, settings: Mapping[str, Any], backend: type[Backend], said: Mapping[str, Any]) -> Method:
    """One of the two, from its part of the bundle."""
    assert name in available("methods")
    part = replace(bundle, members={**bundle.members, PREPROCESSING: canonical_json(settings)})
    return load("methods", name, Method).open(part, backend, **said)


def without_banks(bundle: Bundle) -> Bundle:
    """The bundle as a network sees it whose memory lies in its graph."""
    return replace(bundle, manifest=replace(bundle.manifest, banks={}, indexes={}))
