"""VideoPatchCore (document 000) on a live stream: distances to the memories of normal footage.

Components: ``spatial``, ``temporal`` and ``highlevel`` are the paper's three memory banks; ``velocity`` (a fourth bank)
and ``speed`` (one-sided, no bank) are measured from RGB difference in the place of optical flow. With an object
detector, ``object_spatial`` and so on are the same for its boxes. Each component of a frame is the largest over its
regions and patches (equations 8 and 9).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from edge_vad.backends.base import Backend
from edge_vad.banks.base import Bank, open_bank
from edge_vad.batch import Steps
from edge_vad.bundle import Bundle
from edge_vad.errors import BundleFormatError
from edge_vad.features import Encoder
from edge_vad.methods.base import Method, Observation, component_rows
from edge_vad.object_detector import ObjectDetector
from edge_vad.streams import COMPONENTS, OBJECT_PREFIX, Extractor, FrameFeatures, LocalFeatures, Settings, Stopwatch
from edge_vad.strict import from_plain, numbers, to_plain
from edge_vad.types import Float32, Frame, Region
from edge_vad.vectors import bank_sums

# Detector boxes show an object in the very first frame; all else needs a frame to compare with.
APPEARS_AT_ONCE = OBJECT_PREFIX + "spatial"
# Banks that a backend's device can search in the place of the plug-in: exactly, over unpacked rows.
ON_DEVICE = ("auto", "exact")
log = logging.getLogger(__name__)


class BankSearch:
    """Features of a frame to raw scores: the nearest row of each memory bank."""

    def __init__(self, settings: Settings, banks: dict[str, Bank]) -> None:
        self._settings = settings
        self._banks = banks
        self.reset()

    def reset(self) -> None:
        """Forget the last high-level score, which holds until the next row falls due."""
        self._highlevel = np.nan

    def exactly(self) -> BankSearch:
        """The same, of banks that miss no nearest row."""
        return BankSearch(self._settings, {name: bank.exactly() for name, bank in self._banks.items()})

    def kinds(self) -> dict[str, str]:
        """The plug-in behind each bank; of edge-vad's own, the plain name."""
        return {name: type(bank).__module__.removeprefix("edge_vad.banks.") for name, bank in self._banks.items()}

    def __call__(self, features: FrameFeatures) -> Observation:
        """Raw scores of one frame's features; frames come in order."""
        watch = Stopwatch()
        watch.stage_ms.update(features.stage_ms)
        with watch("search"):
            scores = {prefix: self._distances(prefix, local) for prefix, local in features.local.items()}
            if features.highlevel is not None and "highlevel" in self._banks:
                self._highlevel = float(self._banks["highlevel"].search(features.highlevel[None])[0][0, 0])
        return self.observation(features.local, scores, watch.stage_ms)

    def observation(
        self, found: Mapping[str, LocalFeatures], scores: Mapping[str, Mapping[str, Float32]], stage_ms: Mapping[str, float]
    ) -> Observation:
        """What is said of a frame: scores are the raw ones (n,) of the regions of each stream, by component."""
        components = {
            name: float(values.max(initial=0.0)) if found[prefix].known or name == APPEARS_AT_ONCE else np.nan
            for prefix, named in scores.items()
            for name, values in named.items()
        }
        if "highlevel" in self._settings.components:
            components["highlevel"] = self._highlevel
        regions, per_region = self._regions(found, scores)
        return Observation(components, regions, per_region, {}, stage_ms)

    def scored(self, prefix: str) -> list[str]:
        """The components of the regions of one stream."""
        kinds = {name: name.removeprefix(prefix) for name in self._settings.components if name.startswith(prefix)}
        return [name for name, kind in kinds.items() if kind in COMPONENTS and kind != "highlevel"]

    def _distances(self, prefix: str, local: LocalFeatures) -> dict[str, Float32]:
        """Raw score (n,) of every region, by component."""
        scores: dict[str, Float32] = {}
        for name in self.scored(prefix):
            kind = name.removeprefix(prefix)
            if kind == "speed":
                scores[name] = local.speed
            elif not len(local.boxes):
                scores[name] = np.zeros(0, dtype=np.float32)
            else:
                rows = local.rows[kind]
                distances, _ = self._banks[name].search(rows.reshape(-1, rows.shape[2]))
                scores[name] = distances.reshape(rows.shape[:2]).max(axis=1)
                if kind == "temporal":  # a region that continues none has no difference in time
                    scores[name] *= local.continued
        return scores

    def _regions(
        self, found: Mapping[str, LocalFeatures], scores: Mapping[str, Mapping[str, Float32]]
    ) -> tuple[tuple[Region, ...], dict[str, Float32]]:
        """The regions of all streams in image pixels, and their components; 0 for the components of other streams."""
        factor = self._settings.factor
        regions: list[Region] = []
        for local in found.values():
            for box, confidence, age in zip(local.boxes * factor, local.confidence, local.age, strict=True):
                x0, y0, x1, y1 = (float(v) for v in box)
                regions.append(Region(x0, y0, x1, y1, float(confidence), int(age)))
        per_region = {}
        start = 0
        for prefix, local in found.items():
            for name, values in scores[prefix].items():
                per_region[name] = np.zeros(len(regions), dtype=np.float32)
                per_region[name][start : start + len(values)] = values
            start += len(local.boxes)
        return tuple(regions), per_region


