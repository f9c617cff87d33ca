"""What the documents show works: command lines parse, Python compiles, the examples run, the tables fit the code."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import runpy
import shlex
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
import yaml
from tiny import Outcome

from edge_vad.bundle import read_bundle
from edge_vad.cli import COMMANDS
from edge_vad.errors import BackendError, SourceError
from edge_vad.plugins import load
from edge_vad.strict import to_plain

Cli = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(document.read_text(encoding="utf-8")) if kind == language]


def command_lines() -> Iterator[tuple[str, str, bool]]:
    """(document, command, complete) of every edge-vad command: complete in a block, perhaps a part between backticks."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        shown = [line for kind, block in BLOCK.findall(text) if kind in ("", "sh", "bash") for line in block.splitlines()]
        named = re.findall(r"`(edge-vad [^`\n]+)`", BLOCK.sub("", text))
        for line, complete in [*((line, True) for line in shown), *((line, False) for line in named)]:
            command = line.split("#")[0].strip()
            if re.match(r"(\w+=\S+ )*edge-vad ", command) and not re.search(r"\.\.\.|\|", command):
                yield document.name, command, complete


def parser_of(verb: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of a command, which is not run."""
    caught: list[argparse.ArgumentParser] = []

    def catch(parser: argparse.ArgumentParser, *_: object) -> None:
        caught.append(parser)
        raise StopIteration

    with monkeypatch.context() as patched, pytest.raises(StopIteration):
        patched.setattr(argparse.ArgumentParser, "parse_args", catch)
        importlib.import_module(COMMANDS[verb][0]).main([])
    return caught[0]


@pytest.mark.parametrize(("document", "command", "complete"), list(command_lines()))
def test_command_lines_use_known_verbs_and_flags(
    document: str, command: str, complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command)
    verb, *rest = words[words.index("edge-vad") + 1 :]
    if verb in ("--help", "--version", "VERB"):
        return
    assert verb in COMMANDS, f"{document}: no such verb"
    parser = parser_of(verb, monkeypatch)
    if complete:
        parser.parse_args(rest)  # exits with 2 where a flag or a value is wrong
    else:
        known = {flag for action in parser._actions for flag in action.option_strings}
        assert {word for word in rest if word.startswith("-")} <= known


def test_there_are_command_lines_in_every_document_of_a_user() -> None:
    found = {document for document, _, _ in command_lines()}
    assert {"README.md", "build.md", "bundle.md", "plugins.md"} <= found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_code_blocks_are_valid(document: Path) -> None:
    for number, code in enumerate(blocks(document, "python"), 1):
        compile(code, f"{document.name}, block {number}", "exec")
    for text in blocks(document, "json"):
        json.loads(text)
    for text in blocks(document, "yaml"):
        assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (document.parent / link).exists(), f"{document.name}: {link}"
    for path in re.findall(r"`((?:edge_vad|converters|profiles|benchmarks|tests)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / path).exists(), f"{document.name}: {path}"
    for path in re.findall(r"python (benchmarks/\w+\.py)", text):
        assert (ROOT / path).exists(), f"{document.name}: {path}"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as section.key -> value; `weights` and `encoder` stay as they are."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and key != "weights"
        flat |= _flat(value, f"{key}.") if nested else {prefix + key: value}
    return flat


def test_every_build_setting_is_documented_with_its_default() -> None:
    from edge_vad.converters.encoders import EncoderSpec
    from edge_vad.converters.settings import BuildSettings

    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| (?:`([^`]+)`|required) \|", (ROOT / "docs/build.md").read_text(), re.M)
    told = {key: yaml.safe_load(default) if default else "required" for key, _, default in rows}
    expected = _flat(to_plain(BuildSettings())) | _flat(to_plain(EncoderSpec(("tap",))), "encoder.")
    expected["encoder.taps"] = "required"
    assert told == expected


def test_the_yaml_of_the_build_page_is_a_valid_configuration() -> None:
    from edge_vad.converters.settings import BuildSettings

    from edge_vad.errors import ProfileError
    from edge_vad.strict import from_plain

    for text in blocks(ROOT / "docs/build.md", "yaml"):
        assert from_plain(BuildSettings, yaml.safe_load(text), "docs/build.md", ProfileError)


def test_every_key_of_a_bundle_is_documented(tiny_bundle: Path) -> None:
    text = (ROOT / "docs/bundle.md").read_text(encoding="utf-8")
    bundle = read_bundle(tiny_bundle)
    calibration = bundle.calibration
    keys = {*bundle.manifest, *bundle.preprocessing, *calibration, *calibration["events"], *calibration["calibration"]}
    keys |= {*bundle.preprocessing["motion"], *bundle.preprocessing["preprocessing"], *calibration["calibration"]["tail"]}
    keys |= {key for part in ("banks", "models") for entry in bundle.manifest[part].values() for key in entry}
    missing = [key for key in sorted(keys) if not re.search(rf"`[^`\n]*\b{key}\b[^`\n]*`", text)]
    assert not missing


def test_the_reader_of_the_bundle_page_reads_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    [code] = [block for block in blocks(ROOT / "docs/bundle.md", "python") if block.startswith("# read_bundle.py")]
    (tmp_path / "read_bundle.py").write_text(code)
    read = runpy.run_path(str(tmp_path / "read_bundle.py"))["read"]
    manifest, calibration, banks = read(tiny_bundle)
    bundle = read_bundle(tiny_bundle)
    assert manifest == bundle.manifest and calibration == bundle.calibration
    assert banks and all(np.array_equal(rows, bundle.rows(name)) for name, rows in banks.items())


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples of the plug-in and build pages as files of a user, in the current folder and importable."""
    for document in ("plugins.md", "build.md"):
        for code in blocks(ROOT / "docs" / document, "python"):
            path = tmp_path / code.splitlines()[0].removeprefix("# ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def score_lines(said: Outcome) -> list[str]:
    assert said.code == 0, said.err
    return said.out.splitlines()


def test_the_camera_example_delivers_the_frames_of_a_file(examples: Path, tiny_bundle: Path, cli: Cli) -> None:
    from edge_vad.cameras import open_camera

    frames = tiny.clip_frames(30)
    np.save("clip.npy", np.stack([frame.image for frame in frames]))
    with open_camera("my_plugins.npy_file:clip.npy") as camera:
        found = list(camera.frames())
    assert camera.n_frames == len(found) == 30
    assert all(np.array_equal(a.image, b.image) and a.timestamp == b.timestamp for a, b in zip(found, frames, strict=True))
    assert found[0].luma.shape == found[0].image.shape[:2]
    score_lines(cli("run", "--bundle", tiny_bundle, "--source", "my_plugins.npy_file:clip.npy"))
    with pytest.raises(SourceError, match="not a readable NumPy file"):
        open_camera("my_plugins.npy_file:absent.npy")


def test_the_backend_example_passes_the_golden_self_test(examples: Path, tiny_bundle: Path, cli: Cli) -> None:
    from edge_vad.backends import Backend

    threads = cv2.getNumThreads()
    try:
        said = cli("bundle", "verify", tiny_bundle, "--set", "inference.backend=my_plugins.opencv_dnn")
        with pytest.raises(BackendError, match="cannot load the model"):
            load("backends", "my_plugins.opencv_dnn", Backend)(b"no model")
    finally:
        cv2.setNumThreads(threads)
    assert said.code == 0, said.err


def test_the_bank_example_finds_what_exact_search_finds(examples: Path, tiny_bundle: Path, cli: Cli) -> None:
    from edge_vad.banks import open_bank

    generator = np.random.default_rng(0)
    rows, queries = (generator.standard_normal((n, 3), dtype=np.float32) for n in (200, 20))
    for k in (1, 3):
        distances, ids = open_bank("my_plugins.kd_tree", rows).search(queries, k)
        exact, numbers = open_bank("exact", rows).search(queries, k)
        assert np.allclose(distances, exact, atol=1e-3) and np.array_equal(ids, numbers)
        assert (distances.dtype, ids.dtype) == (exact.dtype, numbers.dtype)
    assert open_bank("my_plugins.kd_tree", rows).search(queries[:0], 2)[0].shape == (0, 2)
    profile = blocks(ROOT / "docs/plugins.md", "yaml")[0]
    Path("my_device.yaml").write_text(profile)
    assert cli("profiles", "my_device.yaml").code == 0
    score_lines(
        cli("run", "--bundle", tiny_bundle, "--source", "synthetic:seconds=2,size=180x120", "--profile", "my_device.yaml")
    )


def test_the_sink_example_sends_events(examples: Path) -> None:
    from edge_vad.sinks import Sink
    from edge_vad.types import Event

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        with load("sinks", "my_plugins.udp", Sink)(f"127.0.0.1:{receiver.getsockname()[1]}") as sink:
            sink.write(Event("start", 1, 0.5, 5, 1.25, 6))
        assert json.loads(receiver.recv(65536))["peak_score"] == 1.25


def test_the_method_example_observes(examples: Path) -> None:
    from edge_vad.methods import Method

    method = load("methods", "my_plugins.brightness", Method)(100.0)  # type: ignore[call-arg]
    [frame] = tiny.clip_frames(1)
    assert method.observe(frame).components["brightness"] == pytest.approx(abs(float(frame.luma.mean()) - 100))


def test_the_encoder_example_can_be_exported(examples: Path, cli: Cli) -> None:
    from edge_vad.converters.encoders import load_encoder

    said = cli(
        "encoder", "export", "--encoder", "my_encoder:small", "--taps", "0,1", "--multiple", "8", "--out", "small.onnx"
    )
    assert said.code == 0 and "taps tap0, tap1" in said.out
    assert load_encoder("small.onnx").preprocessing.taps == ("tap0", "tap1")
