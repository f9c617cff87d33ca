"""A generated street and one bundle of it, shared by every test that needs them; and a guard against the wrong install."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before any test imports it
ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """With a non-editable install, half of what is imported here would not be this working tree."""
    for name, folder in (("edge_vad", ROOT / "edge_vad"), ("edge_vad.converters", ROOT / "converters")):
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            spec = None
        if spec is None or folder not in map(Path, spec.submodule_search_locations or ()):
            found = "is not installed" if spec is None else f"comes from {spec.origin}"
            pytest.exit(f"{name} {found}, not from {folder}; run: make install (pip install --editable '.[dev]')", 4)


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small benchmark of the generated street: 4 normal clips and 3 test clips (cyclist, runner, cart) of 12 s."""
    from edge_vad.cameras.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("generated") / "street"
    write_dataset(folder, seed=7, n_training=4, n_testing=3, seconds=12.0)
    return folder


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default encoder, exported once: the slow part of a build."""
    from edge_vad.cli import main

    out = tmp_path_factory.mktemp("exported") / "lite0.onnx"
    assert main(["encoder", "export", "--encoder", "efficientnet_lite0", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def street_bundle(street: Path, lite0: Path) -> Path:
    """A bundle of the street's normal clips with the defaults: the INT8 encoder, ratio 0.01."""
    from edge_vad.cli import main

    out = street.parent / "street.evb"
    assert main(["build", "--normal", str(street), "--out", str(out), "--encoder", str(lite0)]) == 0
    return out


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of two small convolutions with the outputs fine and coarse; it says nothing of itself."""
    path = tmp_path_factory.mktemp("encoder") / "tiny.onnx"
    path.write_bytes(tiny.encoder_model())
    return path


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two normal clips of 40 small pictures each."""
    folder = tmp_path_factory.mktemp("footage")
    for number in (1, 2):
        tiny.write_clip(folder / f"{number:02d}", 40, seed=number)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(footage: Path, tiny_encoder: Path) -> Path:
    """A bundle of `footage` with the tiny encoder in fp32: built in a second, for tests that need any bundle."""
    from edge_vad.cli import main

    out = tiny_encoder.with_name("tiny.evb")
    assert main(tiny.build_arguments(footage, out, tiny_encoder)) == 0
    return out


@pytest.fixture(scope="session")
def network_footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that the frozen networks were trained on, and the one that was held out."""
    folder = tmp_path_factory.mktemp("network_footage")
    for seed in (tiny.TRAINED[0], tiny.HELD_OUT):
        tiny.write_clip(folder / f"{seed}", tiny.N_TRAINED, seed=seed)
    return folder


@pytest.fixture(scope="session")
def network_bundle(network_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By method: the fp32 bundle of its frozen network, built once."""
    from edge_vad.cli import main

    folder = tmp_path_factory.mktemp("networks")

    def built(method: str) -> Path:
        out = folder / f"{method}.evb"
        if not out.exists():
            assert main(tiny.network_arguments(method, network_footage, out)) == 0
        return out

    return built


@pytest.fixture(scope="session")
def ensemble_bundle(network_footage: Path, tiny_encoder: Path) -> Path:
    """VideoPatchCore with the tiny encoder, and the frozen MAAM-Net."""
    from edge_vad.cli import main

    out = tiny_encoder.with_name("ensemble.evb")
    more = ["--method", "ensemble", "--weights", str(tiny.NETWORKS / "maam.safetensors")]
    assert main(tiny.build_arguments(network_footage, out, tiny_encoder, *more)) == 0
    return out


@pytest.fixture(params=["compiled", "numpy"])
def inner_loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which `edge_vad.kernels` may be there, one after the other."""
    from edge_vad import kernels

    if request.param == "numpy":
        monkeypatch.setattr(kernels, "LIBRARY", None)
    elif kernels.LIBRARY is None:
        pytest.skip("the kernels are not compiled here: no C compiler")


@pytest.fixture
def pins() -> Iterator[Any]:
    """gpiozero's pins that are none."""
    gpiozero = pytest.importorskip("gpiozero", reason="pip install gpiozero")
    from gpiozero.pins.mock import MockFactory

    gpiozero.Device.pin_factory = MockFactory()
    yield gpiozero.Device.pin_factory
    gpiozero.Device.pin_factory.reset()
    gpiozero.Device.pin_factory = None


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., tiny.Outcome]:
    """Runs one command line in this process; native libraries' own chatter on standard error is caught too."""

    def run(*arguments: object) -> tiny.Outcome:
        from edge_vad.cli import main

        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capfd.readouterr()
        return tiny.Outcome(code, said.out, said.err)

    return run
