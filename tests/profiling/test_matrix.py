"""The matrix: what exists here, each setting in a process of its own, one table of costs and of equal scores."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import Outcome, clip_frames

from edge_vad.bundle import read_bundle
from edge_vad.detector import Detector
from edge_vad.profile import Inference, load_profile
from edge_vad.profiling.cell import Cell, Job, run_cell, save_frames
from edge_vad.profiling.matrix import Wanted, backends_here, banks_here, cells, devices_here, thread_counts

Cli = Callable[..., Outcome]

CPU = Cell(0, "onnxruntime", "cpu", "fp32", 1, "exact")
WRONG = """
import numpy as np
from edge_vad.backends.onnxruntime import OnnxRuntime

class Wrong(OnnxRuntime):
    def run(self, inputs):
        return {name: values * np.float32(1.5) for name, values in super().run(inputs).items()}
"""


def test_threads_double_up_to_the_processors() -> None:
    assert [thread_counts(n) for n in (1, 2, 3, 4, 6)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4), (1, 2, 4, 6)]


def test_devices_are_those_that_the_kernel_shows_and_that_the_profile_names(tmp_path: Path) -> None:
    kinds = ("cpu", "cuda", "tensorrt", "gpu", "npu")
    assert devices_here(kinds, [], tmp_path) == ["cpu"]
    assert devices_here(kinds, ["cuda:1"], tmp_path) == ["cpu", "cuda:1"]
    for name in ("dev/nvidia0", "dev/accel/accel0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert devices_here(kinds, ["cpu"], tmp_path) == ["cpu", "cuda:0", "tensorrt:0", "npu"]


def test_what_is_installed_is_tried_and_the_profile_may_name_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert banks_here()[0] == "exact" and {"compact", "hnsw"} <= set(banks_here())
    monkeypatch.setattr(
        "edge_vad.profiling.matrix.find_spec", lambda name: None if name in ("hnswlib", "torch") else object()
    )
    assert "hnsw" not in banks_here()
    assert backends_here(Inference("onnxruntime", fallback=("my_plugins.own@cpu",))) == [
        "onnxruntime",
        "openvino",
        "my_plugins.own",
    ]


def test_every_combination_is_there_once_and_the_first_is_what_built_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    wanted = Wanted(("openvino", "onnxruntime"), (2, 1), ("compact", "exact"))
    found = cells([True, True], Inference(), wanted, tmp_path)
    assert found[0] == CPU and len(set(found)) == len(found)
    on_cpu = [cell for cell in found if cell.device == "cpu"]
    assert len(on_cpu) == 2 * 2 * 2 * 2 and {cell.precision for cell in on_cpu} == {"fp32"}
    on_gpu = [cell for cell in found if cell.device != "cpu"]
    assert {(cell.device, cell.precision, cell.threads) for cell in on_gpu} == {
        (device, precision, 1) for device in ("cuda:0", "tensorrt:0") for precision in ("fp32", "fp16")
    }


@pytest.fixture
def job(tiny_bundle: Path, tmp_path: Path) -> Job:
    save_frames(clip_frames(12), tmp_path / "frames.npz")
    profile = load_profile("desktop_cpu")
    profile = replace(profile, inference=CPU.inference(profile.inference))
    places = {"frames": str(tmp_path / "frames.npz"), "out": str(tmp_path / "found.json")}
    return Job(str(tiny_bundle), read_bundle(tiny_bundle).id, profile, **places, duration_s=5.0, warm_up=1, n_frames=4)


def test_a_cell_tells_times_memory_and_scores_of_its_own_process(job: Job) -> None:
    ballast = np.ones(60_000_000)  # 458 MB here must not be memory there
    found = run_cell(job)
    assert "error" not in found, found
    assert len(found["wall_ns"]) == len(found["cpu_ns"]) == 4 and min(found["wall_ns"]) > 0
    assert 10 < found["used_mb"] < ballast.nbytes / 2**20 - 100
    detector = Detector.open(job.bundle, job.profile)
    moments = [replace(frame, timestamp=i * detector.period_s) for i, frame in enumerate(clip_frames(12))]
    assert found["scores"] == pytest.approx([detector.process(frame).score for frame in moments])
    assert set(found["banks"].values()) == {"exact"}


def test_what_goes_wrong_in_a_cell_is_one_line(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(**changed: object) -> str:
        inference = replace(job.profile.inference, **changed)  # type: ignore[arg-type]
        return str(run_cell(replace(job, profile=replace(job.profile, inference=inference)))["error"])

    assert "no device" in error(device="tpu:0")
    (tmp_path / "plugs").mkdir()
    (tmp_path / "plugs/wrong.py").write_text(WRONG)
    (tmp_path / "plugs/dead.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "golden self-test" in error(backend="plugs.wrong")
    assert "signal 9" in error(backend="plugs.dead")
    assert "exchanged" in str(run_cell(replace(job, bundle_id="0" * 64))["error"])
    assert "no result within" in str(run_cell(replace(job, duration_s=-6.0, profile=_hurried(job)))["error"])


def _hurried(job: Job) -> object:
    return replace(job.profile, store=replace(job.profile.store, self_test_s=0.05))


@pytest.fixture(scope="module")
def second_bundle(tiny_bundle: Path, footage: Path, tiny_encoder: Path) -> Path:
    """The same footage with the INT8 encoder."""
    import tiny

    from edge_vad.cli import main

    out = tiny_encoder.with_name("tiny-int8.evb")
    arguments = ["int8" if word == "fp32" else word for word in tiny.build_arguments(footage, out, tiny_encoder)]
    assert main(arguments) == 0
    return out


def test_one_table_of_all_settings(cli: Cli, tiny_bundle: Path, second_bundle: Path, footage: Path, tmp_path: Path) -> None:
    few = ("--frames", 3, "--warm-up", 1, "--source", footage / "01", "--threads", 1)
    said = cli(
        *("bench", "--matrix", "--bundle", tiny_bundle, second_bundle, "--backends", "onnxruntime", *few),
        *("--banks", "exact", "--set", "inference.fallback=[onnxruntime@cuda:0]", "--report", "json,csv,md,html"),
        *("--out", tmp_path / "out"),
    )
    assert said.code == 0, said.err
    assert said.err.startswith("6 settings, two rounds each: about")
    told = json.loads((tmp_path / "out/bench.json").read_text())
    assert (told["kind"], told["schema"], len(told["bundles"])) == ("edge-vad matrix", 1, 2)
    ran = [cell for cell in told["cells"] if "error" not in cell]
    assert [cell["models"]["encoder"].split()[-1] for cell in sorted(ran, key=lambda c: c["bundle"])] == ["fp32", "int8"]
    assert [cell["wall_ms"]["p95"] for cell in ran] == sorted(cell["wall_ms"]["p95"] for cell in ran)
    for cell in ran:
        assert cell["n_frames"] == 6 and cell["equal"] and cell["deviation"] == 0.0 and cell["used_mb"] > 10
        assert cell["fps"] == pytest.approx(1000 / cell["wall_ms"]["mean"], rel=1e-3) and cell["cpu_ms"] > 0
    refused = [cell for cell in told["cells"] if "error" in cell]
    assert len(refused) == 4 and all("\n" not in cell["error"] and cell["device"] == "cuda:0" for cell in refused)
    assert said.out == (tmp_path / "out/bench.md").read_text() and "- not run: onnxruntime@cuda:0" in said.out
    rows = list(csv.DictReader((tmp_path / "out/bench.csv").read_text().splitlines()))
    assert len(rows) == 6 and float(rows[0]["p95_ms"]) == ran[0]["wall_ms"]["p95"] and rows[-1]["error"]
    page = (tmp_path / "out/bench.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.count("<tr>") == 1 + len(ran) and "not run" in page


def test_a_bundle_of_another_site_is_refused(cli: Cli, tiny_bundle: Path, street_like: Path) -> None:
    said = cli("bench", "--matrix", "--bundle", tiny_bundle, street_like)
    assert said.code == 1 and "not of one site" in said.err and len(said.err.splitlines()) == 1


@pytest.fixture(scope="module")
def street_like(footage: Path, tiny_encoder: Path) -> Path:
    """A bundle of one of the two clips."""
    import tiny

    from edge_vad.cli import main

    out = tiny_encoder.with_name("other.evb")
    assert main(tiny.build_arguments(footage / "01", out, tiny_encoder)) == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--matrix", "--paced"), "--paced does not go with --matrix"),
        (("--matrix", "--trace", "t.json"), "--trace does not go with --matrix"),
        (("--threads", "2"), "--threads needs --matrix"),
        (("--matrix", "--threads", "0"), "are no numbers of threads"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], words: str, cli: Cli) -> None:
    said = cli("bench", "--bundle", "x.evb", *arguments)
    assert said.code == 2 and words in said.err and len(said.err.splitlines()) == 1


def test_several_bundles_are_for_a_matrix(cli: Cli, tiny_bundle: Path) -> None:
    said = cli("bench", "--bundle", tiny_bundle, tiny_bundle)
    assert said.code == 2 and "several bundles needs --matrix" in said.err


@pytest.mark.parametrize(
    ("names", "words"),
    [(("--backends", "onxruntime"), "did you mean 'onnxruntime'"), (("--banks", "exakt"), "did you mean 'exact'")],
)
def test_a_wrong_name_is_said_before_anything_is_measured(
    names: tuple[str, str], words: str, cli: Cli, tiny_bundle: Path
) -> None:
    said = cli("bench", "--matrix", "--bundle", tiny_bundle, *names)
    assert said.code == 1 and words in said.err and len(said.err.splitlines()) == 1


def test_a_matrix_in_which_nothing_runs_is_an_error(cli: Cli, tiny_bundle: Path, footage: Path) -> None:
    said = cli(
        *("bench", "--matrix", "--bundle", tiny_bundle, "--source", footage / "01", "--threads", 1, "--banks", "my.none"),
        *("--backends", "onnxruntime", "--frames", 2),
    )
    assert said.code == 1 and "none of the 1 settings runs here" in said.err.splitlines()[-1]
