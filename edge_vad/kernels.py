"""The compiled inner loops of a frame (kernels.c): each as fast as C, with what it does in NumPy beside its caller.

An installation from source compiles them where there is a C compiler, an overlay of `edge-vad provision` brings them, and
everything runs without them, slower. The environment variable EDGE_VAD_KERNELS=off leaves them alone.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vad.types import Float32, UInt8

log = logging.getLogger(__name__)

NAME = "_kernels.abi3.so"  # beside this file
VERSION = 1  # of the functions in kernels.c
Int64 = NDArray[np.int64]


def _load(path: Path) -> ctypes.CDLL | None:
    """The functions in the shared library ``path``; None, with a warning where it lies there but cannot be used."""
    if os.environ.get("EDGE_VAD_KERNELS") == "off" or not path.is_file():
        return None
    try:
        library = ctypes.CDLL(str(path))
        found = library.edge_vad_version()
    except (OSError, AttributeError) as error:
        log.warning("%s cannot be used, so NumPy does its work, slower: %s; install edge-vad again", path, error)
        return None
    if found != VERSION:
        log.warning("%s is of another version, so NumPy does its work, slower; install edge-vad again", path)
        return None
    for name in ("correlate_room", "suppress", "neighbours"):
        getattr(library, f"edge_vad_{name}").restype = ctypes.c_ssize_t
    return library


LIBRARY = _load(Path(__file__).with_name(NAME))


def windows(plane: UInt8, x: Int64, fx: Float32, y: Int64, fy: Float32) -> Float32:
    """Bilinear samples of a plane (H, W) uint8 -> (n, h, w) float32.

    x (n, w), y (n, h): pixels in 0..W - 2 and 0..H - 2; fx, fy float32: how far the samples lie behind them, 0..1.
    """
    plane = np.ascontiguousarray(plane, dtype=np.uint8)
    out = np.empty((len(x), y.shape[1], x.shape[1]), dtype=np.float32)
    _call("edge_vad_windows", plane, plane.shape[1], x, fx, y, fy, out, len(x), x.shape[1], y.shape[1])
    return out


def crops(image: UInt8, x: Int64, fx: Float32, y: Int64, fy: Float32) -> UInt8:
    """The same of an image (H, W, 3) uint8 in 8.8 fixed point -> (n, h, w, 3) uint8. ValueError for fewer channels."""
    image = np.ascontiguousarray(image[..., :3], dtype=np.uint8)
    if image.shape[2:] != (3,):
        raise ValueError(f"an image must have shape (H, W, 3), not {image.shape}")
    out = np.empty((len(x), y.shape[1], x.shape[1], 3), dtype=np.uint8)
    wx, wy = (np.round(f * 256).astype(np.uint32) for f in (fx, fy))
    line = np.empty(2 * 3 * x.shape[1], dtype=np.uint8)
    _call("edge_vad_crops", image, image.shape[1], x, wx, y, wy, out, line, len(x), x.shape[1], y.shape[1])
    return out


def correlate(template: Float32, area: Float32, flat: float) -> Float32:
    """Normalised cross-correlation of zero-mean templates (n, h, w) in areas (n, H, W) -> (n, H - h + 1, W - w + 1).

    flat: is added to the product of the two energies, grey levels squared.
    """
    (n, h, w), (_, n_rows, n_columns) = template.shape, area.shape
    out = np.empty((n, n_rows - h + 1, n_columns - w + 1), dtype=np.float32)
    scratch = np.empty(_call("edge_vad_correlate_room", h, w, n_rows, n_columns), dtype=np.float32)
    template, area = (np.ascontiguousarray(pixels, dtype=np.float32) for pixels in (template, area))
    _call("edge_vad_correlate", template, area, ctypes.c_float(flat), out, scratch, n, h, w, n_rows, n_columns)
    return out


def suppress(boxes: Float32, most: float, limit: int) -> Int64:
    """Greedy suppression of boxes (n, 4), best first: numbers of those that share less than ``most`` of the smaller area
    with every better one; at most ``limit``."""
    boxes = np.ascontiguousarray(boxes, dtype=np.float32)
    kept = np.empty(min(limit, len(boxes)), dtype=np.int64)
    return kept[: _call("edge_vad_suppress", boxes, ctypes.c_float(most), kept, len(boxes), len(kept))]


class _Layout(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("ground", "upper", "first")),
        *((name, ctypes.c_int64) for name in ("record_bytes", "at_vector", "upper_bytes")),
        *((name, ctypes.c_int64) for name in ("n_dims", "n_rows", "entry", "top")),
    )


class Graph:
    """Search in a graph as an ``hnswlib.Index`` holds it: the same neighbours in half of the time.

    state: that of an index, whose links lead nowhere outside.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        levels = np.asarray(state["element_levels"], dtype=np.int64)
        # Kept, since the layout only points to them.
        self._arrays = (
            np.ascontiguousarray(state["data_level0"]),
            np.ascontiguousarray(state["link_lists"]),
            np.cumsum(levels) - levels,
        )
        self._layout = _Layout(
            *(array.ctypes.data for array in self._arrays),
            state["size_data_per_element"],
            state["offset_data"],
            state["size_links_per_element"],
            state["dim"],
            state["cur_element_count"],
            state["enterpoint_node"],
            state["max_level"],
        )
        self.state = state

    def search(self, queries: Float32, k: int, width: int) -> tuple[Int64, Float32] | None:
        """Rows (n, k) and squared distances (n, k) of the nearest, ascending, for queries (n, c); width: candidates that
        are kept. None where the links of the graph lead to fewer than k."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        width = max(width, k)
        rows = np.empty((len(queries), k), dtype=np.int64)
        squared = np.empty((len(queries), k), dtype=np.float32)
        beam = np.empty(width, dtype=np.int64)
        seen = np.zeros(self._layout.n_rows, dtype=np.uint16)
        layout = ctypes.byref(self._layout)
        n_found = _call("edge_vad_neighbours", layout, queries, len(queries), width, k, beam, seen, rows, squared)
        return (rows, squared) if n_found == len(queries) else None


def _call(name: str, *arguments: Any) -> int:
    """Arrays as pointers to their numbers, integers as 64-bit ones."""
    assert LIBRARY is not None
    found: int = getattr(LIBRARY, name)(*map(_passed, arguments))
    return found


def _passed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.c_ssize_t(value) if isinstance(value, int) else value
