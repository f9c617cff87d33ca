"""Trained networks as bundles on labelled footage: accuracy, precision, time and size in one table.

    edge-vad train --method amco --normal UCSDped2 --out runs/amco --width 0.25
    python benchmarks/networks.py --dataset ped2 UCSDped2 runs/amco runs/maam ...

Every run is built into an INT8 and an fp32 bundle with the normal part of the data set and scored causally, frame by frame,
as `edge-vad evaluate` does. micro, macro: AUC with the data set's official labels; other: micro AUC with its other labels.
document: micro AUC with the document's own normalisation, which looks at whole videos. pasted: AUC on events pasted into the
normal clips that the training held out (benchmarks/pasted.py), without any label of the data set: what choices are made on.
ms: CPU time of one processed frame, one thread; a network runs on every stride-th frame. train: minutes of wall time that
the training took. --whole-frames: a single patch as large as the picture, in the place of the worst patches.

    python benchmarks/networks.py --street 0 runs/street0 --share 0.25,0.4 --less 1,0.5,0

Without any labels of a data set: runs that were trained on the generated street of a viewpoint (--write FOLDER writes
it), scored on the anomalies of that street and on pasted events, mean AUC over their kinds; for each share of the
appearance in a fused score and each weight of less change than expected.
"""

from __future__ import annotations

import os

# The libraries read these when they are loaded.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import logging
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from choices import Stream, pasted_streams, street_streams
from edge_vad.converters import network_build
from edge_vad.converters.build_command import clips_of
from edge_vad.converters.checkpoint import Trained, load_network
from edge_vad.converters.quantisation import Precision
from edge_vad.converters.settings import BuildSettings

from edge_vad.bundle import read_bundle
from edge_vad.cameras.synthetic import write_dataset
from edge_vad.commands.evaluate import evaluate
from edge_vad.detector import Detector
from edge_vad.evaluation import open_dataset
from edge_vad.evaluation.metrics import micro_auc
from edge_vad.footage import Clip

PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
HEADER = (
    "| run | network | parameters | train, epochs | precision | micro | macro | other | document | pasted | ms | bundle |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders of edge-vad train")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dataset", nargs=2, metavar=("NAME", "DIR"))
    what.add_argument("--street", type=int, metavar="VIEW", help="the generated street that the runs were trained on")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="with --street: write its normal clips, and end")
    parser.add_argument("--share", default=f"{network_build.SHARE}", help="of the appearance; with --street several")
    parser.add_argument("--less", default=f"{network_build.LESS}", help="of less change; with --street several")
    parser.add_argument("--precision", choices=PRECISIONS, help="only this one")
    parser.add_argument("--whole-frames", action="store_true", help="score whole frames, not their worst patches")
    options = parser.parse_args()
    if options.write and options.street is None:
        parser.error("--write belongs to --street VIEW")
    if not (options.runs or options.write):
        parser.error("name a RUN folder of edge-vad train")
    if options.whole_frames:
        network_build.patch_size = lambda _, trained, __: trained.size
    logging.basicConfig(level=logging.WARNING)
    if options.write:
        write_street(options.write, options.street)
        return
    choices = [[float(text) for text in said.split(",")] for said in (options.share, options.less)]
    if options.street is not None:
        print("| run | share | less | street | pasted |\n| --- | ---: | ---: | ---: | ---: |", flush=True)
        for run in options.runs:
            print_street(run, options.street, *choices)
        return
    network_build.SHARE, network_build.LESS = choices[0][0], choices[1][0]
    print(HEADER, flush=True)
    for run in options.runs:
        for precision in [options.precision] if options.precision else PRECISIONS:
            print(row(run, precision, Path(options.dataset[1])), flush=True)


def row(run: Path, precision: Precision, data: Path) -> str:
    """One line of the table."""
    system, trained = load_network(run)
    dataset = open_dataset(data, "official")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "site.evb"
        network_build.build_network(clips_of([str(data)]), out, run, trained.method, BuildSettings(precision=precision))
        bundle = read_bundle(out)
    detector = Detector.open(bundle)
    result, _ = evaluate(detector, dataset, None, bundle.n_bytes)
    n_parameters = sum(p.numel() for p in system.parameters())
    values = (
        run.name,
        described(trained),
        f"{n_parameters / 1e6:.2f} M",
        f"{trained.seconds / 60:.0f} min, {trained.epochs}",
        precision,
        *accuracies(result),
        f"{pasted_auc(detector, clips_of([str(data)]), trained):.3f}",
        f"{result['cpu_ms_per_frame']['total'] * trained.stride:.1f}",
        f"{bundle.n_bytes / 1e6:.2f} MB",
    )
    return "| " + " | ".join(values) + " |"


def write_street(folder: Path, view: int) -> None:
    write_dataset(folder, seed=7, view=view, n_training=8, n_testing=1, seconds=24)


def print_street(run: Path, view: int, shares: list[float], lesses: list[float]) -> None:
    """A line of the mean AUC over the kinds of events for every share and weight; fp32."""
    trained = load_network(run)[1]
    held = {name for name, _, _ in trained.held_out}
    with tempfile.TemporaryDirectory() as folder:
        write_street(Path(folder), view)
        clips = clips_of([f"{folder}/training/frames"])
        donors, normal = ([c for c in clips if (c.name in held) is kept] for kept in (False, True))
        for network_build.SHARE, network_build.LESS in product(shares, lesses):
            out = Path(folder) / "site.evb"
            network_build.build_network(clips, out, run, trained.method, BuildSettings(precision="fp32"))
            detector = Detector.open(out)
            means = [
                mean_auc(detector, streams) for streams in (street_streams(view, 24, 3), pasted_streams(normal, donors))
            ]
            chosen = f"{network_build.SHARE:g} | {network_build.LESS:g}"
            print(f"| {run.name} | {chosen} | {means[0]:.3f} | {means[1]:.3f} |", flush=True)


def mean_auc(detector: Detector, streams: Iterator[Stream]) -> float:
    """Mean over the kinds of events of their micro AUC."""
    found: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for kind, frames, truth in streams:
        detector.reset()
        scores, labels = found.setdefault(kind, ([], []))
        scores.append(np.array([detector.process(frame).score for frame in frames]))
        labels.append(truth)
    return float(np.mean([micro_auc(*of_kind) for of_kind in found.values()]))


def pasted_auc(detector: Detector, clips: list[Clip], trained: Trained) -> float:
    """Micro AUC over the held-out clips with events of other clips in them."""
    held = {name for name, _, _ in trained.held_out}
    scores, labels = [], []
    for _, frames, truth in pasted_streams([c for c in clips if c.name in held], [c for c in clips if c.name not in held]):
        detector.reset()
        scores.append(np.array([detector.process(frame).score for frame in frames]))
        labels.append(truth)
    return micro_auc(scores, labels)


def described(trained: Trained) -> str:
    """Method, picture size, width and stride."""
    width, height = trained.size
    return f"{trained.method} {height}x{width}, width {trained.options['width']:g}, stride {trained.stride}"


def accuracies(result: dict[str, Any]) -> list[str]:
    """micro, macro, micro with other labels, micro with the document's normalisation."""
    causal = result["causal"]["frame_auc"]
    others = [other["causal"]["frame_auc"]["micro"] for other in result["other_labels"].values()]
    document = (result.get("document") or {}).get("frame_auc", {})
    found = [causal["micro"], causal["macro"], others[0] if others else None, document.get("micro")]
    return ["-" if value is None else f"{value:.3f}" for value in found]


if __name__ == "__main__":
    main()
