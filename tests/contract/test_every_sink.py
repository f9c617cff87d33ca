"""What every sink must do, run over every module in the folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_vad.errors import OutputError
from edge_vad.plugins import available, load
from edge_vad.record import Record
from edge_vad.sinks import Sink


def record(seq: int, type: Any = "anomaly", kind: str = "start", camera: str = "gate") -> Record:
    return Record(seq, "boot", seq / 10, "2026-01-01T00:00:00.000Z", camera, type, kind, {"score": 1.5})


RECORDS = (
    record(1, "unit", "started", camera=""),
    record(2),
    record(3, kind="update"),
    record(4, "view", "black"),
    record(5, kind="end"),
)


@dataclass(frozen=True)
class Case:
    """good: a location that this test can use. wrong: one that can never work, and what the error says."""

    good: str
    wrong: str
    error: str
    remote: bool = False


def case(name: str, folder: Path) -> Case:
    """A new sink needs a line here."""
    cases = {
        "jsonl": Case(str(folder / "events"), str(folder / "no-such-folder" / "events"), "no-such-folder"),
        "mqtt": Case("user:secret@127.0.0.1:9/site", "user:secret@127.0.0.1:port", "expected", remote=True),
        "mqtts": Case("user:secret@127.0.0.1:9/site", "user:secret@h/site?topic=x", "unknown option 'topic'", remote=True),
        "webhook": Case("http://user:secret@127.0.0.1:9/", "ftp://user:secret@127.0.0.1/", "expected http", remote=True),
        "gpio": Case("17", "17,activ=low", "unknown option 'activ'"),
    }
    assert name in cases, f"tell this test how the sink {name} can be used"
    return cases[name]


@contextmanager
def usable(name: str) -> Iterator[None]:
    """Whatever a sink needs of this machine."""
    if name.startswith("mqtt"):
        pytest.importorskip("paho.mqtt.client", reason="pip install 'paho-mqtt>=2'")
    if name != "gpio":
        yield
        return
    gpiozero = pytest.importorskip("gpiozero", reason="pip install gpiozero")
    from gpiozero.pins.mock import MockFactory

    gpiozero.Device.pin_factory = MockFactory()
    try:
        yield
    finally:
        gpiozero.Device.pin_factory.reset()
        gpiozero.Device.pin_factory = None


@pytest.fixture(params=available("sinks"))
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    with usable(str(request.param)):
        yield str(request.param)


def test_a_sink_says_whether_it_is_remote(name: str, tmp_path: Path) -> None:
    assert load("sinks", name, Sink).remote == case(name, tmp_path).remote


def test_every_record_is_taken_or_an_output_error_before_write_returns(name: str, tmp_path: Path) -> None:
    what = case(name, tmp_path)
    with load("sinks", name, Sink)(what.good) as sink:
        for number, taken in enumerate(RECORDS, 1):
            if what.remote:  # nobody listens there
                with pytest.raises(OutputError, match=r"127\.0\.0\.1") as error:
                    sink.write(taken)
                assert "secret" not in str(error.value)
            else:
                sink.write(taken)
            if name == "jsonl":
                delivered = [json.loads(line) for line in Path(what.good).read_text().splitlines()]
                assert len(delivered) == number and Record.parse(delivered[-1]) == taken


def test_a_sink_closes_when_an_error_ends_the_stream(name: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), load("sinks", name, Sink)(case(name, tmp_path).good) as sink:
        raise RuntimeError
    sink.close()  # twice is once


def test_a_place_that_can_never_work_is_an_output_error_at_once_without_its_password(name: str, tmp_path: Path) -> None:
    what = case(name, tmp_path)
    with pytest.raises(OutputError, match=what.error) as error:
        load("sinks", name, Sink)(what.wrong)
    assert "secret" not in str(error.value)


def test_a_remote_sink_does_not_connect_before_the_first_record(name: str, tmp_path: Path) -> None:
    what = case(name, tmp_path)
    load("sinks", name, Sink)(what.good).close()
