"""When an event starts and ends."""

from __future__ import annotations

import pytest

from edge_vad.events import EventSettings, EventTracker
from edge_vad.types import Event, Region

SETTINGS = EventSettings(enter=1.0, exit=0.9, min_frames=2, cooldown_s=0.5)


def follow(scores: list[float], settings: EventSettings = SETTINGS, tracker: EventTracker | None = None) -> list[Event]:
    """Events of a score series at 10 frames per second."""
    tracker = tracker or EventTracker(settings)
    events = []
    for i, score in enumerate(scores):
        events += tracker.update(i, i / 10, score, {"speed": score}, (Region(0, 0, i, i, score=score),))
    return events


def test_an_event_starts_after_min_frames_in_a_row_and_counts_from_the_first() -> None:
    assert follow([0, 1.0, 0.99, 1.2, 0]) == []
    start = follow([0, 1.1, 1.3])[0]
    assert (start.kind, start.id, start.start_frame, start.start_s) == ("start", 1, 1, 0.1)
    assert (start.peak_score, start.peak_frame, start.end_s, start.end_frame) == (1.3, 2, None, None)
    assert follow([1.0], EventSettings(min_frames=1))[0].kind == "start"


def test_it_ends_where_the_score_was_last_above_exit_once_the_cooldown_is_over() -> None:
    events = follow([0, 1.1, 1.2, 0.95, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert [event.kind for event in events] == ["start", "end"]
    end = events[1]
    assert (end.id, end.start_frame, end.end_frame, end.end_s) == (1, 1, 3, pytest.approx(0.3))


def test_a_short_dip_does_not_end_it() -> None:
    assert [e.kind for e in follow([1.1, 1.1, 0.1, 0.1, 0.1, 0.1, 1.1, 0.1, 0.1, 0.1])] == ["start"]


def test_between_exit_and_enter_it_lasts_but_does_not_start() -> None:
    assert follow([0.95] * 30) == []
    assert [e.kind for e in follow([1.1, 1.1] + [0.95] * 30)] == ["start"]


def test_the_peak_moves_and_brings_its_components_and_regions() -> None:
    end = follow([1.1, 1.5, 1.2] + [0] * 6)[1]
    assert (end.peak_score, end.peak_frame, end.components) == (1.5, 1, {"speed": 1.5})
    later = follow([1.1, 1.2, 0.95, 2.5] + [0] * 6)[1]
    assert (later.peak_score, later.peak_frame, later.regions[0].x1) == (2.5, 3, 3)


def test_events_are_counted_from_1() -> None:
    one = [1.1, 1.1] + [0] * 6
    assert [(e.kind, e.id) for e in follow(one * 2)] == [("start", 1), ("end", 1), ("start", 2), ("end", 2)]


def test_finish_ends_a_running_event_once() -> None:
    tracker = EventTracker(SETTINGS)
    follow([1.1, 1.1, 0.95, 0.2], tracker=tracker)
    assert tracker.active
    (end,) = tracker.finish()
    assert (end.kind, end.end_frame, end.end_s) == ("end", 2, pytest.approx(0.2))
    assert tracker.finish() == [] and not tracker.active


def test_reset_forgets_a_running_event_and_a_streak() -> None:
    tracker = EventTracker(SETTINGS)
    follow([1.1, 1.1], tracker=tracker)
    tracker.reset()
    assert tracker.finish() == []
    follow([1.1], tracker=tracker)
    tracker.reset()
    assert follow([1.1], tracker=tracker) == []


def test_a_growing_peak_is_told_once_a_second_at_most() -> None:
    tracker = EventTracker(EventSettings(min_frames=1))
    told = [(event.kind, event.peak_score) for i in range(31) for event in tracker.update(i, i / 10, 1.0 + i / 10, {}, ())]
    assert told[0] == ("start", 1.0) and {kind for kind, _ in told[1:]} == {"update"}
    assert [score for _, score in told[1:]] == pytest.approx([2.0, 3.0, 4.0])
