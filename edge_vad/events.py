"""Scores over time become events: a start when the score crosses the threshold, an end when it has come back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edge_vad.strict import check_range
from edge_vad.types import Event, Region

UPDATE_GROWTH, UPDATE_S = 1.25, 1.0  # an update says that the peak has grown by a quarter, once a second at most


@dataclass(frozen=True, slots=True)
class EventSettings:
    """When an event starts and ends, in the anomaly score's unit (1.0 is the threshold), frames and seconds.

    An event starts after ``min_frames`` scored frames in a row at or above ``enter``; it ends when the score has stayed
    below ``exit`` for ``cooldown_s``.
    """

    enter: float = 1.0
    exit: float = 0.9
    min_frames: int = 2
    cooldown_s: float = 2.0

    def __post_init__(self) -> None:
        check_range(-1e6, 1e6, enter=self.enter, exit=self.exit)
        check_range(1, 1e6, min_frames=self.min_frames)
        check_range(0, 1e6, cooldown_s=self.cooldown_s)


class EventTracker:
    """Follows the score of one stream."""

    def __init__(self, settings: EventSettings) -> None:
        self._settings = settings
        self._n_events = 0
        self.reset()

    def reset(self) -> None:
        """Forget the past after a gap in the stream; a running event is forgotten too (call `finish` first)."""
        self._event: Event | None = None
        self._streak: list[Event] = []
        self._last_above: tuple[float, int] = (0.0, 0)
        self._told = (0.0, 0.0)  # when the event was last told of, and its peak then

    @property
    def active(self) -> bool:
        """Whether an event is going on."""
        return self._event is not None

    def update(
        self, index: int, timestamp: float, score: float, components: dict[str, float], regions: tuple[Region, ...]
    ) -> list[Event]:
        """Take one scored frame; returns the events that start, grow or end with it, in order."""
        here = Event("start", 0, timestamp, index, score, index, components, regions)
        if self._event is None:
            return self._enter(here)
        if score >= self._settings.exit:
            self._last_above = (timestamp, index)
        if score > self._event.peak_score:
            self._event = _with_peak(self._event, here)
        if timestamp - self._last_above[0] >= self._settings.cooldown_s:
            return self.finish()
        told_s, told_peak = self._told
        if self._event.peak_score < UPDATE_GROWTH * told_peak or timestamp - told_s < UPDATE_S:
            return []
        self._told = (timestamp, self._event.peak_score)
        return [dataclasses.replace(self._event, kind="update")]

    def finish(self) -> list[Event]:
        """End a running event where its score was last above the exit level: at the end of footage."""
        if self._event is None:
            return []
        end_s, end_frame = self._last_above
        event = dataclasses.replace(self._event, kind="end", end_s=end_s, end_frame=end_frame)
        self.reset()
        return [event]

    def _enter(self, here: Event) -> list[Event]:
        if here.peak_score < self._settings.enter:
            self._streak = []
            return []
        self._streak.append(here)
        if len(self._streak) < self._settings.min_frames:
            return []
        self._n_events += 1
        event = dataclasses.replace(self._streak[0], id=self._n_events)
        for later in self._streak[1:]:
            if later.peak_score > event.peak_score:
                event = _with_peak(event, later)
        self._event, self._streak = event, []
        self._told = (here.start_s, event.peak_score)
        self._last_above = (here.start_s, here.start_frame)
        return [event]


def _with_peak(event: Event, peak: Event) -> Event:
    return dataclasses.replace(
        event,
        peak_score=peak.peak_score,
        peak_frame=peak.peak_frame,
        components=peak.components,
        regions=peak.regions,
    )
