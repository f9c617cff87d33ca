"""A measurement against the bounds of a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge_vad.profile import Budget

Summary = Mapping[str, Any]


def _hottest(summary: Summary) -> float | None:
    board = summary["board"]
    told = [board[key] for key in ("temperature_c_max", "gpu_temperature_c_max") if key in board]
    return max(told) if told else None


# bound: (what is measured, its unit, whether it is a least value, where it stands in a summary)
MEASURED: dict[str, tuple[str, str, bool, Callable[[Summary], float | None]]] = {
    "fps": ("1000 / mean of the wall time", "fps", True, lambda s: s["fps"]),
    "p95_ms": ("p95 of the wall time", "ms", False, lambda s: s["end_to_end"]["wall_ms"]["p95"]),
    "memory_mb": ("peak memory without the frames in memory", "MB", False, lambda s: s["memory"]["used_mb"]),
    "temperature_c": ("hottest reading", "degrees", False, _hottest),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bound. measured, holds: None where the board does not tell."""

    name: str
    bound: float
    measured: float | None
    holds: bool | None

    def line(self) -> str:
        """In words."""
        what, unit, least, _ = MEASURED[self.name]
        bound = f"{'at least' if least else 'at most'} {self.bound:g} {unit}"
        if self.measured is None:
            return f"budget {self.name} not checked: this board does not tell it ({what}, {bound})"
        state = "holds" if self.holds else "missed"
        return f"budget {self.name} {state}: {self.measured:.4g} {unit} measured, {bound} ({what})"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "text": self.line()}


def verdicts(budget: Budget, summary: Summary) -> list[Verdict]:
    """Every bound that the budget has; one that is met exactly holds."""
    found = []
    for name, (_, _, least, read) in MEASURED.items():
        bound = getattr(budget, name)
        if bound is None:
            continue
        value = read(summary)
        holds = None if value is None else (value >= bound if least else value <= bound)
        found.append(Verdict(name, bound, value, holds))
    return found
