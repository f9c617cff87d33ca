"""Everything on a GPU: frames per second, ms by stage, memory there, and the same scores as on a CPU, as Markdown tables.

    python benchmarks/gpu.py --bundle site.evb --source clip.mp4 --device cuda:0 --cameras 1,4,16 --precision fp32,fp16
    python benchmarks/gpu.py --bundle site.evb --device cpu --cameras 1,4       # without a GPU: shows that it runs

All cameras see the footage, each from another place on; frames are decoded before the clock starts (``decode`` is a line of
its own, CPU ms) and the cameras run as those of one unit: one session, one batch. Frames between two that are processed are
not counted. ``ms`` of a stage: between two events of the GPU's stream, on a CPU the CPU time of the thread; ``regions``,
``scoring`` and ``decode`` are on the host everywhere. Scores are compared with those of numpy on the CPU, with the encoder
run by torch, and by ONNX Runtime: an INT8 encoder is rounded differently there.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from edge_vad.backends.torch import Torch
from edge_vad.batch import run_together
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.cameras import open_camera
from edge_vad.detector import Detector
from edge_vad.errors import EdgeVadError, SelfTestError
from edge_vad.profile import Inference, Profile
from edge_vad.recovery import Sessions
from edge_vad.tensors import transfer
from edge_vad.types import Frame, Result


@dataclass
class Measured:
    """One configuration."""

    precision: str
    n_cameras: int
    self_test: str
    fps: float = 0.0
    memory_mb: float = 0.0
    stage_ms: dict[str, float] = field(default_factory=dict)


class TorchOnHost(Torch):
    """The same networks on the CPU, behind arrays: all else is computed by numpy then."""

    def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
        super().__init__(model, threads=threads)
        self.torch_device = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--source", help="a folder of pictures, a video or another source; default: a generated street")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu")
    parser.add_argument("--cameras", default="1,4,16")
    parser.add_argument("--precision", default="fp32,fp16")
    parser.add_argument("--frames", type=int, default=300, help="of the footage, for each camera")
    parser.add_argument("--warm-up", type=int, default=60, help="frames before the clock starts: kernels are chosen then")
    options = parser.parse_args()
    bundle = read_bundle(options.bundle)
    size = tuple(bundle.preprocessing["image_size"])
    source = options.source or f"synthetic:seed=3,seconds={options.frames / 10},size={size[0]}x{size[1]}"
    frames, decode_ms = footage(source, options.frames)
    try:
        Torch(bundle.model("encoder"), device=options.device)
    except EdgeVadError as error:
        parser.exit(1, f"{error}\n")
    print_header(options.device, bundle, source, frames)
    references = {
        "torch": results_of(Detector.open(bundle, Profile("", "", Inference()), backend=TorchOnHost), frames),
        "onnxruntime": results_of(detectors(bundle, Inference(), 1)[0][0], frames),
    }
    found, equal = [], []
    for precision in options.precision.split(","):
        inference = Inference("torch", device=options.device, precision=precision)
        there = results_of(detectors(bundle, inference, 1)[0][0], frames)
        equal += [(f"{precision}, encoder by {name}", *compared(here, there)) for name, here in references.items()]
        if options.device != "cpu":
            print(f"{precision}: implicit synchronisations: {implicit_synchronisations(bundle, inference, frames)}  ")
        for n_cameras in map(int, options.cameras.split(",")):
            found.append(measure(bundle, inference, n_cameras, frames, options.warm_up))
    print_equality(equal)
    print_speed(found, decode_ms)


def footage(source: str, n: int) -> tuple[list[Frame], float]:
    """The first frames of a source, and the CPU ms that one of them took to decode."""
    start = time.process_time_ns()
    with open_camera(source) as camera:
        frames = list(itertools.islice(camera.frames(), n))
    return frames, (time.process_time_ns() - start) / 1e6 / max(len(frames), 1)


def detectors(bundle: Bundle, inference: Inference, n: int) -> tuple[list[Detector], str]:
    """Detectors that share a session, and what the self-test says."""
    profile = Profile("", "", inference)
    backend = Sessions(lambda kind, why: print(f"# {kind}: {why}")).backend(inference)
    said = "passed"
    try:
        first = Detector.open(bundle, profile, backend=backend)
    except SelfTestError as error:
        first, said = Detector.open(bundle, profile, backend=backend, self_test=False), f"FAILED: {error}"
    return [first, *(Detector.open(bundle, profile, backend=backend, self_test=False) for _ in range(n - 1))], said


def results_of(detector: Detector, frames: Sequence[Frame]) -> list[Result]:
    return [result for frame in frames if (result := detector.process(frame)).stage_ms]


def compared(expected: Sequence[Result], found: Sequence[Result]) -> tuple[int, float, float, float]:
    """Number of frames; the largest differences of the score and of a component; part of frames with the same regions."""
    score = max(abs(a.score - b.score) for a, b in zip(expected, found, strict=True))
    component = max(
        abs(a.components[k] - b.components[k]) for a, b in zip(expected, found, strict=True) for k in a.components
    )
    return (
        len(expected),
        score,
        component,
        float(np.mean([places(a) == places(b) for a, b in zip(expected, found, strict=True)])),
    )


def places(result: Result) -> list[tuple[float, ...]]:
    return sorted((r.x0, r.y0, r.x1, r.y1) for r in result.regions)


def implicit_synchronisations(bundle: Bundle, inference: Inference, frames: Sequence[Frame]) -> str:
    """Where the host is first made to wait other than for a download; none as it should be."""
    detector = detectors(bundle, inference, 1)[0][0]
    half = len(frames) // 2
    results_of(detector, frames[:half])
    wait = transfer._wait

    def meant(device: torch.device) -> None:
        torch.cuda.set_sync_debug_mode("default")
        wait(device)
        torch.cuda.set_sync_debug_mode("error")

    transfer._wait = meant
    torch.cuda.set_sync_debug_mode("error")
    try:
        results_of(detector, frames[half:])
    except EdgeVadError as error:
        last = traceback.extract_tb((error.__cause__ or error).__traceback__)[-1]
        return f"{last.filename}, line {last.lineno}: {last.line}"
    finally:
        transfer._wait = wait
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def shifted(frames: Sequence[Frame], start: int) -> list[Frame]:
    """The footage from another frame on and round, with the time stamps of the first camera."""
    turned = [frames[(i + start) % len(frames)] for i in range(len(frames))]
    return [replace(f, timestamp=at.timestamp, index=at.index) for f, at in zip(turned, frames, strict=True)]


def measure(bundle: Bundle, inference: Inference, n: int, frames: Sequence[Frame], n_warm: int) -> Measured:
    """Frames per second of n cameras, and the means of their stages."""
    group, said = detectors(bundle, inference, n)
    streams = [shifted(frames, i * len(frames) // n) for i in range(n)]
    gpu = torch.device(inference.device) if inference.device != "cpu" else None
    if gpu:
        torch.cuda.reset_peak_memory_stats(gpu)
    found = Measured(inference.precision, n, said)
    n_processed, start = 0, time.perf_counter()
    for i, together in enumerate(zip(*streams, strict=True)):
        if i == min(n_warm, len(frames) // 2):
            n_processed, start, found.stage_ms = 0, time.perf_counter(), {}
        for result in run_together([d.steps(f) for d, f in zip(group, together, strict=True)]):
            if isinstance(result, Exception):
                raise result
            n_processed += bool(result.stage_ms)
            for stage, ms in result.stage_ms.items():
                found.stage_ms[stage] = found.stage_ms.get(stage, 0.0) + ms
    found.fps = n_processed / (time.perf_counter() - start)
    found.stage_ms = {stage: ms / n_processed for stage, ms in found.stage_ms.items()}
    found.memory_mb = torch.cuda.max_memory_allocated(gpu) / 2**20 if gpu else 0.0
    return found


def print_header(device: str, bundle: Bundle, source: str, frames: Sequence[Frame]) -> None:
    name = platform.processor() or platform.machine()
    if device != "cpu":
        name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    shape, banks = frames[0].image.shape, bundle.manifest.banks
    rows = ", ".join(f"{key} {bank.rows}x{bank.dimensions}" for key, bank in sorted(banks.items()))
    print(f"torch {torch.__version__} on {device} ({name})  ")
    print(f"bundle {bundle.id[:12]}, encoder in {bundle.manifest.models['encoder'].precision}; banks: {rows}  ")
    print(f"{len(frames)} frames of {shape[1]}x{shape[0]}: {source}  ")


def print_equality(rows: Sequence[tuple[str, int, float, float, float]]) -> None:
    print("\n| against numpy on the CPU | frames | score, largest difference | component | frames with the same regions |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for precision, n, score, component, same in rows:
        print(f"| {precision} | {n} | {score:.1e} | {component:.1e} | {same:.1%} |")


def print_speed(found: Sequence[Measured], decode_ms: float) -> None:
    names = [f"{m.precision}, {m.n_cameras}" for m in found]
    stages = list(dict.fromkeys(stage for m in found for stage in m.stage_ms))
    lines = [["precision, cameras", *names], ["---", *["---:"] * len(names)]]
    lines.append(["self-test", *(m.self_test for m in found)])
    lines.append(["frames per second, all cameras", *(f"{m.fps:.1f}" for m in found)])
    lines.append(["the same, each camera", *(f"{m.fps / m.n_cameras:.1f}" for m in found)])
    lines.append(["MB on the GPU, most", *(f"{m.memory_mb:.0f}" if m.memory_mb else "-" for m in found)])
    lines.append(["decode, ms per frame of the footage", *[f"{decode_ms:.2f}"] * len(names)])
    lines += [[f"{s}, ms per frame", *(f"{m.stage_ms.get(s, 0):.2f}" for m in found)] for s in stages]
    print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
