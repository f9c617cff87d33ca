"""The main job on a generated street, as a user does it: build, run, evaluate, inspect."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from tiny import Outcome

from edge_vad import Detector, open_camera
from edge_vad.bundle import read_bundle
from edge_vad.profile import load_profile
from edge_vad.vectors import VECTOR_TYPES

Cli = Callable[..., Outcome]
RESULT_KEYS = {
    "causal", "offline", "document", "labels", "other_labels", "false_alarms", "localisation", "cold_start", "n_frames",
    "cpu_ms_per_frame", "peak_rss_mb", "bundle_bytes", "clips",
}  # fmt: skip
EVENT_KEYS = {
    "kind", "id", "start_s", "start_frame", "end_s", "end_frame", "peak_score", "peak_frame", "components", "regions",
    "seq", "boot", "monotonic_s", "time", "camera", "type",
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(street: Path, street_bundle: Path) -> Path:
    from edge_vad.cli import main

    report = street.parent / "report"
    arguments = ["evaluate", "--bundle", street_bundle, "--dataset", "folder", street, "--report", report]
    assert main([str(argument) for argument in arguments]) == 0
    return report


def scores_of(bundle: Path, clip: Path, *overrides: str) -> np.ndarray:
    detector = Detector.open(bundle, load_profile("desktop_cpu", overrides))
    with open_camera(clip) as camera:
        return np.array([detector.process(frame).score for frame in camera.frames()])


def test_run_writes_valid_events_as_json_lines(street: Path, street_bundle: Path, cli: Cli) -> None:
    said = cli("run", "--bundle", street_bundle, "--source", street / "testing" / "frames" / "01")
    events = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == 0 and events
    assert all(event["type"] == "anomaly" for event in events)
    events = [event for event in events if event["kind"] != "update"]
    assert [event["kind"] for event in events] == ["start", "end"] * (len(events) // 2)
    for start, end in zip(events[::2], events[1::2], strict=True):
        assert set(start) == set(end) == EVENT_KEYS
        assert start["id"] == end["id"]
        assert start["end_s"] is None and start["start_s"] == end["start_s"] < end["end_s"]
        assert start["start_frame"] <= end["peak_frame"] <= end["end_frame"]
        assert 1.0 <= start["peak_score"] <= end["peak_score"]
        assert all(0 <= v <= 360 + 60 for region in end["regions"] for v in region["box"][2:])


def test_the_alarm_falls_into_the_time_of_the_anomaly(street: Path, street_bundle: Path, cli: Cli) -> None:
    labels = json.loads((street / "labels.json").read_text())["01"]["anomalous_1based"]
    said = cli("run", "--bundle", street_bundle, "--source", street / "testing" / "frames" / "01")
    first = json.loads(said.out.splitlines()[0])
    assert any(begin - 1 <= first["peak_frame"] <= end for begin, end in labels)


def test_run_watches_a_generated_street_and_its_sink_is_a_file(street_bundle: Path, tmp_path: Path, cli: Cli) -> None:
    events = tmp_path / "events.jsonl"
    said = cli("run", "--bundle", street_bundle, "--source", "synthetic:seed=7,seconds=10", "--sink", f"jsonl:{events}")
    assert said.code == 0 and said.out == ""
    assert all(json.loads(line)["kind"] in ("start", "update", "end") for line in events.read_text().splitlines())


def test_evaluate_writes_every_number_of_the_contract(evaluated: Path) -> None:
    result = json.loads((evaluated / "result.json").read_text())
    assert set(result) == RESULT_KEYS
    assert result["n_frames"] == 360 and len(result["clips"]) == 3
    assert set(result["false_alarms"]) == {
        "budget_per_hour", "fpr_on_normal_test_frames", "detection_rate", "events_per_hour_on_normal_test_frames",
        "false_events", "normal_test_hours",
    }  # fmt: skip
    assert result["cpu_ms_per_frame"]["total"] > 0 and result["bundle_bytes"] > 0
    assert "<html" in (evaluated / "report.html").read_text(encoding="utf-8").lower()


def test_anomalies_of_the_street_are_found(evaluated: Path) -> None:
    result = json.loads((evaluated / "result.json").read_text())
    assert result["causal"]["frame_auc"]["micro"] > 0.75
    assert result["false_alarms"]["fpr_on_normal_test_frames"] < 0.1
    assert result["localisation"]["inside_on_true_positives"] > 5 * result["localisation"]["chance"]


def test_inspect_tells_what_is_in_the_bundle(street_bundle: Path, cli: Cli) -> None:
    said = cli("bundle", "inspect", street_bundle)
    assert said.code == 0
    for word in ("street", "videopatchcore", "360x240", "int8", "spatial", "threshold", f"{street_bundle.stat().st_size:,}"):
        assert word in said.out
    described = json.loads(cli("bundle", "inspect", street_bundle, "--json").out)
    assert set(described) == {"id", "manifest", "calibration", "preprocessing"}


def test_verify_says_that_the_bundle_is_whole(street_bundle: Path, cli: Cli) -> None:
    said = cli("bundle", "verify", street_bundle)
    assert said.code == 0 and "holds: 8 files by size and hash" in said.out


def test_the_same_footage_gives_the_same_bytes_in_another_process_place_and_time_zone(tmp_path: Path) -> None:
    made = []
    for number, zone in enumerate(("UTC", "Asia/Tokyo")):
        folder = tmp_path / f"place{number}"
        for clip in (1, 2):
            tiny.write_clip(folder / "footage" / f"{clip:02d}", 40, seed=clip)
        environment = {**os.environ, "TZ": zone, "LC_ALL": ("C", "C.UTF-8")[number], "PYTHONHASHSEED": str(number + 1)}
        command = [sys.executable, "-c", "import sys; from edge_vad.cli import main; sys.exit(main())"]
        command += ["build", "--normal", "footage", "--out", "site.evb"]
        made.append(
            (
                subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE),
                folder,
            )
        )
    for process, _ in made:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()
    one, other = ((folder / "site.evb").read_bytes() for _, folder in made)
    assert one == other


@pytest.fixture(scope="module")
def clip_scores(street: Path, street_bundle: Path) -> np.ndarray:
    return scores_of(street_bundle, street / "testing" / "frames" / "03")


OVERRIDES = [f"inference.{o}" for o in ("bank=hnsw", "backend=openvino", "backend=torch", "threads=2")]


@pytest.mark.parametrize("override", OVERRIDES)
def test_another_bank_or_backend_gives_close_scores(
    override: str, street: Path, street_bundle: Path, clip_scores: np.ndarray
) -> None:
    scores = scores_of(street_bundle, street / "testing" / "frames" / "03", override)
    assert np.abs(scores - clip_scores).max() < 0.1


def test_fp32_gives_close_scores(street: Path, lite0: Path, clip_scores: np.ndarray, tmp_path: Path, cli: Cli) -> None:
    said = cli("build", "--normal", street, "--out", tmp_path / "fp32.evb", "--precision", "fp32", "--encoder", lite0)
    assert said.code == 0
    scores = scores_of(tmp_path / "fp32.evb", street / "testing" / "frames" / "03")
    assert np.corrcoef(scores, clip_scores)[0, 1] > 0.97
    assert np.abs(scores - clip_scores).max() < 0.6  # thresholds read off 48 s of footage differ more than features do


@pytest.mark.parametrize("vectors", [kind for kind in VECTOR_TYPES if kind != "fp16"])
def test_a_memory_that_is_stored_smaller_scores_close(
    vectors: str, footage: Path, tiny_encoder: Path, tiny_bundle: Path, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "small.yaml").write_text(f"vectors: {vectors}\n")
    out = tmp_path / "small.evb"
    assert cli(*tiny.build_arguments(footage, out, tiny_encoder, "--config", str(tmp_path / "small.yaml"))).code == 0
    assert cli("bundle", "check", out).code == 0
    assert [b.vectors for b in read_bundle(out).manifest.banks.values()] == [vectors] * 3
    clip = footage / "01"
    assert np.corrcoef(scores_of(out, clip)[10:], scores_of(tiny_bundle, clip)[10:])[0, 1] > 0.8
    np.testing.assert_allclose(scores_of(out, clip, "inference.bank=compact"), scores_of(out, clip), atol=1e-3)


def test_half_of_a_clip_scores_as_the_whole_clip_does(
    street: Path, street_bundle: Path, clip_scores: np.ndarray, tmp_path: Path
) -> None:
    frames = sorted((street / "testing" / "frames" / "03").iterdir())[:60]
    for path in frames:
        shutil.copy(path, tmp_path)
    assert np.array_equal(scores_of(street_bundle, tmp_path), clip_scores[:60])
