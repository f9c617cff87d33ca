"""The method plug point: what turns a frame into named raw components and where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vad.batch import Steps
from edge_vad.types import Float32, Frame, Region

if TYPE_CHECKING:
    from edge_vad.backends.base import Backend
    from edge_vad.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Observation:
    """What a method saw in one frame, before calibration.

    components: name -> raw score of the frame, larger is more unusual; NaN where it is not known yet (too little past);
        0 where there was nothing to score.
    regions: the scored regions in pixels of the frame's image. region_components: name -> (n_regions,) raw scores.
    maps: name -> (h, w) raw scores over the picture, which their cells divide evenly, of methods that do not work on
        regions; one shape for all, and only components that `Detector` can calibrate.
    stage_ms: CPU milliseconds by stage.
    """

    components: Mapping[str, float]
    regions: tuple[Region, ...] = ()
    region_components: Mapping[str, Float32] = field(default_factory=dict)
    maps: Mapping[str, Float32] = field(default_factory=dict)
    stage_ms: Mapping[str, float] = field(default_factory=dict)


class Method(ABC):
    """Scores frames one by one, using the past only. A new method is one new file in this folder with one subclass.

    Required
    --------
    open(bundle, ...)   the method with everything that the bundle holds for it.
    observe(frame)      raw components of the next frame.
    reset()             forget the past, after a gap in the stream.

    Optional
    --------
    steps(frame)        `observe` with a pause wherever pictures have to be encoded, for batches over cameras.
    as_read()           named arrays of what was read from the bundle, STEP.X; compared before any frame is run.
    golden(frames)      named arrays that the golden self-test compares: `components`, and STEP.X (`edge_vad.golden.STEPS`).
    image_size          (width, height) that frames must have; None: any.
    components          the names in `Observation.components`; a bundle that does not calibrate all of them is refused.
    without_network     the X above that no network takes part in: the self-test then allows rounding errors only.
    bank_kinds()        which bank searches what, for reports.
    document(series)    the score that the method's source gives a whole video, for comparison with published numbers.
    """

    image_size: tuple[int, int] | None = None
    components: tuple[str, ...] = ()
    without_network: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    @abstractmethod
    def open(cls, bundle: Bundle, backend: type[Backend], *, threads: int, device: str, bank: str) -> Method:
        """Build the method from a verified bundle; raises BundleFormatError when something it needs is missing."""

    @abstractmethod
    def observe(self, frame: Frame) -> Observation:
        """Raw components of ``frame``; frames come in order of their timestamps."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the past."""

    def steps(self, frame: Frame) -> Steps[Observation]:
        """Raw components of ``frame``; a method that yields no pictures is simply run."""
        yield from ()
        return self.observe(frame)

    def as_read(self) -> dict[str, np.ndarray]:
        """Named arrays that say what was read from the bundle: ``settings.NAME`` and ``bank.NAME``."""
        return {}

    def bank_kinds(self) -> dict[str, str]:
        """The plug-in that searches each memory bank, by the bank's name."""
        return {}

    @staticmethod
    def document(series: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
        """Scores (n,) of a whole video, larger is more unusual, from its raw components (n,), finite; None: there is none.

        They may look ahead: `edge-vad evaluate` reports them apart, and nothing else uses them.
        """
        return None

    def golden(self, frames: list[Frame]) -> dict[str, np.ndarray]:
        """Named float32 arrays that a healthy installation reproduces from ``frames``; ``components`` is one of them."""
        self.reset()
        observations = [self.observe(frame) for frame in frames]
        self.reset()
        return {"components": component_rows(observations)}


def component_rows(observations: Sequence[Observation]) -> Float32:
    """Raw components (n, k) of n frames, in the order of their sorted names."""
    names = sorted(observations[-1].components)
    return np.array([[seen.components[name] for name in names] for seen in observations], dtype=np.float32)
