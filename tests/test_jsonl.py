"""Events as JSON lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edge_vad.errors import OutputError
from edge_vad.record import Recorder, event_data
from edge_vad.sinks.jsonl import JsonLines
from edge_vad.types import Event, Region

EVENT = Event(
    "end", 3, 1.23456, 12, 1.987654, 20, {"speed": 2.000049}, (Region(1.26, 2, 30.04, 40, score=1.23456),), 4.5, 45
)
RECORD = Recorder().event("gate", EVENT)


def test_an_event_is_plain_json_with_rounded_numbers() -> None:
    assert event_data(EVENT) == {
        "id": 3, "start_s": 1.2346, "start_frame": 12, "end_s": 4.5, "end_frame": 45,
        "peak_score": 1.9877, "peak_frame": 20, "components": {"speed": 2.0},
        "regions": [{"box": [1.3, 2, 30.0, 40], "score": 1.2346}],
    }  # fmt: skip
    assert event_data(Event("start", 1, 0.0, 0, 1.0, 0))["end_s"] is None


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with JsonLines(str(path)) as sink:
            sink.write(RECORD)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [3, 3]


@pytest.mark.parametrize("location", ["", "-"])
def test_standard_output_gets_one_line_and_stays_open(location: str, capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines(location) as sink:
        sink.write(RECORD)
    sys.stdout.write("still open\n")
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first)["kind"] == "end" and second == "still open"


def test_a_full_disk_is_an_output_error() -> None:
    sink = JsonLines("/dev/full")
    with pytest.raises(OutputError, match="/dev/full: an event could not be written: No space left"):
        sink.write(RECORD)
    sink.close()
