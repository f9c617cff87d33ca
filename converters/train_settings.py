"""What `edge-vad train` can be told, and the defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edge_vad.converters.systems import complete_options, system_class

from edge_vad.errors import ProfileError
from edge_vad.strict import check_range

Arithmetic = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Of one training.

    size: (width, height) of the pictures. width: of the network, 1 is the published one. lr: learning rate of the first
    step; it falls to 0 over all steps along a cosine. precision: auto is bf16 where the device computes in it, else fp32
    on a CPU and fp16 on a GPU. threads: of torch, by default one per core. augment: see `augmentation`. stride: every so
    many frames are used, by default about ten a second. fps: of footage that does not say. options: other keyword
    arguments of the method's class.
    """

    method: str
    size: tuple[int, int] = (192, 128)
    width: float = 0.5
    epochs: int = 30
    batch: int = 8
    lr: float = 1e-3
    seed: int = 0
    device: str = "cpu"
    precision: Arithmetic = "auto"
    threads: int | None = None
    augment: bool = True
    stride: int | None = None
    fps: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range(1, 100_000, epochs=self.epochs)
        check_range(1, 4096, batch=self.batch)
        check_range(1e-9, 10, lr=self.lr)
        check_range(0, 2**31, seed=self.seed)
        check_range(1, 1024, threads=self.threads)
        check_range(1, 1000, stride=self.stride)
        check_range(1e-3, 1000, fps=self.fps)
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be cpu, cuda or cuda:NUMBER, not {self.device!r}")
        if "width" in self.options:
            raise ValueError("width is no option of its own: say --width")
        complete_options(self.method, self.all_options)
        multiple = system_class(self.method).multiple
        for name, side in zip(("width", "height"), self.size, strict=True):
            if side % multiple or not 16 <= side <= 4096:
                near = max(16, multiple, multiple * round(side / multiple))
                raise ValueError(
                    f"the {name} of the pictures must be a multiple of {multiple} in 16..4096 for {self.method}, not {side} "
                    f"(the nearest is {near})"
                )

    @property
    def all_options(self) -> dict[str, Any]:
        """The keyword arguments of the method's class that are set."""
        return {**self.options, "width": self.width}

    def changed(self, **given: Any) -> TrainSettings:
        """The settings of a run that goes on: only epochs, device and threads may differ. Raises ProfileError."""
        free = {name: given.pop(name) for name in ("epochs", "device", "threads") if name in given}
        for name, value in given.items():
            own = getattr(self, name)
            if value != own:
                raise ProfileError(
                    f"--{name}: the run was started with {own}, not {value}; leave it out, or start another run"
                )
        return replace(self, **free)
