"""From a trained network to a bundle: the same numbers, calibrated on footage that it has not seen, one line for errors."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from edge_vad.converters import network_build
from edge_vad.converters.checkpoint import load_network, save_network
from edge_vad.converters.network_build import Part, unseen
from edge_vad.converters.network_export import N_WINDOWS, export_network
from edge_vad.converters.systems import SYSTEMS, open_system
from remade import remade
from tiny import Outcome

from edge_vad import Detector, archive
from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.cameras import open_camera
from edge_vad.cameras.synthetic import write_dataset
from edge_vad.errors import BundleFormatError, NetworkError, SelfTestError
from edge_vad.footage import Clip, find_clips
from edge_vad.manifest import CALIBRATION, PREPROCESSING, canonical_json
from edge_vad.networks import FRAMES, NetworkSettings, Window
from edge_vad.strict import from_plain
from edge_vad.types import Float32

Cli = Callable[..., Outcome]
Built = Callable[[str], Path]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def int8_bundle(network_bundle: Built, network_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """By method: the INT8 bundle of its frozen network. The export is that of the fp32 bundle, which takes longest."""
    from edge_vad.cli import main

    folder = tmp_path_factory.mktemp("int8")

    def built(method: str) -> Path:
        out = folder / f"{method}.evb"
        if not out.exists():
            more = ("--precision", "int8", "--budget-per-hour", "1000")  # the calibration saw 20 s: an hour is far beyond
            with exported_before(network_bundle(method)):
                assert main(tiny.network_arguments(method, network_footage, out, *more)) == 0
        return out

    return built


@contextmanager
def exported_before(bundle: Path) -> Iterator[None]:
    """Takes the network of a bundle in the place of exporting it again."""
    model = read_bundle(bundle).model("network")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(network_build, "export_network", lambda *_: model)
        yield


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cyclist, a runner and a cart on the street that the networks know, 12 s each."""
    folder = tmp_path_factory.mktemp("labelled") / "street"
    write_dataset(folder, seed=3, n_training=0, n_testing=3, seconds=12.0, size=tiny.SIZE)
    return folder


