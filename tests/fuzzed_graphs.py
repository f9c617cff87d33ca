"""Search graphs, damaged in every way, against exact search over the same rows."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from fuzzing import Case

from edge_vad import tensorfile
from edge_vad.banks.exact import ExactBank
from edge_vad.banks.hnsw import HnswBank
from edge_vad.errors import BundleFormatError
from edge_vad.types import Float32

SHAPES = [(1, 3), (2, 3), (17, 8), (200, 16), (1000, 64), (1500, 4)]
MIN_RECALL = 0.95
Arrays = dict[str, np.ndarray]


@cache
def rows_of(shape: tuple[int, int], seed: int = 0) -> Float32:
    """Rows as features are: clusters of their own density, some of them twice."""
    generator = np.random.default_rng([seed, *shape])
    centres = generator.normal(0, 1, (max(1, shape[0] // 50), shape[1]))
    rows = centres[generator.integers(0, len(centres), shape[0])] + generator.normal(0, 0.3, shape)
    rows[-shape[0] // 20 :] = rows[0]
    return rows.astype(np.float32)


@cache
def queries_of(shape: tuple[int, int]) -> Float32:
    generator = np.random.default_rng([1, *shape])
    near = rows_of(shape)[generator.integers(0, shape[0], 200)]
    return (near + generator.normal(0, 0.2, near.shape)).astype(np.float32)


@cache
def graph_of(shape: tuple[int, int], seed: int = 0) -> bytes:
    return HnswBank(rows_of(shape, seed)).graph({"bank": "0" * 64})


@cache
def nearest_of(shape: tuple[int, int]) -> Float32:
    return ExactBank(rows_of(shape)).search(queries_of(shape))[0][:, 0]


def recall_of(bank: HnswBank, shape: tuple[int, int]) -> float:
    """Part of the queries that find a row as near as the nearest; -1 where a distance is not that of its row."""
    queries, rows = queries_of(shape), rows_of(shape)
    distances, ids = bank.search(queries)
    true = np.linalg.norm(rows[ids[:, 0]].astype(np.float64) - queries, axis=1)
    if not np.allclose(distances[:, 0], true, rtol=1e-3, atol=1e-3):
        return -1.0
    bank.search(queries, min(5, len(rows)))
    return float(np.mean(distances[:, 0] <= nearest_of(shape) * 1.001 + 1e-3))


def cases() -> Case:
    """One damaged graph per seed."""

    def case(seed: int) -> tuple[str, str]:
        generator = np.random.default_rng(seed)
        shape = SHAPES[int(generator.integers(len(SHAPES)))]
        how = KINDS[int(generator.integers(len(KINDS)))]
        graph = how(shape, generator)
        said = f"{how.__name__} {shape}"
        if graph == graph_of(shape):
            return "unchanged", said
        try:
            bank = HnswBank.with_graph(rows_of(shape), graph)
        except BundleFormatError as error:
            return ("refused", str(error)) if "\n" not in str(error) else ("two lines", str(error))
        recall = recall_of(bank, shape)
        return ("right" if recall >= MIN_RECALL else "wrong"), f"{said}: recall {recall:.3f}"

    return case


def bits(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """Some bits of the file."""
    data = bytearray(graph_of(shape))
    for at in generator.integers(0, len(data), int(generator.integers(1, 9))):
        data[at] ^= 1 << int(generator.integers(8))
    return bytes(data)


def header_bits(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    data = bytearray(graph_of(shape))
    size = int.from_bytes(data[:8], "little")
    for at in generator.integers(0, 8 + size, int(generator.integers(1, 4))):
        data[at] = int(generator.choice(np.frombuffer(b'0123456789{}[]",:uIF', np.uint8)))
    return bytes(data)


def length(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """The file cut or extended."""
    data = graph_of(shape)
    cut = int(generator.integers(0, len(data)))
    return data[:cut] if generator.random() < 0.5 else data + bytes(generator.integers(0, 256, cut % 100, np.uint8))


def chunk(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """A piece of the file left out, put in twice, or random."""
    data = graph_of(shape)
    start = int(generator.integers(0, len(data)))
    end = min(len(data), start + int(generator.integers(1, 200)))
    noise = bytes(generator.integers(0, 256, end - start, np.uint8))
    middle = [b"", data[start:end] * 2, noise][int(generator.integers(3))]
    return data[:start] + middle + data[end:]


def values(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """Other numbers in one array of a whole file."""
    arrays, said = _opened(shape)
    name = str(generator.choice(list(arrays)))
    array = arrays[name]
    if not len(array):
        return graph_of(shape)
    at = generator.integers(0, len(array), int(generator.integers(1, max(2, len(array) // 10))))
    largest = np.iinfo(array.dtype).max
    some = [0, 1, 31, 32, 33, 255, shape[0] - 1, shape[0], largest, int(generator.integers(largest))]
    array[at] = np.clip(generator.choice(some, len(at)), 0, largest).astype(array.dtype)
    return tensorfile.save(arrays, said)


def lengths(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """One array of a whole file cut, extended, shifted, or of another type or shape."""
    arrays, said = _opened(shape)
    name = str(generator.choice(list(arrays)))
    array = arrays[name]
    n = int(generator.integers(1, 5))
    arrays[name] = [
        array[:-n],
        np.concatenate([array, array[:n]]),
        np.roll(array, n),
        array.astype(np.int64),
        array.astype(np.float32),
        array[:, None],
        array[:0],
        array[::-1],
    ][int(generator.integers(8))]
    return tensorfile.save(arrays, said)


def metadata(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """Another m, an array too many or too few, two of them exchanged."""
    arrays, said = _opened(shape)
    what = int(generator.integers(4))
    if what == 0:
        said["m"] = str(
            generator.choice(["", "0", "1", "2", "8", "15", "17", "32", "64", "65", "999", "-4", "1e1", "²", "４"])
        )
    elif what == 1:
        arrays["more"] = arrays["links"]
    elif what == 2:
        del arrays[str(generator.choice(list(arrays)))]
    else:
        one, other = generator.choice(list(arrays), 2, replace=False)
        arrays[one], arrays[other] = arrays[other], arrays[one]
    return tensorfile.save(arrays, said)


def links_elsewhere(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """A whole file: the links of some rows lead to random rows of the same layer."""
    arrays, said = _opened(shape)
    n_ground = int(arrays["counts"][: shape[0]].sum())
    owners = np.repeat(np.arange(shape[0]), arrays["counts"][: shape[0]])
    lost = np.isin(owners, np.flatnonzero(generator.random(shape[0]) < generator.choice([0.02, 0.05, 0.2, 1.0])))
    ground = arrays["links"][:n_ground]
    ground[lost] = generator.integers(0, shape[0], int(lost.sum()))
    return tensorfile.save(arrays, said)


def links_lost(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """A whole file: nothing leads to some rows any more."""
    arrays, said = _opened(shape)
    n = shape[0]
    gone = generator.random(n) < generator.choice([0.01, 0.03, 0.06, 0.1, 0.5])
    kept = ~gone[arrays["links"]]
    owners = np.repeat(np.arange(len(arrays["counts"])), arrays["counts"])
    arrays["counts"] = np.bincount(owners[kept], minlength=len(arrays["counts"])).astype(np.uint8)
    arrays["links"] = arrays["links"][kept]
    return tensorfile.save(arrays, said)


def few_links(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """A whole file: each row keeps its first few links."""
    arrays, said = _opened(shape)
    most = int(generator.integers(0, 6))
    counts = arrays["counts"].astype(np.int64)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    arrays["links"] = arrays["links"][place < most]
    arrays["counts"] = np.minimum(counts, most).astype(np.uint8)
    return tensorfile.save(arrays, said)


def another_bank(shape: tuple[int, int], generator: np.random.Generator) -> bytes:
    """The graph of other rows: as many, more, or fewer."""
    if generator.random() < 0.5:
        return graph_of(shape, int(generator.integers(1, 6)))
    return graph_of(SHAPES[int(generator.integers(len(SHAPES)))], int(generator.integers(1, 3)))


KINDS: list[Any] = [bits, bits, header_bits, length, chunk, values, values, lengths, metadata]
KINDS += [links_elsewhere, links_lost, few_links, another_bank]


def _opened(shape: tuple[int, int]) -> tuple[Arrays, dict[str, str]]:
    arrays, said = tensorfile.load(graph_of(shape), "graph")
    return {name: array.copy() for name, array in arrays.items()}, said
