"""Bundles that are wrong although all their hashes and bindings hold, each opened with its self-test.

A mutation changes one member; `remake` then makes everything again that depends on it, as a builder with a fault, or
somebody without the signing key, would. So what is tested is what the content itself gives away.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tiny
from fuzzing import Case
from onnx import numpy_helper

from edge_vad import archive, tensorfile
from edge_vad.bundle import checked, read_bundle
from edge_vad.detector import Detector
from edge_vad.errors import BundleModelError, EdgeVadError
from edge_vad.manifest import CALIBRATION, GOLDEN, MANIFEST, PREPROCESSING, bank_hashes, canonical_json, fingerprint, sha256
from edge_vad.onnx_gate import check_model
from edge_vad.profile import Inference, Profile
from edge_vad.trust import UNCHECKED

MAX_WRONG = 0.2  # of a score whose threshold is 1
SIZE = (96, 72)
Members = dict[str, bytes]
Generator = np.random.Generator


def detector_model() -> bytes:
    """A network with YOLOX's output (1, N, 7): one strided convolution per scale, then one row per cell."""
    generator = np.random.default_rng(0)
    weights = {f"w{s}": generator.normal(0, 0.01 / s, (7, 3, s, s)).astype(np.float32) for s in (8, 16, 32)}
    nodes = []
    for s in (8, 16, 32):
        nodes.append(onnx.helper.make_node("Conv", ["images", f"w{s}"], [f"map{s}"], strides=[s, s]))
        nodes.append(onnx.helper.make_node("Reshape", [f"map{s}", "flat"], [f"cells{s}"]))
    nodes.append(onnx.helper.make_node("Concat", ["cells8", "cells16", "cells32"], ["planes"], axis=2))
    nodes.append(onnx.helper.make_node("Transpose", ["planes"], ["boxes"], perm=[0, 2, 1]))
    constants = {**weights, "flat": np.array([1, 7, -1], np.int64)}
    return tiny.model(nodes, constants, {"images": [1, 3, "h", "w"]}, {"boxes": [1, "n", 7]})


@cache
def probe_frames() -> list[Any]:
    """Frames that no bundle has seen: people, and then, without a pause, a cyclist."""
    return [*tiny.clip_frames(12, seed=5, size=SIZE), *tiny.clip_frames(40, seed=6, size=SIZE, anomalies="cyclist")[24:]]


def scores(detector: Detector) -> list[float]:
    return [detector.process(frame).score for frame in probe_frames()]


def cases(*paths: str) -> Case:
    """One mutated bundle per seed, of the bundles at ``paths`` in turn."""
    bases = [archive.unpack(Path(path).read_bytes(), path) for path in paths]
    profiles = [Profile("fuzz", "", Inference(bank=bank)) for bank in ("exact", "hnsw")]
    expected = [scores(Detector.open(read_bundle(path), profiles[0])) for path in paths]

    def case(seed: int) -> tuple[str, str]:
        generator = np.random.default_rng(seed)
        number = int(generator.integers(len(bases)))
        try:
            name, said, members = mutated(bases[number], generator)
        except Unchanged:
            return "unchanged", ""
        where = f"{Path(paths[number]).stem}: {name}: {said}"
        try:
            detector = Detector.open(checked(members, "m", UNCHECKED), profiles[int(generator.integers(2))])
        except EdgeVadError as error:
            message = str(error)
            return ("two lines" if "\n" in message else type(error).__name__), f"{where}: {message[:200]}"
        found = scores(detector)
        detector.finish()
        off = float(np.max(np.abs(np.subtract(found, expected[number]))))
        return ("right" if off <= MAX_WRONG else "wrong"), f"{where}: off by {off:.3f}"  # NaN is wrong

    return case


class Unchanged(Exception):
    """The mutation changed nothing, or has nothing to change here."""


def mutated(base: Mapping[str, bytes], generator: Generator) -> tuple[str, str, Members]:
    """The mutated member, what was done to it, and a bundle in which everything else fits it."""
    names = list(base)
    weights = np.array([WEIGHTS.get(name.partition("/")[0], 1.0) for name in names])
    name = str(generator.choice(names, p=weights / weights.sum()))
    kinds = KINDS[name.partition("/")[0]]
    how = kinds[int(generator.integers(len(kinds)))]
    said, data = how(base[name], generator)
    if data == base[name]:
        raise Unchanged
    members = {**base, name: data}
    return name, f"{how.__name__} {said}", members if name == MANIFEST else remake(members)


