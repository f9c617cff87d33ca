"""Bank rows at rest: fp16, int8 with one scale and offset per dimension, or product quantisation.

Source of product quantisation: Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011. Rows are
cut into pieces of four dimensions, each named by the nearest of 256 centroids: one byte for four numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edge_vad.types import Float32

VectorType = Literal["fp16", "int8", "pq"]
LARGEST = 1e9  # scale, offset or centroid
MAX_EXPANDED = 2**30  # bytes of rows in float32
VECTOR_TYPES: tuple[VectorType, ...] = get_args(VectorType)
BLOCK_ROWS = 2048
PIECE, CENTROIDS = 4, 256
ROUNDS, TRAINED_ON, SEED = 12, 16_384, 7


def compress(rows: Float32, kind: VectorType) -> dict[str, np.ndarray]:
    """Arrays to store for rows (m, c) float32. int8: rows = codes * scale + offset, error at most half a scale.

    pq: rows (m, ceil(c / 4)) uint8 name rows of the codebook (up to 256, c) float32, four columns each.
    """
    if kind == "fp16":
        return {"rows": rows.astype(np.float16)}
    if kind == "pq":
        return _product_quantised(rows)
    low, high = rows.min(axis=0), rows.max(axis=0)
    scale = np.maximum((high - low) / 254, 1e-12).astype(np.float32)
    offset = ((high + low) / 2).astype(np.float32)
    return {"rows": np.round((rows - offset) / scale).astype(np.int8), "scale": scale, "offset": offset}


def expand(arrays: Mapping[str, np.ndarray]) -> Float32:
    """Rows (m, c) float32 of what `compress` stored; ValueError when an array is missing or of another shape."""
    return Stored(arrays)[:]


class Stored:
    """Rows (m, c) at rest, unpacked where they are asked for: ``stored[100:200]``, ``stored[[7, 3]]`` are float32.

    lengths: (m,) float32, what rows of length 1 had before, where they were stored with it (the items of a memory).
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raises ValueError when an array is missing, of another shape or type, or holds what is no finite number."""
        codes = arrays.get("rows")
        if codes is None or codes.ndim != 2:
            raise ValueError("no array 'rows' of two dimensions")
        self._codes, self._arrays = codes, arrays
        self.shape = (codes.shape[0], self._width())
        self.lengths = arrays.get("lengths")
        if self.lengths is not None:
            _check(self.lengths, "length")
            if self.lengths.shape != codes.shape[:1] or self.lengths.min(initial=0) < 0:
                raise ValueError("the lengths of the rows are not one number per row, or below 0")
        if 4 * self.shape[0] * self.shape[1] > MAX_EXPANDED:
            raise ValueError(f"{self.shape[0]} x {self.shape[1]} rows are more than {MAX_EXPANDED >> 20} MB")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: slice | NDArray[Any]) -> Float32:
        codes = self._codes[chosen]
        if codes.dtype == np.int8:
            return codes.astype(np.float32) * self._arrays["scale"] + self._arrays["offset"]
        if codes.dtype == np.float16:
            return codes.astype(np.float32)
        book = self._arrays["codebook"]
        return np.concatenate([book[codes[..., i], piece] for i, piece in enumerate(_pieces(self.shape[1]))], axis=-1)

    def _width(self) -> int:
        codes, (scale, offset, book) = self._codes, (self._arrays.get(name) for name in ("scale", "offset", "codebook"))
        if codes.dtype == np.float16:
            if not np.isfinite(codes).all():
                raise ValueError("rows are not all finite numbers")
            return codes.shape[1]
        if codes.dtype == np.int8 and scale is not None and offset is not None:
            if scale.shape != codes.shape[1:] or offset.shape != codes.shape[1:]:
                raise ValueError("rows are int8, but their scale and offset are not one number per dimension")
            _check(scale, "scale")
            _check(offset, "offset")
            return codes.shape[1]
        if codes.dtype == np.uint8 and book is not None:
            if book.ndim != 2 or codes.shape[1] != -(-book.shape[1] // PIECE) or codes.max(initial=0) >= len(book):
                raise ValueError("rows are codes of another codebook")
            _check(book, "codebook")
            return book.shape[1]
        raise ValueError("rows are neither fp16, nor int8 with a scale and an offset, nor codes with a codebook")


def blocks(rows: Float32 | Stored) -> Iterator[Float32]:
    """Rows (m, c) part by part in float32."""
    for start in range(0, len(rows), BLOCK_ROWS):
        yield rows[start : start + BLOCK_ROWS]


def bank_sums(rows: Float32 | Stored) -> Float32:
    """Means, root mean squares, and means weighted by the place, of the columns of rows (m, c) -> (3, c).

    Golden frames come near few rows of a bank; this sees every one that is read wrongly or exchanged.
    """
    sums = np.zeros((3, rows.shape[1]))
    start = 0
    for block in blocks(rows):
        place = (np.arange(start, start + len(block)) + 0.5) / len(rows)
        square = np.einsum("ij,ij->j", block, block, dtype=np.float64)
        sums += [block.sum(axis=0, dtype=np.float64), square, np.einsum("i,ij->j", place, block)]
        start += len(block)
    mean, square, weighted = sums / len(rows)
    return np.stack([mean, np.sqrt(square), weighted]).astype(np.float32)


def _check(values: NDArray[Any], name: str) -> None:
    if values.dtype != np.float32 or not np.all(np.abs(values) < LARGEST):
        raise ValueError(f"the {name} of the rows is not float32, or beyond any feature")


def _pieces(width: int) -> list[slice]:
    """The dimensions that one byte stands for, in order."""
    return [slice(start, min(start + PIECE, width)) for start in range(0, width, PIECE)]


def _product_quantised(rows: Float32) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(SEED)
    sample = rows[np.sort(generator.choice(len(rows), min(len(rows), TRAINED_ON), replace=False))]
    pieces = _pieces(rows.shape[1])
    book = np.zeros((min(CENTROIDS, len(rows)), rows.shape[1]), dtype=np.float32)
    codes = np.empty((len(rows), len(pieces)), dtype=np.uint8)
    for i, piece in enumerate(pieces):
        book[:, piece] = _centroids(sample[:, piece], len(book), generator)
        codes[:, i] = np.concatenate([_nearest(block[:, piece], book[:, piece]) for block in blocks(rows)])
    return {"rows": codes, "codebook": book}


def _centroids(points: Float32, n: int, generator: np.random.Generator) -> Float32:
    """k-means (Lloyd); a centroid that nothing is near to stays where it is."""
    centroids = points[generator.choice(len(points), n, replace=False)].astype(np.float32)
    for _ in range(ROUNDS):
        nearest = np.concatenate([_nearest(block, centroids) for block in blocks(points)])
        counts = np.bincount(nearest, minlength=n)
        for column in range(points.shape[1]):
            sums = np.bincount(nearest, weights=points[:, column], minlength=n)
            centroids[counts > 0, column] = sums[counts > 0] / counts[counts > 0]
    return centroids


def _nearest(points: Float32, centroids: Float32) -> NDArray[np.intp]:
    lengths = np.einsum("ij,ij->i", centroids, centroids)
    return np.asarray((lengths - 2 * (points @ centroids.T)).argmin(axis=1))
