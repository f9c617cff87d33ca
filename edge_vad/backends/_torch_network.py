"""An ONNX graph as a function of torch tensors. Imported by the torch backend only, when torch is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_vad.backends._torch_operators import ARGUMENTS, EXACT, FAKE, Run, build
from edge_vad.backends.base import first_line
from edge_vad.errors import BackendError
from edge_vad.onnx_graph import Graph, Node

OPSETS = range(11, 24)


@dataclass(frozen=True, slots=True)
class Step:
    """One node. given: of each input its name where it is computed, or a constant, or nothing; dropped: no longer needed
    afterwards."""

    node: Node
    run: Run
    given: tuple[str | Tensor | None, ...]
    dropped: tuple[str, ...]


class Network:
    """Computes the outputs of a graph on one device. What depends on constants only is computed once, on the CPU."""

    def __init__(self, graph: Graph, device: torch.device, dtype: torch.dtype) -> None:
        """dtype: what fp32 is computed in. Raises BackendError for what is not supported."""
        if graph.opset not in OPSETS:
            raise BackendError(
                f"opset {graph.opset} is not supported by the backend torch ({OPSETS[0]} to {OPSETS[-1]} are)"
            )
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._device, self._dtype = device, dtype
        nodes = needed(fused(graph.nodes), graph.outputs)
        constants = {name: torch.from_numpy(value) for name, value in graph.constants.items()}
        runs = [(node, build(node, graph.opset, dtype)) for node in nodes]
        left = [(node, run) for node, run in runs if not _fold(node, run, constants)]
        last = {name: i for i, (node, _) in enumerate(left) for name in node.inputs}
        self._constants = {name: constants[name].to(device) for name in graph.outputs if name in constants}
        moved: dict[tuple[str, bool], Tensor] = {}
        self._steps = [self._step(i, node, run, constants, last, moved) for i, (node, run) in enumerate(left)]

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of inputs that lie on the device, as they are made: no copy, no round trip over the host."""
        if set(inputs) != set(self.inputs):
            raise BackendError(f"the model takes {', '.join(self.inputs)}, not {', '.join(map(str, inputs))}")
        with torch.inference_mode():
            return self._run(inputs)

    def _run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {name: self._taken(value) for name, value in inputs.items()} | self._constants
        for step in self._steps:
            given = [values[v] if isinstance(v, str) else v for v in step.given]
            try:
                made = step.run(*self._together(step.node.kind, given))
            except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
                raise BackendError(f"{step.node.kind} that makes {step.node.outputs[0]!r}: {first_line(error)}") from error
            values.update(zip(step.node.outputs, made if isinstance(made, (tuple, list)) else [made], strict=False))
            for name in step.dropped:
                del values[name]
        return {name: values[name] for name in self.outputs}

    def _taken(self, value: Tensor) -> Tensor:
        value = value.to(self._device, self._dtype if value.is_floating_point() else value.dtype)
        return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value

    def _together(self, kind: str, given: list[Tensor | None]) -> list[Tensor | None]:
        """All that is computed with on one device: shapes are computed on the host, and may meet a picture."""
        if self._device.type == "cpu":
            return given
        data = [i for i, value in enumerate(given) if value is not None and i not in ARGUMENTS.get(kind, ())]
        if any(given[i].device.type != "cpu" for i in data):  # type: ignore[union-attr]
            for i in data:
                given[i] = given[i].to(self._device)  # type: ignore[union-attr]
        return given

    def _step(
        self,
        number: int,
        node: Node,
        run: Run,
        constants: Mapping[str, Tensor],
        last: Mapping[str, int],
        moved: dict[tuple[str, bool], Tensor],
    ) -> Step:
        given: list[str | Tensor | None] = []
        for position, name in enumerate(node.inputs):
            if name not in constants:
                given.append(name or None)
                continue
            kept = position in ARGUMENTS.get(node.kind, ())
            exact = kept or node.kind in EXACT
            if kept or not constants[name].is_floating_point():
                given.append(constants[name])  # shapes and indices; `_together` moves what meets a picture
            else:
                if (name, exact) not in moved:
                    moved[name, exact] = self._constant(constants[name], exact)
                given.append(moved[name, exact])
        computed = {name for name in node.inputs if name and name not in constants}
        dropped = tuple(name for name in sorted(computed) if last[name] == number and name not in self.outputs)
        return Step(node, run, tuple(given), dropped)

    def _constant(self, value: Tensor, exact: bool) -> Tensor:
        value = value.to(self._device, value.dtype if exact or value.dtype is not torch.float32 else self._dtype)
        return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def fused(nodes: Iterable[Node]) -> list[Node]:
    """A QuantizeLinear that a DequantizeLinear of the same numbers follows becomes one step of floats."""
    makers: dict[str, Node] = {}
    rounded: dict[str, str] = {}  # integers to the floats that stand for them
    found = []
    for node in nodes:
        if node.kind == "QuantizeLinear":
            makers[node.outputs[0]] = node
        maker = makers.get(node.inputs[0]) if node.kind == "DequantizeLinear" else None
        if maker is None or (maker.inputs[1:], maker.attributes) != (node.inputs[1:], node.attributes):
            found.append(node)
        elif node.inputs[0] in rounded:
            found.append(Node("Identity", (rounded[node.inputs[0]],), node.outputs, {}))
        else:
            rounded[node.inputs[0]] = node.outputs[0]
            found.append(Node(FAKE, maker.inputs, node.outputs, node.attributes))
    return found


def needed(nodes: Sequence[Node], outputs: Iterable[str]) -> list[Node]:
    """The nodes that the outputs depend on, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _fold(node: Node, run: Run, constants: dict[str, Tensor]) -> bool:
    """Compute what depends on constants only; whether it did."""
    if any(name and name not in constants for name in node.inputs):
        return False
    with torch.inference_mode():
        made = run(*(constants[name] if name else None for name in node.inputs))
    constants.update(zip(node.outputs, made if isinstance(made, (tuple, list)) else [made], strict=False))
    return True
