"""What the documents show works: command lines parse, Python compiles, the examples run, the tables fit the code."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
import yaml
from tiny import Outcome

from edge_vad import archive, tensorfile
from edge_vad.bundle import read_bundle, write_bundle
from edge_vad.cli import COMMANDS
from edge_vad.errors import BackendError, BundleVersionError, SourceError
from edge_vad.manifest import MANIFEST, SIGNATURE, ModelEntry, canonical_json, sha256
from edge_vad.plugins import load
from edge_vad.strict import to_plain

Cli = Callable[..., Outcome]
ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("firmware_examples/*/*.md"),
    ]
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(document.read_text(encoding="utf-8")) if kind == language]


def command_lines() -> Iterator[tuple[str, str, bool]]:
    """(document, command, complete) of every edge-vad command: complete in a block, perhaps a part between backticks."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        blocks_shown = [block for kind, block in BLOCK.findall(text) if kind in ("", "sh", "bash")]
        shown = [line for block in blocks_shown for line in block.replace("\\\n", " ").splitlines()]
        named = re.findall(r"`(edge-vad [^`\n]+)`", BLOCK.sub("", text))
        for line, complete in [*((line, True) for line in shown), *((line, False) for line in named)]:
            command = line.split("#")[0].strip().removeprefix("$ ").removesuffix(" &")
            if re.match(r"(\w+=\S+ )*edge-vad ", command) and not re.search(r"\.\.\.|\|", command):
                example = document.is_relative_to(ROOT / "firmware_examples")
                yield str(document.relative_to(ROOT)) if example else document.name, command, complete


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


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every flag of a parser and of those below it."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    own = {flag for action in parser._actions for flag in action.option_strings}
    return own.union(*(flags_of(inner) for action in below for inner in action.choices.values()))


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
        assert {word for word in rest if word.startswith("-")} <= flags_of(parser)


def test_there_are_command_lines_in_every_document_of_a_user() -> None:
    found = {document for document, _, _ in command_lines()}
    assert {"README.md", "SECURITY.md", "build.md", "bundle.md", "plugins.md", "store.md"} <= found


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
    for link, section in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
        target = document.parent / link if link else document
        assert target.exists(), f"{document.name}: {link}"
        if section:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert section in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, section
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


BUNDLE_PAGE = (ROOT / "docs/bundle.md").read_text(encoding="utf-8")
SIZES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


CODE_WORDS = {word for code in re.findall(r"`([^`\n]+)`", BUNDLE_PAGE) for word in re.findall(r"\w+", code)}


def test_every_key_of_a_bundle_is_documented(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    manifest = json.loads(bundle.members[MANIFEST])
    keys = {*manifest, *manifest["requires"], *manifest["footage"], *(f.name for f in dataclasses.fields(ModelEntry))}
    keys |= {key for part in ("banks", "indexes", "files") for entry in manifest[part].values() for key in entry}
    calibration, preprocessing = bundle.calibration, bundle.preprocessing
    keys |= {*calibration, *calibration["events"], *calibration["calibration"], *calibration["calibration"]["tail"]}
    keys |= {key for component in calibration["calibration"]["components"].values() for key in component}
    keys |= {*preprocessing, *preprocessing["motion"], *preprocessing["preprocessing"]}
    assert not keys - CODE_WORDS


def test_every_member_and_array_of_a_bundle_is_documented(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    members = {re.sub(r"^(bank|index)/[\w-]+\.", r"\1/NAME.", name) for name in bundle.members}
    assert not [name for name in {*members, SIGNATURE} if f"| `{name}` |" not in BUNDLE_PAGE]
    section = BUNDLE_PAGE.split("## Golden self-test")[1].split("\n## ")[0]
    told = set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE))
    assert not [name for name in bundle.golden() if not {name, re.sub(r"\.[\w-]+$", ".NAME", name)} & told]
    metadata = [key for name in bundle.members if name.endswith(".safetensors") for key in said_by(bundle.members[name])]
    assert metadata and not [key for key in metadata if not re.search(rf"metadata .*\b{key} =", BUNDLE_PAGE)]


def said_by(tensors: bytes) -> dict[str, str]:
    return tensorfile.metadata(tensors, "a member")


