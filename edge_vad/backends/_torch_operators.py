"""ONNX operators as torch calls. Source of their meaning: https://onnx.ai/onnx/operators, opsets 11 to 23.

A builder takes the attributes of one node and returns the function of its inputs; an attribute that no builder asks for,
or a value that it does not know, is an error that names it. Imported by the torch backend only, when torch is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_vad.errors import BackendError
from edge_vad.onnx_graph import Attribute, Node

Run = Callable[..., Any]
FAKE = "QuantizeLinear and DequantizeLinear"  # both at once, in floats

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
DTYPES = {2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16}
DTYPES |= {1: torch.float32, 11: torch.float64}  # by their number in TensorProto.DataType
INTEGERS = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-(2**15), 2**15 - 1)}
# Inputs that are read as numbers in Python: shapes, axes, bounds. They stay on the host.
ARGUMENTS = {
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 2, 3),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
    FAKE: (2,),
    **{f"Reduce{kind}": (1,) for kind in ("L1", "L2", "Max", "Mean", "Min", "Prod", "Sum")},
}
EXACT = ("QuantizeLinear", "DequantizeLinear", FAKE)  # scales stay fp32: an integer would become another one


@dataclass(slots=True)
class Attributes:
    """What a builder asks of its node. dtype: what fp32 is computed in; opset: the version of the operators."""

    node: Node
    opset: int
    dtype: torch.dtype
    _left: dict[str, Attribute] = field(init=False)

    def __post_init__(self) -> None:
        self._left = dict(self.node.attributes)

    def integer(self, name: str, default: int) -> int:
        """A whole number."""
        value = self._left.pop(name, default)
        if not isinstance(value, int):
            raise self.unsupported(f"{name}={value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        """A number with a fraction."""
        value = self._left.pop(name, default)
        if not isinstance(value, float):
            raise self.unsupported(f"{name}={value!r}")
        return value

    def text(self, name: str, default: str, known: Sequence[str]) -> str:
        """One of the known words."""
        value = self._left.pop(name, default)
        if value not in known:
            raise self.unsupported(f"{name}={value!r}")
        return str(value)

    def integers(self, name: str) -> list[int] | None:
        """A list of whole numbers, or None."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.unsupported(f"{name}={value!r}")
        return [int(v) for v in value]

    def array(self, name: str, default: np.ndarray) -> np.ndarray:
        """Numbers of any type."""
        return np.asarray(self._left.pop(name, default))

    def only(self, name: str, *allowed: int | str) -> None:
        """An attribute that may stand there with a value that changes nothing."""
        if name in self._left and self._left.pop(name) not in allowed:
            raise self.unsupported(f"{name}={self.node.attributes[name]!r}")

    def ignore(self, *names: str) -> None:
        """Attributes that mean nothing here."""
        for name in names:
            self._left.pop(name, None)

    def unsupported(self, what: str) -> BackendError:
        """The error that names the operator and what of it."""
        return BackendError(f"{self.node.kind}: {what} is not supported by the backend torch")

    def done(self) -> None:
        """BackendError where an attribute was not asked for."""
        if self._left:
            raise self.unsupported(f"the attribute {min(self._left)!r}")


def build(node: Node, opset: int, dtype: torch.dtype) -> Run:
    """The function of one node; BackendError names an operator or attribute that is not supported."""
    if node.kind not in BUILDERS:
        raise BackendError(f"the operator {node.kind} is not supported by the backend torch")
    attributes = Attributes(node, opset, dtype)
    if len(list(filter(None, node.outputs))) > 1 and node.kind != "Split":
        raise attributes.unsupported(f"its output {node.outputs[1]!r}")
    run = BUILDERS[node.kind](attributes)
    attributes.done()
    return run


def _numbers(tensor: Tensor | None) -> list[int] | None:
    return None if tensor is None else [int(v) for v in tensor.reshape(-1).tolist()]


def _number(tensor: Tensor | None) -> float | None:
    return None if tensor is None else tensor.item()


def _plain(function: Run) -> Callable[[Attributes], Run]:
    return lambda attributes: function


# Element by element


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(base, exponent).to(base.dtype)


def _mean(*tensors: Tensor) -> Tensor:
    return reduce(torch.add, tensors) / len(tensors)


def _clip(_: Attributes) -> Run:
    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        return x if low is high is None else torch.clamp(x, _number(low), _number(high))

    return run


