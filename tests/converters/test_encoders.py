"""torch -> ONNX, checked against torch; files that describe themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from edge_vad.converters.encoders import METADATA, EncoderSpec, OnnxEncoder, cosine, features, load_encoder

from edge_vad.errors import EncoderError

NETWORK = """
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU6())
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean(dim=(2, 3)))
"""
SPEC = EncoderSpec(("stem", "body"), mean=(127.0,) * 3, std=(128.0,) * 3, multiple=4, licence="free")
PICTURES = np.random.default_rng(2).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
FILE_SPEC = EncoderSpec(("fine", "coarse"), multiple=8)


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "tiny_network.py").write_text(NETWORK)
    sys.path.insert(0, str(folder))
    yield "tiny_network:Network"
    sys.path.remove(str(folder))
    sys.modules.pop("tiny_network", None)


@pytest.fixture(scope="module")
def exported(factory: str) -> OnnxEncoder:
    return load_encoder(factory, SPEC)


def test_the_exported_graph_agrees_with_torch(exported: OnnxEncoder) -> None:
    import torch
    from tiny_network import Network

    network = Network().eval()
    planes = torch.from_numpy(((PICTURES.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        stem = network.stem(planes)
        expected = [stem.numpy(), network.body(stem).numpy()]
    found = features(exported.model, exported.preprocessing, PICTURES)
    assert [values.shape for values in found] == [(3, 8, 16, 24), (3, 16, 8, 12)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_graph_ends_at_its_taps(exported: OnnxEncoder) -> None:
    model = onnx.load_model_from_string(exported.model)
    assert [output.name for output in model.graph.output] == ["tap0", "tap1"]
    assert "Gemm" not in {node.op_type for node in model.graph.node}


def test_an_exported_file_describes_itself(exported: OnnxEncoder, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(exported.model)
    read = load_encoder(str(tmp_path / "tiny.onnx"))
    assert read.preprocessing == exported.preprocessing and read.licence == "free"
    for one, other in zip(*(features(e.model, e.preprocessing, PICTURES) for e in (read, exported)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_same_module_gives_the_same_bytes(factory: str, exported: OnnxEncoder) -> None:
    assert load_encoder(factory, SPEC).model == exported.model


def test_a_tap_that_the_module_does_not_have(factory: str) -> None:
    with pytest.raises(EncoderError, match=r"no part named 'bdy' .did you mean 'body'"):
        load_encoder(factory, EncoderSpec(("stem", "bdy")))


def test_a_module_without_taps_or_that_is_not_there(factory: str) -> None:
    with pytest.raises(EncoderError, match="name its taps"):
        load_encoder(factory)
    with pytest.raises(EncoderError, match="no_such_module:Network: cannot be imported"):
        load_encoder("no_such_module:Network", SPEC)
    with pytest.raises(EncoderError, match="cannot be imported"):
        load_encoder("tiny_network:Netwrk", SPEC)


def test_a_foreign_file_is_described_by_a_spec(tiny_encoder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder), FILE_SPEC)
    found = features(encoder.model, encoder.preprocessing, PICTURES)
    assert [values.shape for values in found] == [(3, 8, 8, 12), (3, 8, 4, 6)]
    stored = {p.key: p.value for p in onnx.load_model_from_string(encoder.model).metadata_props}
    assert json.loads(stored[METADATA])["taps"] == ["fine", "coarse"]


def test_an_inner_value_can_be_a_tap_and_what_is_behind_the_last_is_cut_off(tiny_encoder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder), EncoderSpec(("stem",), multiple=4))
    model = onnx.load_model_from_string(encoder.model)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert len(encoder.model) < len(tiny.encoder_model())


def test_a_foreign_file_without_the_taps_names_the_nearest(tiny_encoder: Path) -> None:
    with pytest.raises(EncoderError, match=r"no output or inner value named 'corse' .did you mean 'coarse'"):
        load_encoder(str(tiny_encoder), EncoderSpec(("fine", "corse")))


def test_a_foreign_file_that_says_nothing_of_itself_says_what_to_do(tiny_encoder: Path) -> None:
    with pytest.raises(EncoderError, match=r"name them with --taps .*outputs: fine, coarse"):
        load_encoder(str(tiny_encoder))


def test_metadata_of_another_tool_is_refused_by_key(tiny_encoder: Path, tmp_path: Path) -> None:
    model = onnx.load_model_from_string(tiny_encoder.read_bytes())
    onnx.helper.set_model_props(model, {METADATA: '{"taps": ["fine"], "meen": [1, 2, 3]}'})
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EncoderError, match=r"unknown key 'meen' .did you mean 'mean'"):
        load_encoder(str(tmp_path / "x.onnx"))
    onnx.helper.set_model_props(model, {METADATA: "{"})
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EncoderError, match="metadata"):
        load_encoder(str(tmp_path / "x.onnx"))


def test_cosine_by_hand() -> None:
    assert cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(0.96)
    assert cosine(np.array([1.0, 0.0]), np.array([-2.0, 0.0])) == -1
    assert cosine(np.zeros(2), np.ones(2)) == 0
