"""INT8 and fp16 encoders: close to fp32, accepted by the gate, alike on every backend, the same bytes each time."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from edge_vad.converters import quantisation
from edge_vad.converters.encoders import EncoderSpec, OnnxEncoder, cosine, features, load_encoder
from edge_vad.converters.half_precision import half_precision
from edge_vad.converters.quantisation import fp16_weights, quantize
from edge_vad.converters.settings import BuildSettings

from edge_vad.backends import Backend
from edge_vad.bundle import read_bundle
from edge_vad.detector import Detector
from edge_vad.errors import EncoderError, MissingPackageError
from edge_vad.features import Encoder
from edge_vad.onnx_gate import check_model
from edge_vad.plugins import load
from edge_vad.types import Float32, UInt8

Cli = Callable[..., tiny.Outcome]
LEAST = 0.97  # cosine to fp32, worst picture, of pictures that calibrated nothing
METHODS = [
    ("onnxruntime", "minmax"),
    ("onnxruntime", "percentile"),
    ("onnxruntime", "entropy"),
    ("nncf", "minmax"),
    ("nncf", "percentile"),
]
without_nncf = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason="needs the package nncf: pip install 'edge-vad[nncf]'"
)
every_method = pytest.mark.parametrize(
    ("quantizer", "calibration"), [pytest.param(q, c, marks=without_nncf if q == "nncf" else ()) for q, c in METHODS]
)


def pictures(seed: int, side: int = 48) -> UInt8:
    """Crops (n, side, side, 3) of a generated street."""
    images = [frame.image for frame in tiny.clip_frames(12, seed=seed)]
    places = np.random.default_rng(seed).integers(0, np.array(tiny.SIZE)[::-1] - side, (12, 2))
    return np.stack([image[y : y + side, x : x + side] for image, (y, x) in zip(images, places, strict=True)])


@pytest.fixture(scope="module")
def small(tiny_encoder: Path) -> OnnxEncoder:
    return load_encoder(str(tiny_encoder), EncoderSpec(("fine", "coarse"), multiple=8))


def run_by(backend: str, encoder: OnnxEncoder, images: UInt8) -> list[Float32]:
    return Encoder(load("backends", backend, Backend)(encoder.model), encoder.preprocessing)(images)


def worst(encoder: OnnxEncoder, fp32: OnnxEncoder, images: UInt8, backend: str = "onnxruntime") -> float:
    """The smallest cosine over taps and pictures."""
    expected = features(fp32.model, fp32.preprocessing, images)
    found = run_by(backend, encoder, images)
    return min(cosine(a, b) for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=True))


@every_method
def test_int8_keeps_the_features_and_gives_the_same_bytes(small: OnnxEncoder, quantizer: str, calibration: str) -> None:
    batches = [pictures(1), pictures(2), pictures(3, side=96)]  # crops, and whole frames of another size
    quantised, similarity = quantize(small, iter(batches), calibration, quantizer)
    assert quantize(small, batches, calibration, quantizer)[0].model == quantised.model
    assert LEAST < similarity < 1
    for backend in ("onnxruntime", "openvino"):
        assert worst(quantised, small, pictures(9), backend) > LEAST
    before, after = (check_model(encoder.model, "it") for encoder in (small, quantised))
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(after.operators)
    assert (after.inputs, list(after.outputs)) == (before.inputs, list(before.outputs))
    assert quantised.preprocessing == small.preprocessing and len(quantised.model) > 0


@every_method
def test_the_default_encoder_becomes_integers_throughout(
    lite0: Path, tmp_path: Path, quantizer: str, calibration: str
) -> None:
    """What decides its speed: ONNX Runtime finds no operator that it must compute in float."""
    import onnxruntime

    fp32 = load_encoder(str(lite0))
    quantised, _ = quantize(fp32, [pictures(1, side=64), pictures(2, side=64)], calibration, quantizer)
    assert worst(quantised, fp32, pictures(9, side=64)) > LEAST
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(quantised.model, options, providers=["CPUExecutionProvider"])
    found = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "QLinearConv" in found
    assert found <= {"QLinearConv", "QLinearAdd", "QuantizeLinear", "DequantizeLinear", "Transpose"}
    weights = {t.name: t for t in onnx.load_model_from_string(quantised.model).graph.initializer}
    assert all(t.data_type != onnx.TensorProto.FLOAT for t in weights.values() if len(t.dims) == 4)
    assert len(quantised.model) < 0.4 * len(fp32.model)


def test_a_percentile_cuts_outliers_off_and_no_method_is_another(small: OnnxEncoder) -> None:
    """One glaring picture among many: the range of the input is read off all values, not off the largest."""
    dull = (pictures(1) // 8 + 100).astype(np.uint8)
    glaring = dull.copy()
    glaring[0, :2, :2] = 255  # 0.002 % of all values
    batches = [glaring, *[dull] * 6]
    scales = {}
    for calibration in ("minmax", "percentile", "entropy"):
        model = onnx.load_model_from_string(quantize(small, batches, calibration)[0].model)  # type: ignore[arg-type]
        [scale] = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "image_scale"]
        scales[calibration] = float(scale)
    assert scales["percentile"] < 0.8 * scales["minmax"]
    assert len(set(scales.values())) == 3, scales


def test_histograms_see_a_bounded_number_of_pixels(small: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [pictures(seed) for seed in range(1, 6)]
    monkeypatch.setattr(quantisation, "MAX_HISTOGRAM_PIXELS", 2 * batches[0][..., 0].size)
    few, _ = quantize(small, batches, "percentile")
    assert few.model == quantize(small, batches[::3], "percentile")[0].model
    monkeypatch.undo()
    assert few.model != quantize(small, batches, "percentile")[0].model


def test_no_pictures_no_calibration(small: OnnxEncoder) -> None:
    for made in (quantize, fp16_weights):
        with pytest.raises(EncoderError, match="film while it is in use"):
            made(small, [])


def test_an_encoder_that_is_int8_already_is_left_alone(small: OnnxEncoder) -> None:
    quantised, _ = quantize(small, [pictures(1)])
    for made in (quantize, fp16_weights):
        with pytest.raises(EncoderError, match="INT8 already; use it with --precision fp32"):
            made(quantised, [pictures(1)])


def test_features_that_are_lost_are_an_error(small: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quantisation.MIN_COSINE, "int8", 1.01)
    with pytest.raises(
        EncoderError, match=r"^INT8 changes the features too much \(cosine [01]\.\d+\); use --precision fp32$"
    ):
        quantize(small, [pictures(1)])


def test_nncf_has_no_entropy(small: OnnxEncoder, cli: Cli, footage: Path, tmp_path: Path) -> None:
    why = "quantizer nncf has no entropy calibration; use minmax or percentile"
    with pytest.raises(ValueError, match=why):
        quantize(small, [pictures(1)], "entropy", "nncf")
    with pytest.raises(ValueError, match=why):
        BuildSettings(calibration="entropy", quantizer="nncf")
    flags = ("--quantizer", "nncf")
    said = cli("build", "--normal", footage, "--out", tmp_path / "x.evb", "--calibration", "entropy", *flags)
    assert (said.code, said.err.count("\n")) == (1, 1) and why in said.err
    out = ("--encoder", "x.onnx", "--calibration", footage, "--out", tmp_path / "x.onnx")
    said = cli("encoder", "quantize", *out, "--method", "entropy", *flags)
    assert (said.code, said.err.count("\n")) == (2, 1) and why in said.err


def test_nncf_that_is_not_installed_says_what_to_install(small: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingPackageError, match=r"quantizer nncf needs .*pip install 'edge-vad\[nncf\]'"):
        quantize(small, [pictures(1)], "minmax", "nncf")


@pytest.mark.parametrize(
    "flags", [("--precision", "int4"), ("--calibration", "median"), ("--quantizer", "tensorrt")], ids=lambda flags: flags[0]
)
def test_names_that_are_not_known_are_refused_in_one_line(cli: Cli, footage: Path, tmp_path: Path, flags: tuple) -> None:
    said = cli("build", "--normal", footage, "--out", tmp_path / "x.evb", *flags)
    assert said.code == 2 and said.err.count("\n") == 1 and flags[1] in said.err
    key = flags[0].removeprefix("--")
    (tmp_path / "build.yaml").write_text(f"{key}: {flags[1]}\n")
    said = cli("build", "--normal", footage, "--out", tmp_path / "x.evb", "--config", tmp_path / "build.yaml")
    assert said.code == 1 and said.err.count("\n") == 1 and key in said.err and flags[1] in said.err


def test_the_command_quantises_by_a_method(cli: Cli, footage: Path, small: OnnxEncoder, tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(small.model)
    made = []
    for method in ("minmax", "percentile"):
        out = tmp_path / f"{method}.onnx"
        told = ("--calibration", footage, "--method", method, "--out", out)
        said = cli("encoder", "quantize", "--encoder", tmp_path / "small.onnx", *told)
        assert said.code == 0 and "INT8, cosine" in said.out
        made.append(load_encoder(str(out)).model)
    assert made[0] != made[1]


def test_fp16_halves_the_weights_and_hardly_changes_the_features(lite0: Path) -> None:
    fp32 = load_encoder(str(lite0))
    half, similarity = fp16_weights(fp32, [pictures(1, side=64)])
    assert similarity > 0.9999 and len(half.model) < 0.55 * len(fp32.model)
    for backend in ("onnxruntime", "openvino"):
        assert worst(half, fp32, pictures(9, side=64), backend) > 0.9999
    assert fp16_weights(fp32, [pictures(2, side=64)])[0].model == half.model
    before, after = (check_model(encoder.model, "it") for encoder in (fp32, half))
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)


def test_onnx_runtime_folds_the_casts_when_it_loads(lite0: Path, tmp_path: Path) -> None:
    """So that fp16 weights cost no time: what runs is the fp32 graph."""
    import onnxruntime

    fp32 = load_encoder(str(lite0))
    half, _ = fp16_weights(fp32, [pictures(1, side=64)])
    operators = []
    for encoder in (fp32, half):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(encoder.model, options, providers=["CPUExecutionProvider"])
        operators.append(sorted(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node))
    assert operators[0] == operators[1]


def test_weights_beyond_fp16_are_refused_by_name() -> None:
    nodes = [onnx.helper.make_node("Conv", ["image", "huge"], ["tap"])]
    weights = {"huge": np.full((16, 3, 3, 3), 1e5, np.float32)}
    model = tiny.model(nodes, weights, {"image": ["n", 3, "h", "w"]}, {"tap": ["n", 16, "h", "w"]})
    with pytest.raises(EncoderError, match=r"^site\.onnx: the weights 'huge' are beyond what fp16 holds"):
        half_precision(onnx.load_model_from_string(model), "site.onnx")


def test_an_fp16_bundle_is_built_and_passes_its_self_test(
    cli: Cli, footage: Path, tiny_encoder: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    arguments = tiny.build_arguments(footage, tmp_path / "half.evb", tiny_encoder)
    said = cli(*["fp16" if word == "fp32" else word for word in arguments])
    assert said.code == 0, said.err
    bundle = read_bundle(tmp_path / "half.evb")
    encoder = bundle.manifest.models["encoder"]
    assert encoder.precision == "fp16" and encoder.cosine_to_fp32 is not None and 0.9999 < encoder.cosine_to_fp32 <= 1
    fp32 = Detector.open(tiny_bundle)
    half = Detector.open(bundle)
    scores = [[detector.process(frame).score for frame in tiny.clip_frames(24, seed=5)] for detector in (fp32, half)]
    np.testing.assert_allclose(scores[1], scores[0], atol=0.05)


def test_a_percentile_bundle_is_built(cli: Cli, footage: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    arguments = tiny.build_arguments(footage, tmp_path / "int8.evb", tiny_encoder, "--calibration", "percentile")
    said = cli(*["int8" if word == "fp32" else word for word in arguments])
    assert said.code == 0, said.err
    assert read_bundle(tmp_path / "int8.evb").manifest.models["encoder"].precision == "int8"
    Detector.open(tmp_path / "int8.evb")


def test_weights_get_seven_bits_where_sums_of_eight_are_lost(
    small: OnnxEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    largest = {}
    for lost in (False, True):
        monkeypatch.setattr(quantisation, "saturates", lambda lost=lost: lost)
        made, _ = quantize(small, [pictures(1)], "minmax")
        weights = [onnx.numpy_helper.to_array(w) for w in onnx.load_from_string(made.model).graph.initializer]
        largest[lost] = max(int(np.abs(w.astype(int)).max()) for w in weights if w.dtype == np.int8)
    assert largest[False] > 120 and largest[True] <= 64
    assert "no VNNI" in caplog.text


@pytest.mark.skipif(not shutil.which("qemu-x86_64-static"), reason="needs the program qemu-x86_64-static (qemu-user-static)")
def test_a_processor_without_vnni_is_known(tmp_path: Path) -> None:
    asks = "from edge_vad.converters.saturation import saturates; print(saturates())"
    command = ["qemu-x86_64-static", "-cpu", "Haswell", sys.executable, "-c", asks]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert said.stdout.strip() == "True"
