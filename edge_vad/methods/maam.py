"""MAAM-Net (document 004) on a live stream: reconstruction and motion errors of a person-sized patch, fused.

The frame that is scored is the one before the newest: its motion is the RGB difference to the newest.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_vad.methods._network import NetworkMethod, Scored, Series, between, lone
from edge_vad.types import Float32


class Maam(NetworkMethod):
    """Component ``fused``: psi e_app + (1 - psi) e_mot of the worst patch (algorithm 1), each error over its mean on normal
    footage, so that psi says the same for every scene."""

    names = ("fused",)

    def score(self, patches: Mapping[str, Float32], values: Mapping[str, float]) -> Scored:
        means, share = self._settings.means, self._settings.share
        fused = share / means["appearance"] * patches["appearance"]
        if "motion" in patches:
            fused = fused + (1 - share) / means["motion"] * patches["motion"]
        return lone("fused", np.asarray(fused, dtype=np.float32))

    @staticmethod
    def document(series: Series) -> NDArray[np.float64]:
        """Equation 11: between the video's own minimum and maximum."""
        return between(series["fused"])
