"""CPU time of the four trained networks on every backend, in fp32 and INT8: one run on a window of 192x128 pixels.

    python benchmarks/network_backends.py [--width 0.25] [--size 128x192] [--methods maam,desd]

The networks are not trained: their time does not depend on it. Batch norms have seen windows of a generated street, with
which INT8 is calibrated too. One process, one thread, the runners alternating; CPU ms of the process per call, lower
quartile and median, and the lower quartile as a part of ONNX Runtime's in fp32. ``off`` is the length of the difference to
ONNX Runtime's fp32 outputs, as part of their length, the largest of the outputs.
"""

from __future__ import annotations

import os

# The libraries read these when they are loaded.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import platform

import numpy as np
import torch
from backends import REFERENCE, distance, measure
from edge_vad.converters.network_export import export_network, reduce_network
from edge_vad.converters.system import System
from edge_vad.converters.systems import SYSTEMS, complete_options, open_system

from edge_vad.backends.base import Backend
from edge_vad.cameras.synthetic import SyntheticStreet
from edge_vad.networks import FRAMES, picture, planes
from edge_vad.plugins import available, load
from edge_vad.types import Float32

N_WINDOWS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.25, help="of the networks: 1 is the published one")
    parser.add_argument("--size", default="128x192", help="height and width of the pictures")
    parser.add_argument("--methods", default=",".join(SYSTEMS), help="comma-separated")
    parser.add_argument("--repeat", type=int, default=25, help="calls of each runner")
    options = parser.parse_args()
    torch.set_num_threads(1)
    height, width = map(int, options.size.split("x"))
    print(f"Python {platform.python_version()}, {platform.machine()}, width {options.width:g}, {width}x{height} pixels")
    head = ("method", "backend", "model", "MB", "CPU ms", "median", "of fp32", "off")
    print(f"| {' | '.join(head)} |\n| --- | --- | --- |{' ---: |' * 5}")
    for method in options.methods.split(","):
        torch.manual_seed(0)
        system = open_system(method, complete_options(method, {"width": options.width}))
        compare(method, system, windows(system.n_frames, (width, height)), options.repeat)


def windows(n_frames: int, size: tuple[int, int]) -> list[Float32]:
    """Windows (1, n_frames, 3, h, w) of a generated street, frames 0.3 s apart."""
    street = SyntheticStreet(f"seed=3,seconds=30,anomalies=none,size={2 * size[0]}x{2 * size[1]}")
    frames = [planes(picture(frame.image, size)) for frame in list(street.frames())[::3]]
    starts = np.linspace(0, len(frames) - n_frames, N_WINDOWS).astype(int)
    return [np.stack(frames[start : start + n_frames])[None] for start in starts]


def compare(method: str, system: System, seen: list[Float32], repeat: int) -> None:
    """One row for each backend and precision."""
    with torch.no_grad():
        system.train()
        for pair in zip(seen[::2], seen[1::2], strict=True):
            system(torch.from_numpy(np.concatenate(pair)))
    fp32 = export_network(system.eval(), (seen[0].shape[4], seen[0].shape[3]))
    windows = [{FRAMES: window} for window in seen]
    models = {"fp32": fp32, "int8": reduce_network(fp32, "int8", windows, "minmax", system.odds)}
    runners: dict[tuple[str, str, str], Backend] = {
        (name, model, ""): load("backends", name, Backend)(data, threads=1)  # type: ignore[type-abstract]
        for name in available("backends")
        for model, data in models.items()
    }
    times = measure(runners, {FRAMES: seen[1]}, repeat)
    expected = runners[REFERENCE, "fp32", ""].run({FRAMES: seen[1]})
    usual = np.percentile(times[REFERENCE, "fp32", ""], 25)
    for (name, model, _), runner in runners.items():
        low, median = np.percentile(times[name, model, ""], [25, 50])
        off = distance(expected, runner.run({FRAMES: seen[1]}))
        size = len(models[model]) / 1e6
        print(
            f"| {method} | {name} | {model} | {size:.2f} | {low:.2f} | {median:.2f} | x{low / usual:.2f} | {off:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