def remake(members: Members) -> Members:
    """The members with every hash, fingerprint, summary and binding made again; what cannot be read stays as it is."""
    made = dict(members)
    manifest = json.loads(made[MANIFEST])
    models = {role: made[entry["file"]] for role, entry in manifest["models"].items()}
    for entry in manifest["models"].values():
        try:
            summary = check_model(made[entry["file"]], "")
        except BundleModelError:
            continue
        entry["operators"] = list(summary.operators)
        entry["inputs"] = {name: list(shape) for name, shape in summary.inputs.items()}
        entry["outputs"] = {name: list(shape) for name, shape in summary.outputs.items()}
    features = fingerprint(models, made[PREPROCESSING])
    for entry in manifest["banks"].values():
        made[entry["file"]] = _saying(made[entry["file"]], {"features": features})
    banks = bank_hashes({name: made[entry["file"]] for name, entry in manifest["banks"].items()})
    for name, entry in manifest["indexes"].items():
        bank = sha256(made[manifest["banks"][name]["file"]])
        made[entry["file"]] = _saying(made[entry["file"]], {"bank": bank})
    bound = {"features": features, "banks": banks}
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        made[CALIBRATION] = canonical_json({**json.loads(made[CALIBRATION]), **bound})
    made[GOLDEN] = _saying(made[GOLDEN], {**bound, "calibration": sha256(made[CALIBRATION])})
    manifest["features"] = features
    manifest["files"] = {n: {"size": len(d), "sha256": sha256(d)} for n, d in made.items() if n != MANIFEST}
    return {**made, MANIFEST: canonical_json(manifest)}


def _saying(data: bytes, said: Mapping[str, str]) -> bytes:
    """A safetensors file with other metadata; its arrays are left as they are, whatever they are."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        header["__metadata__"] = {**header.get("__metadata__", {}), **said}
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return data
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


Mutated = tuple[str, bytes]


def bits(data: bytes, generator: Generator) -> Mutated:
    changed = bytearray(data)
    places = generator.integers(0, len(data), int(generator.integers(1, 4)))
    for at in places:
        changed[at] ^= 1 << int(generator.integers(8))
    return f"at {places.tolist()}", bytes(changed)


def chunk(data: bytes, generator: Generator) -> Mutated:
    """A piece left out, put in twice, zero, random, or somewhere else."""
    start = int(generator.integers(0, len(data)))
    end = min(len(data), start + int(generator.choice([1, 2, 4, 8, 64, 500])))
    piece, what = data[start:end], int(generator.integers(5))
    middle = [b"", piece * 2, bytes(len(piece)), bytes(generator.integers(0, 256, len(piece), np.uint8)), piece[::-1]][what]
    return f"{['out', 'twice', 'zero', 'random', 'reversed'][what]} {start}..{end}", data[:start] + middle + data[end:]


def cut(data: bytes, generator: Generator) -> Mutated:
    n = int(generator.integers(0, len(data)))
    return f"at {n}", data[:n]


STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    100,
    2**31,
    -(2**63),
    2**63 - 1,
    10**30,
    0.0,
    -0.5,
    1e-9,
    1e9,
    1e300,
]
STRANGE += [-1e300, "", "x", "0", "ünï 𝛂", "../x", "a" * 5000, [], {}, [1], [[]], {"x": 1}, [0, 0], [1e9] * 3, [180, 120]]


def json_value(data: bytes, generator: Generator) -> Mutated:
    """A value of another type or size."""
    plain = json.loads(data)
    parent, key = _somewhere(plain, generator)
    value = STRANGE[int(generator.integers(len(STRANGE)))]
    said = f"{key} = {str(value)[:30]}"
    parent[key] = value
    return said, canonical_json(plain)


def json_number(data: bytes, generator: Generator) -> Mutated:
    """A number that is not far from what it was."""
    plain = json.loads(data)
    places = [(p, k) for p, k in _places(plain) if type(p[k]) in (int, float)]
    if not places:
        raise Unchanged
    parent, key = places[int(generator.integers(len(places)))]
    old = parent[key]
    by = float(generator.choice([0.0, 0.5, 0.8, 0.9, 0.99, 1.01, 1.1, 1.3, 2.0, 10.0, -1.0]))
    new = old * by if isinstance(old, float) else int(generator.choice([old - 1, old + 1, old * 2, old // 2, old * 10]))
    parent[key] = new
    return f"{key}: {old} -> {new}", canonical_json(plain)


def json_key(data: bytes, generator: Generator) -> Mutated:
    """A key missing, renamed, new, or its value exchanged with another one's."""
    plain = json.loads(data)
    parent, key = _somewhere(plain, generator)
    what = int(generator.integers(4))
    if what == 0:
        del parent[key]
    elif what == 1 and isinstance(parent, dict):
        parent[key + "x"] = parent.pop(key)
    elif what == 2 and isinstance(parent, dict):
        parent["more"] = parent[key]
    else:
        other, there = _somewhere(plain, generator)
        parent[key], other[there] = other[there], parent[key]
    try:
        return f"{['without', 'renamed', 'more', 'exchanged'][what]} {key}", canonical_json(plain)
    except (ValueError, RecursionError) as error:
        raise Unchanged from error  # a value inside itself


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(parent, key) of every value inside."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _somewhere(plain: Any, generator: Generator) -> tuple[Any, Any]:
    places = list(_places(plain))
    if not places:
        raise Unchanged
    return places[int(generator.integers(len(places)))]


