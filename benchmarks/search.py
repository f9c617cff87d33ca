"""Nearest neighbours in a memory bank: ours against the published baseline, on one CPU thread.

    python benchmarks/search.py [--rows 5000,50000,500000] [--queries 49] [--dims 64]

Baseline: ``torch.cdist(queries, bank)`` and the minimum over the whole bank, the published scoring of VideoPatchCore.
The data are generated with a fixed seed: a mixture of 200 Gaussians with 16 intrinsic dimensions each and some noise in
all of them, a spectrum that decays, rows at length 1. HNSW needs as long on them and misses as many neighbours as on
features of crops of real footage; better separated clusters would flatter it. The queries come from the same mixture
and are new in every repetition.

Each repetition runs every search once, forwards and backwards in turn, so that load and clock changes meet all alike.
ms: median CPU time of one search. The ratios are medians over the repetitions of baseline / ours. recall@1: part of the
queries for which HNSW finds a row as near as the nearest. ef: the width of its searches, as measured when it is built.
build s: CPU seconds to build the HNSW graph.

The second table is of banks that stay as they are stored (bank ``compact``): memory, time against exact search in float32,
and how much the distances to the nearest row change by storing.
"""

from __future__ import annotations

import os

# The libraries read these when they are loaded.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from edge_vad.banks import Bank, hnsw, open_bank
from edge_vad.banks.base import CROSSOVER_ROWS
from edge_vad.banks.hnsw import HnswBank
from edge_vad.types import Float32
from edge_vad.vectors import VECTOR_TYPES, Stored, compress

