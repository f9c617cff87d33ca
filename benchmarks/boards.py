"""What a bundle asks of a board, and the budgets of the boards that were never at hand: estimates, and how they come about.

    python benchmarks/boards.py --bundle ped2.evb --source UCSDped2/testing/frames/01

It counts the multiply-accumulates (MACs) and bytes of the encoder for one crop from the ONNX graph, counts the crops of
every processed frame of the source, and measures here what all other stages take (CPU time, one thread). For every board:

    frame ms = MACs of a frame / R + other stages here * K

R: MACs per second that a published MobileNetV2 (1.0, 224x224, 300 million of them) reaches on the board. That time is of
all cores; with fewer threads they have that part of it. K: how much slower NumPy and Python are on one core, taken as the
ratio of instructions per cycle (width of the decoder) times the clock: a convention that nothing checked. What a budget
says is p95 = P95 * frame ms, and MARGIN more, as fps has.
"""

from __future__ import annotations

import os

# NumPy reads it when it is loaded; the command line of edge-vad sets it too.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.detector import Detector
from edge_vad.heap import tune_heap
from edge_vad.profiling import measure
from edge_vad.profiling.stock import frames_for
from edge_vad.types import Float32

YARDSTICK_MACS = 300e6  # MobileNetV2 1.0, 224x224. Source: Sandler et al., 2018, table 4
P95, MARGIN = 1.35, 1.5  # p95 against the mean of frames; what a budget leaves above the estimate
HERE = (8, 4.0)  # AMD Zen 5: decodes 2 x 4 instructions per cycle, about 4 GHz
ZOO = "github.com/opencv/opencv_zoo, benchmark/README.md, image_classification_mobilenetv2_2022apr"
NCNN = "github.com/Tencent/ncnn, benchncnn, mobilenet_v2"


@dataclass(frozen=True)
class Board:
    """yardstick_ms: of MobileNetV2, with all cores or on the GPU. width: instructions that a core decodes per cycle.

    gb_per_s: of the memory: its peak; of the Raspberry Pi 4 what STREAM measured (sci-pi.org.uk). threads: of the encoder;
    0 where the GPU runs it.
    """

    yardstick_ms: float
    threads: int
    cores: int
    width: int
    clock_ghz: float
    gb_per_s: float
    source: str

    @property
    def macs_per_s(self) -> float:
        return YARDSTICK_MACS / (self.yardstick_ms / 1000) * (self.threads / self.cores if self.threads else 1.0)

    @property
    def slower(self) -> float:
        return HERE[0] * HERE[1] / (self.width * self.clock_ghz)


# Widths: Cortex-A53 2, A57 and A72 3, A76 and A78AE 4 (Arm's Software Optimization Guides), Golden Cove 6 (Intel's).
BOARDS = {
    "raspberry_pi_zero_2w": Board(147.4, 3, 4, 2, 1.0, 3.6, f"{NCNN}: issue 3485, Zero 2 W, 4 threads, 32 bits"),
    "raspberry_pi_4": Board(66.6, 3, 4, 3, 1.5, 5.5, f"{ZOO}: Raspberry Pi 4B at 1.5 GHz (XNNPACK's README: 46 ms)"),
    "raspberry_pi_5": Board(21.8, 3, 4, 4, 2.4, 17.1, "learn.arm.com, ExecuTorch on Arm: 10.9 ms (XNNPACK, fp32), doubled"),
    "jetson_nano": Board(56.7, 3, 4, 3, 1.43, 25.6, f"{ZOO}: Jetson Nano B01, CPU (28.6 ms with CUDA)"),
    "jetson_orin_nano": Board(9.4, 0, 6, 4, 1.5, 68.0, f"{ZOO}: Jetson Nano Orin, CUDA fp32 (fp16: 7.5 ms)"),
    "jetson_agx_orin": Board(9.4, 0, 12, 4, 2.2, 204.8, f"{ZOO}: that of the Jetson Nano Orin, as no better one was found"),
    "intel_openvino": Board(6.0, 2, 8, 6, 3.6, 76.8, f"{ZOO}: Intel 12700K, 8 performance cores at 3.6 GHz"),
    "desktop_cuda": Board(7.0, 0, 8, 6, 3.6, 936.0, f"{NCNN}: benchmark/README.md, RTX 3090 with Vulkan, the mean"),
}


