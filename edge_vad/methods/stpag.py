"""STPAG (document 002) on a live stream: reconstruction of appearance, of motion, and what a discriminator says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vad.methods._network import NetworkMethod, Scored, Series, between
from edge_vad.patches import worst
from edge_vad.types import Float32

SHARES = {"appearance": 0.65, "motion": 0.25, "semantic": 0.1}  # eta 1 to 3 of the document, for Ped2


class Stpag(NetworkMethod):
    """Components ``appearance`` and ``motion``: errors of the worst patches; ``semantic``: what the discriminator says.

    It speaks of places; in bundles that were built before it did, of the whole frame.
    """

    names = ("appearance", "motion", "semantic")
    odds = ("semantic",)
    values = ("semantic",)
    # Chosen on events pasted into held-out normal clips.
    shares: ClassVar[Mapping[str, float]] = {"appearance": 0.2, "semantic": 1.0}

    def score(self, patches: Mapping[str, Float32], values: Mapping[str, float]) -> Scored:
        return Scored(patches, {name: worst(errors) for name, errors in patches.items()}, values)

    @staticmethod
    def document(series: Series) -> NDArray[np.float64]:
        """Equations 1 to 4: PSNR between the video's own extremes, the motion error likewise, the discriminator's
        probability, where there is one."""
        psnr = 10 * np.log10(4 / (series["appearance"] + 1e-12))  # pixels lie in -1..1
        parts = {"appearance": 1 - between(psnr), "motion": between(series["motion"])}
        if "semantic" in series:
            parts["semantic"] = series["semantic"] / (1 + series["semantic"])
        return np.asarray(sum(SHARES[name] * part for name, part in parts.items()))
