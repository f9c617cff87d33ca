"""DESDnet (document 003) on a live stream: errors of the worst patches, in their pixels and in how much they change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vad.methods._network import NetworkMethod, Scored, Series, between
from edge_vad.networks import CHANGE
from edge_vad.patches import worst
from edge_vad.types import Float32


class Desd(NetworkMethod):
    """Components ``appearance``: the largest mean squared error of a patch (algorithm A1); ``change``: the same of what the
    document's RGB loss compares, the difference to the frame before."""

    names = (CHANGE, "appearance")
    pictures = ("appearance",)
    shares: ClassVar[Mapping[str, float]] = {"appearance": 0.2}  # chosen on events pasted into held-out normal clips

    def score(self, patches: Mapping[str, Float32], values: Mapping[str, float]) -> Scored:
        return Scored(patches, {name: worst(errors) for name, errors in patches.items()}, {})

    @staticmethod
    def document(series: Series) -> NDArray[np.float64]:
        """Between the video's own minimum and maximum."""
        return between(series["appearance"])
