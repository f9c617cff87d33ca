"""The memory of MAAM-Net or AMCo in the network's graph, and in a bank that finds the k nearest items; one CPU thread.

    python benchmarks/memory_reads.py --weights RUN --normal DIR [--dataset ped2 DIR] [--k 1,2,4,8,16,64,all] [--bank exact]
    python benchmarks/memory_reads.py --runs with=RUN no_sparse=RUN no_latent=RUN neither=RUN --normal DIR
    python benchmarks/memory_reads.py --scale 500,2000,20000,100000

The first builds a bundle of every read, fp32, each calibrated for itself, and opens it as a device does. Over windows of
the footage that the training held out: per query, per frame: items with a weight above 0, and distinct ones of a window.
read ms, whole ms: CPU time of the reads of a window (from feature maps to feature maps) and of the whole network, medians,
the reads in turn; the graph's read is timed as a graph of its own. components: mean relative difference of the raw
components to the graph's. With a data set: frame AUC, causal, and the mean difference of the scores to the graph's, in units
of the threshold. Of two memories the items are the mean, the times the sum.

The second counts the same of several trainings, in torch: document 004, figure 5, without and with its sparse and latent
loss. effective: e to the entropy of the weights.

The third times a read over more items. They are generated (`mixture` in search.py), as the queries are: --queries of --dims
dimensions, by default those of MAAM-Net at 128x192 and a quarter of its width. cosine: of what is read to what the graph
reads. build s: CPU seconds of HNSW's graph.
"""

from __future__ import annotations

import os

# The libraries read these when they are loaded.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from edge_vad.converters.build_command import clips_of
from edge_vad.converters.checkpoint import Trained, load_network
from edge_vad.converters.encoders import OPSET, quiet
from edge_vad.converters.memory_module import MemoryModule, SparseMemory
from edge_vad.converters.network_build import build_network, unseen
from edge_vad.converters.settings import BuildSettings
from edge_vad.converters.system import System
from edge_vad.converters.training_footage import distinct
from search import mixture

from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.banks import open_bank
from edge_vad.banks.hnsw import HnswBank
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.commands.evaluate import evaluate
from edge_vad.detector import Detector
from edge_vad.evaluation import Dataset, open_dataset
from edge_vad.footage import Clip
from edge_vad.heap import tune_heap
from edge_vad.memory_read import Memory, unit
from edge_vad.methods import Method
from edge_vad.methods._network import NetworkMethod
from edge_vad.networks import FRAMES, NetworkSettings, Window
from edge_vad.plugins import load
from edge_vad.profile import Inference, Profile
from edge_vad.types import Float32
from edge_vad.vectors import Stored, compress

GRAPH = "graph"
N_TIMED = 60  # windows
READS = "{:>8} {:>10} {:>10} {:>9} {:>9} {:>11} {:>7} {:>7} {:>10}"
RUNS = "{:<16} {:>7} {:>7} {:>6} {:>10} {:>10} {:>10}"
SCALE = "{:>7} {:>10} {:>9} {:>12} {:>8} {:>8}"
Run = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="a run of edge-vad train")
    parser.add_argument("--runs", nargs="+", default=[], metavar="NAME=RUN", help="several trainings: selected items only")
    parser.add_argument("--normal", nargs="+", help="the footage that it was trained on")
    parser.add_argument("--dataset", nargs=2, metavar=("NAME", "DIR"), help="labelled clips, for AUC")
    parser.add_argument("--k", default="1,2,4,8,16,64,all", help="items that a bank finds, comma-separated")
    parser.add_argument("--bank", default="exact", help="the plug-in that searches")
    parser.add_argument("--scale", help="numbers of generated items, comma-separated")
    parser.add_argument("--queries", type=int, default=384)
    parser.add_argument("--dims", type=int, default=128)
    options = parser.parse_args()
    if (options.weights or options.runs) and not options.normal:
        parser.error("--weights and --runs need --normal DIR")
    if not (options.weights or options.runs or options.scale):
        parser.error("name --weights RUN, --runs NAME=RUN ..., or --scale N,N")
    torch.set_num_threads(1)
    tune_heap()
    clips = distinct(clips_of(options.normal)) if options.normal else []
    if options.weights:
        dataset = open_dataset(Path(options.dataset[1]), "official") if options.dataset else None
        compare_reads(options.weights, clips, options.k.split(","), options.bank, dataset)
    if options.runs:
        compare_runs(dict(text.split("=", 1) for text in options.runs), clips)
    if options.scale:
        compare_sizes([int(text) for text in options.scale.split(",")], options.queries, options.dims)


