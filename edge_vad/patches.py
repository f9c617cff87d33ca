"""Errors summed over a window that slides over the picture: the patch scores of documents 001, 003 and 004.

A frame is as unusual as its worst patch: an object covers few pixels, and the mean over a frame hides it (document 004,
algorithm 1, PSCD; document 003, algorithm A1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_vad.strict import check_range
from edge_vad.types import Float32


@dataclass(frozen=True, slots=True)
class Patches:
    """A window of ``width`` x ``height`` pixels that moves by ``step_x`` and ``step_y``."""

    width: int
    height: int
    step_x: int
    step_y: int

    def __post_init__(self) -> None:
        check_range(1, 4096, width=self.width, height=self.height, step_x=self.step_x, step_y=self.step_y)

    def means(self, errors: Float32) -> Float32:
        """Mean of an error map (h, w) float32 in every window -> (rows, columns) float32, by an integral image."""
        n_rows, n_columns = errors.shape
        height, width = min(self.height, n_rows), min(self.width, n_columns)
        integral = np.zeros((n_rows + 1, n_columns + 1))
        np.cumsum(errors, axis=0, out=integral[1:, 1:])
        np.cumsum(integral[1:, 1:], axis=1, out=integral[1:, 1:])
        top = np.arange(0, n_rows - height + 1, self.step_y)
        left = np.arange(0, n_columns - width + 1, self.step_x)
        rows = integral[top + height] - integral[top]
        sums = rows[:, left + width] - rows[:, left]
        return (sums / (height * width)).astype(np.float32)

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """The window behind an element of `means`: x0, y0, x1, y1 in pixels of the error map."""
        x, y = column * self.step_x, row * self.step_y
        return x, y, x + self.width, y + self.height


def worst(scores: Float32) -> tuple[int, int]:
    """Row and column of the highest of some patch scores (rows, columns)."""
    row, column = divmod(int(scores.argmax()), scores.shape[1])
    return row, column
