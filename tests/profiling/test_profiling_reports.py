"""Reports of a run with known numbers, as a reader or a program takes them."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from made_runs import a_run, felt

from edge_vad.profile import Budget
from edge_vad.profiling.budget import verdicts
from edge_vad.profiling.measurement import Measurement
from edge_vad.profiling.report import rendered
from edge_vad.profiling.trace import to_trace

TIMES = [10.0 + i % 7 for i in range(30)]


def header(run: Measurement) -> dict[str, Any]:
    summary = run.summary()
    return {
        "written": "2026-01-01T00:00:00+00:00",
        "bundle": {
            "name": "<b>site</b>",
            "serial": 3,
            "id": "ab" * 32,
            "method": "videopatchcore",
            "models": {"encoder": "lite0 int8"},
            "image_size": [360, 240],
            "rows": {"spatial": 161},
        },
        "settings": {
            "profile": "a|b",
            "backend": "onnxruntime",
            "device": "cpu",
            "threads": 2,
            "precision": "fp16",
            "bank": "auto",
            "banks": {"spatial": "exact"},
            "source": "clip.mp4",
        },
        "versions": {"python": "3.11"},
        **summary,
        "budget": [v.plain() for v in verdicts(Budget(fps=1, p95_ms=1, temperature_c=90), summary)],
    }


@pytest.fixture
def run() -> Measurement:
    return a_run(TIMES, **felt(), n_late=2, n_passed=4)


def test_json_is_complete(run: Measurement) -> None:
    report = header(run)
    told = json.loads(rendered("json", report, run))
    assert told == report
    assert set(told["stages"]["first"]["wall_ms"]) == {"mean", "std", "min", "p50", "p90", "p95", "p99", "p99.9", "max"}


def test_csv_has_one_row_per_frame_whose_stages_fit_into_it(run: Measurement) -> None:
    rows = list(csv.DictReader(io.StringIO(rendered("csv", header(run), run))))
    assert len(rows) == 30 and [float(row["wall_ms"]) for row in rows] == TIMES
    assert list(rows[0])[:6] == ["frame", "start_s", "wall_ms", "cpu_ms", "first_wall_ms", "first_cpu_ms"]
    assert float(rows[1]["start_s"]) == 0.01 and float(rows[1]["second_wall_ms"]) == 0
    assert float(rows[3]["second_wall_ms"]) == pytest.approx(TIMES[3] / 4)


def test_markdown_is_a_table_with_every_percentile_and_verdict(run: Measurement) -> None:
    said = rendered("md", header(run), run)
    lines = [line for line in said.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines[:3]}) == 1, "padded"
    whole = next(line for line in lines if line.startswith("| end to end, wall"))
    assert [float(cell) for cell in whole.split("|")[2:4]] == [12.83, 13.0]
    for words in (
        "temperature | 50 C before, 64 C after, at most 71.5 C",
        "1500 to 2400 MHz",
        "soft temperature limit, under-voltage in the run; before it: throttled since boot",
        "board: 6.00 W on average",
        "a\\|b: onnxruntime on cpu in fp16, threads 2",
        "2 frames could not begin in time",
        "wall time is 2.0 times CPU time",
        "4 frames were passed over",
        "budget p95_ms missed: 16 ms",
        "budget temperature_c holds",
    ):
        assert words in re.sub(r" +", " ", said), words


class Page(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]
        self.labels += [str(value) for name, value in attrs if name == "aria-label"]

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_html_is_one_file_with_charts_and_no_script(run: Measurement) -> None:
    text = rendered("html", header(run), run)
    page = Page(text)
    assert "script" not in page.tags and page.links == [] and "url(" not in text
    assert "<b>site</b> serial 3" in page.shown and "A <board>" in page.shown, "names are text, not markup"
    assert page.labels[:3] == ["Wall time of a frame over the run", "Stages", "Histogram of the wall time"]
    assert {"Temperature", "Clock", "Power of the board"} <= set(page.labels)
    assert "budget p95_ms missed" in page.shown and "nan" not in text.lower()
    assert text.count('class="bar"') == len(set(TIMES)), "one bar for each time that occurs"


def test_a_page_of_a_board_that_tells_nothing_has_no_empty_charts() -> None:
    silent = a_run([10.0])
    page = Page(rendered("html", header(silent), silent))
    assert page.labels == ["Wall time of a frame over the run", "Stages", "Histogram of the wall time"]


@pytest.mark.parametrize("n_frames", [1, 2, 3, 5000])
def test_any_length_of_run_makes_every_report(n_frames: int) -> None:
    one = a_run([10.0 + i % 13 for i in range(n_frames)], **felt())
    for kind in ("json", "csv", "md", "html"):
        text = rendered(kind, header(one), one)
        assert "nan" not in text.lower() and len(text) < 3_000_000
    slowest = re.findall(r'<polyline class="line a" points="([^"]*)"', rendered("html", header(one), one))[0]
    assert len(slowest.split()) <= 701


def test_a_trace_has_frames_their_stages_inside_and_readings(run: Measurement) -> None:
    trace = json.loads(to_trace(run, header(run)))
    events = trace["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    frames = {event["args"]["frame"]: event for event in complete if event["name"] == "frame"}
    assert len(frames) == 30 and [e["ts"] for e in complete] == sorted(e["ts"] for e in complete)
    for event in complete:
        around = frames[event["args"]["frame"]]
        assert around["ts"] <= event["ts"] and event["ts"] + event["dur"] <= around["ts"] + around["dur"] + 1e-6
        assert event["pid"] == around["pid"] and event["tid"] == around["tid"]
    assert {event["name"] for event in complete} == {"frame", "first", "second"} and frames[0]["dur"] == 10_000
    heat = [(e["ts"], e["args"]["value"]) for e in events if e["ph"] == "C" and e["name"] == "temperature (C)"]
    assert heat == [(0, 50), (20_000, 71.5), (pytest.approx(1e6 * run.duration_s), 64)]
    assert {e["args"]["name"] for e in events if e["ph"] == "M"} >= {"frames and stages", "board"}
    assert trace["otherData"]["versions"] == {"python": "3.11"} and trace["displayTimeUnit"] == "ms"


def test_a_method_that_rests_in_most_frames_is_told_from_a_fast_one() -> None:
    resting = a_run([12.0, 1.0, 1.0] * 20)
    report = header(resting)
    assert report["fps"] == pytest.approx(1000 * 3 / 14, rel=1e-4) and report["end_to_end"]["wall_ms"]["p50"] == 1.0
    assert "p50 end to end is of the others" not in rendered("md", report, resting), "the dearest stage runs always"
    report["stages"]["first"]["n_frames"] = 20
    note = "first ran in 20 of 60 frames, p50 end to end is of the others: mean and p95 count"
    assert f"- {note}" in rendered("md", report, resting).splitlines()


def test_a_bundle_without_banks_is_not_said_to_search_one(run: Measurement) -> None:
    report = header(run)
    assert "threads 2, bank auto" in rendered("md", report, run)
    report["bundle"]["rows"], report["settings"]["banks"] = {}, {}
    assert "bank" not in rendered("md", report, run)
