"""Bank rows at rest: fp16, or int8 with one scale and offset per dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from edge_vad.types import Float32

VectorType = Literal["fp16", "int8"]
LARGEST = 1e9  # scale or offset
VECTOR_TYPES: tuple[VectorType, ...] = get_args(VectorType)


def compress(rows: Float32, kind: VectorType) -> dict[str, np.ndarray]:
    """Arrays to store for rows (m, c) float32. int8: rows = codes * scale + offset, error at most half a scale."""
    if kind == "fp16":
        return {"rows": rows.astype(np.float16)}
    low, high = rows.min(axis=0), rows.max(axis=0)
    scale = np.maximum((high - low) / 254, 1e-12).astype(np.float32)
    offset = ((high + low) / 2).astype(np.float32)
    return {"rows": np.round((rows - offset) / scale).astype(np.int8), "scale": scale, "offset": offset}


def expand(arrays: Mapping[str, np.ndarray]) -> Float32:
    """Rows (m, c) float32 of what `compress` stored; ValueError when an array is missing or of another shape."""
    rows = arrays.get("rows")
    if rows is None or rows.ndim != 2:
        raise ValueError("no array 'rows' of two dimensions")
    if rows.dtype == np.float16:
        return rows.astype(np.float32)
    scale, offset = arrays.get("scale"), arrays.get("offset")
    width = (rows.shape[1],)
    if rows.dtype != np.int8 or scale is None or offset is None or scale.shape != width or offset.shape != width:
        raise ValueError("rows are neither fp16 nor int8 with a scale and an offset per dimension")
    if scale.dtype != np.float32 or offset.dtype != np.float32 or not np.all(np.abs([scale, offset]) < LARGEST):
        raise ValueError("the scale or offset of the rows is not float32, or beyond any feature")
    return rows.astype(np.float32) * scale + offset
