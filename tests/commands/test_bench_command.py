"""edge-vad bench: measuring, reports, budgets and the gate, as a user runs them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import Outcome

from edge_vad.bundle import read_bundle
from edge_vad.commands import bench
from edge_vad.profiling import stock

Cli = Callable[..., Outcome]
Bench = Callable[..., Outcome]


@pytest.fixture
def measured(cli: Cli, tiny_bundle: Path, footage: Path) -> Bench:
    """Twelve frames of the footage that the tiny bundle was built from, without bounds."""

    def run(*more: object) -> Outcome:
        few = ("--frames", 12, "--warm-up", 2, "--source", footage / "01", "--set", "budget={}")
        return cli("bench", "--bundle", tiny_bundle, *few, *more)

    return run


def test_a_table_for_people_on_standard_output(measured: Bench, tiny_bundle: Path) -> None:
    said = measured()
    assert said.code == 0 and said.err == ""
    assert said.out.startswith(f"# edge-vad bench: tiny serial 1 ({read_bundle(tiny_bundle).id[:12]})")
    for words in (
        "end to end, wall",
        "end to end, CPU",
        "| encoder",
        "p99.9",
        "12 processed frames",
        "onnxruntime",
        "(exact)",
    ):
        assert words in said.out, words


def test_json_for_programs(measured: Bench, tiny_bundle: Path) -> None:
    said = measured("--json", "--percentile", "50,99", "--set", "inference.threads=2")
    told = json.loads(said.out)
    assert (told["kind"], told["schema"]) == ("edge-vad bench", 1)
    assert (
        told["bundle"]["id"] == read_bundle(tiny_bundle).id
        and told["bundle"]["rows"].keys() == told["settings"]["banks"].keys()
    )
    assert told["settings"]["threads"] == 2 and told["settings"]["profile"] == "desktop_cpu"
    assert told["run"]["n_frames"] == 12 and told["run"]["n_passed"] == 0 and told["run"]["warm_up"] == 2
    assert {"python", "edge-vad", "inner loops", "numpy", "onnxruntime"} == told["versions"].keys()
    for stage in (told["end_to_end"], *told["stages"].values()):
        assert {"p50", "p95", "p99"} <= stage["wall_ms"].keys() and stage["cpu_ms"].keys() == stage["wall_ms"].keys()
    assert told["fps"] == pytest.approx(1000 / told["end_to_end"]["wall_ms"]["mean"], rel=1e-3)
    assert told["memory"]["used_mb"] > 10 and told["board"]["before"]["load"] >= 0


def test_reports_go_into_a_folder_and_a_trace_beside_them(measured: Bench, tmp_path: Path) -> None:
    said = measured("--report", "json,csv,md,html", "--out", tmp_path / "new/out", "--trace", tmp_path / "trace.json")
    assert said.code == 0 and said.out.startswith("# edge-vad bench")
    assert sorted(path.name for path in (tmp_path / "new/out").iterdir()) == [
        f"bench.{k}" for k in ("csv", "html", "json", "md")
    ]
    assert said.err.splitlines() == [str(tmp_path / f"new/out/bench.{k}") for k in bench.KINDS] + [
        str(tmp_path / "trace.json")
    ]
    told = json.loads((tmp_path / "new/out/bench.json").read_text())
    rows = list(csv.DictReader((tmp_path / "new/out/bench.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert max(float(row["wall_ms"]) for row in rows) == pytest.approx(told["end_to_end"]["wall_ms"]["max"], abs=1e-4)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "frame" for event in events) == 12
    assert (tmp_path / "new/out/bench.md").read_text() == said.out


def test_one_report_goes_into_a_file(measured: Bench, tmp_path: Path) -> None:
    assert measured("--report", "html", "--out", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert measured("--report", "csv").out.startswith("frame,start_s,wall_ms,cpu_ms,motion_wall_ms")


def test_frames_of_a_generated_street_are_the_default(cli: Cli, tiny_bundle: Path) -> None:
    said = cli("bench", "--bundle", tiny_bundle, "--duration", "50ms", "--warm-up", 1, "--json", "--paced")
    told = json.loads(said.out)
    assert told["settings"]["source"].startswith("synthetic:") and told["run"]["paced"]
    assert told["run"]["n_frames_in_memory"] == 100


def test_a_missed_bound_ends_with_3_and_one_line_each(measured: Bench) -> None:
    bounds = ("budget.p95_ms=0.001", "budget.fps=1", "budget.memory_mb=1")
    said = measured(*(word for bound in bounds for word in ("--set", bound)))
    assert said.code == 3
    lines = said.err.splitlines()
    assert len(lines) == 2 and all(line.startswith("edge-vad bench: budget ") and " missed: " in line for line in lines)
    assert "p95_ms" in lines[0] and "memory_mb" in lines[1] and "budget fps holds" in said.out


def test_the_profile_brings_the_budget(cli: Cli, tiny_bundle: Path, footage: Path, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("name: mine\ndescription: mine\nbudget:\n  p95_ms: 0.001\n")
    command = ("bench", "--bundle", tiny_bundle, "--source", footage / "01", "--frames", 3, "--profile", profile)
    assert cli(*command).code == 3
    assert cli(*command, "--set", "budget.p95_ms=null").code == 0


@pytest.fixture
def reports(measured: Bench, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Two reports of one run; the second with times ``factor`` times as long, or otherwise changed."""
    assert measured("--report", "json", "--out", tmp_path / "a.json").code == 0

    def make(wall: float = 1.0, cpu: float = 1.0, **changed: Any) -> tuple[Path, Path]:
        told = json.loads((tmp_path / "a.json").read_text())
        for clock, factor in (("wall_ms", wall), ("cpu_ms", cpu)):
            told["end_to_end"][clock] = {key: value * factor for key, value in told["end_to_end"][clock].items()}
        (tmp_path / "b.json").write_text(json.dumps({**told, **changed}))
        return tmp_path / "a.json", tmp_path / "b.json"

    return make