CLUSTERS, INTRINSIC, SPREAD, NOISE, DECAY = 200, 16, 1.5, 0.3, 0.5
LINE = "{:>8} {:>9} {:>9} {:>11} {:>9} {:>11} {:>6} {:>10} {:>9} {:>4} {:>8}"
HEADER = (
    "rows",
    "cdist ms",
    "exact ms",
    "cdist/exact",
    "hnsw ms",
    "cdist/hnsw",
    "auto",
    "cdist/auto",
    "recall@1",
    "ef",
    "build s",
)
COMPACT = "{:>8} {:>9} {:>9} {:>11} {:>12} {:>12} {:>12}"
COMPACT_HEADER = ("rows", "vectors", "MB", "compact ms", "compact/exact", "median error", "correlation")
Search = Callable[[Float32], Float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="5000,50000,500000", help="bank sizes, comma-separated")
    parser.add_argument("--queries", type=int, default=49, help="queries of one search")
    parser.add_argument("--dims", type=int, default=64, help="dimensions")
    parser.add_argument("--repeat", type=int, help="repetitions (default: 9 to 101, fewer for larger banks)")
    parser.add_argument(
        "--max-hnsw-rows", type=int, default=100_000, help="larger banks without HNSW: its graph takes minutes"
    )
    parser.add_argument("--links", type=int, default=hnsw.LINKS, help="of a row in HNSW's graph")
    options = parser.parse_args()
    hnsw.LINKS = options.links
    torch.set_num_threads(1)
    versions = f"numpy {np.__version__}, torch {torch.__version__}"
    print(f"{options.queries} queries x {options.dims} dimensions, one thread, {platform.machine()}, {versions}")
    print(f"auto is exact below {CROSSOVER_ROWS} rows, else hnsw")
    print(LINE.format(*(name.replace(",", " ") for name in HEADER)))
    faster = []
    for n_rows in (int(text) for text in options.rows.split(",")):
        repeat = options.repeat or min(max(2_000_000 // n_rows, 9), 101)
        sample = mixture(options.dims)
        rows = sample(n_rows)
        frames = [sample(options.queries) for _ in range(repeat)]
        if compare(rows, frames, with_hnsw=n_rows <= options.max_hnsw_rows):
            faster.append(str(n_rows))
    print(f"hnsw is faster than exact at: {', '.join(faster) or 'none'} rows\n")
    print(COMPACT.format(*COMPACT_HEADER))
    for n_rows in (int(text) for text in options.rows.split(",")):
        sample = mixture(options.dims)
        compare_stored(sample(n_rows), [sample(options.queries) for _ in range(options.repeat or 15)])


def compare(rows: Float32, frames: Sequence[Float32], with_hnsw: bool) -> bool:
    """Measure one bank and print its line; returns whether HNSW was faster than exact search."""
    searches = {"cdist": published(rows)}
    exact = open_bank("exact", rows)
    searches["exact"] = lambda queries: exact.search(queries)[0]
    build_s = float("nan")
    if with_hnsw:
        start = time.process_time()
        graph = HnswBank(rows)
        build_s = time.process_time() - start
        searches["hnsw"] = lambda queries: graph.search(queries)[0]
    ms, nearest = measure(searches, frames)
    auto = "exact" if len(rows) < CROSSOVER_ROWS else "hnsw"
    cells = [f"{len(rows)}", median(ms, "cdist")]
    for name in ("exact", "hnsw"):
        cells += [median(ms, name), ratio(ms, name)]
    cells += [auto, ratio(ms, auto)]
    if with_hnsw:
        cells += [f"{np.mean(nearest['hnsw'] < nearest['exact'] + 1e-4):.4f}", f"{graph.width}", f"{build_s:.1f}"]
    else:
        cells += ["-", "-", "-"]
    print(LINE.format(*cells), flush=True)
    assert np.allclose(nearest["exact"], nearest["cdist"], atol=2e-3)
    return with_hnsw and bool(np.median(ms["hnsw"] / ms["exact"]) < 1)


def compare_stored(rows: Float32, frames: Sequence[Float32]) -> None:
    """Print the lines of one bank as it is stored."""
    for kind in VECTOR_TYPES:
        arrays = compress(rows, kind)
        banks = {"exact": open_bank("exact", rows), "compact": open_bank("compact", Stored(arrays))}
        ms, nearest = measure({name: partial(_distances, bank) for name, bank in banks.items()}, frames)
        megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
        slower = np.median(ms["compact"] / ms["exact"])
        error = np.median(np.abs(nearest["compact"] - nearest["exact"]) / nearest["exact"])
        agreement = np.corrcoef(nearest["compact"], nearest["exact"])[0, 1]
        cells = (f"{megabytes:.2f}", median(ms, "compact"), f"{slower:.2f}", f"{error:.2%}", f"{agreement:.4f}")
        print(COMPACT.format(len(rows), kind, *cells), flush=True)


def _distances(bank: Bank, queries: Float32) -> Float32:
    return bank.search(queries)[0]


def median(ms: Mapping[str, np.ndarray], name: str) -> str:
    """Median milliseconds of a search that ran."""
    return f"{np.median(ms[name]):.2f}" if name in ms else "-"


def ratio(ms: Mapping[str, np.ndarray], name: str) -> str:
    """Median of baseline / ours over the repetitions, of a search that ran."""
    return f"{np.median(ms['cdist'] / ms[name]):.1f}" if name in ms else "-"


def mixture(dims: int, seed: int = 0) -> Callable[[int], Float32]:
    """A sampler of feature-like rows: n -> (n, dims) float32 at length 1."""
    generator = np.random.default_rng(seed)
    intrinsic = min(INTRINSIC, dims)
    deviation = (np.arange(1, dims + 1) ** -DECAY).astype(np.float32)
    centres = generator.standard_normal((CLUSTERS, dims), dtype=np.float32)
    axes = generator.standard_normal((CLUSTERS, intrinsic, dims), dtype=np.float32) * np.float32(SPREAD / intrinsic**0.5)

    def sample(n: int) -> Float32:
        rows = np.float32(NOISE) * generator.standard_normal((n, dims), dtype=np.float32)
        cluster = generator.integers(0, CLUSTERS, n)
        for number in range(CLUSTERS):
            chosen = np.flatnonzero(cluster == number)
            inner = generator.standard_normal((len(chosen), intrinsic), dtype=np.float32)
            rows[chosen] += centres[number] + inner @ axes[number]
        rows *= deviation
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    return sample


def published(rows: Float32) -> Search:
    """VideoPatchCore's scoring: all distances by torch.cdist, then the minimum."""
    bank = torch.from_numpy(rows)

    def search(queries: Float32) -> Float32:
        with torch.inference_mode():
            distances: Float32 = torch.cdist(torch.from_numpy(queries), bank).min(dim=1).values.numpy()
        return distances[:, None]

    return search


def measure(
    searches: Mapping[str, Search], frames: Sequence[Float32]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """CPU ms (repetitions,) and nearest distances of every search, in alternating order, after one warm-up each."""
    ms: dict[str, list[float]] = {name: [] for name in searches}
    nearest: dict[str, list[Float32]] = {name: [] for name in searches}
    for search in searches.values():
        search(frames[0])
    for repetition, queries in enumerate(frames):
        for name in list(searches)[:: 1 if repetition % 2 == 0 else -1]:
            start = time.process_time_ns()
            distances = searches[name](queries)
            ms[name].append((time.process_time_ns() - start) / 1e6)
            nearest[name].append(distances[:, 0])
    return {n: np.array(v) for n, v in ms.items()}, {n: np.concatenate(v) for n, v in nearest.items()}


if __name__ == "__main__":
    main()