class VideoPatchCore(Method):
    """Scores frames by their distance to the memory banks."""

    memorising: ClassVar[bool] = False  # whether its features also fill banks
    without_network = frozenset(("motion", "velocity", "speed"))

    def __init__(
        self,
        settings: Settings,
        extractor: Extractor,
        search: BankSearch,
        sums: Mapping[str, Float32],
        plain: Mapping[str, Any] | None = None,
    ) -> None:
        """For the self-test: sums, `bank_sums` of every bank, and plain, the settings as they stand in the bundle."""
        self._settings = settings
        self.image_size = settings.image_size
        self.components = settings.components
        self._extractor = extractor
        self._search = search
        self._sums = sums
        self._plain = to_plain(settings) if plain is None else plain

    @classmethod
    def open(cls, bundle: Bundle, backend: type[Backend], *, threads: int, device: str, bank: str) -> Method:
        """See `Method.open`. With a backend that takes tensors, everything runs where they lie (`edge_vad.tensors`)."""
        settings = from_plain(Settings, bundle.preprocessing, "preprocessing.json", BundleFormatError)
        if sorted(settings.banks) != bundle.bank_names:
            raise BundleFormatError(f"the components need the banks {settings.banks}, the bundle has {bundle.bank_names}")
        session = backend(bundle.model("encoder"), threads=threads, device=device)
        objects = backend(bundle.model("detector"), threads=threads, device=device) if settings.objects else None
        if session.torch_device and not cls.memorising:
            if bank in ON_DEVICE:
                from edge_vad.tensors.method import open_on_device

                return open_on_device(bundle, settings, session, objects)
            log.info(
                "bank %s searches on the host, so all but the networks runs there; with auto it stays on the device", bank
            )
        encoder = Encoder(session, settings.preprocessing)
        detector = ObjectDetector(objects, settings.objects) if objects and settings.objects else None
        banks: dict[str, Bank] = {}
        sums: dict[str, Float32] = {}
        for name in bundle.bank_names:
            rows = bundle.stored(name)
            banks[name], sums[name] = open_bank(bank, rows, bundle.graph(name)), bank_sums(rows)
        extractor = Extractor(settings, encoder, detector, cls.memorising)
        return cls(settings, extractor, BankSearch(settings, banks), sums, bundle.preprocessing)

    def with_banks(self, banks: dict[str, Bank], rows: Mapping[str, Float32]) -> VideoPatchCore:
        """The same extractor over other banks, which hold ``rows`` (m, c) by name."""
        search = BankSearch(self._settings, banks)
        sums = {name: bank_sums(values) for name, values in rows.items()}
        return VideoPatchCore(self._settings, self._extractor, search, sums, self._plain)

    def reset(self) -> None:
        self._extractor.reset()
        self._search.reset()

    def observe(self, frame: Frame) -> Observation:
        return self._search(self._extractor(frame))

    def steps(self, frame: Frame) -> Steps[Observation]:
        features = yield from self._extractor.steps(frame)
        return self._search(features)

    def as_read(self) -> dict[str, np.ndarray]:
        """``settings.features``: the numbers in the settings; ``bank.NAME``: the sums of every bank."""
        return read_arrays(self._plain, self._sums)

    def bank_kinds(self) -> dict[str, str]:
        return self._search.kinds()

    def golden(self, frames: list[Frame]) -> dict[str, np.ndarray]:
        """``regions.motion``: number and means of each frame's regions; ``embedding.NAME``: of the rows that are searched;
        ``distances.NAME``: means over the regions; and the components. Without search graphs, which miss a nearest row now
        and then: whether they lead to the rows was seen when they were opened."""
        self.reset()
        search = self._search.exactly()
        features = [self._extractor(frame) for frame in frames]
        seen = [search(found) for found in features]
        self.reset()
        return golden_arrays(features, seen)


def read_arrays(plain: Mapping[str, Any], sums: Mapping[str, Float32]) -> dict[str, np.ndarray]:
    """`Method.as_read`: of the settings as they stand in the bundle, and the sums of every bank."""
    return {"settings.features": np.array(numbers(plain)), **{f"bank.{name}": values for name, values in sums.items()}}


def golden_arrays(features: list[FrameFeatures], seen: list[Observation]) -> dict[str, np.ndarray]:
    """`Method.golden`: of the features of some frames and what was made of them."""
    distances = {
        name: np.array([_mean(observation.region_components[name]) for observation in seen], dtype=np.float32)
        for name in seen[-1].region_components
    }
    return {
        "components": component_rows(seen),
        "regions.motion": np.stack([_region_sums(found.local[""]) for found in features]),
        **{f"embedding.{name}": values for name, values in _embeddings(features).items()},
        **{f"distances.{name}": values for name, values in distances.items()},
    }


def _region_sums(local: LocalFeatures) -> Float32:
    """Number of regions and the means of their boxes and confidences, (6,)."""
    rows = np.concatenate([local.boxes, local.confidence[:, None]], axis=1)
    return np.append(len(rows), rows.mean(axis=0) if len(rows) else np.zeros(5)).astype(np.float32)


def _embeddings(features: list[FrameFeatures]) -> dict[str, Float32]:
    """Root mean square (n, c) of each frame's rows, by bank; 0 where a frame has none. A mean would not see pooling."""
    found: dict[str, list[Float32 | None]] = {}
    for i, frame in enumerate(features):
        rows = {prefix + kind: r for prefix, local in frame.local.items() for kind, r in local.rows.items()}
        if frame.highlevel is not None:
            rows["highlevel"] = frame.highlevel[None, None]
        for name, values in rows.items():
            squares = np.square(values.reshape(-1, values.shape[-1]))
            found.setdefault(name, [None] * len(features))[i] = np.sqrt(squares.mean(axis=0))
    return {name: _stacked(values) for name, values in found.items()}


def _stacked(values: list[Float32 | None]) -> Float32:
    width = next(len(v) for v in values if v is not None)
    return np.stack([np.zeros(width, np.float32) if v is None else v for v in values]).astype(np.float32)


def _mean(values: Float32) -> float:
    return float(values.mean()) if len(values) else 0.0
