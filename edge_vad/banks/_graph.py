"""A search graph at rest: the links of an HNSW index without its vectors, which are the bank's.

hnswlib's own files must not reach a device: it believes every number in them, and a damaged one crashes it or finds
wrong neighbours. So the graph is stored as plain arrays, checked against the bank here, and handed over in memory.

levels: (n,) uint8, the highest layer of each row. entry: (1,) uint32, the row where a search begins. counts: number of
links of each row on layer 0, then, row by row, on its layers 1 to levels[row]; uint8. links: those links, one after
another; uint32. The metadata names the bank's hash, ``m``, and ``ef``, the width of a search.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vad import tensorfile
from edge_vad.errors import BundleFormatError
from edge_vad.types import Float32

WHERE = "search graph"
MAX_LEVEL = 31
MAX_EF = 1024
DEFAULT_EF = "64"  # of graphs that do not name it
Arrays = dict[str, NDArray[Any]]


def encode(state: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """A graph at rest from the state of an ``hnswlib.Index`` whose labels are the row numbers."""
    n, m = state["cur_element_count"], state["M"]
    levels = np.asarray(state["element_levels"][:n])
    ground = np.asarray(state["data_level0"]).view(np.uint8).reshape(-1, state["size_data_per_element"])[:n]
    upper = np.asarray(state["link_lists"]).view(np.uint8).reshape(-1, state["size_links_per_element"])[: levels.sum()]
    counts0, links0 = _unpack(ground[:, : 4 + 8 * m])
    counts1, links1 = _unpack(upper)
    arrays: Arrays = {
        "levels": levels.astype(np.uint8),
        "entry": np.array([state["enterpoint_node"]], dtype=np.uint32),
        "counts": np.concatenate([counts0, counts1]),
        "links": np.concatenate([links0, links1]),
    }
    return tensorfile.save(arrays, {**metadata, "m": str(m), "ef": str(state["ef"])})


def decode(graph: bytes, rows: Float32, ef_construction: int, seed: int) -> dict[str, Any]:
    """The state of an ``hnswlib.Index`` over rows (n, c); BundleFormatError unless every number in the graph is possible."""
    arrays, said = tensorfile.load(graph, WHERE)
    m = int(said["m"]) if re.fullmatch("[0-9]{1,3}", said.get("m", "")) else 0
    if not 2 <= m <= 64:
        raise BundleFormatError(f"{WHERE}: m must lie in 2..64")
    ef = int(text) if re.fullmatch("[0-9]{1,4}", text := said.get("ef", DEFAULT_EF)) else 0
    if not 1 <= ef <= MAX_EF:
        raise BundleFormatError(f"{WHERE}: ef must lie in 1..{MAX_EF}")
    _check(arrays, len(rows), m)
    n, levels = len(rows), arrays["levels"].astype(np.int32)
    counts, links = arrays["counts"], arrays["links"]
    n_ground = int(counts[:n].sum(dtype=np.int64))
    record = np.dtype([("links", np.uint8, 4 + 8 * m), ("vector", np.float32, rows.shape[1]), ("label", np.uint64)])
    ground = np.zeros(n, dtype=record)
    ground["links"] = _pack(counts[:n], links[:n_ground], 2 * m)
    ground["vector"] = rows
    ground["label"] = np.arange(n)
    upper = _pack(counts[n:], links[n_ground:], m)
    return {
        "ser_version": 1,
        "space": "l2",
        "dim": rows.shape[1],
        "index_inited": True,
        "ep_added": True,
        "normalize": False,
        "num_threads": 1,
        "seed": seed,
        "offset_level0": 0,
        "max_elements": n,
        "cur_element_count": n,
        "size_data_per_element": record.itemsize,
        "label_offset": record.fields["label"][1],  # type: ignore[index]
        "offset_data": record.fields["vector"][1],  # type: ignore[index]
        "max_level": int(levels.max()),
        "enterpoint_node": int(arrays["entry"][0]),
        "max_M": m,
        "max_M0": 2 * m,
        "M": m,
        "mult": 1 / math.log(m),  # hnswlib compares it bit by bit with the C library's; NumPy has logarithms of its own
        "ef_construction": ef_construction,
        "ef": ef,
        "has_deletions": False,
        "size_links_per_element": 4 + 4 * m,
        "allow_replace_deleted": False,
        "label_lookup_external": np.arange(n, dtype=np.uint64),
        "label_lookup_internal": np.arange(n, dtype=np.uint32),
        "element_levels": levels,
        "data_level0": ground.view(np.int8),
        "link_lists": upper.reshape(-1).view(np.int8),
    }


def vectors(state: Mapping[str, Any]) -> Float32:
    """The rows (n, c) in the state of an ``hnswlib.Index``."""
    n, start, width = state["cur_element_count"], state["offset_data"], 4 * state["dim"]
    records = np.asarray(state["data_level0"]).view(np.uint8).reshape(-1, state["size_data_per_element"])[:n]
    return np.ascontiguousarray(records[:, start : start + width]).view(np.float32)


def _check(arrays: Arrays, n: int, m: int) -> None:
    """Every index that hnswlib will follow without looking lies inside what it has."""
    kinds = {"levels": np.uint8, "entry": np.uint32, "counts": np.uint8, "links": np.uint32}
    if set(arrays) != set(kinds) or any(arrays[k].dtype != kind or arrays[k].ndim != 1 for k, kind in kinds.items()):
        raise BundleFormatError(f"{WHERE}: its arrays are not levels, entry, counts and links")
    levels, counts, links = (arrays[name].astype(np.int64) for name in ("levels", "counts", "links"))
    if not n or len(levels) != n or levels.max() > MAX_LEVEL or len(counts) != n + levels.sum():
        raise BundleFormatError(f"{WHERE}: it is not of these {n} rows")
    if counts[:n].max() > 2 * m or counts[n:].max(initial=0) > m or counts.sum() != len(links) or links.max(initial=0) >= n:
        raise BundleFormatError(f"{WHERE}: links that lead nowhere")
    layers = np.concatenate([np.zeros(n, np.int64), _ramps(levels)])
    if np.any(levels[links] < np.repeat(layers, counts)):
        raise BundleFormatError(f"{WHERE}: links to rows that are not on that layer")
    entry = arrays["entry"]
    if len(entry) != 1 or entry[0] >= n or levels[entry[0]] != levels.max():
        raise BundleFormatError(f"{WHERE}: a search cannot begin at its entry")


def _ramps(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """1, 2 .. levels[0], 1, 2 .. levels[1], and so on."""
    ends = np.cumsum(levels)
    return np.arange(1, levels.sum() + 1) - np.repeat(ends - levels, levels)


def _unpack(lists: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Counts (k,) and links of link lists (k, 4 + 4 max) as hnswlib lays them out."""
    words = np.ascontiguousarray(lists).view(np.uint32)
    counts = words[:, 0].astype(np.uint8)
    used = np.arange(words.shape[1] - 1) < counts[:, None]
    return counts, words[:, 1:][used]


def _pack(counts: NDArray[np.uint8], links: NDArray[np.uint32], width: int) -> NDArray[np.uint8]:
    """Link lists (k, 4 + 4 width) as hnswlib lays them out."""
    words = np.zeros((len(counts), 1 + width), dtype=np.uint32)
    words[:, 0] = counts
    words[:, 1:][np.arange(width) < counts[:, None]] = links
    return words.view(np.uint8).reshape(len(counts), 4 + 4 * width)
