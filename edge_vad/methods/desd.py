"""DESDnet (document 003) on a live stream: the squared error of the worst patch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_vad.methods._network import NetworkMethod, Scored, Series, between, lone
from edge_vad.types import Float32


class Desd(NetworkMethod):
    """Component ``appearance``: the largest mean squared error of a patch (algorithm A1)."""

    names = pictures = ("appearance",)

    def score(self, patches: Mapping[str, Float32], values: Mapping[str, float]) -> Scored:
        return lone("appearance", patches["appearance"])

    @staticmethod
    def document(series: Series) -> NDArray[np.float64]:
        """Between the video's own minimum and maximum."""
        return between(series["appearance"])
