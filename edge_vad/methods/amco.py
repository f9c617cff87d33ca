"""AMCo (document 001) on a live stream: prediction and motion errors of the worst patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vad.methods._network import NetworkMethod, Scored, Series
from edge_vad.patches import worst
from edge_vad.types import Float32

SHARE = 0.2  # lambda_S of the score's source (Nguyen and Meunier, 2019), for which the document names no value


class Amco(NetworkMethod):
    """Components ``motion`` and ``appearance``: S_F and S_I over their means on normal footage (w_F, w_I); the calibration
    adds their logarithms.

    Each of its own worst patches, and the appearance counts more, where the document takes both at the patch with the
    largest S_F and gives the appearance a fifth: an RGB difference, other than optical flow, is hardly stronger for what is
    unusual. Chosen on events pasted into held-out normal clips.
    """

    names = ("motion", "appearance")
    shares: ClassVar[Mapping[str, float]] = {"motion": 0.25}

    def score(self, patches: Mapping[str, Float32], values: Mapping[str, float]) -> Scored:
        means = self._settings.means
        scaled = {name: np.asarray(errors / means[name], dtype=np.float32) for name, errors in patches.items()}
        return Scored(scaled, {name: worst(errors) for name, errors in scaled.items()}, {})

    @staticmethod
    def document(series: Series) -> NDArray[np.float64]:
        """S = log(w_F S_F) + lambda_S log(w_I S_I), over the video's own maximum (of what lies above its minimum: S may be
        negative, where a share of the maximum says nothing)."""
        shares = {"motion": 1.0, "appearance": SHARE}
        score = np.sum([shares[name] * np.log(values + 1e-12) for name, values in series.items()], axis=0)
        above = score - score.min()
        return np.asarray(above / max(float(above.max()), 1e-12))