def test_the_limits_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| .+ \| ([\d,]+) ?(\w*) \| `(\w+)\.(MAX_\w+)` \|$", BUNDLE_PAGE, re.MULTILINE)
    told = {(module, name): int(number.replace(",", "")) * SIZES[unit] for number, unit, module, name in rows}
    found = {}
    for module in ("archive", "manifest", "tensorfile", "signature", "onnx_gate", "golden", "banks._graph"):
        values = vars(importlib.import_module(f"edge_vad.{module}"))
        found |= {(module.split(".")[-1], name): value for name, value in values.items() if name.startswith("MAX_")}
    assert told == found


def test_the_rules_for_models_graphs_and_the_self_test_are_those_of_the_code() -> None:
    from edge_vad.converters.packing import GOLDEN_FRAMES, GOLDEN_STRANGE

    from edge_vad.banks import _graph, hnsw
    from edge_vad.banks.base import CROSSOVER_ROWS
    from edge_vad.golden import EXACT, EXACT_SUMS, SMALL, STEPS, TOLERANCES, Tolerance
    from edge_vad.onnx_gate import OPERATORS

    [listed] = [text for text in blocks(ROOT / "docs/bundle.md", "") if text.startswith("Abs ")]
    assert set(listed.split()) == OPERATORS
    columns = "".join(f" `{field.name}` |" for field in dataclasses.fields(Tolerance))
    table = BUNDLE_PAGE.split(f"| `precision` |{columns}")[1].split("\n\n")[0]
    told = {kind: [float(v) for v in rest.split("|")] for kind, rest in re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.M)}
    assert told == {kind: list(dataclasses.astuple(tolerance)) for kind, tolerance in {**TOLERANCES, "exact": EXACT}.items()}
    numbers = {f"{CROSSOVER_ROWS:,} rows", f"about {hnsw.N_PROBES}", f"{hnsw.MIN_FOUND:.0%}".replace("%", " %")}
    numbers |= {
        f"the default is {_graph.DEFAULT_EF}",
        f"up to {_graph.MAX_EF:,}",
        f"<= {EXACT_SUMS:f} *",
        f"{SMALL} * largest",
        *(f"`{step}" for step in STEPS),
    }
    assert not [number for number in numbers if number not in " ".join(BUNDLE_PAGE.split())]
    assert (GOLDEN_FRAMES + GOLDEN_STRANGE, GOLDEN_STRANGE) == (12, 4), "docs/bundle.md says twelve and four"
    graph = _graph.encode({**hnsw.HnswBank(np.eye(9, dtype=np.float32))._searcher.state, "ef": 64}, {"bank": "0"})
    arrays, said = tensorfile.load(graph, "a graph")
    section = BUNDLE_PAGE.split("## Search graphs")[1].split("\n## ")[0]
    assert not [name for name in {*arrays, *said} if f"`{name}`" not in section]


def read_function(folder: Path) -> Callable[..., Any]:
    """The reader at the end of the bundle page."""
    [code] = [block for block in blocks(ROOT / "docs/bundle.md", "python") if block.startswith("# read_bundle.py")]
    (folder / "read_bundle.py").write_text(code)
    read: Callable[..., Any] = runpy.run_path(str(folder / "read_bundle.py"))["read"]
    return read