def windows_of(folder: Path, bundle: Bundle, n: int) -> Float32:
    """Windows (n, n_frames, 3, h, w) of a clip, as the runtime makes them."""
    window = Window(settings_of(bundle))
    with open_camera(folder) as camera:
        made = [window.add(frame.image) for frame in list(camera.frames())[:: settings_of(bundle).stride]]
    known = [frames for frames in made if frames is not None]
    return np.concatenate(known[:: max(1, len(known) // n)][:n])


def settings_of(bundle: Bundle) -> NetworkSettings:
    return from_plain(NetworkSettings, bundle.preprocessing, PREPROCESSING, BundleFormatError)


@pytest.mark.parametrize(
    ("off", "refused"),
    [
        ({}, False),
        ({2: 1e-3, 5: 1e-2}, False),  # a weight fell to the other side of the threshold of a memory
        (dict.fromkeys(range(N_WINDOWS), 1e-3), True),
        ({5: 0.1}, True),
        ({5: math.nan}, True),
    ],
)
def test_a_graph_that_computes_something_else_is_refused(
    off: dict[int, float], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, size = open_system("maam", {"width": 0.1}).eval(), (48, 32)
    run = OnnxRuntime.run

    def differs(session: OnnxRuntime, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        found = run(session, inputs)
        for place, error in off.items():
            found["motion"][place, 0, 1, 3, 7] += error
        return found

    monkeypatch.setattr(OnnxRuntime, "run", differs)
    with pytest.raises(NetworkError, match="differs from torch by .* in 'motion'") if refused else nullcontext():
        export_network(system, size)


@pytest.mark.parametrize("method", SYSTEMS)
def test_the_graph_computes_what_torch_computes(method: str, network_bundle: Built, network_footage: Path) -> None:
    bundle = read_bundle(network_bundle(method))
    system, trained = load_network(tiny.NETWORKS / f"{method}.safetensors")
    assert (trained.image_size, trained.size) == (tiny.SIZE, settings_of(bundle).size)
    session = OnnxRuntime(bundle.model("network"))
    real = windows_of(network_footage / f"{tiny.HELD_OUT}", bundle, 3)
    odd = np.random.default_rng(5).uniform(-1, 1, (1, *real.shape[1:])).astype(np.float32)
    for frames in (real, real[:1], odd, np.zeros_like(odd), np.ones_like(odd)):
        found = session.run({FRAMES: frames})
        with torch.inference_mode():
            expected = system(torch.from_numpy(frames))
        assert set(found) == set(expected) - {*system.helpers}
        for name in found:
            value = expected[name]
            assert found[name].shape == value.shape
            error = np.abs(found[name] - value.numpy()).max()
            assert error <= 1e-4 * max(1.0, float(value.abs().max())), f"{name}: {error:.2g}"


@pytest.mark.parametrize("method", SYSTEMS)
def test_the_frozen_networks_have_learned_the_street(method: str, network_bundle: Built, network_footage: Path) -> None:
    """On a clip that they have not seen they draw far better than fresh weights do; those of amco repeat the last frame."""
    bundle = read_bundle(network_bundle(method))
    system, trained = load_network(tiny.NETWORKS / f"{method}.safetensors")
    torch.manual_seed(0)
    fresh = open_system(method, trained.options).eval()
    frames = torch.from_numpy(windows_of(network_footage / f"{tiny.HELD_OUT}", bundle, 8))
    wanted = system.wanted("appearance", frames)
    with torch.inference_mode():
        own, other = ((s(frames)["appearance"] - wanted).square().mean().item() for s in (system, fresh))
    assert own < 0.01 and own < 0.5 * other


@pytest.mark.parametrize("method", SYSTEMS)
def test_int8_is_smaller_and_draws_nearly_the_same(
    method: str, network_bundle: Built, int8_bundle: Built, network_footage: Path
) -> None:
    fp32, int8 = read_bundle(network_bundle(method)), read_bundle(int8_bundle(method))
    assert int8.manifest.models["network"].precision == "int8" and fp32.manifest.models["network"].precision == "fp32"
    smaller = 0.85 if method == "stpag" else 0.7  # its transposed convolutions stay as they are
    assert len(int8.model("network")) < smaller * len(fp32.model("network"))
    assert "QuantizeLinear" in int8.manifest.models["network"].operators
    frames = windows_of(network_footage / f"{tiny.HELD_OUT}", fp32, 3)
    exact, near = (OnnxRuntime(bundle.model("network")).run({FRAMES: frames}) for bundle in (fp32, int8))
    off = {name: float(np.abs(exact[name] - near[name]).mean()) for name in exact}
    assert any(off.values()) and all(off[name] < 0.03 for name in settings_of(fp32).targets), off


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("method", SYSTEMS)
def test_a_built_bundle_passes_its_self_test_and_scores(
    method: str, precision: str, network_bundle: Built, int8_bundle: Built
) -> None:
    path = (network_bundle if precision == "fp32" else int8_bundle)(method)
    bundle = read_bundle(path)
    assert bundle.method == method and not bundle.manifest.banks
    scene = settings_of(bundle)
    assert scene.patches is not None and 4 <= scene.patches.height == round(scene.patches.width * 64 * 180 / 96 / 120) <= 64
    assert set(scene.means) == scene.scored and all(0 < mean < 1 for mean in scene.means.values())
    detector = Detector.open(path)  # with the self-test
    results = [detector.process(frame) for frame in tiny.clip_frames(60, seed=9)]
    scores = np.array([result.score for result in results])
    assert np.isfinite(scores).all() and len(set(scores)) > 5 and -2 < np.median(scores) < 1
    assert results[0].score == 0 and not results[0].anomaly_map.any() and all(np.isnan(v) for v in results[0].raw.values())
    assert all(result.regions and result.anomaly_map.shape[1] > 10 for result in results[-5:])


def test_networks_find_what_is_unusual_and_report_it(
    network_bundle: Built, labelled: Path, tmp_path: Path, cli: Cli
) -> None:
    found = {}
    for method in SYSTEMS:
        said = cli(
            "evaluate", "--bundle", network_bundle(method), "--dataset", "folder", labelled, "--report", tmp_path / method
        )
        assert said.code == 0, said.err
        assert "document (looks ahead)" in said.out and "published numbers only" in said.out
        result = json.loads((tmp_path / method / "result.json").read_text())
        found[method] = result["causal"]["frame_auc"]["micro"]
        assert 0 <= result["document"]["frame_auc"]["macro"] <= 1 and "looks ahead" in result["document"]["note"]
        assert "looks ahead" in (tmp_path / method / "report.html").read_text()
        assert set(result["causal"]["components"]) == set(Detector.open(network_bundle(method), self_test=False).weights)
    assert max(found.values()) > 0.7 and min(found.values()) > 0.55


def test_run_delivers_an_event_for_a_cart(int8_bundle: Built, labelled: Path, cli: Cli) -> None:
    said = cli("run", "--bundle", int8_bundle("stpag"), "--source", labelled / "testing" / "frames" / "03")
    assert said.code == 0, said.err
    events = [json.loads(line) for line in said.out.splitlines()]
    [(first, last)] = json.loads((labelled / "labels.json").read_text())["03"]["anomalous_1based"]
    assert any(first <= event["peak_frame"] <= last for event in events if event["kind"] == "end")
    boxes = [region["box"] for event in events for region in event["regions"]]
    assert boxes and all(0 <= x0 < x1 <= tiny.SIZE[0] and 0 <= y0 < y1 <= tiny.SIZE[1] for x0, y0, x1, y1 in boxes)
    assert {"start"} <= {event["kind"] for event in events} and set(events[0]["components"]) == {
        "appearance",
        "motion",
        "semantic",
    }


def test_two_builds_are_the_same_bytes(network_bundle: Built, network_footage: Path, tmp_path: Path) -> None:
    from edge_vad.cli import main

    run, out = tmp_path / "run", tmp_path / "desd.evb"
    run.mkdir()
    (run / "network.safetensors").write_bytes((tiny.NETWORKS / "desd.safetensors").read_bytes())
    arguments = tiny.network_arguments("desd", network_footage, out, "--weights", str(run))
    assert main(arguments) == 0
    assert out.read_bytes() == network_bundle("desd").read_bytes()


def test_int8_takes_the_ranges_that_stay_nearer_to_fp32(
    network_bundle: Built, network_footage: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from edge_vad.cli import main

    def network(name: str, *more: str) -> bytes:
        out = tmp_path / f"{name}.evb"
        with exported_before(network_bundle("amco")):
            assert main(tiny.network_arguments("amco", network_footage, out, "--precision", "int8", *more)) == 0
        return read_bundle(out).model("network")

    named = {name: network(name, "--calibration", name) for name in network_build.TRIED}
    assert named["minmax"] != named["percentile"] and "is taken" not in caplog.text
    with caplog.at_level(logging.INFO):
        chosen = network("chosen")
    strays = {name: float(stray) for stray, name in re.findall(r"([\d.]+) % with (\w+)", caplog.text)}
    assert set(strays) == set(named) and all(strays.values())
    best = min(named, key=lambda name: strays[name])
    assert chosen == named[best] and f"{best} is taken" in caplog.text


def test_what_was_held_out_calibrates_and_nothing_else(
    network_bundle: Built, network_footage: Path, footage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, trained = load_network(tiny.NETWORKS / "maam.safetensors")
    assert trained.held_out == ((f"{tiny.HELD_OUT}", 0, tiny.N_TRAINED),)
    clips, strange = find_clips([str(network_footage)]), find_clips([str(footage)])
    held_out = next(clip for clip in clips if clip.name == f"{tiny.HELD_OUT}")
    assert len(clips) == 2 and unseen(clips, trained) == [Part(held_out, 0, tiny.N_TRAINED)]
    ends = replace(trained, held_out=(("21", 160, 200), ("23", 100, 200)))
    assert [(part.clip.name, part.start, part.stop) for part in unseen(clips, ends)] == [("21", 160, 200), ("23", 100, 200)]
    with caplog.at_level(logging.INFO):
        assert unseen(strange, trained) == [Part(clip, 0, None) for clip in strange]
    assert "none of these clips was held out" in caplog.text
    hours = json.loads(read_bundle(network_bundle("maam")).members[CALIBRATION])["calibration"]["tail"]["hours"]
    assert 0.8 * tiny.N_TRAINED / 10 < 3600 * hours < tiny.N_TRAINED / 10  # of the one clip, not of both


def test_a_part_of_a_clip_is_what_the_runtime_would_process(network_footage: Path) -> None:
    part = Part(Clip("23", network_footage / "23"), 100, 112)
    assert [frame.index for frame in part.frames(3, None)] == [100, 103, 106, 109]


def tampered(bundle: Bundle, out: Path, **changes: bytes) -> Path:
    """The bundle with members exchanged and all hashes made again."""
    files = {"network": bundle.manifest.models["network"].file, "preprocessing": PREPROCESSING, "calibration": CALIBRATION}
    out.write_bytes(archive.pack(remade(bundle.members, {files[name]: data for name, data in changes.items()})))
    return out


def test_a_network_that_was_exchanged_fails_the_self_test(network_bundle: Built, tmp_path: Path, cli: Cli) -> None:
    import onnx
    from onnx import numpy_helper

    bundle = read_bundle(network_bundle("desd"))
    graph = onnx.load_model_from_string(bundle.model("network"))
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[..., ::-1]), tensor.name))
    path = tampered(bundle, tmp_path / "exchanged.evb", network=graph.SerializeToString())
    with pytest.raises(SelfTestError, match="golden self-test: (embedding|components)"):
        Detector.open(path)
    assert cli("bundle", "check", network_bundle("desd")).code == 0
    said = cli("bundle", "check", path)
    assert said.code == 3 and "golden self-test" in said.err and len(said.err.strip().splitlines()) == 1


MEANS = {"appearance": 0.5, "motion": 0.5}


@pytest.mark.parametrize(
    "changed", [{"stride": 4}, {"every": 2}, {"share": 0.75}, {"patches": None}, {"fps": 12.5}, {"means": MEANS}], ids=str
)
def test_settings_that_were_changed_fail_the_self_test(
    changed: dict[str, object], network_bundle: Built, tmp_path: Path
) -> None:
    bundle = read_bundle(network_bundle("maam"))
    path = tampered(bundle, tmp_path / "changed.evb", preprocessing=canonical_json({**bundle.preprocessing, **changed}))
    with pytest.raises(SelfTestError, match="golden self-test: settings.network"):
        Detector.open(path)


def refused(said: Outcome, *words: str) -> None:
    assert said.code == 1, said.err
    lines = [line for line in said.err.strip().splitlines() if line.startswith("edge-vad build: ")]
    assert len(lines) == 1 and "Traceback" not in said.err
    for word in words:
        assert word in lines[0]


def test_what_does_not_fit_the_network_is_refused_on_one_line(
    network_footage: Path, tiny_encoder: Path, tmp_path: Path, cli: Cli
) -> None:
    out = tmp_path / "site.evb"
    own = tiny.NETWORKS / "maam.safetensors"

    def build(method: str = "maam", normal: Path = network_footage, weights: Path = own, *more: str) -> Outcome:
        arguments = ["--method", method, "--weights", weights, "--normal", normal, "--out", out, "--precision", "fp32"]
        return cli("build", *arguments, *more)

    refused(build("desd"), "is a network of maam, not of desd", "--method maam")
    larger = tmp_path / "larger"
    for seed in (1, 2):
        tiny.write_clip(larger / f"{seed}", 24, seed=seed, size=(200, 120))
    refused(build(normal=larger), "200x120 pixels, the network was trained on 180x120")
    refused(build("maam", network_footage, own, "--fps", "25"), "25 frames per second, the network was trained at 10")
    refused(build(weights=tmp_path / "nowhere"), "nowhere", "no such file; edge-vad train writes it")
    refused(build(weights=tiny_encoder), "not a trained network")
    (tmp_path / "cut.safetensors").write_bytes(own.read_bytes()[:-100])
    refused(build(weights=tmp_path / "cut.safetensors"), "cut.safetensors", "cut off")
    assert not out.exists() and not list(tmp_path.glob("*.evb*"))


def test_weights_of_another_size_are_refused(network_footage: Path, tmp_path: Path, cli: Cli) -> None:
    system, trained = load_network(tiny.NETWORKS / "desd.safetensors")
    save_network(tmp_path / "wide.safetensors", system, replace(trained, options={**trained.options, "width": 0.2}))
    arguments = tiny.network_arguments(
        "desd", network_footage, tmp_path / "x.evb", "--weights", str(tmp_path / "wide.safetensors")
    )
    refused(cli(*arguments), "wide.safetensors", "has the shape")


@pytest.mark.parametrize("more", [["--method", "maam"], ["--weights", "run"], ["--method", "mam", "--weights", "run"]])
def test_a_network_needs_its_method_and_a_method_its_network(more: list[str], network_footage: Path, cli: Cli) -> None:
    said = cli("build", "--normal", network_footage, "--out", "site.evb", *more)
    assert said.code == 2 and ("--weights RUN_DIR belongs to" in said.err or "invalid choice: 'mam'" in said.err)


def test_a_network_that_was_trained_before_an_option_has_what_was_then(tmp_path: Path) -> None:
    system, trained = load_network(tiny.NETWORKS / "stpag.safetensors")
    assert {target.newest for target in system.targets.values()} == {trained.options["unseen"]}
    older = {name: value for name, value in trained.options.items() if name != "unseen"}
    save_network(tmp_path / "older.safetensors", system, replace(trained, options=older))
    system, trained = load_network(tmp_path / "older.safetensors")
    assert trained.options == {**older, "unseen": 0} and {target.newest for target in system.targets.values()} == {2}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_footage_shorter_than_a_window_is_refused(
    precision: str, network_bundle: Built, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a fast camera, of which every eighth frame counts."""
    system, trained = load_network(tiny.NETWORKS / "stpag.safetensors")
    monkeypatch.setattr(network_build, "load_network", lambda *_: (system, replace(trained, stride=8)))
    tiny.write_clip(tmp_path / "short" / "a", 22, seed=1)
    with exported_before(network_bundle("stpag")):
        said = cli(*tiny.network_arguments("stpag", tmp_path / "short", tmp_path / "x.evb", "--precision", precision))
    refused(said, "window of 5 frames; film longer")
