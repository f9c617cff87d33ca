"""CPU time of the default encoder on every backend and precision: 16 crops of 64 x 64, as a busy frame has them.

    python benchmarks/backends.py

The encoder is exported, and made INT8 with crops of a generated street. One process, one thread, the runners alternating;
CPU ms of the process per call, its minimum and median. What a backend refuses is a line of its own. ``error`` is the length
of the difference to ONNX Runtime's output for the same model, as part of its length, the largest of the taps.
"""

from __future__ import annotations

import argparse
import platform
import time

import numpy as np
from edge_vad.converters.encoders import load_encoder
from edge_vad.converters.quantisation import quantize

from edge_vad.backends.base import Backend, load_backend
from edge_vad.cameras.synthetic import SyntheticStreet
from edge_vad.errors import EdgeVadError
from edge_vad.plugins import available
from edge_vad.profile import Inference
from edge_vad.types import Float32, UInt8

SIDE, N_CROPS, N_BATCHES = 64, 16, 12
REFERENCE = "onnxruntime"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=30, help="calls of each runner")
    parser.add_argument("--device", default="cpu", help="of all runners; their CPU time says little of a GPU")
    options = parser.parse_args()
    encoder = load_encoder("efficientnet_lite0")
    batches = crops()
    models = {"fp32": encoder.model, "int8": quantize(encoder, batches)[0].model}
    mean, std = encoder.preprocessing.mean[0], encoder.preprocessing.std[0]
    planes = ((batches[0].transpose(0, 3, 1, 2).astype(np.float32) - mean) / std).astype(np.float32)
    inputs = {encoder.preprocessing.input_name: np.ascontiguousarray(planes)}
    print(f"Python {platform.python_version()}, {platform.machine()}, {N_CROPS} crops of {SIDE}x{SIDE}, {options.device}")
    runners = opened(models, options.device)
    times = measure(runners, inputs, options.repeat)
    references = {model: found.run(inputs) for (name, model, computes), found in runners.items() if name == REFERENCE}
    print("| backend | model | computes in | CPU ms, minimum | median | error |\n| --- | --- | --- | ---: | ---: | ---: |")
    for (name, model, computes), found in runners.items():
        low, median = np.min(times[name, model, computes]), np.median(times[name, model, computes])
        error = distance(references[model], found.run(inputs))
        print(f"| {name} | {model} | {computes} | {low:.2f} | {median:.2f} | {error:.1e} |")


def crops() -> list[UInt8]:
    """Batches of crops of a generated street, each at another place."""
    generator, found = np.random.default_rng(0), []
    for frame in list(SyntheticStreet("seed=1,seconds=10,anomalies=none,size=360x240").frames())[:: 100 // N_BATCHES]:
        rows, columns = (generator.integers(0, side - SIDE, N_CROPS) for side in frame.image.shape[:2])
        found.append(np.stack([frame.image[r : r + SIDE, c : c + SIDE] for r, c in zip(rows, columns, strict=True)]))
    return found


def opened(models: dict[str, bytes], device: str) -> dict[tuple[str, str, str], Backend]:
    """Every backend with every model and precision that it takes."""
    found: dict[tuple[str, str, str], Backend] = {}
    for name in available("backends"):
        for model, data in models.items():
            for precision in ("fp32", "fp16"):
                inference = Inference(name, device=device, precision=precision)  # type: ignore[arg-type]
                try:
                    found[name, model, precision] = load_backend(inference)(data, threads=1, device=device)
                except EdgeVadError as error:
                    print(f"# {name}, {model} model, {precision}: {error}")
    return found


def measure(
    runners: dict[tuple[str, str, str], Backend], inputs: dict[str, Float32], repeat: int
) -> dict[tuple[str, str, str], list[float]]:
    """CPU ms of every call of every runner; in turn, so that load and clock are the same for all."""
    times: dict[tuple[str, str, str], list[float]] = {key: [] for key in runners}
    for number in range(repeat + 1):
        for key, runner in runners.items():
            start = time.process_time_ns()
            runner.run(inputs)
            if number:  # the first call prepares
                times[key].append((time.process_time_ns() - start) / 1e6)
    return times


def distance(expected: dict[str, Float32], found: dict[str, Float32]) -> float:
    """Length of the difference as part of the length, the largest of the outputs."""
    return max(float(np.linalg.norm(found[k] - v) / np.linalg.norm(v)) for k, v in expected.items())


if __name__ == "__main__":
    main()
