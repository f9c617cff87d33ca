"""A whole frame against its encoder alone, and against what this processor can do at most (roofline); one CPU thread.

    python benchmarks/frame.py --bundle site.evb --source CLIP [--frames 200]

Whole frame: CPU time of `Detector.process` for frames that are processed, all of them in memory. Encoder alone: the same
pictures, as the encoder got them, through the same backend again. Both in turn, so that load meets both alike.

Roofline (Williams, Waterman and Patterson 2009): the most FLOP/s of this processor, measured by a large float32 matrix
product, and its memory bandwidth, measured by copying 256 MB; both on one thread, in this run. For each part of a frame its
operations, the bytes it must touch at least, what it reaches, and what the roof over it allows. INT8 operations are held
against the float32 roof: more than 100 % is what the integer instructions bring.
"""

from __future__ import annotations

import os

# The libraries read these when they are loaded.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from boards import encoder_cost

from edge_vad.backends.base import Backend
from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.bundle import read_bundle
from edge_vad.cameras import open_camera
from edge_vad.detector import Detector
from edge_vad.heap import tune_heap
from edge_vad.methods.videopatchcore import VideoPatchCore
from edge_vad.types import Float32

ROOF = "{:<28} {:>9} {:>9} {:>9} {:>10} {:>10} {:>8}"


class Recording(OnnxRuntime):
    """ONNX Runtime that keeps what it was given."""

    seen: ClassVar[list[dict[str, np.ndarray]]] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        self.seen.append(dict(inputs))
        return super().run(inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--frames", type=int, default=200)
    options = parser.parse_args()
    tune_heap()
    bundle = read_bundle(options.bundle)
    detector = Detector.open(bundle, backend=Recording)
    encoder = OnnxRuntime(bundle.model("encoder"))
    with open_camera(options.source) as camera:
        frames = [frame for frame, _ in zip(camera.frames(), range(options.frames), strict=False)]
    whole: list[float] = []
    alone: list[float] = []
    pictures: list[int] = []
    stages: dict[str, list[float]] = {}
    for frame in frames:
        Recording.seen.clear()
        start = time.process_time_ns()
        result = detector.process(frame)
        middle = time.process_time_ns()
        if not result.stage_ms or not Recording.seen:
            continue
        last, again = Recording.seen[-1], time.process_time_ns()
        for inputs in Recording.seen:
            encoder.run(inputs)
        alone.append((time.process_time_ns() - again) / 1e6)
        whole.append((middle - start) / 1e6)
        pictures.append(sum(len(values) for inputs in Recording.seen for values in inputs.values()))
        for name, ms in result.stage_ms.items():
            stages.setdefault(name, []).append(ms)
    print(f"{len(whole)} processed frames, {np.mean(pictures):.1f} pictures each; CPU ms, median")
    print(f"whole frame {np.median(whole):.2f}, encoder alone {np.median(alone):.2f}, ratio {ratio(whole, alone):.2f}")
    print(", ".join(f"{name} {np.median(values):.2f}" for name, values in stages.items()) + "\n")
    roofline(bundle, encoder, detector, last)


def ratio(a: list[float], b: list[float]) -> float:
    """Median of the quotients."""
    return float(np.median(np.array(a) / np.array(b)))


def roofline(bundle: Any, encoder: Backend, detector: Detector, inputs: dict[str, np.ndarray]) -> None:
    """Print what the parts of a frame reach of what is possible."""
    flops, bandwidth = peak_flops(), peak_bandwidth()
    print(f"one thread reaches {flops / 1e9:.1f} GFLOP/s (float32) and {bandwidth / 1e9:.1f} GB/s")
    print(ROOF.format("part", "MFLOP", "MB", "CPU ms", "GFLOP/s", "roof", "of roof"))
    pictures = next(iter(inputs.values()))
    operations = 2 * len(pictures) * int(encoder_cost(bundle, pictures.shape[1:])["macs"])
    touched = len(bundle.model("encoder")) + pictures.nbytes + sum(v.nbytes for v in encoder.run(inputs).values())
    rows = [(f"encoder, {len(pictures)} pictures", operations, touched, lambda: encoder.run(inputs))]
    method = detector._method
    assert isinstance(method, VideoPatchCore)
    for name, bank in method._search._banks.items():
        stored = bundle.rows(name)
        queries = np.random.default_rng(0).standard_normal((3 * len(pictures), stored.shape[1]), dtype=np.float32)
        rows.append(
            (
                f"search {name} {len(stored)}x{stored.shape[1]}",
                2 * len(queries) * stored.size,
                stored.nbytes + queries.nbytes,
                lambda bank=bank, queries=queries: bank.search(queries),
            )
        )
    for name, n_flop, n_bytes, run in rows:
        seconds = median_s(run)
        roof = min(flops, bandwidth * n_flop / n_bytes)
        reached = n_flop / seconds
        cells = (
            f"{n_flop / 1e6:.1f}",
            f"{n_bytes / 1e6:.2f}",
            f"{1e3 * seconds:.2f}",
            f"{reached / 1e9:.1f}",
            f"{roof / 1e9:.1f}",
        )
        print(ROOF.format(name, *cells, f"{reached / roof:.0%}"))


def peak_flops() -> float:
    """Operations per second of a float32 matrix product on one thread."""
    a, b = (np.random.default_rng(i).standard_normal((768, 768), dtype=np.float32) for i in range(2))
    return 2 * 768**3 / median_s(lambda: a @ b)


def peak_bandwidth() -> float:
    """Bytes per second, read and written, of a copy that no cache holds."""
    source = np.ones(2**25, dtype=np.float64)
    target = np.empty_like(source)
    return 2 * source.nbytes / median_s(lambda: np.copyto(target, source), repeat=9)


def median_s(run: Callable[[], Any], repeat: int = 41) -> float:
    """Median CPU seconds of a call, after one that warms up."""
    run()
    times = []
    for _ in range(repeat):
        start = time.process_time_ns()
        run()
        times.append(time.process_time_ns() - start)
    return float(np.median(times)) / 1e9


if __name__ == "__main__":
    main()
