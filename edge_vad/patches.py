"""Errors summed over a window that slides over the picture: the patch scores of documents 001, 003 and 004.

A frame is as unusual as its worst patch: an object covers few pixels, and the mean over a frame hides it (document 004,
algorithm 1, PSCD; document 003, algorithm A1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_vad.strict import check_range
from edge_vad.types import Float32

FADE = 0.1  # of a score, over a window beyond the last one: enough to order the cells there


N_WORST = 4


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

    def spread(self, scores: Float32, size: tuple[int, int]) -> Float32:
        """Scores of all windows (rows, columns) as a map (h, w) whose cells divide a picture of ``size`` (width, height).

        A cell has the score of the window whose centre is nearest, so that the map's maximum lies where the worst window is.
        Windows stop half their size before the border: cells there have a little less than the window beside them.
        """
        rows, fade_y = _nearest(size[1], min(self.height, size[1]), self.step_y, scores.shape[0])
        columns, fade_x = _nearest(size[0], min(self.width, size[0]), self.step_x, scores.shape[1])
        return np.asarray(scores[rows][:, columns] * np.minimum(fade_y[:, None], fade_x), dtype=np.float32)


def _nearest(length: int, window: int, step: int, n_windows: int) -> tuple[NDArray[np.intp], Float32]:
    """For cells of at most a step along a side of the picture: the nearest window, and 1, or less beyond the last ones."""
    n_cells = -(-length // step)
    at = ((np.arange(n_cells) + 0.5) * length / n_cells - window / 2) / step
    nearest = np.clip(np.floor(at + 0.5), 0, n_windows - 1)  # np.round would leave every other window out where all are ties
    beyond = np.maximum(np.abs(at - nearest) - 0.5, 0) * step / window
    return nearest.astype(np.intp), (1 - FADE * np.minimum(beyond, 1)).astype(np.float32)


def worst_mean(scores: Float32) -> float:
    """Mean of the N_WORST highest of some patch scores (rows, columns): patches overlap, so an object fills several of them,
    and a chance peak one."""
    flat = scores.ravel()
    n = min(N_WORST, len(flat))
    return float(np.partition(flat, len(flat) - n)[len(flat) - n :].mean())


def worst(scores: Float32) -> tuple[int, int]:
    """Row and column of the highest of some patch scores (rows, columns)."""
    row, column = divmod(int(scores.argmax()), scores.shape[1])
    return row, column
