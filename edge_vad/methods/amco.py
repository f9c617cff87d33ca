"""AMCo (document 001) on a live stream: errors of the predicted frame on the worst patches, in pixels and in change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_vad.methods._network import NetworkMethod, Scored, Series
from edge_vad.networks import CHANGE
from edge_vad.patches import worst
from edge_vad.types import Float32

SHARE = 0.2  # lambda_S of the score's source (Nguyen and Meunier, 2019), for which the document names no value


class Amco(NetworkMethod):
    """Components ``change`` and ``appearance``: S_F and S_I over their means on normal footage (w_F, w_I); the calibration
    adds their logarithms, as the document does.

    S_F is how much more or less the predicted frame changes than the real one. The document's is the error of the motion
    branch, which draws flow; an RGB difference of two frames that the branch is given says little (``motion``, in bundles
    of before). Each is that of its own worst patches, where the document takes both at the patch with the largest S_F.
    """

    names = ("motion", CHANGE, "appearance")
    shares: ClassVar[Mapping[str, float]] = {"appearance": SHARE}

    def score(self, patches: Mapping[str, Float32], values: Mapping[str, float]) -> Scored:
        means = self._settings.means
        scaled = {name: np.asarray(errors / means[name], dtype=np.float32) for name, errors in patches.items()}
        return Scored(scaled, {name: worst(errors) for name, errors in scaled.items()}, {})

    @staticmethod
    def document(series: Series) -> NDArray[np.float64]:
        """S = log(w_F S_F) + lambda_S log(w_I S_I), over the video's own maximum (of what lies above its minimum: S may be
        negative, where a share of the maximum says nothing)."""
        parts = [(SHARE if name == "appearance" else 1.0) * np.log(values + 1e-12) for name, values in series.items()]
        score = np.sum(parts, axis=0)
        above = score - score.min()
        return np.asarray(above / max(float(above.max()), 1e-12))
