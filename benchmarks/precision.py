"""Precisions of an encoder against fp32: bytes, features, scores and CPU time, without any benchmark's test labels.

    python benchmarks/precision.py --normal UCSDped2/training/frames    # events pasted into normal footage
    python benchmarks/precision.py --view 0                             # a generated street

Every other clip is built into one bundle per precision, the clips between them are held out.

cosine: of the features of held-out crops to fp32's, per picture and tap; mean and worst. score: of the frames of held-out
normal clips and of generated events, against those of the fp32 bundle: Pearson and Spearman correlation, largest absolute
difference (1.0 is the threshold). AUC: mean over the kinds of events, of which the truth is known as they were made.
ms: CPU time of one call of the encoder, one thread, minimum / median, and how many times faster than fp32 it is (median
of the ratios within one round; all precisions take turns, and each has one call before that is not measured).
"""

from __future__ import annotations

import os

# The libraries read these when they are loaded.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import logging
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from choices import Stream, frames_of, pasted_streams, street_streams
from edge_vad.converters.build import build
from edge_vad.converters.encoders import cosine, load_encoder
from edge_vad.converters.normal_footage import calibration_pictures, inspect_footage, measure
from edge_vad.converters.settings import BuildSettings
from numpy.typing import NDArray
from scipy.stats import spearmanr

from edge_vad.backends import Backend
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.cameras.synthetic import write_dataset
from edge_vad.detector import Detector
from edge_vad.evaluation.metrics import frame_auc
from edge_vad.features import Encoder, Preprocessing
from edge_vad.footage import Clip, find_clips
from edge_vad.plugins import load
from edge_vad.sampling import decimate
from edge_vad.types import Float32, UInt8

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "INT8 minmax": {},
    "INT8 percentile": {"calibration": "percentile"},
    "INT8 entropy": {"calibration": "entropy"},
    "INT8 NNCF minmax": {"quantizer": "nncf"},
    "INT8 NNCF percentile": {"quantizer": "nncf", "calibration": "percentile"},
}
IR = "INT8 NNCF, OpenVINO IR"
BACKENDS = ("onnxruntime", "openvino")
STREET_SECONDS, PER_KIND = 24, 2
Times = dict[tuple[str, str], dict[str, list[float]]]  # (backend, shape) -> variant -> CPU ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--normal", help="normal footage, a folder of clips")
    source.add_argument("--view", type=int, help="viewpoint of a generated street")
    parser.add_argument("--encoder", default="efficientnet_lite0", help="a name or an ONNX file that describes itself")
    parser.add_argument("--ratio", type=float, default=0.01, help="of the bundles (default 0.01)")
    parser.add_argument("--repeat", type=int, default=60, help="time measurements of each")
    parser.add_argument("--without", default="", metavar="A,B", help="leave these rows out")
    parser.add_argument("--ir", action="store_true", help="a row for NNCF's own OpenVINO model, which no bundle holds")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    chosen = {name: changes for name, changes in VARIANTS.items() if name not in options.without.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        clips, events = footage_of(options, Path(folder))
        built, held_out = clips[::2], clips[1::2]
        bundles = {
            name: bundle_of(
                built, Path(folder) / f"{i}.evb", BuildSettings(encoder_name=options.encoder, ratio=options.ratio, **changes)
            )
            for i, (name, changes) in enumerate(chosen.items())
        }
        normal = (("normal", frames_of(clip), np.zeros(0, dtype=bool)) for clip in held_out)
        scores = scored(bundles, chain(normal, events(held_out)))
        crops, frame = pictures_of(held_out, options.encoder)
        calibration, _ = pictures_of(built, options.encoder)
    preprocessing = load_encoder(options.encoder).preprocessing
    models = {name: bundle.members["encoder/encoder.onnx"] for name, bundle in bundles.items()}
    closeness = {name: cosines(model, models["fp32"], preprocessing, crops) for name, model in models.items()}
    runs = {
        backend: {n: load("backends", backend, Backend)(m, threads=1) for n, m in models.items()} for backend in BACKENDS
    }
    if options.ir:
        runs["openvino"][IR] = OpenVinoIr(models["fp32"], calibration, preprocessing)
    side, some = crops[0].shape[1], np.concatenate(crops)[:16]
    shapes = {f"1x{side}x{side}": some[:1], f"{len(some)}x{side}x{side}": some, "frame": frame}
    times = measured(runs, shapes, preprocessing, options.repeat)
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "nncf"))
    print(f"{packages}, {platform.machine()}, one thread; frame: {frame.shape[2]}x{frame.shape[1]}\n")
    print_table(bundles, closeness, scores, times)


def footage_of(options: argparse.Namespace, folder: Path) -> tuple[list[Clip], Any]:
    """The normal clips, and what makes streams with events of held-out ones."""
    if options.normal:
        clips = find_clips([options.normal])
        return clips, lambda held_out: pasted_streams(held_out, clips)
    street = folder / "street"
    write_dataset(street, seed=7, view=options.view, n_training=8, n_testing=1, seconds=STREET_SECONDS)
    return find_clips([street / "training" / "frames"]), lambda _: street_streams(options.view, STREET_SECONDS, PER_KIND)


def bundle_of(clips: Sequence[Clip], out: Path, settings: BuildSettings) -> Bundle:
    build(clips, out, settings)
    return read_bundle(out)


def scored(bundles: dict[str, Bundle], streams: Iterator[Stream]) -> list[tuple[str, NDArray[np.bool_], dict[str, Any]]]:
    """(kind, labels, variant -> anomaly scores (n,)) of every stream."""
    detectors = {name: Detector.open(bundle) for name, bundle in bundles.items()}
    found = []
    for kind, frames, labels in streams:
        scores = {}
        for name, detector in detectors.items():
            detector.reset()
            scores[name] = np.array([detector.process(frame).score for frame in frames])
        found.append((kind, labels, scores))
    return found


