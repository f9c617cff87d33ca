"""VideoPatchCore with everything on the device of its backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_vad.backends.base import LARGEST, Backend
from edge_vad.batch import Steps, run_alone
from edge_vad.bundle import Bundle
from edge_vad.errors import BackendError
from edge_vad.methods.base import Method, Observation
from edge_vad.methods.videopatchcore import BankSearch, VideoPatchCore, golden_arrays, read_arrays
from edge_vad.streams import LocalFeatures, Settings, checked_size
from edge_vad.tensors.features import TensorEncoder
from edge_vad.tensors.object_detector import TensorObjectDetector
from edge_vad.tensors.search import Banks, Nearest, open_banks
from edge_vad.tensors.streams import TensorExtractor, TensorFeatures
from edge_vad.tensors.transfer import Download, device_errors
from edge_vad.types import Float32, Frame
from edge_vad.vectors import bank_sums


class TensorSearch(BankSearch):
    """Features on the device to raw scores."""

    def __init__(self, settings: Settings, banks: Banks) -> None:
        super().__init__(settings, {})
        self._on_device = banks

    def steps(self, features: TensorFeatures) -> Steps[Observation]:
        """Raw scores of one frame's features; frames come in order. Raises BackendError.

        One download, of everything that is said about the frame; none where it holds nothing to score.
        """
        names = {prefix: self.scored(prefix) for prefix in features.local}
        arrays: dict[str, np.ndarray] = {}
        if features.highlevel is not None or any(len(local.boxes) for local in features.local.values()):
            arrays = yield from self._scores(features, names)
        local, scores = self._on_host(features, names, arrays)
        return self.observation(local, scores, features.watch.read())

    def _scores(self, features: TensorFeatures, names: Mapping[str, list[str]]) -> Steps[dict[str, np.ndarray]]:
        """What is downloaded of each stream that has regions."""
        queries = self._queries(features, names)
        distances = (yield Nearest(self._on_device, queries, features.watch)) if queries else {}
        with features.watch("search"):
            busy = {prefix: local for prefix, local in features.local.items() if len(local.boxes)}
            rows = [_rows(local, names[prefix], prefix, distances) for prefix, local in busy.items()]
            known = [distances["highlevel"]] if "highlevel" in distances else []
        found = yield Download([*rows, *features.finite, *known], features.watch)
        if not all(found[len(rows) : len(rows) + len(features.finite)]):
            raise BackendError(f"the model gives numbers beyond {LARGEST:g}, or none")
        if known:
            self._highlevel = float(found[-1][0])
        return dict(zip(busy, found, strict=False))

    def _queries(self, features: TensorFeatures, names: Mapping[str, list[str]]) -> dict[str, Tensor]:
        queries = {
            name: local.rows[name.removeprefix(prefix)].flatten(0, 1)
            for prefix, local in features.local.items()
            for name in names[prefix]
            if name.removeprefix(prefix) in local.rows
        }
        if features.highlevel is not None:
            queries["highlevel"] = features.highlevel[None]
        return queries

    def _on_host(
        self, features: TensorFeatures, names: Mapping[str, list[str]], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, LocalFeatures], dict[str, dict[str, Float32]]]:
        """What `BankSearch.observation` takes, from the downloaded rows: age, then one for each component."""
        found, scores = {}, {}
        for prefix, local in features.local.items():
            rows = arrays.get(prefix, np.zeros((1 + len(names[prefix]), 0), dtype=np.float32))
            age = rows[0].astype(np.int64)
            found[prefix] = LocalFeatures(local.boxes, local.confidence, age, local.known, age > 1, rows[0])
            scores[prefix] = dict(zip(names[prefix], rows[1:], strict=True))
        return found, scores


def _rows(local: Any, names: list[str], prefix: str, distances: Mapping[str, Tensor]) -> Tensor:
    """Age and raw scores of the regions of one stream, (1 + k, n) float32."""
    rows = [local.age.float()]
    for name in names:
        kind = name.removeprefix(prefix)
        if kind == "speed":
            rows.append(local.speed)
            continue
        worst = distances[name].view(len(local.boxes), -1).amax(dim=1)
        # A region that continues none has no difference in time.
        rows.append(worst * local.continued if kind == "temporal" else worst)
    return torch.stack(rows)


class TensorPatchCore(Method):
    """`VideoPatchCore` as it is opened where the backend takes tensors."""

    without_network = VideoPatchCore.without_network

    def __init__(
        self, settings: Settings, extractor: TensorExtractor, banks: Banks, sums: Mapping[str, Float32], plain: Any
    ) -> None:
        """sums, plain: as `VideoPatchCore` takes them."""
        self._settings = settings
        self._broken = False
        self.image_size = settings.image_size
        self.components = settings.components
        self._extractor = extractor
        self._search = TensorSearch(settings, banks)
        self._banks, self._sums, self._plain = banks, sums, plain

    @classmethod
    def open(cls, bundle: Bundle, backend: type[Backend], *, threads: int, device: str, bank: str) -> Method:
        return VideoPatchCore.open(bundle, backend, threads=threads, device=device, bank=bank)

    def observe(self, frame: Frame) -> Observation:
        return run_alone(self.steps(frame))

    def steps(self, frame: Frame) -> Steps[Observation]:
        checked_size(frame, self._settings.image_size)
        if self._broken:  # the last frame failed half way: what the tracks hold may not belong together, or be no numbers
            self.reset()
        self._broken = True
        with device_errors():
            features = yield from self._extractor.steps(frame)
            observation = yield from self._search.steps(features)
        self._broken = False
        return observation

    def reset(self) -> None:
        self._extractor.reset()
        self._search.reset()
        self._broken = False

    def as_read(self) -> dict[str, np.ndarray]:
        return read_arrays(self._plain, self._sums)

    def bank_kinds(self) -> dict[str, str]:
        return dict.fromkeys(self._banks, "exact")

    def golden(self, frames: list[Frame]) -> dict[str, np.ndarray]:
        self.reset()
        features, seen = [], []
        with device_errors():
            for frame in frames:
                found = run_alone(self._extractor.steps(frame))
                seen.append(run_alone(self._search.steps(found)))
                features.append(found.on_host())
        self.reset()
        return golden_arrays(features, seen)


def open_on_device(bundle: Bundle, settings: Settings, session: Backend, detector: Backend | None) -> TensorPatchCore:
    """The method of a bundle on the device of its sessions: the encoder's, and that of the object detector."""
    with device_errors():
        encoder = TensorEncoder(session, settings.preprocessing)
        found = TensorObjectDetector(detector, settings.objects) if detector and settings.objects else None
        extractor = TensorExtractor(settings, encoder, found)
        sums = {name: bank_sums(bundle.stored(name)) for name in bundle.bank_names}
        return TensorPatchCore(settings, extractor, open_banks(bundle, session), sums, bundle.preprocessing)
