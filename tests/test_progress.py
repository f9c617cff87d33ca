"""The line of a long job: how far it is, and the time that is left."""

from __future__ import annotations

import io
import sys

import pytest

from edge_vad.progress import Meter, progress


def test_the_time_left_follows_from_the_time_taken() -> None:
    meter = Meter("features", 200)
    meter.show(50)
    assert meter.line(30.0) == "features: [#####...............] 50 of 200 (25 %), 1 min 30 s left"


def test_what_an_earlier_run_did_does_not_count_as_speed() -> None:
    meter = Meter("features", 200, done=100)
    assert meter.line(5.0).endswith("100 of 200 (50 %), ? left")
    meter.show(110)
    assert meter.line(60.0).endswith("110 of 200 (55 %), 9 min 00 s left")


def test_hours_and_an_unknown_total() -> None:
    meter = Meter("features", 1000)
    meter.show(1)
    assert meter.line(10.0).endswith("2 h 46 min left")
    unknown = Meter("clips")
    unknown.show(7)
    assert unknown.line(2.0) == "clips: 7 in 2 s"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_sees_a_line_and_a_file_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, seen in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(progress("abc", "clips", 3)) == ["a", "b", "c"]
        assert ("3 of 3 (100 %), 0 s left\n" in stream.getvalue()) is seen
