"""What an ONNX model in a bundle may hold, checked on its bytes before any runtime sees them.

The device has no ``onnx`` package, and a check must not trust what it checks: this walks the protobuf encoding itself
(field numbers from onnx.proto) and refuses what it does not know.
External data, sub-graphs (If, Loop, Scan), functions and foreign operators are refused; every size that a constant asks
for is bounded. What a chain of allowed operators adds up to is not seen here: that is for the self-test's limited process.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

from edge_vad.errors import BundleModelError
from edge_vad.protobuf import as_bytes as _data
from edge_vad.protobuf import fields as _walk
from edge_vad.protobuf import integers

MAX_NODES, MAX_TENSORS, MAX_DEPTH = 8192, 16384, 64
MAX_FIELDS = 2**18  # of the whole encoding
MAX_PACKED = 2**16  # bytes of a list of integers that is read
MAX_SIDE = 8192  # of a static dimension of an input or output
MAX_ELEMENTS = 2**26  # of an input, an output, a constant, or what a constant asks an operator to make
MAX_ENLARGE = 4096  # of the Resize, Tile and ConvTranspose operators on a path, in elements out per element in
MAX_PADDED = 2**16  # what a Pad makes of one element
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


def _known(fields: str) -> dict[tuple[int, int], str]:
    """(field number, wire type) that may occur -> name of what is used, "" for what is skipped."""
    known = {}
    for field_ in fields.split():
        key, _, name = field_.partition("=")
        number, _, wire = key.partition("/")
        known[int(number), int(wire)] = name
    return known


# Another wire type than these would be skipped by the runtime and read here, or the other way round.
_MODEL = _known("1/0 2/2 3/2 4/2 5/0 6/2 7/2=graph 8/2=opset 14/2")
_OPSET = _known("1/2=domain 2/0")
_GRAPH = _known("1/2=node 2/2 5/2=initializer 10/2 11/2=input 12/2=output 13/2 14/2 16/2")
_NODE = _known("1/2=input 2/2=output 3/2 4/2=op_type 5/2=attribute 6/2 7/2=domain 8/2=overload 9/2")
_ATTRIBUTE = _known("1/2=name 2/5 3/0=int 4/2 5/2=tensor 7/5 7/2 8/0=int 8/2=int 9/2 10/2=tensor 13/2 20/0")
_TENSOR = _known("1/0=dim 1/2=dim 2/0=type 4/5=float 4/2=float 5/0=int 5/2=int 7/0=int 7/2=int 8/2=name 9/2=raw")
_TENSOR |= _known("10/1=double 10/2=double 11/0=int 11/2=int 12/2 14/0=location 16/2")
_VALUE = _known("1/2=name 2/2=type 3/2 4/2")
_TYPE = _known("1/2=tensor 6/2")
_TENSOR_TYPE = _known("1/0=item 2/2=shape")
_SHAPE = _known("1/2=dim")
_DIMENSION = _known("1/0=value 2/2=name 3/2")
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}

Shape = tuple[int, ...]  # -1 where the model leaves a dimension open
Field = tuple[str, "int | memoryview"]  # name of what it is used for, value


@dataclass(slots=True)
class Summary:
    """What a model takes, gives and uses; the manifest repeats it. Shapes have -1 for an open dimension."""

    inputs: dict[str, Shape] = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    operators: tuple[str, ...] = ()


@dataclass(slots=True)
class _Tensor:
    """A constant. values: its numbers, None where there are many of them."""

    n_elements: int
    values: tuple[float, ...] | None


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
        self._made: set[str] = set()
        self._operators: set[str] = set()
        self._enlarge = 1.0  # of the node that is being read
        self._enlarged: dict[str, float] = {}  # of every value, along the path that makes most of it
        self._fields_left = MAX_FIELDS

    def _refuse(self, why: str) -> BundleModelError:
        return BundleModelError(f"{self._where}: the model is refused: {why}")

    def model(self, data: memoryview) -> Summary:
        fields = self._fields(data, _MODEL, "a model")
        graphs = _all(fields, "graph")
        if len(graphs) != 1:
            raise self._refuse(f"{len(graphs)} graphs in the place of one")
        for opset in _all(fields, "opset"):
            for domain in _texts(self._fields(_data(opset), _OPSET, "an operator set"), "domain"):
                if domain not in DOMAINS:
                    raise self._refuse(f"operators of the domain {domain!r}")
        return self._graph(_data(graphs[0]))

    def _graph(self, data: memoryview) -> Summary:
        fields = self._fields(data, _GRAPH, "a graph")
        nodes, constants, inputs, outputs = (_all(fields, n) for n in ("node", "initializer", "input", "output"))
        if len(nodes) > MAX_NODES or len(constants) > MAX_TENSORS or len(inputs) + len(outputs) > MAX_DEPTH:
            raise self._refuse("too many nodes, tensors, inputs or outputs")
        for value in constants:
            self._initializer(_data(value))
        taken = [self._value_info(_data(value)) for value in inputs]
        self._made |= {name for name, _ in taken}
        for value in nodes:
            self._node(_data(value))
        summary = Summary(operators=tuple(sorted(self._operators)))
        # Old models list their constants as inputs too.
        summary.inputs.update((name, shape) for name, shape in taken if name not in self._constants)
        summary.outputs.update(self._value_info(_data(value)) for value in outputs)
        if not summary.inputs or not summary.outputs:
            raise self._refuse("it has no input or no output")
        return summary

    def _initializer(self, data: memoryview) -> None:
        tensor, names = self._tensor(data)
        if len(names) != 1:
            raise self._refuse("a constant without a name")
        self._make(names[0])
        self._constants[names[0]] = tensor

    def _make(self, name: str) -> None:
        if name in self._made:
            raise self._refuse(f"{name!r} is made twice")
        self._made.add(name)

    def _tensor(self, data: memoryview) -> tuple[_Tensor, list[str]]:
        """A constant and its names."""
        fields = self._fields(data, _TENSOR, "a constant (external data?)")
        if any(_all(fields, "location")):
            raise self._refuse("external data")
        dims = [d for value in _all(fields, "dim") for d in _integers(value)]
        if any(d < 0 for d in dims) or len(dims) > 8 or (n := math.prod(dims)) > MAX_ELEMENTS:
            raise self._refuse(f"a constant of the shape {dims[:8]}")
        kinds, raws = _all(fields, "type"), _all(fields, "raw")
        if len(kinds) != 1 or (kind := kinds[0]) not in _ITEM_BYTES or isinstance(kind, memoryview):
            raise self._refuse("a constant of a type that is not a number")
        typed = [(name, value) for name, value in fields if name in ("float", "double", "int")]
        raw = _data(raws[0]) if raws else memoryview(b"")
        if len(raws) > 1 or (typed and len(raw)):
            raise self._refuse("a constant that is given twice")
        if not typed and len(raw) != n * _ITEM_BYTES[kind]:
            raise self._refuse(f"a constant whose {len(raw)} bytes are not its shape {dims}")
        if typed and sum(_count(name, value) for name, value in typed) != n:
            raise self._refuse(f"a constant whose values are not its shape {dims}")
        values = None
        if n <= MAX_DEPTH:
            values = _typed_values(typed) if typed else _raw_values(raw, kind)
        return _Tensor(n, values), _texts(fields, "name")

    def _node(self, data: memoryview) -> None:
        fields = self._fields(data, _NODE, "a node")
        kinds, domains, overloads, inputs, outputs = (
            _texts(fields, key) for key in ("op_type", "domain", "overload", "input", "output")
        )
        kind = kinds[0] if len(kinds) == 1 else ""
        if kind not in OPERATORS or any(d not in DOMAINS for d in domains) or any(overloads):
            raise self._refuse(f"the operator {'.'.join([*filter(None, domains), *kinds])!r} is not allowed")
        self._operators.add(kind)
        for name in filter(None, outputs):
            self._make(name)
        self._enlarge = max((self._enlarged.get(name, 1.0) for name in inputs), default=1.0)
        attributes = [self._attribute(_data(value), kind, outputs) for value in _all(fields, "attribute")]
        if len(set(attributes)) < len(attributes):
            raise self._refuse(f"an attribute of {kind} is given twice")
        self._check_growth(kind, inputs)
        self._enlarged.update(dict.fromkeys(outputs, self._enlarge))

    def _attribute(self, data: memoryview, kind: str, outputs: list[str]) -> str:
        """Check an attribute; returns its name."""
        fields = self._fields(data, _ATTRIBUTE, f"an attribute of {kind} (a sub-graph?)")
        names, tensors = _texts(fields, "name"), _all(fields, "tensor")
        if len(names) != 1 or len(tensors) > 1:
            raise self._refuse(f"an attribute of {kind} without a name, or with many values")
        name = names[0]
        integers = tuple(i for value in _all(fields, "int") for i in _integers(value))
        if name in WINDOWS and any(abs(i) > MAX_WINDOW for i in integers):
            raise self._refuse(f"{kind}: {name} above {MAX_WINDOW}")
        if (kind, name) == ("Pad", "pads"):
            self._check_padding(integers)
        if (kind, name) == ("ConvTranspose", "strides"):
            self._grow(kind, integers)
        if (kind, name) == ("Resize", "axes"):
            raise self._refuse("Resize of some axes: the size of the others is not known")
        tensor = self._tensor(_data(tensors[0]))[0] if tensors else None
        if name in ("value_ints", "value_int"):
            tensor = _Tensor(len(integers), integers)
        if kind == "Constant" and len(outputs) == 1 and tensor is not None:
            self._constants[outputs[0]] = tensor
        return name

    def _check_growth(self, kind: str, inputs: list[str]) -> None:
        """Operators that make more elements than they take: what they are asked for must be a small constant."""

        def values(position: int) -> tuple[float, ...]:
            name = inputs[position] if position < len(inputs) else ""
            tensor = self._constants.get(name)
            if tensor is None or tensor.values is None:
                raise self._refuse(f"{kind} by what is not a small constant")
            return tensor.values

        if kind in ("Expand", "ConstantOfShape"):
            self._check_size(kind, values(1 if kind == "Expand" else 0))
        elif kind == "Pad" and len(inputs) > 1:
            self._check_padding(values(1))
        elif kind == "Tile":
            self._grow(kind, values(1))
        elif kind == "Resize" and len(inputs) > 3 and inputs[3]:
            self._check_size(kind, values(3))
        elif kind == "Resize":
            self._grow(kind, values(2))

    def _check_size(self, kind: str, shape: tuple[float, ...]) -> None:
        if not (made := _product(shape)) <= MAX_ELEMENTS:
            raise self._refuse(f"{kind} to {made:.0f} elements")

    def _check_padding(self, pads: tuple[float, ...]) -> None:
        around = zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True)  # begins, then ends
        if not _product(tuple(1 + abs(begin) + abs(end) for begin, end in around)) <= MAX_PADDED:
            raise self._refuse(f"Pad by more than {MAX_PADDED} elements around one")

    def _grow(self, kind: str, factors: tuple[float, ...]) -> None:
        if not factors:
            raise self._refuse(f"{kind} by what is not a small constant")
        self._enlarge *= _product(factors)
        if not self._enlarge <= MAX_ENLARGE:
            raise self._refuse(f"Resize, Tile and ConvTranspose make more than {MAX_ENLARGE} elements of one on a path")

    def _value_info(self, data: memoryview) -> tuple[str, Shape]:
        """Name and shape of an input or output: a dense tensor of numbers, of known rank, its open dimensions named."""
        what = "an input or output"
        fields = self._fields(data, _VALUE, what)
        names, types = _texts(fields, "name"), _all(fields, "type")
        if len(names) != 1 or len(types) != 1:
            raise self._refuse(f"{what} without a name or type")
        name = names[0]
        tensors = _all(self._fields(_data(types[0]), _TYPE, f"{what} that is not a tensor:"), "tensor")
        inner = self._fields(_data(tensors[0]), _TENSOR_TYPE, what) if len(tensors) == 1 else []
        items, shapes = _all(inner, "item"), _all(inner, "shape")
        if len(items) != 1 or items[0] not in _ITEM_BYTES:
            raise self._refuse(f"{name!r} is not a tensor of numbers")
        if len(shapes) != 1:
            raise self._refuse(f"{name!r} has no shape")
        dims = _all(self._fields(_data(shapes[0]), _SHAPE, what), "dim")
        shape = tuple(self._dimension(_data(value)) for value in dims)
        if len(shape) > 8 or any(d == 0 or d < -1 or d > MAX_SIDE for d in shape):
            raise self._refuse(f"{name!r} has the shape {list(shape[:8])}")
        if math.prod(abs(d) for d in shape) > MAX_ELEMENTS:
            raise self._refuse(f"{name!r} has more than {MAX_ELEMENTS} elements")
        return name, shape

    def _dimension(self, data: memoryview) -> int:
        """A dimension's value; -1 when it has a name or nothing."""
        fields = self._fields(data, _DIMENSION, "a dimension")
        values = _all(fields, "value")
        if len(values) + len(_all(fields, "name")) > 1:
            raise self._refuse("a dimension that is given twice")
        return _integers(values[0])[0] if values else -1

    def _fields(self, data: memoryview, known: dict[tuple[int, int], str], what: str) -> list[Field]:
        found: list[Field] = []
        for number, wire, value in _walk(data):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise self._refuse(f"more than {MAX_FIELDS} fields")
            if (number, wire) not in known:
                raise self._refuse(f"{what} with the field {number} of wire type {wire}")
            found.append((known[number, wire], value))
        return found


