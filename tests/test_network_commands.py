"""Every command with a bundle of a trained network, which has neither an encoder nor memory banks."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from altered import altered
from remade import remade
from tiny import Outcome

from edge_vad import archive
from edge_vad.bundle import read_bundle
from edge_vad.commands.doctor import bundle as doctor_bundle
from edge_vad.device import CameraSettings
from edge_vad.manifest import PREPROCESSING, canonical_json
from edge_vad.profile import load_profile
from edge_vad.store import Store

Cli = Callable[..., Outcome]
STAGES = ("window", "network", "patches", "scoring")
STREET = "synthetic:seed=3,size=180x120,anomalies=none,seconds=3"


@pytest.fixture(scope="module")
def maam(network_bundle: Callable[[str], Path]) -> Path:
    return network_bundle("maam")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_inspect_speaks_of_a_training_and_of_no_memory(cli: Cli, maam: Path) -> None:
    said = cli("bundle", "inspect", maam)
    assert said.code == 0 and "method     maam, 180x120 pixels" in said.out and "network    maam; fp32" in said.out
    assert "windows of a training" in said.out and not {"coreset", "bank", "encoder", "taps"} & set(said.out.split())
    assert "1 models within the rules" in cli("bundle", "verify", maam).out
    assert "golden self-test passed" in cli("bundle", "check", maam).out


def test_a_network_succeeds_a_memory_in_the_store_and_the_memory_comes_back(
    cli: Cli, maam: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    store, newer = tmp_path / "store", altered(maam, tmp_path / "newer.evb", serial=2)
    for path in (tiny_bundle, newer):
        installed = cli("store", "install", path, "--store", store)
        assert installed.code == 0, installed.err
        assert cli("store", "activate", installed.out.split()[1].strip(";"), "--store", store).code == 0
        ran = cli("run", "--store", store, "--source", STREET, "--set", "store.confirm_s=0.2")
        assert ran.code == 0 and '"kind": "confirmed"' in ran.out, ran.err
    assert Store(store).load_current().method == "maam"
    back = cli("store", "rollback", "--store", store)
    assert back.code == 0 and Store(store).load_current().method == "videopatchcore"


def test_bench_tells_the_stages_of_a_network_and_of_no_bank(cli: Cli, maam: Path, tmp_path: Path) -> None:
    out, trace = tmp_path / "out", tmp_path / "trace.json"
    said = cli(
        *("bench", "--bundle", maam, "--frames", 6, "--warm-up", 1, "--set", "budget={}"),
        *("--report", "json,csv,md,html", "--out", out, "--trace", trace),
    )
    assert said.code == 0, said.err
    told = json.loads((out / "bench.json").read_text())
    assert set(STAGES) < set(told["stages"]) and told["bundle"]["image_size"] == [180, 120]
    assert told["bundle"]["models"] == {"network": "maam fp32"} and told["bundle"]["rows"] == {}
    assert "bank" not in said.out and "network maam fp32" in said.out
    assert told["fps"] == pytest.approx(1000 / told["end_to_end"]["wall_ms"]["mean"], rel=1e-3)
    [first, *_] = csv.DictReader((out / "bench.csv").read_text().splitlines())
    assert {f"{stage}_cpu_ms" for stage in STAGES} < first.keys()
    assert {"frame", *STAGES} <= {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    page = (out / "bench.html").read_text()
    assert "bank" not in page and all(stage in page for stage in STAGES)


@pytest.fixture
def few(cli: Cli, maam: Path) -> Callable[..., Outcome]:
    """A verb that measures, in as little time as possible."""

    def run(verb: str, *more: object) -> Outcome:
        return cli(verb, "--bundle", maam, "--backends", "onnxruntime", "--threads", 1, "--frames", 2, "--warm-up", 1, *more)

    return run


def test_a_matrix_does_not_try_banks_where_there_are_none(few: Callable[..., Outcome], tmp_path: Path) -> None:
    said = few("bench", "--matrix", "--report", "json,csv", "--out", tmp_path / "out")
    assert said.code == 0 and said.err.startswith("1 settings"), said.err
    assert "onnxruntime@cpu, 1 thread |" in said.out and "maam fp32 |" in said.out and "bank" not in said.out
    [cell] = json.loads((tmp_path / "out/bench.json").read_text())["cells"]
    assert cell["bank"] == "" and cell["equal"]
    refused = few("bench", "--matrix", "--banks", "exact")
    assert refused.code == 1 and refused.err.endswith("no memory banks to search; leave it out\n")


def test_tune_leaves_the_bank_alone_and_knows_the_precision(few: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "tuned.yaml"
    said = few("tune", "--out", out, "--set", "build.precision=int8", "--set", "budget.fps=1")
    assert said.code == 0, said.err
    tuned = load_profile(str(out))
    assert (tuned.inference.bank, tuned.build.precision) == ("auto", "fp32")
    assert "edge-vad build --method maam --weights RUN_DIR --normal FOOTAGE --precision int8" in said.out
    assert "build.stride" not in said.out + said.err


def test_learn_refuses_at_once_in_one_line(cli: Cli, maam: Path, tmp_path: Path) -> None:
    said = cli("learn", "--bundle", maam, "--out", tmp_path / "x.evb", "--source", STREET)
    assert said.code == 1 and len(lines(said.err)) == 1 and "'maam'" in said.err


def test_doctor_runs_the_self_test_and_knows_the_size(maam: Path) -> None:
    check, size = doctor_bundle("gate", CameraSettings(STREET, str(maam)), load_profile("desktop_cpu"))
    assert check.state == "ok" and "self-test passed" in check.text and size == (180, 120)


def test_another_picture_size_is_one_line(cli: Cli, maam: Path) -> None:
    said = cli("run", "--bundle", maam, "--source", "synthetic:seed=3,size=360x240,seconds=1")
    assert said.code == 1 and "the bundle was built for 180x120" in lines(said.err)[-1]


def test_a_damaged_network_is_one_line(cli: Cli, maam: Path, tmp_path: Path) -> None:
    data = bytearray(maam.read_bytes())
    data[data.index(b"network/network.onnx") + 4000] ^= 1
    (tmp_path / "damaged.evb").write_bytes(data)
    said = cli("run", "--bundle", tmp_path / "damaged.evb", "--source", STREET)
    assert said.code == 1 and len(lines(said.err)) == 1 and "damaged.evb: damaged" in said.err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"n_frames": 9}, "settings.network differs"),
        ({"size": [48, 32]}, "settings.network differs"),
        ({"values": ["odds"]}, "no output 'odds'"),
        ({"means": {}}, "is missing"),
        ({"every": 0}, "every must lie in"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_are_not_the_networks_are_refused_in_one_line(
    cli: Cli, maam: Path, tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    bundle = read_bundle(maam)
    members = remade(bundle.members, {PREPROCESSING: canonical_json({**bundle.preprocessing, **changed})})
    out = tmp_path / "changed.evb"
    out.write_bytes(archive.pack(members))
    said = cli("run", "--bundle", out, "--source", STREET)
    assert said.code == 1 and words in lines(said.err)[0], said.err


def test_a_bundle_says_the_picture_size_of_its_parts(maam: Path) -> None:
    bundle = read_bundle(maam)

    def size(preprocessing: object) -> object:
        members = {**bundle.members, PREPROCESSING: canonical_json(preprocessing)}
        return type(bundle)(bundle.manifest, members, bundle.signature).image_size

    assert bundle.image_size == size({"network": bundle.preprocessing, "method": "maam"}) == tiny.SIZE
    assert size({"usual": 3.0}) is size({"image_size": [180]}) is size({"image_size": ["a", "b"]}) is None
