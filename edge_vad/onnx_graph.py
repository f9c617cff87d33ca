"""ONNX bytes as nodes and constants, read without the ``onnx`` package. Field numbers are those of onnx.proto.

Only for models that `edge_vad.onnx_gate.check_model` has accepted: what it refuses is not looked for again.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_vad.onnx_gate import DOMAINS, check_model
from edge_vad.protobuf import as_bytes, fields, integers

DTYPES = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}
DTYPES |= {12: "<u4", 13: "<u8"}  # by their number in TensorProto.DataType
FLOAT16 = 10

Attribute = int | float | str | list[int] | list[float] | np.ndarray
Message = dict[int, list[int | memoryview]]  # by field number


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. inputs: names, "" where an optional one is left out."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in the order of the computation. inputs: without constants; opset: the version of the operators."""

    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int


def read_graph(model: bytes, where: str) -> Graph:
    """The graph of a model after the check; raises BundleModelError, ValueError for a constant of an unknown type."""
    summary = check_model(model, where)
    whole = _message(memoryview(model))
    graph = _message(as_bytes(whole[7][0]))
    constants = dict(_named_tensor(as_bytes(value)) for value in graph[5])
    opsets = [_message(as_bytes(value)) for value in whole[8]]
    versions = [integers(o[2][0])[0] for o in opsets if o[2] and (not o[1] or _text(o[1][0]) in DOMAINS)]
    nodes = tuple(_node(as_bytes(value)) for value in graph[1])
    return Graph(nodes, constants, tuple(summary.inputs), tuple(summary.outputs), max(versions, default=0))


def _message(data: memoryview) -> Message:
    found: Message = defaultdict(list)
    for number, _, value in fields(data):
        found[number].append(value)
    return found


def _text(value: int | memoryview) -> str:
    return bytes(as_bytes(value)).decode()


def _node(data: memoryview) -> Node:
    message = _message(data)
    inputs, outputs = (tuple(_text(value) for value in message[number]) for number in (1, 2))
    return Node(_text(message[4][0]), inputs, outputs, dict(_attribute(as_bytes(value)) for value in message[5]))


def _attribute(data: memoryview) -> tuple[str, Attribute]:
    """Name and value: the type (field 20) says which of the fields counts, as a 0 may be left out."""
    message = _message(data)
    name, kind = _text(message[1][0]), integers(message[20][0])[0] if message[20] else 0
    if kind == 1:
        return name, _floats(message[2])[0] if message[2] else 0.0
    if kind == 2:
        return name, integers(message[3][0])[0] if message[3] else 0
    if kind == 3:
        return name, _text(message[4][0]) if message[4] else ""
    if kind == 4:
        return name, _named_tensor(as_bytes(message[5][0]))[1]
    if kind == 6:
        return name, _floats(message[7])
    if kind == 7:
        return name, [number for value in message[8] for number in integers(value)]
    raise ValueError(f"the attribute {name!r} is of a type that is not known ({kind})")


def _floats(values: Sequence[int | memoryview]) -> list[float]:
    packed = b"".join(bytes(as_bytes(value)) for value in values)
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


def _named_tensor(data: memoryview) -> tuple[str, np.ndarray]:
    message = _message(data)
    kind = integers(message[2][0])[0]
    if kind not in DTYPES:
        raise ValueError(f"a constant of a type that is not known ({kind})")
    shape = [number for value in message[1] for number in integers(value)]
    raw = as_bytes(message[9][0]) if message[9] else b""
    values = np.frombuffer(raw, dtype=DTYPES[kind]) if raw else _typed(message, kind)
    # A copy: what reads it may want to write, and the model's bytes are not kept for it.
    array = values.astype(values.dtype.newbyteorder("="), copy=True).reshape(shape)
    return _text(message[8][0]) if message[8] else "", array


def _typed(message: Message, kind: int) -> np.ndarray:
    """Values in a list of their own: floats (field 4), doubles (10), all else as integers (5, 7, 11)."""
    for number, dtype in ((4, "<f4"), (10, "<f8")):
        if message[number]:
            return np.frombuffer(b"".join(bytes(as_bytes(value)) for value in message[number]), dtype=dtype)
    numbers = list(_integer_data(message))
    if kind == FLOAT16:  # its bits
        return np.array(numbers, dtype=np.uint16).view(np.float16)
    if kind == 13:
        return np.array(numbers, dtype=np.int64).view(np.uint64)
    return np.array(numbers, dtype=np.int64).astype(DTYPES[kind])


def _integer_data(message: Message) -> Iterator[int]:
    for number in (5, 7, 11):
        for value in message[number]:
            yield from integers(value)