def pictures_of(clips: Sequence[Clip], encoder: str) -> tuple[list[UInt8], UInt8]:
    """Batches of crops, as the encoder sees them of the clips, and one whole frame (1, h, w, 3)."""
    size, fps, *_ = inspect_footage(clips, None)
    preprocessing = load_encoder(encoder).preprocessing
    scene = measure(clips, BuildSettings(), size, fps, preprocessing)
    frame = decimate(frames_of(clips[0])[0].image, scene.factor)
    height, width = (side // preprocessing.multiple * preprocessing.multiple for side in frame.shape[:2])
    return calibration_pictures(clips, scene, None), frame[None, :height, :width]


def cosines(model: bytes, fp32: bytes, preprocessing: Preprocessing, batches: Sequence[UInt8]) -> NDArray[np.float64]:
    """One per picture and tap."""
    backend = load("backends", "onnxruntime", Backend)
    one, other = (Encoder(backend(data), preprocessing) for data in (model, fp32))
    pairs = (pair for batch in batches for pair in zip(one(batch), other(batch), strict=True))
    return np.array([cosine(a, b) for pair in pairs for a, b in zip(*pair, strict=True)])


class OpenVinoIr(Backend):
    """What NNCF makes of an OpenVINO model for its CPU plug-in, with its defaults, per channel where it likes."""

    def __init__(self, model: bytes, pictures: Sequence[UInt8], preprocessing: Preprocessing) -> None:
        import nncf
        import openvino
        from edge_vad.converters.encoders import quiet

        core = openvino.Core()
        data = nncf.Dataset(pictures, lambda batch: {preprocessing.input_name: planes(batch, preprocessing)})
        with quiet():
            network = nncf.quantize(core.read_model(model), data, subset_size=len(pictures))
        settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._request = core.compile_model(network, "CPU", settings).create_infer_request()
        self.outputs = preprocessing.taps

    def run(self, inputs: Any) -> dict[str, Float32]:
        found = self._request.infer(dict(inputs), share_inputs=True)
        return {name: np.array(value) for name, value in zip(self.outputs, found.values(), strict=True)}


def planes(pictures: UInt8, preprocessing: Preprocessing) -> Float32:
    """Pictures (n, h, w, 3) as the encoder takes them, (n, 3, h, w)."""
    order = slice(None) if preprocessing.colour_order == "RGB" else slice(None, None, -1)
    values = (pictures[..., order].astype(np.float32) - preprocessing.mean) / preprocessing.std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32)


def measured(
    runs: dict[str, dict[str, Backend]], shapes: dict[str, UInt8], preprocessing: Preprocessing, repeat: int
) -> Times:
    times: Times = {}
    for backend, variants in runs.items():
        for shape, pictures in shapes.items():
            inputs = {preprocessing.input_name: planes(pictures, preprocessing)}
            n_calls = max(1, 20_000 // (pictures.size // 3))  # of very short ones several, as the clock is coarse
            taken = times[backend, shape] = {name: [] for name in variants}
            names = list(variants)
            for turn in range(repeat):
                first = turn % len(names)  # none has the caches or the clock of a neighbour more often than another
                for name in names[first:] + names[:first]:
                    variants[name].run(inputs)  # what runs between two frames is not what is measured
                    start = time.process_time()
                    for _ in range(n_calls):
                        variants[name].run(inputs)
                    taken[name].append((time.process_time() - start) / n_calls * 1e3)
    return times


def print_table(
    bundles: dict[str, Bundle], closeness: dict[str, Any], scores: list[tuple[str, Any, dict[str, Any]]], times: Times
) -> None:
    head = ["encoder", "bytes", "cosine mean", "worst", "score Pearson", "Spearman", "largest difference", "AUC"]
    head += [f"ms {shape}, {backend}" for backend, shape in times]
    print("| " + " | ".join(head) + " |")
    print("| --- |" + " ---: |" * (len(head) - 1))
    everything = {name: np.concatenate([found[name] for _, _, found in scores]) for name in bundles}
    for name in [*bundles, *([IR] if IR in times["openvino", "frame"] else [])]:
        cells = [name, *(["-"] * 7)]
        if name in bundles:
            mine, fp32 = everything[name], everything["fp32"]
            pearson, rank = np.corrcoef(mine, fp32)[0, 1], spearmanr(mine, fp32).statistic
            n_bytes = len(bundles[name].members["encoder/encoder.onnx"])
            values = [closeness[name].mean(), closeness[name].min(), pearson, rank]
            cells = [name, f"{n_bytes:,}", *(f"{v:.5f}" for v in values[:2]), *(f"{v:.4f}" for v in values[2:])]
            cells += [f"{np.abs(mine - fp32).max():.3f}", f"{auc(scores, name):.4f}"]
        cells += [timing(taken, name) for taken in times.values()]
        print("| " + " | ".join(cells) + " |")


def auc(scores: list[tuple[str, Any, dict[str, Any]]], name: str) -> float:
    kinds = dict.fromkeys(kind for kind, labels, _ in scores if len(labels))
    found = []
    for kind in kinds:
        same = [(values[name], labels) for k, labels, values in scores if k == kind]
        found.append(frame_auc(np.concatenate([s for s, _ in same]), np.concatenate([labels for _, labels in same])))
    return float(np.mean(found))


def timing(taken: dict[str, list[float]], name: str) -> str:
    if name not in taken:
        return "-"
    ratio = np.median(np.array(taken["fp32"]) / np.array(taken[name]))
    return f"{min(taken[name]):.2f} / {np.median(taken[name]):.2f} ({ratio:.2f}x)"


if __name__ == "__main__":
    main()
