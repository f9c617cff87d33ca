"""Many settings of one device side by side: which exist here, what each costs, and whether all of them score the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_vad.backends.base import Backend
from edge_vad.bundle import Bundle
from edge_vad.errors import PluginError, ReportError, did_you_mean
from edge_vad.golden import deviation, tolerance_of
from edge_vad.plugins import available, load
from edge_vad.profile import Inference, Profile
from edge_vad.profiling.cell import Cell, Job, run_cell, save_frames
from edge_vad.profiling.percentiles import distribution
from edge_vad.progress import Meter
from edge_vad.types import Frame

N_ROUNDS = 2
STARTING_S = 3.0  # of a process, guessed for the estimate
PERCENTILES = (50.0, 95.0, 99.0)
BANK_PACKAGES = {"hnsw": "hnswlib"}
DEVICE_FILES = {  # what the kernel shows where such a device is
    "cuda": ("dev/nvidia0", "dev/nvhost-gpu", "dev/nvgpu"),
    "tensorrt": ("dev/nvidia0", "dev/nvhost-gpu", "dev/nvgpu"),
    "gpu": ("dev/dri/renderD128",),
    "npu": ("dev/accel/accel0",),
}
REFERENCE = ("onnxruntime", "cpu", "fp32", 1, "exact")  # what built the bundle comes first


@dataclass(frozen=True, slots=True)
class Row:
    """What a setting costs. wall_ms: mean, std, min, p50, p95, p99, max; cpu_ms: mean of all threads of the process.

    used_mb: peak without the frames in memory. fps: 1000 / mean. deviation: of the score from that of the bundle's first
    row, the largest of all frames as a part of the score (absolute below 1); allowed: by the golden self-test.
    error: why there is nothing of all this.
    """

    cell: Cell
    wall_ms: Mapping[str, float] = field(default_factory=dict)
    cpu_ms: float = float("nan")
    used_mb: float = float("nan")
    deviation: float = float("nan")
    allowed: float = float("nan")
    n_frames: int = 0
    banks: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def fps(self) -> float:
        return 1000 / self.wall_ms["mean"]

    @property
    def equal(self) -> bool:
        """Whether the scores are those of the first row."""
        return self.deviation <= self.allowed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to try; None: all that is here."""

    backends: tuple[str, ...] | None = None
    threads: tuple[int, ...] | None = None
    banks: tuple[str, ...] | None = None


def check_one_site(bundles: Sequence[Bundle]) -> None:
    """ReportError unless all are of one scene: the same method, picture size, pace and footage."""
    first = bundles[0]
    for bundle in bundles[1:]:
        for what, a, b in (
            ("method", first.method, bundle.method),
            ("picture size", first.image_size, bundle.image_size),
            ("period", first.calibration.get("period_s"), bundle.calibration.get("period_s")),
            ("footage", first.manifest.footage, bundle.manifest.footage),
        ):
            if a != b:
                names = f"{first.manifest.name} and {bundle.manifest.name}"
                raise ReportError(
                    f"the bundles {names} are not of one site: {what} {a} and {b}; build both from one footage"
                )


def cells(has_banks: Sequence[bool], inference: Inference, wanted: Wanted = Wanted(), root: Path = Path("/")) -> list[Cell]:
    """Every setting that this device has, that of the build first. has_banks: of each bundle; without, none is searched.

    Raises PluginError for a backend or bank that is not there, ReportError where banks are wanted and no bundle has any.
    """
    _check_names(wanted)
    if wanted.banks and not any(has_banks):
        raise ReportError("--banks: these bundles have no memory banks to search; leave it out")
    counts = wanted.threads or thread_counts()
    found: list[Cell] = []
    for name in wanted.backends or backends_here(inference):
        kinds = load("backends", name, Backend).devices
        for device in devices_here(kinds, [c.device for c in inference.choices if c.backend == name], root):
            on_cpu = device == "cpu"
            precisions: tuple[Literal["fp32", "fp16"], ...] = ("fp32",) if on_cpu else ("fp32", "fp16")
            threads = counts if on_cpu else (inference.threads,)
            for (bundle, searches), precision, n in product(enumerate(has_banks), precisions, threads):
                banks = (wanted.banks or banks_here()) if searches else ("",)
                found += [Cell(bundle, name, device, precision, n, bank) for bank in banks]
    return sorted(found, key=lambda cell: (cell.bundle, *map(_is_not, _setting(cell), REFERENCE)))


def _setting(cell: Cell) -> tuple[Any, ...]:
    return cell.backend, cell.device, cell.precision, cell.threads, cell.bank


def _is_not(a: Any, b: Any) -> bool:
    return bool(a != b)


def backends_here(inference: Inference) -> list[str]:
    """edge-vad's own backends whose package is installed, and those that the profile names."""
    own = [name for name in available("backends") if _installed(load("backends", name, Backend).package)]
    return list(dict.fromkeys([*own, *(choice.backend for choice in inference.choices)]))