def one_value(data: bytes, generator: Generator) -> Mutated:
    """One number in an array."""

    def change(array: np.ndarray) -> str:
        at = int(generator.integers(array.size))
        old = array.reshape(-1)[at]
        array.reshape(-1)[at] = _other_number(old, array, generator)
        return f"[{at}]: {old} -> {array.reshape(-1)[at]}"

    return _with_array(data, generator, change)


def some_values(data: bytes, generator: Generator) -> Mutated:
    """A row, a column, or all of an array, scaled, shifted or noisy."""

    def change(array: np.ndarray) -> str:
        part = _part(array, generator)
        what = int(generator.integers(4))
        by = float(generator.choice([0.5, 0.9, 0.99, 1.01, 1.1, 2.0, -1.0, 0.0]))
        noise = generator.normal(0, abs(by) * float(np.abs(part).max(initial=0)) * 0.2 + 1e-9, part.shape)
        new = [part * by, part + by, part + noise, generator.permutation(part.reshape(-1)).reshape(part.shape)][what]
        limits = np.iinfo(array.dtype) if array.dtype.kind in "iu" else np.finfo(array.dtype)
        part[...] = np.clip(np.nan_to_num(new), limits.min, limits.max).astype(array.dtype)
        return f"{['scaled', 'shifted', 'noisy', 'shuffled'][what]} {part.shape} by {by}"

    return _with_array(data, generator, change)


def rows_exchanged(data: bytes, generator: Generator) -> Mutated:
    """Two rows, or one value of two rows."""

    def change(array: np.ndarray) -> str:
        one, other = generator.integers(0, len(array), 2)
        part = array if array.ndim == 1 or generator.random() < 0.5 else array[:, int(generator.integers(array.shape[1]))]
        part[[one, other]] = part[[other, one]]
        return f"{one} and {other} of {array.shape}"

    return _with_array(data, generator, change)


def array_form(data: bytes, generator: Generator) -> Mutated:
    """An array of another type or shape, missing, doubled, or under another name."""
    try:
        arrays, said = tensorfile.load(data, "")
    except EdgeVadError as error:
        raise Unchanged from error
    name = str(generator.choice(list(arrays)))
    array = arrays[name]
    what = int(generator.integers(8))
    with np.errstate(all="ignore"):
        changed: list[Callable[[], np.ndarray]] = [
            lambda: array.astype(
                generator.choice([np.float64, np.float32, np.float16, np.int32, np.uint8, np.int64, np.bool_])
            ),
            lambda: array.reshape(-1),
            lambda: array[..., None],
            lambda: array[:-1],
            lambda: np.concatenate([array, array]),
            lambda: array[:0],
            lambda: array[..., :-1],
        ]
        if what < len(changed):
            arrays[name] = np.nan_to_num(changed[what]()) if what == 0 else changed[what]()
        elif generator.random() < 0.5:
            del arrays[name]
        else:
            arrays[name + "x"] = arrays.pop(name)
    return f"{name} {what}", tensorfile.save(arrays, said)


def _with_array(data: bytes, generator: Generator, change: Callable[[np.ndarray], str]) -> Mutated:
    arrays, said = tensorfile.load(data, "")
    arrays = {name: array.copy() for name, array in arrays.items()}
    name = str(generator.choice([n for n, a in arrays.items() if a.size]))
    text = change(arrays[name])
    return f"{name} {text}", tensorfile.save(arrays, said)


def _part(array: np.ndarray, generator: Generator) -> np.ndarray:
    what = int(generator.integers(3))
    if what == 0 or array.ndim == 0:
        return array
    if what == 1 or array.ndim == 1:
        at = int(generator.integers(len(array)))
        return array[at : at + 1]
    at = int(generator.integers(array.shape[-1]))
    return array[..., at : at + 1]


def _other_number(old: Any, array: np.ndarray, generator: Generator) -> Any:
    if array.dtype.kind in "iu":
        return generator.integers(np.iinfo(array.dtype).min, np.iinfo(array.dtype).max, endpoint=True)
    largest = np.finfo(array.dtype).max
    near = [float(old) * f for f in (0.0, 0.5, 0.9, 1.01, 1.5, -1.0, 3.0)]
    return generator.choice([*near, float("nan"), float("inf"), float("-inf"), largest, -largest, 1e-7])


