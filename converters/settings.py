"""What `edge-vad build` can be told, and the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edge_vad.converters.encoders import EncoderSpec
from edge_vad.converters.quantisation import Calibration, Precision, Quantizer, check_methods

from edge_vad.errors import did_you_mean
from edge_vad.events import EventSettings
from edge_vad.streams import COMPONENTS, OBJECT_PREFIX, GlobalSettings, LocalSettings
from edge_vad.strict import check_range
from edge_vad.vectors import VectorType

# Chosen on events pasted into normal footage and on generated streets, never on a benchmark's labels: the table and its
# command are in benchmarks/README.md. The high-level memory did not help there; `weights: {highlevel: 0.25}` turns it on.
WEIGHTS = {"spatial": 1.0, "temporal": 0.5, "velocity": 1.0, "speed": 1.0, "highlevel": 0.0}
OBJECT_SHARE = 0.5  # weight of a detector box's component, as part of its motion twin's


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What `edge-vad build` can be told; a YAML file (--config) has the same keys.

    encoder: what must be known of an encoder that does not describe itself; taps: only these outputs of it. calibration,
    quantizer: how INT8 is made (docs/precision.md); calibration None is minmax, of a trained network the better of it and
    percentile. weights: component -> weight in the score; 0 leaves the component and its bank out (object_NAME: of detector
    boxes, half of NAME's where not given). window_s: seconds that the score is averaged over. budget_per_hour: false alarms
    that the threshold is set for. index: whether banks are delivered with a search graph (auto: the large ones). serial:
    grows with every release for a site, so that a device refuses older ones. compatible: the devices it is for, empty for
    all. memory_read: whether the memory of a trained network lies in its graph or in a bank; top_k: items that the bank
    finds for a query (default 8).
    """

    encoder_name: str = "efficientnet_lite0"
    encoder: EncoderSpec | None = None
    taps: tuple[str, ...] | None = None
    detector: str | None = None
    precision: Precision = "int8"
    calibration: Calibration | None = None
    quantizer: Quantizer = "onnxruntime"
    ratio: float = 0.01
    vectors: VectorType = "fp16"
    stride: int = 2
    fps: float | None = None
    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    local: LocalSettings = field(default_factory=LocalSettings)
    highlevel: GlobalSettings = field(default_factory=GlobalSettings)
    window_s: float = 0.9
    budget_per_hour: float = 1.0
    events: EventSettings = field(default_factory=EventSettings)
    index: Literal["auto", "always", "never"] = "auto"
    serial: int = 1
    compatible: str = ""
    memory_read: Literal["graph", "bank"] = "graph"
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must lie in 0..1 (0.01 to 0.10 is usual), not {self.ratio}")
        check_methods(self.quantizer, self.calibration or "minmax")
        check_range(1, 1000, stride=self.stride)
        check_range(1e-9, 1e12, budget_per_hour=self.budget_per_hour)
        check_range(1e-3, 3600, window_s=self.window_s)
        check_range(1, 1_000_000, top_k=self.top_k)
        if self.top_k is not None and self.memory_read != "bank":
            raise ValueError("top_k says how many items a bank finds: set memory_read to bank, or leave it out")
        if self.serial < 0:
            raise ValueError(f"serial must not be negative, not {self.serial}")
        for name in self.weights:
            if name.removeprefix(OBJECT_PREFIX) not in COMPONENTS:
                raise ValueError(f"weights: unknown component {name!r}{did_you_mean(name, COMPONENTS)}")
        check_range(0, 1e6, **self.weights)
        if not any(weight > 0 for weight in self.weights.values()):
            raise ValueError("weights: at least one component needs a weight above 0")

    def weight(self, component: str) -> float:
        """Weight of a component; an object component without one has OBJECT_SHARE of its motion twin's."""
        twin = self.weights.get(component.removeprefix(OBJECT_PREFIX), 0.0)
        return self.weights.get(component, OBJECT_SHARE * twin if component.startswith(OBJECT_PREFIX) else 0.0)


def scored_components(settings: BuildSettings) -> tuple[str, ...]:
    """The components with a weight above 0, those of detector boxes behind the others."""
    names = (*COMPONENTS, *(OBJECT_PREFIX + name for name in COMPONENTS if name != "highlevel"))
    return tuple(name for name in names if settings.weight(name) > 0)