def test_the_gate_opens_and_closes_at_its_limit(reports: Callable[..., tuple[Path, Path]], cli: Cli) -> None:
    a, b = reports(wall=1.2)
    said = cli("bench", "--compare", a, b, "--fail-over", "10%")
    assert said.code == 3 and [line.split()[2] for line in said.err.splitlines()] == ["p50", "p95"]
    assert "+20.0%, over 10.0%" in said.err and "x1.20" in said.out
    assert cli("bench", "--compare", a, b, "--fail-over", "25%").code == 0
    assert cli("bench", "--compare", a, b, "--fail-over", "10%", "--clock", "cpu").code == 0
    assert cli("bench", "--compare", b, a, "--fail-over", "0%").code == 0
    assert cli("bench", "--compare", a, b).code == 0


def test_reports_that_cannot_be_compared_are_refused_unless_forced(
    reports: Callable[..., tuple[Path, Path]], cli: Cli, tmp_path: Path
) -> None:
    a, b = reports(schema=7)
    said = cli("bench", "--compare", a, b, "--force")
    assert said.code == 1 and len(said.err.splitlines()) == 1 and str(b) in said.err and "schema 7" in said.err
    a, b = reports(board={**json.loads(a.read_text())["board"], "n_cpus": 99})
    said = cli("bench", "--compare", a, b)
    assert said.code == 1 and "different boards: n_cpus" in said.err and said.out == ""
    assert cli("bench", "--compare", a, b, "--force").code == 0
    said = cli("bench", "--compare", a, tmp_path / "none.json")
    assert said.code == 1 and "none.json" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name either --bundle"),
        (("--bundle", "x.evb", "--compare", "a", "b"), "name either --bundle"),
        (("--bundle", "x.evb", "--fail-over", "10%"), "goes with --compare"),
        (("--compare", "a", "b", "--fail-over", "0.1"), "write it in percent"),
        (("--bundle", "x.evb", "--duration", "soon"), "no duration"),
        (("--bundle", "x.evb", "--duration", "0s"), "no duration"),
        (("--bundle", "x.evb", "--frames", "0"), "no number of frames"),
        (("--bundle", "x.evb", "--percentile", "50,101"), "no percentiles"),
        (("--bundle", "x.evb", "--report", "pdf"), "known: json, csv, md, html"),
        (("--bundle", "x.evb", "--report", "csv,md"), "2 reports need --out DIR"),
    ],
)
def test_wrong_use_ends_with_2_on_one_line(arguments: tuple[str, ...], words: str, cli: Cli) -> None:
    said = cli("bench", *arguments)
    assert said.code == 2 and words in said.err and len(said.err.splitlines()) == 1


def test_what_cannot_be_measured_or_written_ends_with_1_before_any_work(
    measured: Bench, cli: Cli, tiny_bundle: Path, tmp_path: Path
) -> None:
    for arguments, words in (
        (("--out", tmp_path / "none/a.json", "--report", "json"), "does not exist"),
        (("--out", tmp_path / "a.json", "--report", "json,md"), "name a folder"),
        (("--trace", tmp_path / "none/t.json"), "does not exist"),
        (("--source", "synthetic:seconds=1,size=96x64"), "96x64"),
        (("--source", tmp_path / "nowhere"), "no such file"),
        (("--set", "budget.p50_ms=1"), "did you mean 'p95_ms'"),
    ):
        said = measured(*arguments)
        assert said.code == 1 and words in said.err and len(said.err.splitlines()) == 1, said
    assert cli("bench", "--bundle", tmp_path / "no.evb").code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_street_that_cannot_be_generated_asks_for_a_source(
    cli: Cli, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock, "asked_for", lambda bundle: ((40, 400), 0.2))
    said = cli("bench", "--bundle", tiny_bundle)
    assert said.code == 1 and "name frames with --source" in said.err and "40x400" in said.err


def test_the_overhead_is_said_and_judged(measured: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cpu_ms_without": 8.0, "cpu_ms_with": 8.02, "ratio": 1.0025, "n_frames": 30, "n_passes": 40}
    for halves, code in (([1.004, 1.001], 0), ([1.03, 1.02], 3), ([1.03, 1.001], 0)):
        monkeypatch.setattr(bench, "overhead", lambda *_, halves=halves: {**found, "ratio_of_halves": halves})
        said = measured("--overhead")
        assert said.code == code and "8.000 ms without, 8.020 ms with the recorder: x1.0025" in said.out