def compare_reads(weights: Path, clips: Sequence[Clip], ks: Sequence[str], bank: str, dataset: Dataset | None) -> None:
    """The first table."""
    system, trained = load_network(weights)
    n_items = min(len(memory.items) for memory in system.memories.values())
    reads = {k: n_items if k == "all" else int(k) for k in ks if k == "all" or int(k) <= n_items}
    windows = list(held_out_windows(clips, trained, system.n_frames))
    counts = ", ".join(f"{name} {tuple(memory.items.shape)}" for name, memory in system.memories.items())
    print(f"{trained.method}, {counts}, {len(windows)} windows, bank {bank}, fp32, one thread")
    with tempfile.TemporaryDirectory() as folder:
        bundles = {GRAPH: built(clips, weights, trained.method, Path(folder))}
        bundles |= {name: built(clips, weights, trained.method, Path(folder), k) for name, k in reads.items()}
    methods = {name: opened(bundle, bank) for name, bundle in bundles.items()}
    selected = {GRAPH: selected_in_graph(system, windows)[:2]}
    selected |= {name: selected_in_banks(methods[name], windows) for name in reads}
    whole = measure({n: partial(m._network, windows[0]) for n, m in methods.items()})
    alone = measure(reads_alone(system, {name: methods[name] for name in reads}, windows[0]))
    components = {name: raw_components(method, clips, trained) for name, method in methods.items()}
    accuracy = {name: scored(bundle, bank, dataset) for name, bundle in bundles.items()} if dataset else {}
    print(READS.format("read", "per query", "per frame", "read ms", "whole ms", "components", "micro", "macro", "scores"))
    for name in bundles:
        off = np.mean(np.abs(components[name] / components[GRAPH] - 1))
        cells = [f"{selected[name][0]:.2f}", f"{selected[name][1]:.1f}", f"{np.median(alone[name]):.2f}"]
        cells += [f"{np.median(whole[name]):.2f}", f"{off:.2%}", "-", "-", "-"]
        if accuracy:
            micro, macro, scores = accuracy[name]
            cells[-3:] = [f"{micro:.4f}", f"{macro:.4f}", f"{np.mean(np.abs(scores - accuracy[GRAPH][2])):.4f}"]
        print(READS.format(name, *cells), flush=True)


def compare_runs(runs: Mapping[str, str], clips: Sequence[Clip]) -> None:
    """The second table."""
    print(RUNS.format("run", "sparse", "latent", "items", "per query", "per frame", "effective"))
    for name, folder in runs.items():
        system, trained = load_network(Path(folder))
        if not system.memories:
            sys.exit(f"{name}: {folder} has no memory")
        per_query, per_frame, effective = selected_in_graph(system, held_out_windows(clips, trained, system.n_frames))
        losses = [f"{trained.options[key]:g}" if key in trained.options else "-" for key in ("sparse", "latent")]
        n_items = sum(len(memory.items) for memory in system.memories.values()) // len(system.memories)
        print(RUNS.format(name, *losses, n_items, f"{per_query:.2f}", f"{per_frame:.1f}", f"{effective:.2f}"), flush=True)


def compare_sizes(sizes: Sequence[int], n_queries: int, dims: int, k: int = 8) -> None:
    """The third table."""
    sample = mixture(dims)
    maps = np.ascontiguousarray(sample(n_queries).T.reshape(1, dims, 1, n_queries))
    print(f"{n_queries} queries x {dims} dimensions, k = {k}, one thread")
    print(SCALE.format("items", "read", "ms", "graph / this", "cosine", "build s"))
    for n_items in sizes:
        module = SparseMemory(n_items, dims, temperature=0.05)
        module.items.data = torch.from_numpy(sample(n_items))
        rows = Stored({**compress(module.items.detach().numpy(), "fp16"), "lengths": np.ones(n_items, np.float32)})
        exact = Memory("memory", module.rule(k), rows, open_bank("exact", rows))
        start = time.process_time()
        graph = HnswBank(rows[:])
        build_s = time.process_time() - start
        hnsw = Memory("memory", module.rule(k), rows, graph)
        reads = {GRAPH: partial(graph_of(module, maps), maps), "exact": partial(exact, maps), "hnsw": partial(hnsw, maps)}
        ms = measure(reads, 15)
        wanted = unit_rows(reads[GRAPH]())
        for name, read in reads.items():
            cosine = float(np.mean(np.sum(unit_rows(read()) * wanted, axis=1)))
            ratio = f"{np.median(ms[GRAPH] / ms[name]):.2f}"
            last = f"{build_s:.1f}" if name == "hnsw" else ""
            print(SCALE.format(n_items, name, f"{np.median(ms[name]):.2f}", ratio, f"{cosine:.4f}", last), flush=True)


def built(clips: Sequence[Clip], weights: Path, method: str, folder: Path, k: int | None = None) -> Bundle:
    """The bundle of one read, fp32."""
    settings = BuildSettings(precision="fp32")
    if k is not None:
        settings = replace(settings, memory_read="bank", top_k=k)
    path = folder / f"{k}.evb"
    build_network(clips, path, weights, method, settings)
    return read_bundle(path)


def opened(bundle: Bundle, bank: str) -> NetworkMethod:
    """Its method, as a device opens it."""
    method = load("methods", bundle.method, Method).open(bundle, OnnxRuntime, threads=1, device="cpu", bank=bank)  # type: ignore[type-abstract]
    assert isinstance(method, NetworkMethod)
    return method


def held_out_windows(clips: Sequence[Clip], trained: Trained, n_frames: int) -> Iterator[Float32]:
    """All windows (1, n_frames, 3, h, w) of the footage that the training held out."""
    for part in unseen(clips, trained):
        frames = Frames(trained, n_frames)
        for frame in part.frames(trained.stride, None):
            window = frames.add(frame.image)
            if window is not None:
                yield window


