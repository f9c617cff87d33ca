"""What every sink must do, run over every module in the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_vad.errors import OutputError
from edge_vad.plugins import available, load
from edge_vad.sinks import Sink
from edge_vad.types import Event, Region

START = Event("start", 1, 2.0, 20, 1.25, 21, {"speed": 3.5}, (Region(1, 2, 30, 40, score=1.2),))
END = Event("end", 1, 2.0, 20, 1.5, 25, {"speed": 4.5}, (), end_s=4.25, end_frame=42)


def location(name: str, folder: Path) -> str:
    """Where the sink ``name`` writes to in a test. A new sink needs a line here."""
    assert name == "jsonl", f"tell this test where the sink {name} can write to"
    return str(folder / "events")


@pytest.fixture(params=available("sinks"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_event_is_delivered_before_write_returns(name: str, tmp_path: Path) -> None:
    place = location(name, tmp_path)
    with load("sinks", name, Sink)(place) as sink:
        for number, event in enumerate((START, END), 1):
            sink.write(event)
            delivered = [json.loads(line) for line in Path(place).read_text().splitlines()]
            assert len(delivered) == number
            assert (delivered[-1]["kind"], delivered[-1]["id"]) == (event.kind, 1)


def test_a_sink_closes_when_an_error_ends_the_stream(name: str, tmp_path: Path) -> None:
    place = location(name, tmp_path)
    with pytest.raises(RuntimeError), load("sinks", name, Sink)(place) as sink:
        sink.write(START)
        raise RuntimeError
    sink.close()  # twice is once
    assert Path(place).read_text().count("\n") == 1


def test_a_place_that_cannot_be_written_is_an_output_error_at_once(name: str, tmp_path: Path) -> None:
    place = location(name, tmp_path / "no-such-folder")
    with pytest.raises(OutputError, match="no-such-folder"):
        load("sinks", name, Sink)(place)