def _installed(package: str) -> bool:
    return not package or find_spec(package.replace("-", "_")) is not None


def devices_here(kinds: Sequence[str], named: Sequence[str], root: Path = Path("/")) -> list[str]:
    """``cpu``, the first of every other kind that the kernel shows, and those that the profile names."""
    shown = [kind for kind in kinds if any((root / file).exists() for file in DEVICE_FILES.get(kind, ()))]
    found = ["cpu"] * ("cpu" in kinds) + [f"{kind}:0" if kind != "npu" else kind for kind in shown]
    return list(dict.fromkeys([*found, *named]))


def thread_counts(n_cpus: int | None = None) -> tuple[int, ...]:
    """1, 2, 4 and so on up to the processors that this process may use, and their number."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = n_cpus or usable
    return tuple(sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most}))


def banks_here() -> tuple[str, ...]:
    """Banks whose package is installed, exact search first."""
    here = [name for name in available("banks") if _installed(BANK_PACKAGES.get(name, ""))]
    return tuple(sorted(here, key=lambda name: name != "exact"))


def _check_names(wanted: Wanted) -> None:
    """PluginError for a backend or bank that does not exist."""
    for kind, names in (("backends", wanted.backends), ("banks", wanted.banks)):
        for name in names or ():
            if "." not in name and name not in available(kind):
                raise PluginError(f"no {kind[:-1]} named {name!r}{did_you_mean(name, available(kind))}")


def expected_s(n_cells: int, duration_s: float) -> float:
    """About how long a matrix takes."""
    return n_cells * (duration_s + N_ROUNDS * STARTING_S)


class Matrix:
    """Measures settings with the same frames, each in processes of its own; a context manager that keeps the frames' file.

    duration_s: of one setting, in all rounds together; n_frames: processed frames of one round instead.
    """

    def __init__(
        self,
        bundles: Sequence[tuple[Path, Bundle]],
        profile: Profile,
        frames: Sequence[Frame],
        *,
        duration_s: float,
        warm_up: int,
        n_frames: int | None = None,
    ) -> None:
        self.bundles = list(bundles)
        self.profile = profile
        self._duration_s, self._warm_up, self._n_frames = duration_s, warm_up, n_frames
        self._folder = Path(tempfile.mkdtemp(prefix="edge-vad-matrix-"))
        save_frames(frames, self._folder / "frames.npz")
        self._references: dict[int, np.ndarray] = {}  # scores of each bundle's first setting

    def __enter__(self) -> Matrix:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def measure(self, settings: Sequence[Cell], label: str = "matrix") -> list[Row]:
        """One row for each setting, in two rounds, the second backwards: heat and load meet early and late ones alike."""
        found: dict[Cell, list[dict[str, Any]]] = {cell: [] for cell in settings}
        with Meter(label, N_ROUNDS * len(settings)) as meter:
            for number in range(N_ROUNDS):
                for i, cell in enumerate(settings if number % 2 == 0 else reversed(settings)):
                    if not any("error" in taken for taken in found[cell]):
                        found[cell].append(run_cell(self._job(cell)))
                    meter.show(number * len(settings) + i + 1)
        return [self._row(cell, found[cell]) for cell in settings]

    def _job(self, cell: Cell) -> Job:
        path, bundle = self.bundles[cell.bundle]
        profile = replace(self.profile, inference=cell.inference(self.profile.inference))
        return Job(
            bundle=str(path),
            bundle_id=bundle.id,
            profile=profile,
            frames=str(self._folder / "frames.npz"),
            out=str(self._folder / "found.json"),
            duration_s=self._duration_s / N_ROUNDS,
            warm_up=self._warm_up,
            n_frames=self._n_frames,
        )

    def _row(self, cell: Cell, taken: Sequence[Mapping[str, Any]]) -> Row:
        """The rounds together."""
        errors = [str(found["error"]) for found in taken if "error" in found]
        if errors:
            return Row(cell, error=errors[0])
        wall_ns = np.concatenate([found["wall_ns"] for found in taken])
        scores = np.array(taken[0]["scores"])
        reference = self._references.setdefault(cell.bundle, scores)
        return Row(
            cell,
            wall_ms=distribution(wall_ns, PERCENTILES),
            cpu_ms=round(float(np.concatenate([found["cpu_ns"] for found in taken]).mean()) / 1e6, 5),
            used_mb=round(max(float(found["used_mb"]) for found in taken), 1),
            deviation=deviation("scores", reference, scores),
            allowed=tolerance_of(self.bundles[cell.bundle][1]).score,
            n_frames=len(wall_ns),
            banks=taken[0]["banks"],
        )


def by_speed(rows: Sequence[Row]) -> list[Row]:
    """The fastest p95 first; what did not run last, in the order of its trying."""
    return sorted(rows, key=lambda row: (bool(row.error), row.wall_ms.get("p95", 0.0)))
