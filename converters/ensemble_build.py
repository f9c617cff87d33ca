"""VideoPatchCore and one trained network in one bundle: `edge-vad build --method ensemble --weights RUN`.

Both are calibrated together, on the footage that the training of the network held out: VideoPatchCore cross-fitted, the
network as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from edge_vad.converters.build import Delivered
from edge_vad.converters.memory import Scores
from edge_vad.converters.network_build import (
    Part,
    Prepared,
    described_network,
    licence,
    prepare,
    raw_components,
)
from edge_vad.converters.normal_footage import processed
from edge_vad.converters.packing import GOLDEN_STRANGE, N_GOLDEN, Content
from edge_vad.converters.settings import BuildSettings

from edge_vad.calibration import Calibration, calibrate
from edge_vad.errors import ProfileError
from edge_vad.footage import Clip
from edge_vad.methods.ensemble import ENSEMBLE, Ensemble, EnsembleSettings
from edge_vad.strict import to_plain

Series = dict[str, np.ndarray]  # components (n,) by name


@dataclass(frozen=True, slots=True)
class NetworkPartner:
    """A network that joins VideoPatchCore (`edge_vad.converters.build.Partner`)."""

    network: Prepared
    method: str = ENSEMBLE

    def join(
        self, part: Delivered, clips: Sequence[Clip], settings: BuildSettings
    ) -> tuple[Content, dict[str, dict[str, Any]]]:
        """The content of the bundle of both, and what the manifest says of the network."""
        network = self.network
        stride = math.gcd(part.scene.stride, network.scene.stride)
        every = (part.scene.stride // stride, network.scene.stride // stride)
        method = network.trained.method
        joined = EnsembleSettings(to_plain(part.scene), to_plain(network.scene), method, every)
        runs = Ensemble(part.runs, network.runs, joined)
        calibration = self._calibration(part, runs, settings)
        n_golden = max(N_GOLDEN, network.scene.n_frames * every[1] + GOLDEN_STRANGE)
        content = Content(
            runs,
            to_plain(joined),
            {**part.models, **network.converted.models},
            part.stored,
            calibration,
            stride / part.scene.fps,
            list(islice(processed(clips[0], stride, settings.fps), n_golden)),
            licence(network.trained),
        )
        return content, described_network(method, network.converted, settings)

    def _calibration(self, part: Delivered, runs: Ensemble, settings: BuildSettings) -> Calibration:
        """Over the frames of the held-out parts that VideoPatchCore processed."""
        prefix = f"{self.network.trained.method}_"
        footage = []
        for held in self.network.parts:
            times, raw = memory_scores(part.scores, held, part.scene.fps)
            found_at, found = raw_components(self.network, held, settings)
            last = np.searchsorted(found_at, times + 1e-6, side="right") - 1  # of the network, not later than the frame
            known = last >= 0
            joined = {name: values[known] for name, values in raw.items()}
            joined |= {prefix + name: values[last[known]] for name, values in found.items()}
            footage.append((times[known], joined))
        weights = {name: settings.weight(name) for name in part.scene.components}
        weights |= {prefix + name: weight for name, weight in self.network.runs.weights.items()}
        return calibrate(
            footage, {name: weights[name] for name in runs.components}, settings.window_s, settings.budget_per_hour
        )


def network_partner(clips: Sequence[Clip], weights: Path, settings: BuildSettings) -> NetworkPartner:
    """The network of a run folder, converted for these clips. Raises what `prepare` raises, and ProfileError."""
    if settings.memory_read != "graph":
        raise ProfileError("the memory of a network in an ensemble lies in its graph: leave --memory-read out")
    return NetworkPartner(prepare(clips, weights, None, settings))


def memory_scores(scores: Sequence[Scores], held: Part, fps: float) -> tuple[np.ndarray, Series]:
    """Timestamps (n,) and raw components of VideoPatchCore over a held-out part, from the parts that cross-fitting made."""
    mine = [found for found in scores if found.clip == str(held.clip.path)]
    times = np.concatenate([found.times for found in mine])
    inside = times >= held.start / fps - 1e-6
    if held.stop is not None:
        inside &= times < held.stop / fps - 1e-6
    return times[inside], {name: np.concatenate([found.raw[name] for found in mine])[inside] for name in mine[0].raw}