class Frames(Window):
    """A window that needs no settings of a bundle."""

    def __init__(self, trained: Trained, n_frames: int) -> None:
        super().__init__(
            NetworkSettings(trained.image_size, trained.size, trained.fps, trained.stride, n_frames, targets={})
        )


@torch.inference_mode()
def selected_in_graph(system: System, windows: Iterator[Float32] | Sequence[Float32]) -> tuple[float, float, float]:
    """Items with a weight: per query, distinct ones per window; and e to the entropy of the weights. In torch."""
    per_query, per_frame, entropies = [], [], []
    for window in windows:
        found = system.encode(torch.from_numpy(window))
        for name, memory in system.memories.items():
            weights = memory.weights(queries_of(found[name]))
            per_query.append((weights > 0).sum(dim=1).float().mean().item())
            per_frame.append((weights > 0).any(dim=0).sum().item())
            entropies.append(-(weights * (weights + 1e-12).log()).sum(dim=1).mean().item())
    return float(np.mean(per_query)), float(np.mean(per_frame)), float(np.exp(np.mean(entropies)))


def queries_of(maps: torch.Tensor) -> torch.Tensor:
    """Feature maps (n, c, h, w) -> queries (q, c) at length 1."""
    return torch.from_numpy(unit(maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).numpy()))


def selected_in_banks(method: NetworkMethod, windows: Sequence[Float32]) -> tuple[float, float]:
    """The same of a runtime whose memories lie in banks."""
    network, per_query, per_frame = method._network, [], []
    assert network.memories is not None
    for window in windows:
        found = network._session.run({FRAMES: window})
        for name, memory in network.memories.memories.items():
            weights, ids = memory.weights(queries_of(torch.from_numpy(found[name])).numpy())
            per_query.append(float((weights > 0).sum(axis=1).mean()))
            per_frame.append(len(np.unique(ids[weights > 0])))
    return float(np.mean(per_query)), float(np.mean(per_frame))


def reads_alone(system: System, methods: Mapping[str, NetworkMethod], window: Float32) -> dict[str, Run]:
    """The reads of one window without what is around them."""
    with torch.inference_mode():
        found = {name: maps.numpy() for name, maps in system.encode(torch.from_numpy(window)).items()}
    graphs = {name: graph_of(memory, found[name]) for name, memory in system.memories.items()}
    runs: dict[str, Run] = {GRAPH: lambda: [graph(found[name]) for name, graph in graphs.items()]}
    for name, method in methods.items():
        assert method._network.memories is not None
        runs[name] = partial(method._network.memories.read, found)
    return runs


def graph_of(memory: MemoryModule, maps: Float32) -> Callable[[Float32], Float32]:
    """A memory as a graph of its own, for maps of that shape, in ONNX Runtime."""
    file = io.BytesIO()
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(
            memory.eval(), (torch.from_numpy(maps),), dynamo=True, opset_version=OPSET, input_names=["maps"],
            output_names=["read", "weights"], verbose=False,
        )  # fmt: skip
    program.save(file)
    session = OnnxRuntime(file.getvalue())
    return lambda values: session.run({"maps": values})["read"]


def measure(runs: Mapping[str, Run], repeat: int = N_TIMED) -> dict[str, np.ndarray]:
    """CPU ms (repeat,) of each, forwards and backwards in turn, after one warm-up each."""
    ms: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for repetition in range(repeat):
        for name in list(runs)[:: 1 if repetition % 2 == 0 else -1]:
            start = time.process_time_ns()
            runs[name]()
            ms[name].append((time.process_time_ns() - start) / 1e6)
    return {name: np.array(values) for name, values in ms.items()}


def raw_components(method: NetworkMethod, clips: Sequence[Clip], trained: Trained) -> Float32:
    """Raw components (n, k) of the held-out footage."""
    rows = []
    for part in unseen(clips, trained):
        method.reset()
        for frame in part.frames(trained.stride, None):
            rows.append([value for _, value in sorted(method.observe(frame).components.items())])
    found = np.array(rows, dtype=np.float32)
    return found[np.isfinite(found).all(axis=1)]


def scored(bundle: Bundle, bank: str, dataset: Dataset) -> tuple[float, float, np.ndarray]:
    """Frame AUC micro and macro, causal, and all scores."""
    profile = Profile("benchmark", "one thread", Inference(backend="onnxruntime", threads=1, bank=bank))
    result, clips = evaluate(Detector.open(bundle, profile), dataset, None, bundle.n_bytes)
    auc = result["causal"]["frame_auc"]  # type: ignore[index]
    return auc["micro"], auc["macro"], np.concatenate([clip.scores for clip in clips])


def unit_rows(maps: object) -> Float32:
    """Feature maps (1, c, h, w) -> rows (h w, c) at length 1."""
    values = np.asarray(maps)
    return unit(values.transpose(0, 2, 3, 1).reshape(-1, values.shape[1]))


if __name__ == "__main__":
    main()