@pytest.fixture
def signed(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Path:
    """site.evb, signed by owner.key, which lies beside it with owner.pub; the current folder is theirs."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_bundle, "site.evb")
    assert cli("bundle", "keygen", "--out", "owner").code == 0
    assert cli("bundle", "sign", "site.evb", "--key", "owner.key").code == 0
    return tmp_path


def test_the_reader_of_the_bundle_page_reads_a_bundle(signed: Path, tiny_bundle: Path) -> None:
    read = read_function(signed)
    bundle = read_bundle(tiny_bundle)
    for found in (read(tiny_bundle), read("site.evb"), read("site.evb", Path("owner.pub").read_text())):
        manifest, calibration, banks = found
        assert canonical_json(manifest) == bundle.members[MANIFEST] and calibration == bundle.calibration
        assert banks and all(np.array_equal(rows, bundle.rows(name)) for name, rows in banks.items())


def test_the_reader_of_the_bundle_page_refuses(signed: Path, tiny_bundle: Path, cli: Cli) -> None:
    read, public = read_function(signed), Path("owner.pub").read_text()
    cli("bundle", "keygen", "--out", "another")
    with pytest.raises(AssertionError, match="not signed"):
        read(tiny_bundle, public)
    with pytest.raises(AssertionError, match="another key"):
        read("site.evb", Path("another.pub").read_text())
    members = archive.unpack(Path("site.evb").read_bytes(), "site.evb")
    for name, data in members.items():
        if name == SIGNATURE:
            continue
        changed = data[:-1] + bytes([data[-1] ^ 1])
        Path("changed.evb").write_bytes(archive.pack({**members, name: changed}))
        with pytest.raises(Exception):  # noqa: B017 - it is a sketch: whatever stops it
            read("changed.evb", public)


def test_the_reader_of_the_bundle_page_refuses_a_mixed_bundle(signed: Path) -> None:
    read, members = read_function(signed), archive.unpack(Path("site.evb").read_bytes(), "site.evb")
    manifest = json.loads(members.pop(MANIFEST))
    for name in ("bank/spatial.safetensors", "calibration.json", "golden/golden.safetensors", "preprocessing.json"):
        other = {
            **members,
            name: members[name].replace(b'"features":"', b'"features":"0').replace(b'"factor":', b'"factor":9'),
        }
        files = {n: {"size": len(data), "sha256": sha256(data)} for n, data in other.items() if n != SIGNATURE}
        assert files != manifest["files"]
        Path("mixed.evb").write_bytes(archive.pack({MANIFEST: canonical_json({**manifest, "files": files}), **other}))
        with pytest.raises(Exception):  # noqa: B017
            read("mixed.evb")


def test_a_newer_major_version_is_refused_in_the_words_of_the_bundle_page(tiny_bundle: Path, tmp_path: Path) -> None:
    members = archive.unpack(tiny_bundle.read_bytes(), "tiny.evb")
    manifest = {**json.loads(members[MANIFEST]), "schema": [2, 0], "requires": {"edge_vad": "1.4"}}
    (tmp_path / "new.evb").write_bytes(archive.pack({**members, MANIFEST: canonical_json(manifest)}))
    with pytest.raises(BundleVersionError) as refused:
        read_bundle(tmp_path / "new.evb")
    assert str(refused.value).removeprefix(f"{tmp_path}/") in blocks(ROOT / "docs/bundle.md", "")[-1]


@pytest.mark.skipif(not (shutil.which("minisign") and shutil.which("unzip")), reason="needs the programs minisign and unzip")
def test_the_signature_is_checked_with_minisign_as_the_bundle_page_says(signed: Path) -> None:
    [commands] = [text for text in blocks(ROOT / "docs/bundle.md", "") if "minisign -Vm" in text]
    said = subprocess.run(["/bin/sh", "-ec", commands], capture_output=True, text=True, check=True)
    assert "Signature and comment signature verified" in said.stdout
    Path("manifest.json").write_bytes(Path("manifest.json").read_bytes() + b" ")
    again = subprocess.run(["minisign", "-Vm", "manifest.json", "-p", "owner.pub"], capture_output=True, check=False)
    assert again.returncode != 0


def test_the_store_page_knows_every_action_flag_and_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_vad.commands.store import ACTIONS
    from edge_vad.profile import Profile

    text = (ROOT / "docs/store.md").read_text(encoding="utf-8")
    assert not [action for action in ACTIONS if f"edge-vad store {action}" not in text]
    assert not [flag for flag in flags_of(parser_of("store", monkeypatch)) - {"-h", "--help"} if flag not in text]
    told = {k: yaml.safe_load(v) for k, v in re.findall(r"^\| `((?:store|trust)\.\w+)` \| `([^`]+)` \|", text, re.MULTILINE)}
    plain = to_plain(Profile("a device", "of nobody"))
    assert told == {f"{part}.{key}": value for part in ("store", "trust") for key, value in plain[part].items()}


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_profiles_show_every_setting_of_trust_and_store(path: Path) -> None:
    from edge_vad.profile import Profile

    shown, plain = yaml.safe_load(path.read_text(encoding="utf-8")), to_plain(Profile("a device", "of nobody"))
    for part in ("trust", "store"):
        assert shown[part] == plain[part]


def test_the_security_page_names_the_policies_and_what_they_accept(signed: Path, tiny_bundle: Path, cli: Cli) -> None:
    """The table of policies, tried."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table = re.findall(
        r"^\| `(required|if-present|off)`([^|]*)\| (\w+)[^|]* \| ([-\w]+)[^|]* \| (\w+)[^|]* \| (.+) \|$", text, re.M
    )
    assert {policy for policy, *_ in table} == {"required", "if-present", "off"} and "`default`" in text
    cli("bundle", "keygen", "--out", "another")
    shutil.copy("site.evb", "by_another.evb")
    cli("bundle", "sign", "by_another.evb", "--key", "another.key")
    members = archive.unpack(Path("site.evb").read_bytes(), "site.evb")
    broken = archive.unpack(Path("by_another.evb").read_bytes(), "by_another.evb")[SIGNATURE].splitlines(keepends=True)
    lines = members[SIGNATURE].splitlines(keepends=True)
    members[SIGNATURE] = b"".join([*lines[:3], broken[3]])  # the comment's signature is another key's
    Path("broken.evb").write_bytes(archive.pack(members))
    for policy, keys, *expected in table:
        folder = "nowhere" if "without" in keys else "owner.pub"
        for bundle, told in zip((tiny_bundle, "site.evb", "by_another.evb", "broken.evb"), expected, strict=True):
            if told == "-" or told.startswith("not seen"):
                continue
            options = ("--set", f'trust.signature="{policy}"', "--set", f"trust.keys={folder}")
            assert cli("bundle", "verify", bundle, *options).code == (told != "accepted"), (policy, keys, bundle)


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples of the plug-in and build pages as files of a user, in the current folder and importable."""
    for document in ("plugins.md", "build.md"):
        for code in blocks(ROOT / "docs" / document, "python"):
            path = tmp_path / code.splitlines()[0].removeprefix("# ").replace("edge_vad/methods", "installed")
            path.parent.mkdir(exist_ok=True)
            path.write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
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
        said = cli("bundle", "check", tiny_bundle, "--set", "inference.backend=my_plugins.opencv_dnn")
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
    from edge_vad.record import Recorder
    from edge_vad.sinks import Sink
    from edge_vad.types import Event

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        with load("sinks", "my_plugins.udp", Sink)(f"127.0.0.1:{receiver.getsockname()[1]}") as sink:
            sink.write(Recorder().event("yard", Event("start", 1, 0.5, 5, 1.25, 6)))
        assert json.loads(receiver.recv(65536))["peak_score"] == 1.25


def test_the_method_example_runs_a_bundle_of_its_own(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page says: calibrated with `calibrate`, written with `write_bundle`, installed as a file among the methods."""
    import edge_vad.methods
    from edge_vad.calibration import calibrate
    from edge_vad.detector import Detector
    from edge_vad.events import EventSettings
    from edge_vad.golden import golden_frames, golden_values
    from edge_vad.manifest import bank_hashes, fingerprint
    from edge_vad.methods import Method

    monkeypatch.setattr(edge_vad.methods, "__path__", [*edge_vad.methods.__path__, str(examples / "installed")])
    method = load("methods", "brightness", Method)(100.0)  # type: ignore[call-arg]
    frames = tiny.clip_frames(40)
    raw = np.array([method.observe(frame).components["brightness"] for frame in frames])
    assert raw[0] == pytest.approx(abs(float(frames[0].luma.mean()) - 100))
    calibration, events = (
        calibrate([(np.arange(40) / 10, {"brightness": raw})], {"brightness": 1.0}, 0.9, 1.0),
        EventSettings(),
    )
    preprocessing = canonical_json({"usual": 100.0})
    bound = {"features": fingerprint({}, preprocessing), "banks": bank_hashes({})}
    scored = {"calibration": to_plain(calibration), "events": to_plain(events), "period_s": 0.1, **bound}
    images = np.stack([frame.image[::2, ::2] for frame in frames[:5]])
    values = golden_values(method, calibration, events, golden_frames(images, tiny.SIZE, 0.1))
    members = {
        "preprocessing.json": preprocessing,
        "calibration.json": canonical_json(scored),
        "golden/golden.safetensors": tensorfile.save(
            {"images": images, "frame": np.array([*tiny.SIZE, 0.1]), **values},
            {**bound, "calibration": sha256(canonical_json(scored))},
        ),
        "LICENSES.txt": b"none",
    }
    footage = {"clips": 1, "frames_processed": 40, "ratio": 1.0}
    description = {"name": "bright", "serial": 1, "method": "brightness", "written_by": "a test", "footage": footage}
    write_bundle(Path("bright.evb"), members, {**description, "models": {}, "banks": {}})
    detector = Detector.open("bright.evb")
    assert [detector.process(frame).score for frame in frames][-1] < 1


def test_the_encoder_example_can_be_exported(examples: Path, cli: Cli) -> None:
    from edge_vad.converters.encoders import load_encoder

    said = cli(
        "encoder", "export", "--encoder", "my_encoder:small", "--taps", "0,1", "--multiple", "8", "--out", "small.onnx"
    )
    assert said.code == 0 and "taps tap0, tap1" in said.out
    assert load_encoder("small.onnx").preprocessing.taps == ("tap0", "tap1")
