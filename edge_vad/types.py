"""What flows through the runtime: frames in, regions in between, results and events out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

# NumPy's stubs lose the element type in arithmetic; the names say what an array holds, the tests hold them to it.
UInt8 = NDArray[Any]
Float32 = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a camera.

    image: (H, W, 3) uint8, RGB.
    luma: (h, w) uint8; may be smaller than the image (a Raspberry Pi delivers a low-resolution luma plane for free).
    timestamp: seconds on a monotonic clock (file sources: index / frame rate).
    index: position in the stream, from 0; gaps are dropped frames.
    """

    image: UInt8
    luma: UInt8
    timestamp: float
    index: int


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a frame that is scored: (x0, y0, x1, y1) in pixels of the frame's image, x1 and y1 exclusive.

    confidence: of a detector, 0..1; for regions of RGB difference the fraction of the region that moves.
    age: number of consecutive frames in which the region was found again (1 = new).
    score: the anomaly score of this region, 1.0 at the threshold; 0 before it is scored.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    confidence: float = 1.0
    age: int = 1
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """A stretch of time in which the anomaly score was above the threshold.

    kind: ``start`` when it begins, ``update`` when it has become clearly stronger, ``end`` when it is over.
    id: counts the events of a run, from 1; a start and its end share it.
    start_s, end_s: seconds on the frames' clock; end_s is None while it lasts.
    start_frame, end_frame: frame indices (inclusive); end_frame is None while it lasts.
    peak_score: the highest anomaly score so far; peak_frame: where it was.
    components: the calibrated components at the peak, by name.
    regions: the regions over the threshold at the peak, highest first.
    """

    kind: Literal["start", "update", "end"]
    id: int
    start_s: float
    start_frame: int
    peak_score: float
    peak_frame: int
    components: dict[str, float] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    end_s: float | None = None
    end_frame: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What the detector says about one frame.

    score: anomaly score; 1.0 is the threshold that the bundle was calibrated to.
    components: calibrated score of each component, by name, in the unit of ``score``.
    regions: the scored regions, highest score first.
    anomaly_map: (h, w) float32 on the method's grid, in the unit of ``score``; 0 where nothing was scored.
    events: events that started or ended with this frame (empty most of the time).
    stage_ms: CPU milliseconds of the processing thread, by stage.
    raw: the method's components before calibration, by name; NaN where too little past is known.
    """

    index: int
    timestamp: float
    score: float
    components: dict[str, float]
    regions: tuple[Region, ...]
    anomaly_map: Float32
    events: tuple[Event, ...]
    stage_ms: dict[str, float]
    raw: Mapping[str, float] = field(default_factory=dict)
