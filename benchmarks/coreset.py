"""Greedy coreset: ours against the published one, same rows, one CPU thread.

    python benchmarks/coreset.py [--rows 50000] [--dims 64] [--ratios 0.01,0.1]

Published: PatchCore's greedy k-centre as VideoPatchCore uses it, written from Sener and Savarese (2018): after each kept
row the distance of every row to it by ``torch.linalg.norm``, the running minimum, its argmax. Rows are those of
`search.py`. Both start at the same row. Cover radius: the largest distance of any row to the nearest kept one.
"""

from __future__ import annotations

import os

# The libraries read these when they are loaded.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import time

import numpy as np
import torch
from search import mixture

from edge_vad.banks.exact import ExactBank
from edge_vad.coreset import coreset, n_kept
from edge_vad.types import Float32

LINE = "{:>8} {:>8} {:>14} {:>9} {:>7} {:>17} {:>13}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dims", type=int, default=64)
    parser.add_argument("--ratios", default="0.01,0.1", help="parts to keep, comma-separated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = mixture(options.dims)(options.rows)
    print(f"{options.rows} x {options.dims}, one thread, CPU seconds")
    print(LINE.format("kept", "", "published s", "ours s", "ratio", "published radius", "our radius"))
    for ratio in (float(text) for text in options.ratios.split(",")):
        n = n_kept(options.rows, ratio)
        start = time.process_time()
        ours = coreset(rows, n)
        middle = time.process_time()
        theirs = published(rows, n, int(ours[0]))
        end = time.process_time()
        seconds = (end - middle, middle - start)
        radii = [float(ExactBank(rows[kept]).search(rows)[0].max()) for kept in (theirs, ours)]
        cells = (*(f"{s:.2f}" for s in seconds), f"{seconds[0] / seconds[1]:.1f}", *(f"{radius:.4f}" for radius in radii))
        print(LINE.format(n, f"{ratio:.0%}", *cells), flush=True)


def published(rows: Float32, n: int, first: int) -> np.ndarray:
    """Indices of the kept rows, in order."""
    points = torch.from_numpy(rows)
    kept = [first]
    with torch.inference_mode():
        distance = torch.linalg.norm(points - points[first], dim=1)
        while len(kept) < n:
            kept.append(int(distance.argmax()))
            distance = torch.minimum(distance, torch.linalg.norm(points - points[kept[-1]], dim=1))
    return np.array(kept)


if __name__ == "__main__":
    main()