class Counting(OnnxRuntime):
    """ONNX Runtime that notes how many pictures of which size it gets."""

    seen: list[tuple[int, ...]] = []  # noqa: RUF012

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        Counting.seen += [value.shape for value in inputs.values()]
        return super().run(inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--source")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds of measuring")
    options = parser.parse_args()
    tune_heap()  # as edge-vad run does
    bundle = read_bundle(options.bundle)
    found = seen(bundle, options.source, options.duration)
    crop = encoder_cost(bundle, found["picture"])
    macs, other = crop["macs"] * found["pictures_mean"], found["other_ms"]
    moved = crop["bytes"] * found["pictures_mean"] + crop["weights"]
    told = {
        "one crop": f"{crop['macs'] / 1e6:.1f} million MACs, {crop['bytes'] / 1e6:.2f} MB in and out of its layers",
        "crops of a frame": "mean {pictures_mean:.1f}, p95 {pictures_p95:.0f}, most {pictures_max}".format(**found),
        "one frame": f"{macs / 1e6:.0f} million MACs, {moved / 1e6:.0f} MB in and out; weights {crop['weights']} bytes",
        "CPU ms here": "encoder {encoder_ms:.2f}, other stages {other_ms:.2f}, p95 / mean {p95:.2f}".format(**found),
        "memory here": f"{found['used_mb']:.0f} MB at most",
    }
    print("".join(f"{name}: {text}\n" for name, text in told.items()))
    print("| board | GMAC/s | K | encoder ms | other ms | frame ms | memory ms | budget fps | budget p95_ms |")
    print("| --- " + "| ---: " * 8 + "|")
    for name, board in BOARDS.items():
        parts = 1000 * macs / board.macs_per_s, other * board.slower
        whole, memory = sum(parts), moved / 1e6 / board.gb_per_s
        rate = f"{board.macs_per_s / 1e9:.1f} | {board.slower:.1f} | {parts[0]:.0f} | {parts[1]:.0f} | {whole:.0f}"
        print(f"| {name} | {rate} | {memory:.0f} | {1000 / whole / MARGIN:.1f} | {P95 * MARGIN * whole:.0f} |")
    print("".join(f"\n{name}: {board.yardstick_ms:g} ms: {board.source}" for name, board in BOARDS.items()))


def seen(bundle: Bundle, source: str | None, duration_s: float) -> dict[str, Any]:
    """Pictures of a frame, and what its stages take here."""
    frames, _ = frames_for(bundle, source)
    detector = Detector.open(bundle, backend=Counting)
    Counting.seen.clear()
    detector.reset()
    for i, frame in enumerate(frames):
        detector.process(type(frame)(frame.image, frame.luma, i * detector.period_s, i))
    sizes, counts = {shape[1:] for shape in Counting.seen}, [shape[0] for shape in Counting.seen]
    assert len(sizes) == 1, f"one size of picture was expected, not {sizes}"
    counts += [0] * (len(frames) - len(counts))
    detector.reset()
    summary = measure(detector, frames, duration_s=duration_s).summary()
    encoder_ms = summary["stages"]["encoder"]["mean_ms"]["cpu"]
    cpu = summary["end_to_end"]["cpu_ms"]
    return {
        "picture": sizes.pop(),
        "pictures_mean": float(np.mean(counts)),
        "pictures_p95": float(np.percentile(counts, 95)),
        "pictures_max": max(counts),
        "encoder_ms": encoder_ms,
        "other_ms": cpu["mean"] - encoder_ms,
        "p95": cpu["p95"] / cpu["mean"],
        "used_mb": summary["memory"]["used_mb"],
    }


def encoder_cost(bundle: Bundle, picture: tuple[int, ...]) -> dict[str, float]:
    """MACs of convolutions and matrix products for one picture (c, h, w); bytes of their inputs and outputs in fp32."""
    model = onnx.load_from_string(bundle.model("encoder"))
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    for dimension, size in zip(dimensions, (1, *picture), strict=True):
        dimension.dim_value = size
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.input, *graph.output)
    }
    constants = {t.name: list(t.dims) for t in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    macs = moved = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weights = constants.get(node.input[1]) or constants[made[node.input[1]].input[0]]  # or behind DequantizeLinear
        out = known[node.output[0]]
        macs += prod(out) * prod(weights[1:]) if node.op_type == "Conv" else prod(out) * weights[0]
        moved += 4 * (prod(known[node.input[0]]) + prod(out))
    return {"macs": macs, "bytes": moved, "weights": len(bundle.model("encoder"))}


if __name__ == "__main__":
    main()