def weights(data: bytes, generator: Generator) -> Mutated:
    """The weights of a layer: one of them, a channel, or all."""

    def change(array: np.ndarray) -> str:
        part = array.reshape(-1)[: int(generator.choice([1, 16, array.size]))]
        by = float(generator.choice([0.0, 0.5, 0.9, 0.97, 1.01, 1.05, 2.0, -1.0, 1e6, 1e20, 1e38, float("nan")]))
        with np.errstate(all="ignore"):
            part *= np.float32(by)
        return f"{part.size} of {array.size} by {by}"

    model = onnx.load_model_from_string(data)
    tensors = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    if not tensors:
        raise Unchanged
    tensor = tensors[int(generator.integers(len(tensors)))]
    array = numpy_helper.to_array(tensor).copy()
    said = change(array)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return said, bytes(model.SerializeToString())


def graph(data: bytes, generator: Generator) -> Mutated:
    """Another operator, attribute, order, name or shape in a model that ONNX may still accept."""
    model = onnx.load_model_from_string(data)
    nodes = model.graph.node
    node = nodes[int(generator.integers(len(nodes)))]
    what = int(generator.integers(8))
    if what == 0:
        node.op_type = str(
            generator.choice(["Relu", "Sigmoid", "Abs", "Neg", "Exp", "Identity", "Sqrt", "Softmax", "Tan", "Log"])
        )
    elif what == 1 and node.attribute:
        attribute = node.attribute[int(generator.integers(len(node.attribute)))]
        values = attribute.ints or [attribute.i]
        new = [int(generator.choice([v - 1, v + 1, v * 2, 0, 1000, -1])) for v in values]
        if attribute.ints:
            attribute.ints[:] = new
        else:
            attribute.i = new[0]
    elif what == 2:
        value = [*model.graph.input, *model.graph.output][int(generator.integers(len(model.graph.output) + 1))]
        dims = value.type.tensor_type.shape.dim
        side = int(generator.integers(len(dims)))
        dims[side].dim_value = int(generator.choice([1, 2, 3, 4, 8, 16, 64, 8192]))
    elif what == 3:
        value = [*model.graph.input, *model.graph.output][int(generator.integers(len(model.graph.output) + 1))]
        value.type.tensor_type.elem_type = int(generator.integers(1, 17))
    elif what == 4:
        one, other = generator.integers(0, len(nodes), 2)
        first, second = nodes[one].output[0], nodes[other].output[0]
        nodes[one].output[0], nodes[other].output[0] = second, first
    elif what == 5:
        names = [t.name for t in model.graph.initializer] + [name for n in nodes for name in n.output]
        node.input[int(generator.integers(len(node.input)))] = str(generator.choice(names))
    elif what == 6:
        output = model.graph.output[int(generator.integers(len(model.graph.output)))]
        kind = str(generator.choice(["Abs", "Neg", "Sqrt", "Log", "Exp", "Floor", "Cast", "Shape", "Transpose"]))
        more = onnx.helper.make_node(kind, [output.name + "_"], [output.name])
        if kind == "Cast":
            more.attribute.append(onnx.helper.make_attribute("to", int(generator.integers(1, 14))))
        for n in nodes:
            n.output[:] = [name + "_" if name == output.name else name for name in n.output]
            n.input[:] = [name + "_" if name == output.name else name for name in n.input]
        nodes.append(more)
    else:
        del nodes[int(generator.integers(len(nodes)))]
    return f"{what} at {node.op_type}", bytes(model.SerializeToString())


BYTES = [bits, chunk, cut]
JSON = [json_value, json_value, json_value, json_number, json_number, json_number, json_key, bits, chunk]
ARRAYS = [one_value, one_value, some_values, some_values, rows_exchanged, array_form, bits, bits, chunk, cut]
MODEL = [weights, weights, weights, graph, graph, graph, bits, bits, bits, chunk, cut]
KINDS: dict[str, list[Callable[[bytes, Generator], Mutated]]] = {
    MANIFEST: JSON,
    PREPROCESSING: JSON,
    CALIBRATION: JSON,
    "LICENSES.txt": BYTES,
    "encoder": MODEL,
    "detector": MODEL,
    "bank": ARRAYS,
    "index": ARRAYS,
    "golden": ARRAYS,
}
WEIGHTS = {MANIFEST: 4.0, PREPROCESSING: 6.0, CALIBRATION: 5.0, "LICENSES.txt": 0.3, "encoder": 6.0, "detector": 2.0}
WEIGHTS |= {"bank": 1.5, "index": 1.0, "golden": 3.0}
