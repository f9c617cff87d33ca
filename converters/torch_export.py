"""A torch module as an ONNX graph that ends at its taps. Imported only where torch is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_vad.errors import EncoderError, did_you_mean
from edge_vad.plugins import require
from edge_vad.types import Float32, UInt8

if TYPE_CHECKING:
    from edge_vad.converters.encoders import EncoderSpec


class Tapped(nn.Module):
    """A module whose outputs are those of its named parts."""

    def __init__(self, module: nn.Module, taps: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self._taps = tuple(taps)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        caught: dict[str, Tensor] = {}
        parts = dict(self.module.named_modules())
        hooks = [
            parts[tap].register_forward_hook(lambda _module, _inputs, output, tap=tap: caught.__setitem__(tap, output))
            for tap in self._taps
        ]
        try:
            self.module(x)
        finally:
            for hook in hooks:
                hook.remove()
        return tuple(caught[tap] for tap in self._taps)


def export_taps(factory: Callable[[], nn.Module], spec: EncoderSpec, opset: int) -> tuple[Any, UInt8, list[Float32]]:
    """Export; returns the ONNX model with outputs tap0, tap1, ..., pictures to check it on, and torch's features of them."""
    from edge_vad.converters.encoders import quiet

    require("onnxscript", "onnxscript", "exporting an encoder")
    module = factory().eval()
    known = [name for name, _ in module.named_modules() if name]
    for tap in spec.taps:
        if tap not in known:
            raise EncoderError(f"the encoder has no part named {tap!r}{did_you_mean(tap, known)}")
    tapped = Tapped(module, spec.taps).eval()
    side = spec.fixed_size or 4 * spec.multiple
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    with quiet(), torch.inference_mode():
        model = _export(tapped, spec, side, opset)
    ordered = pictures if spec.colour_order == "RGB" else pictures[..., ::-1]
    planes = (ordered.astype(np.float32) - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    with torch.inference_mode():
        outputs = tapped(torch.from_numpy(np.ascontiguousarray(planes.transpose(0, 3, 1, 2))))
    return model, pictures, [output.numpy() for output in outputs]


def _export(tapped: nn.Module, spec: EncoderSpec, side: int, opset: int) -> Any:
    """The dynamo exporter folds batch norms and pads into convolutions: 61 nodes for the default encoder."""
    dimension = torch.export.Dim
    shape: dict[int, Any] = {0: dimension("n", min=1, max=1024)}
    if spec.fixed_size is None:
        shape[2] = spec.multiple * dimension("h", min=2, max=256)
        shape[3] = spec.multiple * dimension("w", min=2, max=256)
    try:
        program = torch.onnx.export(
            tapped,
            (torch.zeros(2, 3, side, side),),
            dynamo=True,
            opset_version=opset,
            input_names=["image"],
            output_names=[f"tap{i}" for i in range(len(spec.taps))],
            dynamic_shapes=(shape,),
            verbose=False,
        )
    except Exception as error:
        raise EncoderError(f"torch cannot export the encoder: {str(error).strip().splitlines()[0]}") from error
    return without_traces(program.model_proto)


def without_traces(model: Any) -> Any:
    """An exported model without what the exporter notes in it: source lines, paths of this machine."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.node, *model.graph.initializer, model.graph):
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
        if hasattr(value, "doc_string"):
            value.doc_string = ""
    return model
