"""What a person looks at while a network trains: its losses over the steps, and what it makes of footage it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

import numpy as np
import torch
from edge_vad.converters.system import System
from edge_vad.converters.training_footage import TrainingFootage
from numpy.typing import NDArray
from torch import Tensor

from edge_vad.plugins import require
from edge_vad.types import UInt8

Floats = NDArray[np.float64]

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 720, 150, 64, 14, 26, 24  # pixels; PANEL: height of one loss's chart
MAX_POINTS = 300
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#5d6873}.name{fill:#1d2329;font-weight:600}"
    ".grid{stroke:#dde1e5}.line{fill:none;stroke:#1f6394;stroke-width:1.6;stroke-linejoin:round}"
)
N_ROWS = 4
HEADER = 18  # pixels above the pictures, for the names of the columns
ERROR_GAIN = 4.0  # a quarter of the range -1..1 is as bright as it gets


def draw_losses(curves: Mapping[str, Floats], n_per_epoch: int) -> str:
    """An SVG file: one chart for every part of the loss. curves: name -> (steps,), NaN where a step did not have it."""
    height = PANEL * len(curves)
    panels = [_panel(PANEL * i, name, curve, n_per_epoch) for i, (name, curve) in enumerate(curves.items())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>{"".join(panels)}</svg>\n'
    )


def _panel(top: int, name: str, values: Floats, n_per_epoch: int) -> str:
    """One loss over the epochs, from 0 or its lowest value to its highest; neighbouring steps are averaged where many."""
    stretches = np.array_split(values, min(MAX_POINTS, len(values)))
    averaged = {i: float(np.nanmean(part)) for i, part in enumerate(stretches) if not np.isnan(part).all()}
    low, high = min(0.0, *averaged.values()), max(averaged.values())
    span = (high - low) or 1.0
    floor, ceiling = top + PANEL - BOTTOM, top + TOP
    step = (WIDTH - LEFT - RIGHT) / max(1, len(stretches) - 1)
    points = " ".join(
        f"{LEFT + i * step:.1f},{floor - (floor - ceiling) * (value - low) / span:.1f}" for i, value in averaged.items()
    )
    grid = "".join(
        f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.3g}</text>'
        for y, value in ((floor, low), (ceiling, low + span))
    )
    told = f"{len(values) / n_per_epoch:g} epochs, last {[*averaged.values()][-1]:.4g}"
    return (
        f'<text class="name" x="{LEFT}" y="{top + 16}">{escape(name)}</text>{grid}<polyline class="line" points="{points}"/>'
        f'<text x="{LEFT}" y="{floor + 16}">0</text>'
        f'<text x="{WIDTH - RIGHT}" y="{floor + 16}" text-anchor="end">{told}</text>'
    )


def draw_reconstructions(system: System, footage: TrainingFootage, as_frames: Callable[[UInt8], Tensor]) -> bytes:
    """A PNG file: for some held-out windows in rows, what was wanted, what was found and the error of every output.

    The last picture of an output is shown; a difference is grey where nothing moves. system: in eval mode.
    """
    cv2 = require("cv2", "opencv-python-headless", "drawing reconstructions")
    starts = footage.held_out_starts
    chosen = starts[np.unique(np.linspace(0, len(starts) - 1, N_ROWS).round().astype(int))]
    frames = as_frames(footage.windows(chosen))
    with torch.no_grad():
        found = system(frames)
    columns: list[UInt8] = []
    for name in (name for name in system.targets if name in found):
        value = found[name]
        wanted, got = system.wanted(name, frames)[:, -1].float(), value[:, -1].float()
        for title, shown in (("wanted", wanted), ("found", got), ("error", _error(wanted, got))):
            columns.append(_column(cv2, f"{name} {title}" if title == "wanted" else title, shown))
    written, data = cv2.imencode(".png", np.concatenate(columns, axis=1)[..., ::-1])
    assert written
    return bytes(data)


def _error(wanted: Tensor, found: Tensor) -> Tensor:
    """Mean absolute error over the colours, black where there is none."""
    error = (wanted - found).abs().mean(dim=1, keepdim=True).expand_as(wanted)
    return 2 * (ERROR_GAIN / 2 * error).clamp(0, 1) - 1


def _column(cv2: object, title: str, pictures: Tensor) -> UInt8:
    """Pictures (b, 3, h, w) in -1..1, one below the other under a title: (HEADER + b h, w, 3) uint8."""
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    header = np.full((HEADER, pixels.shape[2], 3), 255, dtype=np.uint8)
    cv2.putText(header, title, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (30, 35, 41), 1, cv2.LINE_AA)  # type: ignore[attr-defined]
    return np.concatenate([header, *pixels])