def _cast(attributes: Attributes) -> Run:
    number = attributes.integer("to", 0)
    attributes.ignore("saturate", "round_mode")  # of 8-bit floats
    if number not in DTYPES:
        raise attributes.unsupported(f"to={number}")
    dtype = attributes.dtype if DTYPES[number] is torch.float32 else DTYPES[number]
    return lambda x: x.to(dtype)


def _mod(attributes: Attributes) -> Run:
    return torch.fmod if attributes.integer("fmod", 0) else torch.remainder


def _gelu(attributes: Attributes) -> Run:
    kind = attributes.text("approximate", "none", ("none", "tanh"))
    return lambda x: F.gelu(x, approximate=kind)


def _leaky_relu(attributes: Attributes) -> Run:
    alpha = attributes.number("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


def _elu(attributes: Attributes) -> Run:
    alpha = attributes.number("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


def _hard_sigmoid(attributes: Attributes) -> Run:
    alpha, beta = attributes.number("alpha", 0.2), attributes.number("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


# Windows


@dataclass(slots=True)
class Window:
    """How a kernel moves over the sides of a picture."""

    strides: list[int]
    dilations: list[int]
    pads: list[int] | None
    auto_pad: str
    ceil: bool

    @classmethod
    def of(cls, attributes: Attributes, n_dims: int | None) -> Window:
        """n_dims: sides, where a kernel_shape says how many; else as many as the first list that is there."""
        strides, dilations, pads = (attributes.integers(name) for name in ("strides", "dilations", "pads"))
        n = n_dims or len(strides or dilations or (pads or [])[::2])
        auto_pad = attributes.text("auto_pad", "NOTSET", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
        ceil = bool(attributes.integer("ceil_mode", 0)) if "Pool" in attributes.node.kind else False
        return cls(strides or [1] * n, dilations or [1] * n, pads if auto_pad == "NOTSET" else None, auto_pad, ceil)

    def around(self, sides: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
        """Cells before and after each side."""
        n = len(kernel)
        self.strides, self.dilations = self.strides or [1] * n, self.dilations or [1] * n
        if not self.auto_pad.startswith("SAME"):
            pads = self.pads or [0] * 2 * n
            return pads[:n], pads[n:]
        before, after = [], []
        for side, k, stride, dilation in zip(sides, kernel, self.strides, self.dilations, strict=True):
            all_of_it = max((math.ceil(side / stride) - 1) * stride + (k - 1) * dilation + 1 - side, 0)
            small, large = all_of_it // 2, all_of_it - all_of_it // 2
            before.append(small if self.auto_pad == "SAME_UPPER" else large)
            after.append(large if self.auto_pad == "SAME_UPPER" else small)
        return before, after

    def ends(self, sides: Sequence[int], kernel: Sequence[int], before: list[int], after: list[int]) -> list[int]:
        """Cells after each side of a pool: with ceil_mode, as many as its last window needs.

        A last window that would begin in the padding behind the picture is left out.
        """
        if not self.ceil:
            return after
        found = []
        for i, (side, k) in enumerate(zip(sides, kernel, strict=True)):
            reach = (k - 1) * self.dilations[i] + 1
            n = math.ceil((side + before[i] + after[i] - reach) / self.strides[i]) + 1
            n -= (n - 1) * self.strides[i] >= side + before[i]
            found.append((n - 1) * self.strides[i] + reach - side - before[i])
        return found


def _padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """The last sides with cells around them; torch lists the last side first."""
    if not any(before) and not any(after):
        return x
    return F.pad(x, [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair], value=value)


def _convolution(attributes: Attributes) -> Run:
    kernel = attributes.integers("kernel_shape")
    window, groups = Window.of(attributes, len(kernel) if kernel else None), attributes.integer("group", 1)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        before, after = window.around(x.shape[2:], weight.shape[2:])
        convolve = CONVOLUTIONS[weight.ndim - 2]
        if before != after:
            x, before = _padded(x, before, after), [0] * len(before)
        return convolve(x, weight, bias, window.strides, before, window.dilations, groups)

    return run


def _transposed_convolution(attributes: Attributes) -> Run:
    kernel, more = attributes.integers("kernel_shape"), attributes.integers("output_padding")
    window, groups = Window.of(attributes, len(kernel) if kernel else None), attributes.integer("group", 1)
    if window.auto_pad != "NOTSET":
        raise attributes.unsupported(f"auto_pad={window.auto_pad!r}")

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        before, after = window.around(x.shape[2:], weight.shape[2:])
        n = len(before)
        out = TRANSPOSED[n](x, weight, bias, window.strides, 0, more or 0, groups, window.dilations)
        return _padded(out, [-b for b in before], [-a for a in after])

    return run


def _pool(attributes: Attributes) -> tuple[list[int], Window]:
    kernel = attributes.integers("kernel_shape") or []
    if len(kernel) not in MAXIMA:
        raise attributes.unsupported(f"kernel_shape={kernel}")
    return kernel, Window.of(attributes, len(kernel))


def _max_pool(attributes: Attributes) -> Run:
    kernel, window = _pool(attributes)
    attributes.only("storage_order", 0)

    def run(x: Tensor) -> Tensor:
        sides = x.shape[2:]
        before, after = window.around(sides, kernel)
        after = window.ends(sides, kernel, before, after)
        pool, inside = MAXIMA[len(kernel)], all(2 * b <= k for b, k in zip(before, kernel, strict=True))
        if before != after or not inside:
            x, before = _padded(x, before, after, -math.inf), [0] * len(before)
        return pool(x, kernel, window.strides, before, window.dilations)

    return run


def _average_pool(attributes: Attributes) -> Run:
    kernel, window = _pool(attributes)
    count_padding = bool(attributes.integer("count_include_pad", 0))
    if any(d != 1 for d in window.dilations):
        raise attributes.unsupported(f"dilations={window.dilations}")

    def run(x: Tensor) -> Tensor:
        sides = x.shape[2:]
        before, after = window.around(sides, kernel)
        ends = window.ends(sides, kernel, before, after)
        pool = AVERAGES[len(kernel)]
        means = pool(_padded(x, before, ends), kernel, window.strides)
        if ends == after and (count_padding or not any((*before, *after))):
            return means
        counted = torch.ones((1, 1, *sides), dtype=x.dtype, device=x.device)
        if count_padding:
            counted = _padded(counted, before, after, 1.0)
            ends, before = [e - a for e, a in zip(ends, after, strict=True)], [0] * len(before)
        return means / pool(_padded(counted, before, ends), kernel, window.strides)

    return run


def _over_picture(reduction: Run) -> Run:
    return lambda x: reduction(x, dim=tuple(range(2, x.ndim)), keepdim=True)


# Layers


def _batch_normalization(attributes: Attributes) -> Run:
    epsilon = attributes.number("epsilon", 1e-5)
    attributes.ignore("momentum")
    attributes.only("training_mode", 0)
    return lambda x, scale, bias, mean, var: F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)


def _instance_normalization(attributes: Attributes) -> Run:
    epsilon = attributes.number("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _layer_normalization(attributes: Attributes) -> Run:
    axis, epsilon = attributes.integer("axis", -1), attributes.number("epsilon", 1e-5)
    attributes.only("stash_type", 1)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = x.shape[axis:]
        weight, shift = (None if value is None else value.expand(shape) for value in (scale, bias))
        return F.layer_norm(x, shape, weight, shift, epsilon)

    return run


def _gemm(attributes: Attributes) -> Run:
    alpha, beta = attributes.number("alpha", 1.0), attributes.number("beta", 1.0)
    turn_a, turn_b = attributes.integer("transA", 0), attributes.integer("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = (a.T if turn_a else a) @ (b.T if turn_b else b)
        product = product if alpha == 1 else alpha * product
        return product if c is None else product + (c if beta == 1 else beta * c)

    return run


def _softmax(function: Run) -> Callable[[Attributes], Run]:
    def builder(attributes: Attributes) -> Run:
        axis = attributes.integer("axis", 1 if attributes.opset < 13 else -1)
        if attributes.opset >= 13:
            return lambda x: function(x, dim=axis)
        # Before opset 13 all axes from this one on are one.
        return lambda x: function(x.flatten(axis % x.ndim), dim=-1).reshape(x.shape)

    return builder


def _dropout(attributes: Attributes) -> Run:
    attributes.ignore("seed", "ratio")
    if len(attributes.node.inputs) > 2:
        raise attributes.unsupported("training_mode")
    return lambda x, ratio=None: x


# Reductions


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[[Attributes], Run]:
    def builder(attributes: Attributes) -> Run:
        said, keep = attributes.integers("axes"), bool(attributes.integer("keepdims", 1))
        nothing = bool(attributes.integer("noop_with_empty_axes", 0))

        def run(x: Tensor, given: Tensor | None = None) -> Tensor:
            axes = said or _numbers(given)
            if not axes and nothing:
                return x
            return function(x, axes or list(range(x.ndim)), keep)

        return run

    return builder


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = torch.prod(x, dim=axis, keepdim=keep)
    return x


def _argument(function: Run) -> Callable[[Attributes], Run]:
    def builder(attributes: Attributes) -> Run:
        axis, keep = attributes.integer("axis", 0), bool(attributes.integer("keepdims", 1))
        attributes.only("select_last_index", 0)
        return lambda x: function(x, dim=axis, keepdim=keep)

    return builder


# Shapes


def _concat(attributes: Attributes) -> Run:
    axis = attributes.integer("axis", 0)
    return lambda *tensors: torch.cat(tensors, dim=axis)


def _constant(attributes: Attributes) -> Run:
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        if name in attributes.node.attributes:
            value = attributes.array(name, np.zeros(0)).astype(dtype)
            return lambda: torch.from_numpy(value.copy())
    for name, dtype in (("value_floats", np.float32), ("value_ints", np.int64)):
        if name in attributes.node.attributes:
            values = attributes.array(name, np.zeros(0)).astype(dtype)
            return lambda: torch.from_numpy(values)
    tensor = torch.from_numpy(attributes.array("value", np.zeros(0, np.float32)))
    return lambda: tensor


def _constant_of_shape(attributes: Attributes) -> Run:
    value = torch.from_numpy(attributes.array("value", np.zeros(1, np.float32))).reshape(())
    dtype = attributes.dtype if value.dtype is torch.float32 else value.dtype
    return lambda shape: torch.full(_numbers(shape) or [], value.item(), dtype=dtype)


def _depth_to_space(attributes: Attributes) -> Run:
    block, mode = attributes.integer("blocksize", 1), attributes.text("mode", "DCR", ("DCR", "CRD"))

    def run(x: Tensor) -> Tensor:
        if mode == "CRD":
            return F.pixel_shuffle(x, block)
        n, c, h, w = x.shape
        blocks = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c // block**2, h * block, w * block)

    return run


def _space_to_depth(attributes: Attributes) -> Run:
    block = attributes.integer("blocksize", 1)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, c * block**2, h // block, w // block)

    return run


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, _numbers(shape) or []))


def _flatten(attributes: Attributes) -> Run:
    axis = attributes.integer("axis", 1)

    def run(x: Tensor) -> Tensor:
        at = axis if axis >= 0 else axis + x.ndim
        return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))

    return run


def _gather(attributes: Attributes) -> Run:
    axis = attributes.integer("axis", 0)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        at, n = axis % x.ndim, x.shape[axis]
        positions = torch.where(indices < 0, indices + n, indices).reshape(-1).long()
        return x.index_select(at, positions).reshape(*x.shape[:at], *indices.shape, *x.shape[at + 1 :])

    return run


def _pad(attributes: Attributes) -> Run:
    mode = attributes.text("mode", "constant", ("constant", "reflect", "edge", "wrap"))

    def run(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        said = _numbers(pads) or []
        named = [a % x.ndim for a in (_numbers(axes) or range(x.ndim))]
        before, after = [0] * x.ndim, [0] * x.ndim
        for axis, b, a in zip(named, said[: len(named)], said[len(named) :], strict=True):
            before[axis], after[axis] = b, a
        if mode == "constant":
            return _padded(x, before, after, _number(value) or 0.0)
        for axis in named:
            if before[axis] or after[axis]:
                x = x.index_select(axis, _outside(x.shape[axis], before[axis], after[axis], mode).to(x.device))
        return x

    return run


@lru_cache(maxsize=256)
def _outside(side: int, before: int, after: int, mode: str) -> Tensor:
    """Which cell of a side stands at each place of the padded one."""
    places = torch.arange(-before, side + after)
    if mode == "edge":
        return places.clamp(0, side - 1)
    if mode == "wrap":
        return places % side
    period = max(2 * (side - 1), 1)
    folded = places % period
    return torch.minimum(folded, period - folded).clamp(max=side - 1)


def _reshape(attributes: Attributes) -> Run:
    zero_is_zero = attributes.integer("allowzero", 0)

    def run(x: Tensor, shape: Tensor) -> Tensor:
        said = _numbers(shape) or []
        return x.reshape(said if zero_is_zero else [x.shape[i] if n == 0 else n for i, n in enumerate(said)])

    return run


def _shape(attributes: Attributes) -> Run:
    start, end = attributes.integer("start", 0), attributes.integer("end", 2**31)
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    begin, stop = _numbers(starts) or [], _numbers(ends) or []
    named, by = _numbers(axes) or range(len(begin)), _numbers(steps) or [1] * len(begin)
    for axis, b, s, step in zip(named, begin, stop, by, strict=True):
        taken = range(*slice(b, s, step).indices(x.shape[axis]))
        if step > 0:
            window = [slice(None)] * (axis % x.ndim)
            window.append(slice(taken.start, max(taken.stop, taken.start), step))
            x = x[tuple(window)]
        else:
            x = x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64, device=x.device))
    return x


def _split(attributes: Attributes) -> Run:
    axis, said, n = attributes.integer("axis", 0), attributes.integers("split"), len(attributes.node.outputs)
    attributes.only("num_outputs", n)

    def run(x: Tensor, given: Tensor | None = None) -> Sequence[Tensor]:
        sizes = said or _numbers(given)
        return x.split(sizes or math.ceil(x.shape[axis] / n), dim=axis)

    return run


def _squeeze(attributes: Attributes) -> Run:
    said = attributes.integers("axes")

    def run(x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = said if said is not None else _numbers(given)
        return x.squeeze() if axes is None else x.squeeze(tuple(axes))

    return run


def _unsqueeze(attributes: Attributes) -> Run:
    said = attributes.integers("axes")

    def run(x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = said or _numbers(given) or []
        for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
            x = x.unsqueeze(axis)
        return x

    return run


def _transpose(attributes: Attributes) -> Run:
    order = attributes.integers("perm")
    return lambda x: x.permute(order or list(range(x.ndim))[::-1])


# Other sizes

COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _resize(attributes: Attributes) -> Run:
    mode = attributes.text("mode", "nearest", ("nearest", "linear"))
    coordinates = attributes.text("coordinate_transformation_mode", "half_pixel", COORDINATES)
    nearest = attributes.text("nearest_mode", "round_prefer_floor", NEAREST)
    attributes.ignore("cubic_coeff_a", "exclude_outside", "extrapolation_value")  # of other modes
    attributes.only("antialias", 0)
    attributes.only("keep_aspect_ratio_policy", "stretch")

    def run(x: Tensor, _: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        wanted = _numbers(sizes)
        factors = [] if scales is None else [float(f) for f in scales.tolist()]
        for axis, side in enumerate(x.shape):
            size = wanted[axis] if wanted else math.floor(np.float32(side) * np.float32(factors[axis]))
            factor = size / side if wanted else factors[axis]
            if factor != 1:
                x = _resized(x, axis, size, factor, mode, coordinates, nearest)
        return x

    return run


def _resized(x: Tensor, axis: int, size: int, factor: float, mode: str, coordinates: str, nearest: str) -> Tensor:
    """One axis brought to another size."""
    low, high, part = (t.to(x.device) for t in _positions(x.shape[axis], size, factor, mode, coordinates, nearest))
    if mode == "nearest":
        return x.index_select(axis, low)
    weight = part.to(x.dtype).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return x.index_select(axis, low) * (1 - weight) + x.index_select(axis, high) * weight


@lru_cache(maxsize=256)
def _positions(side: int, size: int, factor: float, mode: str, coordinates: str, nearest: str) -> tuple[Tensor, ...]:
    """For each new cell the two old ones that it lies between and its part of the second; of nearest, one twice."""
    new, scale = np.arange(size, dtype=np.float32), np.float32(factor)
    if coordinates == "asymmetric":
        old = new / scale
    elif coordinates == "align_corners":
        old = new * np.float32((side - 1) / max(size - 1, 1))
    elif coordinates == "pytorch_half_pixel" and size == 1:
        old = new * 0
    else:
        old = (new + np.float32(0.5)) / scale - np.float32(0.5)
    if mode == "nearest":
        rounded = {
            "floor": np.floor(old),
            "ceil": np.ceil(old),
            "round_prefer_floor": np.ceil(old - np.float32(0.5)),
            "round_prefer_ceil": np.floor(old + np.float32(0.5)),
        }[nearest]
        low = high = np.clip(rounded, 0, side - 1)
    else:
        old = np.clip(old, 0, side - 1)
        low = np.floor(old)
        high = np.minimum(low + 1, side - 1)
    return torch.from_numpy(low.astype(np.int64)), torch.from_numpy(high.astype(np.int64)), torch.from_numpy(old - low)


# Integers


def _quantisation(attributes: Attributes) -> tuple[int, torch.dtype]:
    """Axis, and what fp32 is computed in."""
    axis = attributes.integer("axis", 1)
    attributes.only("block_size", 0)
    attributes.only("saturate", 0, 1)  # of 8-bit floats
    attributes.only("precision", 0)
    return axis, attributes.dtype


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """One number, or one per channel, so that it lies along the axis."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def _bounds(zero: Tensor | None, attributes: Attributes) -> tuple[torch.dtype, int, int]:
    dtype = torch.uint8 if zero is None else zero.dtype
    if dtype not in INTEGERS:
        raise attributes.unsupported(f"{str(dtype).removeprefix('torch.')} as the type of the integers")
    return dtype, *INTEGERS[dtype]


def _quantise(attributes: Attributes) -> Run:
    axis, _ = _quantisation(attributes)
    attributes.only("output_dtype", 0)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        dtype, low, high = _bounds(zero, attributes)
        whole = torch.round(x.float() / _along(scale, x, axis))  # half to even
        whole = whole if zero is None else whole + _along(zero, x, axis)
        return whole.clamp_(low, high).to(dtype)

    return run


def _dequantise(attributes: Attributes) -> Run:
    axis, dtype = _quantisation(attributes)
    attributes.only("output_dtype", 0, 1)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        values = x.float() if zero is None else x.float() - _along(zero, x, axis).float()
        return (values * _along(scale, x, axis)).to(dtype)

    return run


def _fake_quantise(attributes: Attributes) -> Run:
    """The same numbers as both operators give, without leaving floats: these integers are exact in fp32."""
    axis, dtype = _quantisation(attributes)
    attributes.only("output_dtype", 0)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        _, low, high = _bounds(zero, attributes)
        step = _along(scale, x, axis)
        whole = (x.float() / step).round_()
        if zero is None or zero.numel() == 1:
            shift = 0 if zero is None else int(zero.item())
            whole.clamp_(low - shift, high - shift)
        else:
            offset = _along(zero, x, axis).to(x.device, torch.float32)
            whole.add_(offset).clamp_(low, high).sub_(offset)
        return whole.mul_(step).to(dtype)

    return run


BUILDERS: dict[str, Callable[[Attributes], Run]] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "ArgMax": _argument(torch.argmax),
    "ArgMin": _argument(torch.argmin),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Ceil": _plain(torch.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Cos": _plain(torch.cos),
    "DepthToSpace": _depth_to_space,
    "DequantizeLinear": _dequantise,
    "Div": _plain(_divide),
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": _plain(_expand),
    "Flatten": _flatten,
    "Floor": _plain(torch.floor),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _plain(_over_picture(torch.mean)),
    "GlobalMaxPool": _plain(_over_picture(torch.amax)),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(F.hardswish),
    "Identity": _plain(lambda x: x),
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": _plain(torch.matmul),
    "Max": _plain(lambda *tensors: reduce(torch.maximum, tensors)),
    "MaxPool": _max_pool,
    "Mean": _plain(_mean),
    "Min": _plain(lambda *tensors: reduce(torch.minimum, tensors)),
    "Mish": _plain(F.mish),
    "Mod": _mod,
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "PRelu": _plain(_prelu),
    "Pad": _pad,
    "Pow": _plain(_power),
    "QuantizeLinear": _quantise,
    FAKE: _fake_quantise,
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceL1": _reduce(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Round": _plain(torch.round),
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Sign": _plain(torch.sign),
    "Sin": _plain(torch.sin),
    "Slice": _plain(_slice),
    "Softmax": _softmax(F.softmax),
    "Softplus": _plain(F.softplus),
    "Softsign": _plain(F.softsign),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Sum": _plain(lambda *tensors: reduce(torch.add, tensors)),
    "Tanh": _plain(torch.tanh),
    "Tile": _plain(lambda x, repeats: x.repeat(_numbers(repeats) or [])),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(torch.where),
    "Xor": _plain(torch.logical_xor),
}
