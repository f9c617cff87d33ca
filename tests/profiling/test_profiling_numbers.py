"""Percentiles, summaries, budgets and comparisons of runs with known numbers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import MS, a_run, felt

from edge_vad.errors import ReportError
from edge_vad.profile import Budget
from edge_vad.profiling.budget import verdicts
from edge_vad.profiling.compare import KIND, SCHEMA, check_same, compare, notes, read_report, text, worse
from edge_vad.profiling.percentiles import distribution, frames_needed, percentile

HUNDRED = [float(i) for i in range(1, 101)]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.sampled_from([0.1, 7, 50, 90, 95, 99, 99.9, 100]))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[int], q: float) -> None:
    ordered = np.sort(np.array(values))
    found = percentile(ordered, q)
    share = [(ordered <= value).sum() / len(ordered) * 100 for value in ordered]
    assert found == min(value for value, part in zip(ordered, share, strict=True) if part >= q - 1e-6)


def test_percentiles_of_a_hundred_frames() -> None:
    found = distribution(np.array([ms * MS for ms in HUNDRED[::-1]]), (50, 95, 99.9))
    expected = {"mean": 50.5, "min": 1, "p50": 50, "p95": 95, "p99.9": 100, "max": 100}
    assert found == {**expected, "std": pytest.approx(28.86607)} and list(found)[-1] == "max"
    assert [frames_needed(q) for q in (50, 99, 99.9)] == [3, 101, 1001]


def test_the_stages_of_a_summary_add_up_to_the_whole() -> None:
    found = a_run(HUNDRED).summary()
    means = {name: stage["mean_ms"] for name, stage in found["stages"].items()}
    assert list(means) == ["first", "second", "other"]
    for clock in ("wall", "cpu"):
        total = sum(mean[clock] for mean in means.values())
        assert total == pytest.approx(found["end_to_end"][f"{clock}_ms"]["mean"], rel=1e-4)
    assert means["first"]["wall"] == pytest.approx(25.25)
    assert found["stages"]["second"]["n_frames"] == 34 and found["stages"]["first"]["n_frames"] == 100
    assert found["stages"]["second"]["wall_ms"]["min"] == 0.25, "frames in which it did not run are not among them"


def test_a_summary_is_plain_json_and_holds_what_was_asked_for() -> None:
    found = a_run(HUNDRED, **felt()).summary((99,))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {"p50", "p95", "p99"} == {key for key in found["end_to_end"]["wall_ms"] if key.startswith("p")}
    assert found["fps"] == 19.802, "1000 / 50.5 ms"
    assert found["end_to_end"]["parts"]["wall_p50_ms"] == [10, 30, 50, 70, 90]
    assert found["run"]["notes"] == ["100 frames are too few for p99: it is the slowest frame"]
    assert found["memory"] == {"peak_mb": 120.0, "frames_mb": 20.0, "used_mb": 100.0, "resident_mb": 110.0}


def test_what_the_board_went_through() -> None:
    found = a_run(HUNDRED, **felt(energy_j={"processor": 10.1})).summary()
    assert found["board"]["temperature_c_max"] == 71.5 and found["board"]["clock_mhz_range"] == [1500, 2400]
    assert found["board"]["throttled_in_run"] == ["soft temperature limit", "under-voltage"], "not what was before"
    assert found["power"]["processor"] == {"mean_w": 2.0, "joule_per_frame": 0.101}
    assert found["power"]["board"] == {"mean_w": 6.0, "joule_per_frame": pytest.approx(0.303)}
    silent = a_run(HUNDRED).summary()
    assert silent["power"] == {} and not {"temperature_c_max", "throttled_in_run"} & set(silent["board"])


def test_each_bound_is_held_against_its_measurement() -> None:
    summary = a_run(HUNDRED, **felt()).summary()
    tight = {v.name: v for v in verdicts(Budget(fps=19.9, p95_ms=94.9, memory_mb=99.9, temperature_c=71.4), summary)}
    exact = verdicts(Budget(fps=19.802, p95_ms=95.0, memory_mb=100.0, temperature_c=71.5), summary)
    assert list(tight) == ["fps", "p95_ms", "memory_mb", "temperature_c"]
    assert [v.holds for v in tight.values()] == [False] * 4 and [v.holds for v in exact] == [True] * 4
    assert tight["p95_ms"].line() == "budget p95_ms missed: 95 ms measured, at most 94.9 ms (p95 of the wall time)"
    assert "at least 19.9 fps" in tight["fps"].line() and "holds" in exact[0].line()
    assert verdicts(Budget(), summary) == []


def test_a_bound_that_the_board_does_not_tell_is_said_to_be_unchecked() -> None:
    [verdict] = verdicts(Budget(temperature_c=80), a_run(HUNDRED).summary())
    assert verdict.holds is None and "not checked" in verdict.line()


def report(wall_ms: list[float], **changed: Any) -> dict[str, Any]:
    bundle = {"name": "site", "serial": 1, "id": "ab" * 32}
    settings = {"settings": {"threads": 1}, "versions": {"numpy": "2.0"}}
    made = {"kind": KIND, "schema": SCHEMA, "bundle": bundle, **settings, **a_run(wall_ms, **felt()).summary(), **changed}
    return copy.deepcopy(made)


def test_a_run_that_takes_longer_is_named_by_percentile_and_clock() -> None:
    before, after = report(HUNDRED), report([ms + 5 for ms in HUNDRED])
    rows = compare(before, after)
    assert [(row.percentile, row.clock) for row in worse(rows, 0.05, "wall")] == [("p50", "wall"), ("p95", "wall")]
    assert [row.percentile for row in worse(rows, 0.06, "wall")] == ["p50"], "50 -> 55 ms, 95 -> 100 ms"
    assert worse(rows, 0.10, "wall") == [], "at the limit is not over it"
    assert worse(compare(after, before), 0.0, "wall") == [], "faster is no failure"
    assert [row.clock for row in worse(rows, 0.06, "cpu")] == ["cpu"]


def test_the_table_has_every_stage_with_its_ratio() -> None:
    before, after = report(HUNDRED), report([2 * ms for ms in HUNDRED])
    said = text(before, after, compare(before, after))
    assert "50.00 -> 100.00 x2.00" in said and all(f"| {name} " in said for name in ("end to end", "first", "second"))


def test_only_waiting_longer_is_noted_as_such() -> None:
    before, after = report(HUNDRED), report([2 * ms for ms in HUNDRED])
    assert not any("waiting" in note for note in notes(before, after, compare(before, after)))
    after["end_to_end"]["cpu_ms"] = before["end_to_end"]["cpu_ms"]
    told = notes(before, after, compare(before, after))
    assert any("wall time changed by +100%, CPU time by +0%" in note for note in told)
    assert any("fifths 10.00-90.00 ms wall" in note and "load 0.5 to 0.5" in note for note in told)


def test_other_settings_and_versions_are_noted() -> None:
    before, after = report(HUNDRED), report(HUNDRED, settings={"threads": 4}, versions={"numpy": "2.1"})
    assert {"threads 1 and 4", "numpy 2.0 and 2.1"} <= set(notes(before, after, compare(before, after)))


def test_reports_of_other_boards_or_bundles_are_refused() -> None:
    before, other = report(HUNDRED), report(HUNDRED)
    check_same(before, other)
    other["bundle"]["id"] = "cd" * 32
    with pytest.raises(ReportError, match="different bundles: site serial 1 .abababababab. and .*--force"):
        check_same(before, other)
    other["board"]["model"] = "Another"
    with pytest.raises(ReportError, match="different boards: model 'A <board>' and 'Another'"):
        check_same(before, other)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "not a JSON report"),
        ("[]", "not a JSON report"),
        ("[" * 100_000, "not a JSON report"),
        ('{"kind": "coverage", "schema": 1}', "not a JSON report"),
        ('{"kind": "edge-vad bench", "schema": 2}', "schema 2, this edge-vad reads 1"),
    ],
)
def test_a_file_that_is_no_report_is_named(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ReportError, match=words) as caught:
        read_report(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_report_is_an_error_and_never_passes_the_gate() -> None:
    before, after = report(HUNDRED), report(HUNDRED)
    del after["end_to_end"]["wall_ms"]["p95"]
    del after["end_to_end"]["cpu_ms"]["p95"]
    with pytest.raises(ReportError, match="without p95"):
        compare(before, after)
    del after["stages"]
    with pytest.raises(ReportError, match="without 'stages'"):
        compare(before, after)