def _all(fields: list[Field], name: str) -> list[int | memoryview]:
    return [value for called, value in fields if called == name]


def _texts(fields: list[Field], name: str) -> list[str]:
    return [bytes(_data(value)).decode() for value in _all(fields, name)]


def _integers(value: int | memoryview) -> list[int]:
    return integers(value, MAX_PACKED)


def _count(name: str, value: int | memoryview) -> int:
    """How many numbers a field of a constant holds."""
    if isinstance(value, int):
        return 1
    if name == "int":
        return len(bytes(value).translate(None, bytes(range(128, 256))))  # each ends with the byte below 128
    return len(value) // (4 if name == "float" else 8)


def _typed_values(typed: list[Field]) -> tuple[float, ...]:
    found: list[float] = []
    for name, value in typed:
        if name == "int":
            found += _integers(value)
        else:
            data, code = _data(value), "f" if name == "float" else "d"
            found += struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)
    return tuple(found)


def _raw_values(raw: memoryview, kind: int) -> tuple[float, ...] | None:
    """The numbers of a small constant; None of a type that gives no sizes."""
    code = {1: "f", 6: "i", 7: "q", 11: "d"}.get(kind)
    return struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw) if code else None


def _product(values: tuple[float, ...]) -> float:
    return math.prod(max(abs(float(v)), 1.0) for v in values) if all(math.isfinite(v) for v in values) else math.inf
