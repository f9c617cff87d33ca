"""Graphs of one operator each, with the attributes that bite: what the torch backend is compared with ONNX Runtime on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 1, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


PICTURE = normal(2, 4, 9, 7)
FLAT = normal(3, 5)
# Halves in steps of the scale 0.5 fall between two integers; the ends are beyond 8 bits.
TIES = np.array([[-1000.0, -1.25, -0.75, -0.25, 0.0, 0.25, 0.75, 1.25, 31.75, 63.25, 64.0, 1000.0]], np.float32)


@dataclass(frozen=True)
class Case:
    """One node. x: its first input; constants: those behind it, None where one is left out."""

    kind: str
    x: np.ndarray
    constants: tuple[np.ndarray | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    n_outputs: int = 1

    def __str__(self) -> str:
        said = "-".join(f"{key}={value}" for key, value in self.attributes.items())
        return f"{self.kind}{self.opset}-{said}".replace(" ", "")


def case(kind: str, x: np.ndarray, *constants: np.ndarray | None, opset: int = 18, n: int = 1, **attributes: Any) -> Case:
    return Case(kind, x, constants, attributes, opset, n)


def model_of(case: Case) -> bytes:
    """x -> the node -> float32."""
    names = ["x", *(f"c{i}" if value is not None else "" for i, value in enumerate(case.constants))]
    made = [f"y{i}" for i in range(case.n_outputs)]
    node = helper.make_node(case.kind, names, made, **case.attributes)
    casts = [helper.make_node("Cast", [name], [f"f{name}"], to=TensorProto.FLOAT) for name in made]
    constants = [numpy_helper.from_array(v, f"c{i}") for i, v in enumerate(case.constants) if v is not None]
    return model([node, *casts], {"x": case.x}, [f"f{name}" for name in made], constants, case.opset)


def model(
    nodes: list[Any], inputs: dict[str, np.ndarray], outputs: list[str], constants: list[Any], opset: int = 18
) -> bytes:
    """ONNX bytes; the shapes of the outputs are inferred, the first dimension of inputs of a rank above 2 is open."""
    taken = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(v.dtype), ["n", *v.shape[1:]] if v.ndim > 2 else v.shape
        )
        for name, v in inputs.items()
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "small", taken, given, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    made = onnx.shape_inference.infer_shapes(made, data_prop=True)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


UNARY = (
    "Abs Ceil Cos Exp Floor HardSwish Mish Neg Reciprocal Relu Round Sigmoid Sign Sin Softplus Softsign Tanh Erf Identity"
)
BINARY = "Add Div Max Mean Min Mul Sub Sum PRelu Equal Greater GreaterOrEqual Less LessOrEqual"
WEIGHT, GROUPED, BIAS = normal(6, 4, 3, 3), normal(8, 2, 3, 2), normal(8)
PER_CHANNEL = (np.array([0.1, 0.5, 0.02, 1.0], np.float32), np.array([3, 128, 0, 255], np.uint8))
SIGNED = (np.array([0.1, 0.5, 0.02, 1.0], np.float32), np.array([-3, 0, 127, -128], np.int8))
BYTES = RANDOM.integers(0, 256, (2, 4, 3, 2)).astype(np.uint8)

CASES = [
    *(case(kind, FLAT, opset=18) for kind in UNARY.split()),
    *(case(kind, np.abs(FLAT) + 0.1) for kind in ("Log", "Sqrt")),
    *(case(kind, FLAT, np.where(normal(3, 1) > 0, FLAT[:, :1], 0.7).astype(np.float32)) for kind in BINARY.split()),
    case("Pow", np.abs(FLAT) + 0.1, np.array(1.5, np.float32)),
    case("Pow", FLAT, ints(2)),
    case("Div", ints(7, -7, 9, -9), ints(2, 2, -2, -2)),
    case("Mod", ints(7, -7, 9, -9), ints(4, 4, -4, -4)),
    case("Mod", FLAT, np.array(0.3, np.float32), fmod=1),
    *(case(kind, FLAT > 0, FLAT[::-1] > 0) for kind in ("And", "Or", "Xor")),
    case("Not", FLAT > 0),
    case("Where", FLAT > 0, FLAT, FLAT[:1]),
    case("Clip", FLAT, np.array(-0.5, np.float32), np.array(0.3, np.float32)),
    case("Clip", FLAT, None, np.array(0.3, np.float32)),
    case("Clip", FLAT),
    case("Cast", FLAT * 3, to=TensorProto.INT32),
    case("Cast", FLAT, to=TensorProto.FLOAT16),
    case("Elu", FLAT, alpha=0.5),
    case("Gelu", FLAT, opset=20),
    case("Gelu", FLAT, opset=20, approximate="tanh"),
    case("HardSigmoid", FLAT, alpha=0.3, beta=0.4),
    case("HardSigmoid", FLAT),
    case("LeakyRelu", FLAT, alpha=0.3),
    # Convolutions: asymmetric pads, strides, groups, dilations, automatic pads on even and odd sides
    case("Conv", PICTURE, WEIGHT),
    case("Conv", PICTURE, WEIGHT, BIAS[:6], pads=[0, 1, 2, 1], strides=[2, 1]),
    case("Conv", PICTURE, GROUPED, BIAS, group=2, kernel_shape=[3, 2], dilations=[2, 3], pads=[2, 1, 2, 1]),
    case("Conv", PICTURE, WEIGHT, auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", PICTURE, GROUPED, group=2, auto_pad="SAME_LOWER", strides=[1, 2]),
    case("Conv", PICTURE, WEIGHT, auto_pad="VALID"),
    case("Conv", PICTURE[..., 0], normal(5, 4, 3), pads=[1, 0]),
    case("Conv", normal(1, 2, 4, 5, 6), normal(3, 2, 2, 2, 2), pads=[0, 1, 0, 1, 0, 1]),
    case("ConvTranspose", PICTURE, normal(4, 3, 3, 2), normal(3), strides=[2, 3], pads=[0, 1, 1, 0], output_padding=[1, 0]),
    case("ConvTranspose", PICTURE, normal(4, 2, 2, 2), strides=[2, 2], group=2),
    case("ConvTranspose", normal(1, 4, 2, 3, 4), normal(4, 3, 3, 3, 3), normal(3), strides=[1, 2, 2], pads=[1] * 6,
         output_padding=[0, 1, 1]),
    # Pools
    case("MaxPool", PICTURE, kernel_shape=[3, 2], strides=[2, 2]),
    case("MaxPool", PICTURE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("MaxPool", PICTURE, kernel_shape=[3, 3], pads=[0, 1, 2, 1], strides=[2, 3]),
    case("MaxPool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", PICTURE, kernel_shape=[2, 2], strides=[3, 3], pads=[0, 0, 1, 1], ceil_mode=1),
    case("MaxPool", PICTURE, kernel_shape=[2, 2], dilations=[3, 2], strides=[1, 2]),
    case("MaxPool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("MaxPool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    case("MaxPool", PICTURE[..., 0], kernel_shape=[3], strides=[2], ceil_mode=1),
    case("AveragePool", PICTURE, kernel_shape=[3, 2], strides=[2, 2]),
    case("AveragePool", PICTURE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("AveragePool", PICTURE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", PICTURE, kernel_shape=[3, 3], pads=[0, 1, 2, 1], strides=[2, 3]),
    case("AveragePool", PICTURE, kernel_shape=[3, 3], pads=[0, 1, 2, 1], strides=[2, 3], count_include_pad=1),
    case("AveragePool", PICTURE, kernel_shape=[2, 4], strides=[2, 2], ceil_mode=1, opset=19),
    case("AveragePool", PICTURE, kernel_shape=[2, 4], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, opset=19),
    case("AveragePool", PICTURE, kernel_shape=[2, 4], strides=[2, 2], pads=[1, 1, 0, 1], ceil_mode=1, count_include_pad=1),
    case("AveragePool", PICTURE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("GlobalAveragePool", PICTURE),
    case("GlobalMaxPool", PICTURE),
    # Layers
    case("BatchNormalization", PICTURE, normal(4), normal(4), normal(4), np.abs(normal(4)) + 0.1, epsilon=0.01),
    case("InstanceNormalization", PICTURE, normal(4), normal(4), epsilon=0.01),
    case("LayerNormalization", PICTURE, normal(7), normal(7), epsilon=0.01),
    case("LayerNormalization", PICTURE, normal(9, 7), axis=-2),
    case("Gemm", FLAT, normal(5, 4), normal(4)),
    case("Gemm", FLAT, normal(4, 3), normal(4), transA=1, transB=1, alpha=0.5, beta=2.0),
    case("MatMul", PICTURE, normal(4, 7, 3)),
    *(case(kind, PICTURE, axis=axis) for kind in ("Softmax", "LogSoftmax") for axis in (1, -1)),
    *(case(kind, PICTURE, axis=axis, opset=11) for kind in ("Softmax", "LogSoftmax") for axis in (1, 2)),
    case("Softmax", PICTURE, opset=11),
    case("Dropout", FLAT, np.array(0.4, np.float32)),
    # Reductions
    *(case(f"Reduce{kind}", PICTURE, ints(-1, 1), keepdims=0) for kind in ("L1", "L2", "Max", "Mean", "Min", "Prod", "Sum")),
    *(case(f"Reduce{kind}", PICTURE, axes=[2, -1], opset=11) for kind in ("L1", "L2", "Max", "Mean", "Min", "Prod", "Sum")),
    case("ReduceMean", PICTURE),
    case("ReduceSum", PICTURE, noop_with_empty_axes=1),
    *(case(kind, PICTURE, axis=-2, keepdims=keep) for kind in ("ArgMax", "ArgMin") for keep in (0, 1)),
    # Shapes
    case("Concat", PICTURE, normal(2, 4, 9, 3), axis=-1),
    case("DepthToSpace", PICTURE, blocksize=2),
    case("DepthToSpace", PICTURE, blocksize=2, mode="CRD"),
    case("SpaceToDepth", PICTURE[:, :, :8, :6], blocksize=2),
    case("Expand", FLAT[:, :1], ints(2, 1, 4)),
    case("Flatten", PICTURE, axis=-2),
    case("Flatten", PICTURE),
    case("Flatten", PICTURE, axis=0),
    case("Gather", PICTURE, np.array([[0, -1], [2, 2]], np.int64), axis=1),
    case("Gather", PICTURE, np.array(-2, np.int32), axis=-1),
    case("Pad", PICTURE, ints(0, 0, 1, 0, 0, 1, 2, 3), np.array(1.5, np.float32)),
    case("Pad", PICTURE, ints(0, 0, -1, 1, 0, 0, 2, -2)),
    case("Pad", PICTURE, ints(1, 2, 3, 0), None, ints(-1, 2)),
    case("Pad", PICTURE, ints(0, 0, 3, 2, 0, 0, 1, 4), mode="reflect"),
    case("Pad", PICTURE, ints(0, 1, 3, 2, 1, 0, 1, 4), mode="edge"),
    case("Pad", PICTURE, ints(0, 0, 3, 2, 0, 0, 1, 4), mode="wrap", opset=19),
    case("Reshape", PICTURE, ints(0, -1, 7)),
    case("Reshape", PICTURE, ints(2, 9, 28), allowzero=1),
    case("Shape", PICTURE),
    case("Shape", PICTURE, start=1, end=-1),
    case("Slice", PICTURE, ints(1, -3), ints(1000, -1), ints(-2, 3)),
    case("Slice", PICTURE, ints(-1, 0), ints(-1000, 7), ints(2, 3), ints(-2, 3)),
    case("Slice", FLAT, ints(1, 0), ints(3, 4)),
    case("Slice", normal(2, 5, 3, 4, 6), ints(1), ints(4), ints(1)),
    case("Split", FLAT, ints(1, 3, 1), n=3, axis=-1),
    case("Split", FLAT, n=2, axis=1, num_outputs=2),
    case("Split", FLAT, n=2, axis=1, split=[2, 3], opset=11),
    case("Squeeze", PICTURE[:1, :, :, :1], ints(-1, 0)),
    case("Squeeze", PICTURE[:1, :, :, :1], axes=[3], opset=11),
    case("Squeeze", PICTURE[:1, 0, 0, :1]),
    case("Unsqueeze", FLAT, ints(-1, 0, 2)),
    case("Unsqueeze", FLAT, axes=[1, 3], opset=11),
    case("Tile", FLAT, ints(2, 3)),
    case("Transpose", PICTURE, perm=[0, 2, 3, 1]),
    case("Transpose", PICTURE),
    # Other sizes
    *(
        case("Resize", PICTURE, None, np.array([1, 1, *factors], np.float32), mode="nearest", nearest_mode=nearest,
             coordinate_transformation_mode=coordinates)
        for factors in ((2.0, 1.5), (0.6, 3.0))
        for nearest in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        for coordinates in ("asymmetric", "half_pixel")
    ),
    *(
        case("Resize", PICTURE, None, None, ints(2, 4, *sizes), mode="linear", coordinate_transformation_mode=coordinates)
        for sizes in ((18, 5), (4, 14), (1, 7))
        for coordinates in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    ),
    # Integers: half to even, saturation, per channel, a negative axis, signed and unsigned
    case("QuantizeLinear", TIES, np.array(0.5, np.float32), np.array(128, np.uint8)),
    case("QuantizeLinear", TIES, np.array(0.5, np.float32), np.array(-7, np.int8)),
    case("QuantizeLinear", TIES, np.array(0.5, np.float32)),
    case("QuantizeLinear", 40 * PICTURE, *PER_CHANNEL),
    case("QuantizeLinear", 40 * PICTURE, *SIGNED, axis=-3),
    case("DequantizeLinear", BYTES, *PER_CHANNEL),
    case("DequantizeLinear", BYTES, *PER_CHANNEL, axis=-3),
    case("DequantizeLinear", BYTES.astype(np.int32), np.array(0.25, np.float32)),
]  # fmt: skip
