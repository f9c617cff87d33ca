"""One setting measured in a process of its own: its memory, its threads and its crashes are nobody else's.

The parent calls `run_cell`; the child is `main`, with the job on standard input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_vad.child import command
from edge_vad.errors import BundleIntegrityError, EdgeVadError, ProfileError
from edge_vad.heap import tune_heap
from edge_vad.profile import Inference, Profile
from edge_vad.strict import from_plain, to_plain
from edge_vad.types import Frame

N_SCORED = 40  # frames whose scores are compared
SLACK_S = 60.0  # for starting, warming up and scoring, on top of the self-test and ten times the run
RUN_FACTOR = 10


@dataclass(frozen=True, slots=True)
class Cell:
    """A setting. bundle: its place among those that were given; the others are values of a profile's ``inference``.

    bank: empty where the bundle has no memory banks.
    """

    bundle: int
    backend: str
    device: str
    precision: Literal["fp32", "fp16"]
    threads: int
    bank: str

    def inference(self, base: Inference) -> Inference:
        """The setting, with everything else as in ``base``, and nobody to take over."""
        chosen = {"backend": self.backend, "device": self.device, "precision": self.precision, "threads": self.threads}
        return replace(base, **chosen, bank=self.bank or base.bank, fallback=())  # type: ignore[arg-type]

    def __str__(self) -> str:
        computes = "" if self.precision == "fp32" else f" in {self.precision}"
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else ""
        bank = f", bank {self.bank}" if self.bank else ""
        return f"{self.backend}@{self.device}{computes}{threads}{bank}"


@dataclass(frozen=True, slots=True)
class Job:
    """What a child is told. frames: a file of `save_frames`. out: where it writes what it found, as JSON.

    bundle_id: what must lie there. n_frames: end after as many processed frames, instead of after duration_s.
    """

    bundle: str
    bundle_id: str
    profile: Profile
    frames: str
    out: str
    duration_s: float
    warm_up: int
    n_frames: int | None = None


def save_frames(frames: Sequence[Frame], path: Path) -> None:
    """Frames of one size as a file that a child reads."""
    np.savez(path, image=np.stack([f.image for f in frames]), luma=np.stack([f.luma for f in frames]))


def run_cell(job: Job) -> dict[str, Any]:
    """wall_ns and cpu_ns of every frame, used_mb, scores of the first frames, banks; or {"error": one line}."""
    limit_s = job.profile.store.self_test_s + RUN_FACTOR * job.duration_s + SLACK_S
    out = Path(job.out)
    out.unlink(missing_ok=True)
    try:
        child = subprocess.run(
            command("edge_vad.profiling.cell"),
            input=json.dumps(to_plain(job)),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
            check=False,
        )
        return dict(json.loads(out.read_text(encoding="utf-8")))
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {limit_s:.0f} s (store.self_test_s gives it more)"}
    except (OSError, ValueError):  # it could not write it
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
        said = child.stderr.strip().splitlines()
        return {"error": f"the process ended with {how}" + (f": {said[-1]}" if said else "")}


def main(arguments: list[str]) -> int:
    """The child: writes its findings, or why there are none."""
    job = from_plain(Job, json.load(sys.stdin), "job", ProfileError)
    tune_heap()  # as the command line does
    try:
        found = _measured(job)
    except (EdgeVadError, MemoryError, ValueError) as error:
        lines = str(error).splitlines()
        found = {"error": lines[0] if lines else type(error).__name__}
    Path(job.out).write_text(json.dumps(found), encoding="utf-8")
    return 0


def _measured(job: Job) -> dict[str, Any]:
    from edge_vad.bundle import read_bundle
    from edge_vad.detector import Detector
    from edge_vad.profiling.board import peak_mb
    from edge_vad.profiling.measurement import measure

    frames = _read_frames(Path(job.frames))
    bundle = read_bundle(job.bundle)  # whose it is was checked by the parent, which also says which one it must be
    if bundle.id != job.bundle_id:
        raise BundleIntegrityError("it was exchanged while it was measured")
    detector = Detector.open(bundle, job.profile)
    found = measure(detector, frames, duration_s=job.duration_s, n_frames=job.n_frames, warm_up=job.warm_up)
    return {
        "wall_ns": found.wall_ns.tolist(),
        "cpu_ns": found.cpu_ns.tolist(),
        "used_mb": (_high_water_mb() or peak_mb()) - found.frames_mb,
        "banks": detector.bank_kinds,
        "scores": _scores(detector, frames),
    }


def _read_frames(path: Path) -> list[Frame]:
    with np.load(path, allow_pickle=False) as stored:
        images, lumas = stored["image"], stored["luma"]
    return [Frame(image, luma, float(i), i) for i, (image, luma) in enumerate(zip(images, lumas, strict=True))]


def _scores(detector: Any, frames: Sequence[Frame]) -> list[float]:
    """Scores of the first frames from a fresh start."""
    detector.reset()
    moments = (replace(frame, timestamp=i * detector.period_s, index=i) for i, frame in enumerate(frames[:N_SCORED]))
    return [float(detector.process(frame).score) for frame in moments]


def _high_water_mb(status: Path = Path("/proc/self/status")) -> float | None:
    """The most resident memory since this program was started; getrusage also counts that of whoever started it."""
    try:
        lines = status.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    told = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(told[0]) / 1024 if told else None
