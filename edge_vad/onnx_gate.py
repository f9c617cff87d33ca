"""What an ONNX model in a bundle may hold, checked on its bytes before any runtime sees them.

The device has no ``onnx`` package, and a check must not trust what it checks: this walks the protobuf encoding itself
(https://protobuf.dev/programming-guides/encoding, field numbers from onnx.proto) and refuses what it does not know.
External data, sub-graphs (If, Loop, Scan), functions and foreign operators are refused; every size is bounded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_vad.errors import BundleModelError

MAX_NODES, MAX_TENSORS, MAX_DEPTH = 8192, 16384, 64
MAX_SIDE = 8192  # of a static dimension of an input or output
MAX_ELEMENTS = 2**26  # of an input, an output, a constant, or what a constant asks an operator to make
MAX_ENLARGE = 1024  # of all Resize and Tile operators together, in elements out per element in
MAX_WINDOW = 1024  # pads, strides, kernels

ELEMENTWISE = """Abs Acos Add And Atan BitShift Cast CastLike Ceil Celu Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater
    GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg
    Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tan Tanh
    ThresholdedRelu Where Xor"""
LAYERS = """AveragePool BatchNormalization Conv ConvInteger ConvTranspose Dropout Einsum Gemm GlobalAveragePool GlobalMaxPool
    GroupNormalization GRU InstanceNormalization LayerNormalization LogSoftmax LpNormalization LpPool LRN LSTM MatMul
    MatMulInteger MaxPool RMSNormalization RNN Softmax"""
REDUCTIONS = """ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare TopK"""
SHAPES = """Concat Constant ConstantOfShape DepthToSpace Expand Flatten Gather GatherElements GatherND Pad Reshape Resize
    Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze"""
QUANTISED = "DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul QuantizeLinear"
OPERATORS = frozenset(f"{ELEMENTWISE} {LAYERS} {REDUCTIONS} {SHAPES} {QUANTISED}".split())
DOMAINS = ("", "ai.onnx")
WINDOWS = ("pads", "strides", "dilations", "kernel_shape", "output_padding", "output_shape", "blocksize", "hidden_size")

# Field numbers that may occur: message -> field -> name of what is used, "" for what is skipped.
_MODEL = {1: "", 2: "", 3: "", 4: "", 5: "", 6: "", 7: "graph", 8: "opset", 14: ""}
_GRAPH = {1: "node", 2: "", 5: "initializer", 10: "", 11: "input", 12: "output", 13: "", 14: "", 16: ""}
_NODE = {1: "input", 2: "output", 3: "", 4: "op_type", 5: "attribute", 6: "", 7: "domain", 8: "overload", 9: ""}
_ATTRIBUTE = {1: "name", 2: "", 3: "i", 4: "", 5: "tensor", 7: "", 8: "ints", 9: "", 10: "tensor", 13: "", 20: ""}
_TENSOR = {1: "dim", 2: "type", 4: "float", 5: "int32", 7: "int64", 8: "", 9: "raw", 10: "double", 11: "uint64", 12: ""}
_TENSOR |= {14: "location", 16: ""}
_VALUE = {1: "name", 2: "type", 3: "", 4: ""}
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}

Shape = tuple[int, ...]  # -1 where the model leaves a dimension open


@dataclass(slots=True)
class Summary:
    """What a model takes, gives and uses; the manifest repeats it. Shapes have -1 for an open dimension."""

    inputs: dict[str, Shape] = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    operators: tuple[str, ...] = ()


@dataclass(slots=True)
class _Tensor:
    """A constant. values: its numbers where there are few of them."""

    n_elements: int
    values: tuple[float, ...]


def check_model(model: bytes, where: str) -> Summary:
    """Check ONNX bytes; BundleModelError, in one line, names what is not allowed."""
    try:
        return _Gate(where).model(memoryview(model))
    except (IndexError, struct.error, ValueError, OverflowError) as error:
        raise BundleModelError(f"{where}: not an ONNX model: {error}; build the bundle again") from error


class _Gate:
    def __init__(self, where: str) -> None:
        self._where = where
        self._constants: dict[str, _Tensor] = {}
        self._operators: set[str] = set()
        self._enlarge = 1.0

    def _refuse(self, why: str) -> BundleModelError:
        return BundleModelError(f"{self._where}: the model is refused: {why}")

    def model(self, data: memoryview) -> Summary:
        fields = self._fields(data, _MODEL, "a model")
        graphs = [value for name, value in fields if name == "graph"]
        if len(graphs) != 1:
            raise self._refuse(f"{len(graphs)} graphs in the place of one")
        for opset in (value for name, value in fields if name == "opset"):
            domain = [bytes(_data(v)).decode() for number, v in _walk(_data(opset)) if number == 1]
            if any(d not in DOMAINS for d in domain):
                raise self._refuse(f"operators of the domain {domain[-1]!r}")
        return self._graph(_data(graphs[0]))

    def _graph(self, data: memoryview) -> Summary:
        fields = self._fields(data, _GRAPH, "a graph")
        counts = {name: sum(1 for n, _ in fields if n == name) for name in ("node", "initializer", "input", "output")}
        if (
            counts["node"] > MAX_NODES
            or counts["initializer"] > MAX_TENSORS
            or counts["input"] + counts["output"] > MAX_DEPTH
        ):
            raise self._refuse("too many nodes, tensors, inputs or outputs")
        for name, value in fields:
            if name == "initializer":
                self._initializer(_data(value))
        for name, value in fields:
            if name == "node":
                self._node(_data(value))
        summary = Summary(operators=tuple(sorted(self._operators)))
        for name, value in fields:
            if name in ("input", "output"):
                called, shape = self._value_info(_data(value))
                if name == "input" and called in self._constants:
                    continue  # old models list their constants as inputs too
                (summary.inputs if name == "input" else summary.outputs)[called] = shape
        if not summary.inputs or not summary.outputs:
            raise self._refuse("it has no input or no output")
        return summary

    def _initializer(self, data: memoryview) -> None:
        name = [bytes(_data(v)).decode() for number, v in _walk(data) if number == 8]
        if len(name) != 1:
            raise self._refuse("a constant without a name")
        self._constants[name[0]] = self._tensor(data)

    def _tensor(self, data: memoryview) -> _Tensor:
        fields = self._fields(data, _TENSOR, "a constant (external data?)")
        dims: list[int] = []
        raw, kinds, typed = (
            memoryview(b""),
            [],
            [n for n, _ in fields if n in ("float", "int32", "int64", "double", "uint64")],
        )
        for name, value in fields:
            if name == "dim":
                dims += _integers(value)
            elif name == "location" and value != 0:
                raise self._refuse("external data")
            elif name == "type":
                kinds.append(value)
            elif name == "raw":
                raw = _data(value)
        if any(d < 0 for d in dims) or len(dims) > 8 or (n := math.prod(dims)) > MAX_ELEMENTS:
            raise self._refuse(f"a constant of the shape {dims[:8]}")
        if len(kinds) != 1 or kinds[0] not in _ITEM_BYTES:
            raise self._refuse("a constant of a type that is not a number")
        if not typed and len(raw) != n * _ITEM_BYTES[int(kinds[0])]:
            raise self._refuse(f"a constant whose {len(raw)} bytes are not its shape {dims}")
        if typed and len(raw):
            raise self._refuse("a constant that is given twice")
        values = _few_values(fields, raw, int(kinds[0])) if n <= MAX_DEPTH else ()
        if typed and n <= MAX_DEPTH and len(values) != n:
            raise self._refuse("a constant whose values are not its shape")
        return _Tensor(n, values)

    def _node(self, data: memoryview) -> None:
        fields = self._fields(data, _NODE, "a node")
        texts = {key: [bytes(_data(v)).decode() for n, v in fields if n == key] for key in ("op_type", "domain", "overload")}
        inputs = [bytes(_data(v)).decode() for n, v in fields if n == "input"]
        outputs = [bytes(_data(v)).decode() for n, v in fields if n == "output"]
        kind = texts["op_type"][0] if len(texts["op_type"]) == 1 else repr(texts["op_type"])
        if kind not in OPERATORS or any(d not in DOMAINS for d in texts["domain"]) or any(texts["overload"]):
            raise self._refuse(f"the operator {'.'.join([*filter(None, texts['domain']), kind])} is not allowed")
        self._operators.add(kind)
        for value in (_data(v) for n, v in fields if n == "attribute"):
            self._attribute(value, kind, outputs)
        self._check_growth(kind, inputs)

    def _attribute(self, data: memoryview, kind: str, outputs: list[str]) -> None:
        fields = self._fields(data, _ATTRIBUTE, f"an attribute of {kind} (a sub-graph?)")
        names = [bytes(_data(v)).decode() for n, v in fields if n == "name"]
        integers = [i for n, v in fields if n in ("i", "ints") for i in _integers(v)]
        if any(name in WINDOWS for name in names) and any(abs(i) > MAX_WINDOW for i in integers):
            raise self._refuse(f"{kind}: {names[0]} above {MAX_WINDOW}")
        tensors = [self._tensor(_data(v)) for n, v in fields if n == "tensor"]
        if kind == "Constant" and len(outputs) == 1:
            for tensor in tensors:
                self._constants[outputs[0]] = tensor
            if names == ["value_ints"] or names == ["value_int"]:
                self._constants[outputs[0]] = _Tensor(len(integers), tuple(integers))

    def _check_growth(self, kind: str, inputs: list[str]) -> None:
        """Operators that make more elements than they take: what they are asked for must be a small constant."""
        given = [self._constants.get(name) for name in inputs]

        def values(position: int) -> tuple[float, ...] | None:
            tensor = given[position] if position < len(given) else None
            return tensor.values if tensor is not None else None

        if kind == "Expand" and (shape := values(1)) is not None and _product(shape) > MAX_ELEMENTS:
            raise self._refuse(f"Expand to {_product(shape):.0f} elements")
        if kind == "ConstantOfShape" and ((shape := values(0)) is None or _product(shape) > MAX_ELEMENTS):
            raise self._refuse("ConstantOfShape of a shape that is not a small constant")
        if kind == "Pad" and len(inputs) > 1 and ((pads := values(1)) is None or any(abs(p) > MAX_WINDOW for p in pads)):
            raise self._refuse("Pad by what is not a small constant")
        if kind == "Tile":
            self._grow("Tile", values(1))
        if kind == "Resize" and len(inputs) > 3 and inputs[3]:
            sizes = values(3)
            if sizes is not None and (not sizes or _product(sizes) > MAX_ELEMENTS):
                raise self._refuse("Resize to too many elements")
        elif kind == "Resize":
            self._grow("Resize", values(2))

    def _grow(self, kind: str, factors: tuple[float, ...] | None) -> None:
        if not factors:
            raise self._refuse(f"{kind} by what is not a small constant")
        self._enlarge *= max(_product(factors), 1.0)
        if not self._enlarge <= MAX_ENLARGE:
            raise self._refuse(f"Resize and Tile make more than {MAX_ENLARGE} elements of one")

    def _value_info(self, data: memoryview) -> tuple[str, Shape]:
        """Name and shape of an input or output: a dense tensor of known rank, its open dimensions named."""
        fields = self._fields(data, _VALUE, "an input or output")
        names = [bytes(_data(v)).decode() for n, v in fields if n == "name"]
        types = [_data(v) for n, v in fields if n == "type"]
        tensors = [_data(v) for t in types for number, v in _walk(t) if number == 1]
        if len(names) != 1 or len(types) != 1 or len(tensors) != 1:
            raise self._refuse("an input or output that is not a tensor")
        shapes = [_data(v) for number, v in _walk(tensors[0]) if number == 2]
        if len(shapes) != 1:
            raise self._refuse(f"{names[0]!r} has no shape")
        shape = tuple(_dimension(_data(v)) for number, v in _walk(shapes[0]) if number == 1)
        if len(shape) > 8 or any(d == 0 or d < -1 or d > MAX_SIDE for d in shape):
            raise self._refuse(f"{names[0]!r} has the shape {list(shape[:8])}")
        if math.prod(abs(d) for d in shape) > MAX_ELEMENTS:
            raise self._refuse(f"{names[0]!r} has more than {MAX_ELEMENTS} elements")
        return names[0], shape

    def _fields(self, data: memoryview, known: dict[int, str], what: str) -> list[tuple[str, int | memoryview]]:
        found = []
        for number, value in _walk(data):
            if number not in known:
                raise self._refuse(f"{what} with the field {number}")
            found.append((known[number], value))
        return found


def _walk(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a protobuf message: an integer, or the bytes of everything else."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if number == 0 or size > end - at:
            raise ValueError("cut off")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value & (2**64 - 1), at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _data(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number in the place of bytes")
    return value


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _integers(value: int | memoryview) -> list[int]:
    """One integer, or a packed list of them."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
    return found


def _few_values(fields: list[tuple[str, int | memoryview]], raw: memoryview, kind: int) -> tuple[float, ...]:
    """The numbers of a small constant; none of a type that gives no sizes."""
    codes = {1: "f", 6: "i", 7: "q", 11: "d"}
    if len(raw):
        code = codes.get(kind)
        return struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw) if code else (0.0,) * (len(raw) or 1)
    found: list[float] = []
    for name, value in fields:
        if name in ("float", "double"):
            code = "f" if name == "float" else "d"
            data = _data(value)
            found += struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)
        elif name in ("int32", "int64", "uint64"):
            found += _integers(value)
    return tuple(found)


def _dimension(data: memoryview) -> int:
    """A dimension's value; -1 when it has a name only."""
    values = [_integers(value)[0] for number, value in _walk(data) if number == 1]
    return values[-1] if values else -1


def _product(values: tuple[float, ...]) -> float:
    return math.prod(max(abs(float(v)), 1.0) for v in values) if all(math.isfinite(v) for v in values) else math.inf
