"""Every firmware example says how it is run, stays short, and runs: on generated scenes, simulated pins, a real broker."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from tiny import Outcome

from edge_vad.bundle import read_bundle
from edge_vad.device import load_device
from edge_vad.errors import BackendError, OutputError
from edge_vad.manifest import sha256
from edge_vad.plugins import load
from edge_vad.record import Record
from edge_vad.sinks import Sink

Cli = Callable[..., Outcome]
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "firmware_examples"
EXAMPLES = sorted(FOLDER.glob("**/*.py"))
READMES = [
    FOLDER / n / "README.md"
    for n in ("custom_backend", "custom_encoder", "gpio_alarm", "mqtt_home_assistant", "two_cameras")
]
WAIT_S = 20.0


def until(holds: Callable[[], Any], what: str) -> None:
    give_up = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < give_up, f"not within {WAIT_S} s: {what}"
        time.sleep(0.02)


def run(*command: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own; ``edge-vad`` and ``python`` are those of this environment."""
    words = [str(word) for word in command]
    own = {"python": [sys.executable], "edge-vad": [sys.executable, "-m", "edge_vad"]}
    environment = {**os.environ, "PYTHONPATH": str(FOLDER), **environment}
    words = [*own.get(words[0], words[:1]), *words[1:]]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_starts_with_its_command_and_stays_short(example: Path) -> None:
    lines = example.read_text(encoding="utf-8").splitlines()
    module = ".".join(example.relative_to(FOLDER).with_suffix("").parts)
    assert str(example.relative_to(ROOT)) in lines[0] or f"{module}:" in lines[0] or lines[0].endswith(f"={module}")
    assert len(lines) < 60


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_its_page_starts_with_commands_that_name_its_files(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert text.splitlines()[2] == "```" and re.match(r"\S+ ", text.splitlines()[3])
    named = set(re.findall(rf"firmware_examples/{readme.parent.name}/[\w.]+\.\w+", text))
    named |= {f"firmware_examples/{a}/{b}.py" for a, b in re.findall(rf"({readme.parent.name})\.(\w+)", text)}
    assert named and not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize(
    "path", [p for r in READMES for p in r.parent.glob("*.yaml")], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_its_configuration_says_where_it_belongs(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and (str(path.relative_to(ROOT)) in first or "Home Assistant" in first)
    if path.name in ("device.yaml", "try.yaml"):
        assert load_device(path).cameras


def test_the_alarm_command_runs_once_an_event(cli: Cli, street: Path, street_bundle: Path) -> None:
    clip = street / "testing" / "frames" / "01"
    example = FOLDER / "alarm_command.py"
    said = run("python", example, street_bundle, clip, sys.executable, "-c", "import sys; print('ALARM', *sys.argv[1:])")
    assert said.returncode == 0, said.stderr
    events = cli("run", "--bundle", street_bundle, "--source", clip).out
    assert said.stdout.count("ALARM") == events.count('"kind": "start"') > 0


# gpio_alarm


def anomaly(kind: str, camera: str = "gate", type: Any = "anomaly") -> Record:
    return Record(1, "boot", 0.1, "2026-01-01T00:00:00.000Z", camera, type, kind)


def sink(text: str) -> Sink:
    name, _, location = text.partition(":")
    return load("sinks", name, Sink)(location)


def test_the_relay_of_the_gpio_example_switches_at_ground(pins: Any) -> None:
    [named] = load_device(FOLDER / "gpio_alarm" / "device.yaml").sinks
    with sink(named) as relay:
        assert pins.pin(17).state == 1
        relay.write(anomaly("start"))
        assert pins.pin(17).state == 0


def test_the_siren_sounds_for_its_time_and_is_muted_until_all_is_over(pins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    with sink("gpio_alarm.siren:17,27,1") as siren:
        line, button = pins.pin(17), pins.pin(27)
        siren.write(anomaly("lost", type="camera"))
        assert line.state == 0
        started = time.monotonic()
        siren.write(anomaly("start"))
        until(lambda: line.state == 1, "it sounds")
        siren.write(anomaly("update"))
        until(lambda: line.state == 0, "it ends by itself, though the anomaly lasts")
        assert time.monotonic() - started > 0.9
        siren.write(anomaly("start", "yard"))
        until(lambda: line.state == 1, "another camera, it sounds again")
        button.drive_low()
        assert line.state == 0
        button.drive_high()
        siren.write(anomaly("end", "yard"))
        siren.write(anomaly("start", "yard"))
        time.sleep(0.1)
        assert line.state == 0, "muted: the first anomaly lasts"
        siren.write(anomaly("end", "yard"))
        siren.write(anomaly("end"))
        siren.write(anomaly("start"))
        until(lambda: line.state == 1, "all was over: it sounds again")
    assert not line.state


def test_a_button_pressed_in_peace_mutes_nothing(pins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    with sink("gpio_alarm.siren:17,27,1") as siren:
        pins.pin(27).drive_low()
        siren.write(anomaly("start"))
        until(lambda: pins.pin(17).state == 1, "it sounds")


@pytest.mark.parametrize(
    ("location", "why"), [("17", "expected SIREN"), ("17,x,1", "expected SIREN"), ("17,99,1", "GPIO99 cannot")]
)
def test_a_siren_that_cannot_work_is_an_output_error(
    pins: Any, monkeypatch: pytest.MonkeyPatch, location: str, why: str
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    with pytest.raises(OutputError, match=why):
        sink(f"gpio_alarm.siren:{location}")


def test_the_siren_runs_in_a_unit_on_simulated_pins(street: Path, street_bundle: Path) -> None:
    pytest.importorskip("gpiozero", reason="pip install gpiozero")
    source = ["run", "--bundle", street_bundle, "--source", street / "testing" / "frames" / "01"]
    sinks = ["--sink", "gpio_alarm.siren:17,27,30", "--sink", "gpio:22,active=low,hold=10", "--sink", "jsonl:-"]
    said = run("edge-vad", *source, *sinks, GPIOZERO_PIN_FACTORY="mock")
    assert said.returncode == 0, said.stderr
    assert '"kind": "start"' in said.stdout and "siren" not in said.stderr


# two_cameras


def test_two_cameras_run_at_once_as_their_page_says(street_bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "firmware_examples" / "two_cameras"
    shutil.copytree(FOLDER / "two_cameras", place)
    (tmp_path / "demo_out").mkdir()
    shutil.copy(street_bundle, tmp_path / "demo_out" / "street.evb")  # what edge-vad demo makes
    [command] = re.findall(r"^edge-vad run --config \S*try.yaml", (place / "README.md").read_text(), re.MULTILINE)
    said = run(*command.split(), cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    records = [json.loads(line) for line in said.stdout.splitlines()]
    assert {record["camera"] for record in records if record["kind"] == "start"} == {"gate", "yard"}
    assert "400 frames" in said.stderr


def test_the_two_cameras_of_the_device_have_a_store_each() -> None:
    device = load_device(FOLDER / "two_cameras" / "device.yaml")
    assert [camera.source.partition(":")[0] for camera in device.cameras.values()] == ["picamera2", "rtsp"]
    assert len({camera.store for camera in device.cameras.values()}) == 2


# mqtt_home_assistant


@dataclass
class Broker:
    """A mosquitto of our own, and everything that was published: (topic, payload, retained)."""

    port: int
    messages: list[tuple[str, str, bool]]

    def payloads(self, topic: str) -> list[str]:
        return [payload for found, payload, _ in self.messages if found == topic]

    def retained(self, seconds: float = 0.5) -> dict[str, str]:
        """What the broker tells somebody who comes now."""
        found: dict[str, str] = {}
        client = client_of(self.port, lambda message: found.update({message.topic: message.payload.decode()}))
        time.sleep(seconds)
        client.disconnect()
        client.loop_stop()
        return found


def client_of(port: int, take: Callable[[Any], object]) -> Any:
    """A subscriber to everything."""
    paho = pytest.importorskip("paho.mqtt.client", reason="pip install 'paho-mqtt>=2'")
    subscribed: list[object] = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe("#", 1)
    client.on_subscribe = lambda *_: subscribed.append(1)
    client.on_message = lambda _client, _data, message: take(message)
    client.connect("127.0.0.1", port)
    client.loop_start()
    until(lambda: subscribed, "the listener has subscribed")
    return client


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    mosquitto = shutil.which("mosquitto")
    if mosquitto is None:
        pytest.skip("there is no MQTT broker here: apt-get install mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    user = "user root\n" if os.getuid() == 0 else ""
    config = tmp_path_factory.mktemp("broker") / "mosquitto.conf"
    config.write_text(f"{user}listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([mosquitto, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    messages: list[tuple[str, str, bool]] = []
    try:
        until(lambda: listens(port), "the broker listens")
        client = client_of(port, lambda m: messages.append((m.topic, m.payload.decode(), bool(m.retain))))
        yield Broker(port, messages)
        client.disconnect()
        client.loop_stop()
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def unit_at_work(broker: Broker, street: Path, street_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Broker:
    """The unit of the example has watched a clip with something unusual, and what it does not announce was announced."""
    folder, own = FOLDER / "mqtt_home_assistant", tmp_path_factory.mktemp("unit")
    device = yaml.safe_load((folder / "device.yaml").read_text())
    assert device["cameras"]["gate"].pop("store")
    device["cameras"]["gate"] |= {"source": str(street / "testing" / "frames" / "01"), "bundle": str(street_bundle)}
    device["data"] = str(own / "data")
    device["sinks"] = [device["sinks"][0].replace("broker.local", f"127.0.0.1:{broker.port}")]
    (own / "device.yaml").write_text(yaml.safe_dump(device))
    announced = run("python", folder / "announce.py", f"127.0.0.1:{broker.port}", "site/gate-7", "gate")
    assert announced.returncode == 0, announced.stderr
    ran = run("edge-vad", "run", "--config", own / "device.yaml", MQTT_PASSWORD="secret")
    assert ran.returncode == 0, ran.stderr
    until(lambda: broker.payloads("site/gate-7/status")[-1:] == ["offline"], "the unit says that it ends")
    return broker


def entities(found: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What Home Assistant would make of retained messages, by name."""
    messages = [json.loads(text) for topic, text in found.items() if re.fullmatch("homeassistant/.*/config", topic)]
    return {message["name"]: message for message in messages}


def rendered(template: str, **values: Any) -> str:
    jinja2 = pytest.importorskip("jinja2", reason="pip install jinja2")
    return str(jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(template).render(values))


def test_home_assistant_finds_one_device_with_alarm_score_and_view(unit_at_work: Broker) -> None:
    found = entities(unit_at_work.retained())
    assert set(found) == {"gate anomaly", "gate score", "gate sees nothing"}
    for entity in found.values():
        assert entity["device"]["identifiers"] == ["edge_vad_site_gate-7"]
        assert entity["availability_topic"] == "site/gate-7/status"
        assert unit_at_work.payloads(entity["state_topic"])
    assert len({entity["unique_id"] for entity in found.values()}) == 3
    records = [json.loads(text) for text in unit_at_work.payloads("site/gate-7/gate/events")]
    score, blind = (found[name]["value_template"] for name in ("gate score", "gate sees nothing"))
    assert found["gate score"]["state_class"] == "measurement", "without it an empty text would be a state"
    for record in records:
        assert float(rendered(score, value_json=record)) == record["peak_score"] >= 1
        assert rendered(blind, value_json=record) == ""
    kinds = {"lost": "ON", "back": "OFF", "black": "ON", "covered": "ON", "frozen": "ON", "clear": "OFF", "resized": ""}
    for kind, state in kinds.items():
        record = anomaly(kind, type="camera" if kind in ("lost", "back", "resized") else "view").plain()
        assert (rendered(score, value_json=record), rendered(blind, value_json=record)) == ("", state)


def test_the_automations_fire_on_what_a_unit_publishes(unit_at_work: Broker) -> None:
    automations = yaml.safe_load((FOLDER / "mqtt_home_assistant" / "automations.yaml").read_text())
    fired = {}
    for automation in automations:
        [trigger], [action] = automation["triggers"], automation["actions"]
        assert trigger["trigger"] == "mqtt" and automation["id"] not in fired
        fired[automation["id"]] = []
        for text in unit_at_work.payloads(trigger["topic"]):
            plain = json.loads(text) if text.startswith("{") else None
            said = rendered(trigger["value_template"], value_json=plain) if "value_template" in trigger else text
            if said == trigger.get("payload", said):
                values = {"trigger": {"payload": text, "payload_json": plain}}
                told = action.get("data", {}).values()
                fired[automation["id"]].append([rendered(part, **values) for part in (action["action"], *told)])
    starts = [json.loads(text) for text in unit_at_work.payloads("site/gate-7/gate/events")]
    starts = [record for record in starts if record["kind"] == "start"]
    messages = [f"Score {r['peak_score']} at {r['time']}; 1 is the threshold" for r in starts]
    assert starts and [message for *_, message in fired["edge_vad_gate_anomaly"]] == messages
    lights = [light for [light] in fired["edge_vad_gate_light"]]
    assert set(lights) == {"light.turn_on", "light.turn_off"} and lights[-1] == "light.turn_off"
    assert len(fired["edge_vad_gate_offline"]) == 1


def test_what_was_announced_can_be_removed(broker: Broker) -> None:
    command = [
        "python",
        FOLDER / "mqtt_home_assistant" / "announce.py",
        f"127.0.0.1:{broker.port}",
        "site/one",
        "gate",
        "yard",
    ]
    before = broker.retained()
    assert run(*command).returncode == 0
    assert len(broker.retained()) == len(before) + 4
    assert run(*command, "--remove").returncode == 0
    assert broker.retained() == before


# custom_encoder


def dinov2_weights(path: Path, width: int = 128, patch: int = 14, cells: int = 10, depth: int = 2) -> None:
    """Random weights with the names and shapes of a small DINOv2."""
    import torch

    torch.manual_seed(0)
    block = {"norm1": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width), "norm2": (width,)}
    block |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    shapes = {"patch_embed.proj": (width, 3, patch, patch), "norm": (width,)}
    shapes |= {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape) * (0.05 if len(shape) > 1 else 0) + (len(shape) == 1)
        state[f"{name}.bias"] = torch.zeros(shape[0])
    state |= {f"blocks.{i}.ls{j}.gamma": torch.full((width,), 0.3) for i in range(depth) for j in (1, 2)}
    tokens = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + cells**2, width), "mask_token": (1, width)}
    torch.save(state | {name: 0.02 * torch.randn(shape) for name, shape in tokens.items()}, path)


def clip_weights(path: Path, width: int = 16, blocks: tuple[int, ...] = (1, 2, 1)) -> None:
    """Random weights with the names and shapes of a small CLIP ResNet, and a part that is no picture's."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    shapes = {"conv1": (width // 2, 3, 3), "conv2": (width // 2, width // 2, 3), "conv3": (width, width // 2, 3)}
    n_in = width
    for stage, n_blocks in enumerate(blocks, 1):
        n_mid = width * 2 ** (stage - 1)
        for i in range(n_blocks):
            name = f"layer{stage}.{i}"
            shapes |= {
                f"{name}.conv1": (n_mid, n_in, 1),
                f"{name}.conv2": (n_mid, n_mid, 3),
                f"{name}.conv3": (4 * n_mid, n_mid, 1),
            }
            shapes |= {f"{name}.downsample.0": (4 * n_mid, n_in, 1)} if i == 0 else {}
            n_in = 4 * n_mid
    state = {"logit_scale": torch.ones(1)}
    for name, (n_out, n, kernel) in shapes.items():
        norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
        state[f"visual.{name}.weight"] = torch.randn(n_out, n, kernel, kernel) * (2 / (n * kernel**2)) ** 0.5
        values = {"weight": torch.ones(n_out), "bias": torch.zeros(n_out), "running_mean": torch.zeros(n_out)}
        values |= {"running_var": torch.ones(n_out), "num_batches_tracked": torch.tensor(1)}
        state |= {f"visual.{norm}.{key}": value for key, value in values.items()}
    save_file(state, path)


def exported(script: str, weights: Path, out: Path) -> Any:
    """The encoder that a script of the example makes of weights."""
    from edge_vad.converters.encoders import load_encoder

    said = run("python", FOLDER / "custom_encoder" / script, weights, out)
    assert said.returncode == 0, said.stderr
    assert str(ROOT).encode() not in out.read_bytes()
    return load_encoder(str(out))


def maps_of(encoder: Any, pictures: np.ndarray) -> list[np.ndarray]:
    from edge_vad.converters.encoders import features

    return features(encoder.model, encoder.preprocessing, pictures)


def built(cli: Cli, footage: Path, encoder: Path, config: str) -> Any:
    """The bundle that the example's configuration makes of an encoder."""
    out, settings = encoder.with_suffix(".evb"), FOLDER / "custom_encoder" / config
    named = ("--normal", footage, "--out", out, "--encoder", encoder, "--config", settings)
    said = cli("build", *named, "--ratio", "0.05", "--jobs", "1")
    assert said.code == 0, said.err
    ran = cli("run", "--bundle", out, "--source", "synthetic:seconds=2,size=180x120")
    assert ran.code == 0, ran.err
    return read_bundle(out)


def test_a_vision_transformer_becomes_an_encoder_with_a_patch_grid(cli: Cli, footage: Path, tmp_path: Path) -> None:
    dinov2_weights(tmp_path / "weights.pth")
    encoder = exported("dinov2.py", tmp_path / "weights.pth", tmp_path / "dinov2.onnx")
    assert encoder.preprocessing.mean == (123.675, 116.28, 103.53) and encoder.preprocessing.fixed_size == 112
    pictures = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    pictures[1] = pictures[0]
    pictures[1, 2 * 14 : 3 * 14, 5 * 14 : 6 * 14] = 255 - pictures[0, 2 * 14 : 3 * 14, 5 * 14 : 6 * 14]
    [grid] = maps_of(encoder, pictures)
    assert grid.shape == (2, 128, 8, 8)
    changed = np.linalg.norm(grid[1] - grid[0], axis=0)
    assert np.unravel_index(changed.argmax(), changed.shape) == (2, 5), "the map lies as the picture does"
    bundle = built(cli, footage, tmp_path / "dinov2.onnx", "dinov2.yaml")
    assert cli("bundle", "check", tmp_path / "dinov2.evb").code == 0
    assert bundle.preprocessing["preprocessing"]["std"] == [58.395, 57.12, 57.375]
    assert bundle.manifest.banks["spatial"].dimensions == 64 and b"DINOv2" in bundle.members["LICENSES.txt"]


def test_a_clip_resnet_becomes_an_encoder_with_two_taps(cli: Cli, footage: Path, tmp_path: Path) -> None:
    clip_weights(tmp_path / "weights.safetensors")
    encoder = exported("clip_resnet.py", tmp_path / "weights.safetensors", tmp_path / "clip.onnx")
    assert encoder.preprocessing.mean == (122.77, 116.75, 104.09) and encoder.preprocessing.std == (68.5, 66.63, 70.32)
    pictures = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    assert [found.shape for found in maps_of(encoder, pictures)] == [(1, 128, 8, 12), (1, 256, 4, 6)]
    bundle = built(cli, footage, tmp_path / "clip.onnx", "clip_resnet.yaml")
    assert bundle.preprocessing["preprocessing"]["mean"] == [122.77, 116.75, 104.09]
    assert bundle.manifest.models["encoder"].precision == "int8"


# custom_backend


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The stand-in for a vendor's package, here and in child processes; without a chip."""
    for folder in (FOLDER, ROOT / "tests" / "stand_in"):
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("COMPILED_MODELS", str(tmp_path))
    monkeypatch.delenv("NPU_CHIPS", raising=False)
    import npu_runtime

    return npu_runtime


def compiled(vendor: Any, model: bytes, normal: Path, mean: Any, std: Any) -> bytes:
    """What the vendor's compiler makes of a model for crops of 64 pixels, with the ranges of crops of normal footage."""
    from edge_vad.converters.encoder_command import calibration_pictures

    pixels = (np.concatenate(calibration_pictures([str(normal)], 64)) - np.array(mean)) / np.array(std)
    return bytes(vendor.compile_model(model, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)))


def check(cli: Cli, bundle: Path, device: str) -> Outcome:
    settings = ("inference.backend=custom_backend.accelerator", f"inference.device={device}")
    return cli("bundle", "check", bundle, "--set", settings[0], "--set", settings[1])


def test_emulator_and_chip_pass_the_self_test(
    vendor: Any, cli: Cli, street: Path, street_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(street_bundle)
    model, pixels = bundle.model("encoder"), bundle.preprocessing["preprocessing"]
    missing = check(cli, street_bundle, "cpu")
    assert missing.code == 3 and f"{sha256(model)}.npu" in missing.err, missing.err
    normal = street / "training" / "frames"
    (tmp_path / f"{sha256(model)}.npu").write_bytes(compiled(vendor, model, normal, pixels["mean"], pixels["std"]))
    assert check(cli, street_bundle, "cpu").code == 0
    absent = check(cli, street_bundle, "npu:0")
    assert absent.code == 3 and "no chip npu:0 is connected" in absent.err, absent.err
    monkeypatch.setenv("NPU_CHIPS", "npu:0")
    on_chip = check(cli, street_bundle, "npu:0")
    assert on_chip.code == 0, on_chip.err


def test_the_self_test_refuses_a_chip_too_coarse_and_the_file_of_another_model(
    vendor: Any, cli: Cli, footage: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny bundle is fp32: 8 bits are too few for it."""
    bundle = read_bundle(tiny_bundle)
    model, pixels = bundle.model("encoder"), bundle.preprocessing["preprocessing"]
    file = tmp_path / f"{sha256(model)}.npu"
    file.write_bytes(compiled(vendor, model, footage, pixels["mean"], pixels["std"]))
    monkeypatch.setenv("NPU_CHIPS", "npu:0")
    assert check(cli, tiny_bundle, "cpu").code == 0
    coarse = check(cli, tiny_bundle, "npu:0")
    assert coarse.code == 3 and "differs by" in coarse.err, coarse.err
    file.write_bytes(file.read_bytes().replace(b"Relu", b"Tanh"))
    other = check(cli, tiny_bundle, "cpu")
    assert other.code == 3 and "embedding.spatial differs by" in other.err, other.err


@pytest.fixture
def small_model(vendor: Any, tmp_path: Path) -> bytes:
    """A model that is compiled for pictures of 64 pixels."""
    model = tiny.encoder_model()
    (tmp_path / f"{sha256(model)}.npu").write_bytes(vendor.compile_model(model, np.ones((1, 3, 64, 64), np.float32)))
    return model


def test_the_queue_is_kept_full_and_in_order(vendor: Any, small_model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from custom_backend.accelerator import Accelerator

    monkeypatch.setenv("NPU_CHIPS", "npu:0")
    backend = Accelerator(small_model, device="npu:0")
    pictures = np.random.default_rng(0).uniform(0, 1, (9, 3, 64, 64)).astype(np.float32)
    together = backend.run({"image": pictures})["coarse"]
    assert backend._model.most_waiting == vendor.QUEUE
    for i in range(len(pictures)):
        assert np.array_equal(backend.run({"image": pictures[i : i + 1]})["coarse"][0], together[i])
    assert len({found.tobytes() for found in together}) == len(pictures)
    assert backend.run({"image": pictures[:0]})["coarse"].shape == (0, 8, 8, 8)


def test_a_chip_that_does_not_answer_is_a_backend_error(
    vendor: Any, small_model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from custom_backend.accelerator import Accelerator

    monkeypatch.setattr(Accelerator, "timeout_ms", 50)
    monkeypatch.setattr(vendor.Model, "_run", lambda *_: time.sleep(0.3))
    backend = Accelerator(small_model)
    with pytest.raises(BackendError, match="backend accelerator failed: no answer within 50 ms"):
        backend.run({"image": np.zeros((1, 3, 64, 64), np.float32)})
