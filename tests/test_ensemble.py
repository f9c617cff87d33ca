"""VideoPatchCore and a network in one bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from edge_vad.bundle import read_bundle
from edge_vad.detector import Detector
from edge_vad.errors import BundleFormatError
from edge_vad.manifest import PREPROCESSING, canonical_json
from edge_vad.methods.base import Method, Observation
from edge_vad.methods.ensemble import Ensemble, EnsembleSettings
from edge_vad.types import Float32, Frame, Region

FRAMES = tiny.still_frames(np.zeros((120, 180, 3), dtype=np.uint8), 6)


class Counting(Method):
    """Its component is how often it ran; its one region has that score."""

    def __init__(self, name: str) -> None:
        self.components = (name,)
        self.image_size = tiny.SIZE
        self.reset()

    @classmethod
    def open(cls, *_: object, **__: object) -> Method:
        raise NotImplementedError

    def observe(self, frame: Frame) -> Observation:
        self.n += 1
        name = self.components[0]
        score: Float32 = np.array([self.n], dtype=np.float32)
        return Observation({name: float(self.n)}, (Region(0, 0, self.n, 1),), {name: score}, {}, {"run": 1.0})

    def reset(self) -> None:
        self.n = 0


def ensemble(every: tuple[int, int]) -> Ensemble:
    return Ensemble(Counting("spatial"), Counting("fused"), EnsembleSettings({}, {}, "maam", every))


def test_each_runs_at_its_own_stride_and_keeps_its_last_word_between() -> None:
    seen = [ensemble((2, 3)).observe(FRAMES[0])]
    both = ensemble((2, 3))
    seen = [both.observe(frame) for frame in FRAMES]
    assert [one.components["spatial"] for one in seen] == [1, 1, 2, 2, 3, 3]
    assert [one.components["maam_fused"] for one in seen] == [1, 1, 1, 2, 2, 2]
    assert [one.stage_ms.get("run", 0.0) for one in seen] == [2, 0, 1, 1, 1, 0]  # what did not run costs nothing


def test_a_region_scores_nothing_in_the_components_of_the_other() -> None:
    seen = ensemble((1, 1)).observe(FRAMES[0])
    assert len(seen.regions) == 2
    assert list(seen.region_components["spatial"]) == [1, 0] and list(seen.region_components["maam_fused"]) == [0, 1]


def test_reset_starts_both_anew() -> None:
    both = ensemble((2, 3))
    first = [both.observe(frame).components for frame in FRAMES]
    both.reset()
    assert [both.observe(frame).components for frame in FRAMES] == first


@pytest.mark.parametrize(("method", "every"), [("videopatchcore", (1, 1)), ("nothing", (1, 1)), ("maam", (0, 1))])
def test_settings_that_cannot_be_are_refused(method: str, every: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot stand beside|must lie in"):
        EnsembleSettings({}, {}, method, every)


def test_the_bundle_scores_with_the_components_of_both(ensemble_bundle: Path) -> None:
    bundle = read_bundle(ensemble_bundle)
    assert bundle.method == "ensemble" and sorted(bundle.manifest.models) == ["encoder", "network"]
    detector = Detector.open(bundle)  # the golden self-test holds
    assert {"spatial", "speed", "maam_fused"} <= set(detector.weights)
    results = [detector.process(frame) for frame in tiny.clip_frames(40, seed=4)]
    assert all(np.isfinite(result.score) for result in results)
    assert results[-1].components["maam_fused"] != 0 and results[-1].components["spatial"] != 0


def test_both_calibrate_on_what_the_training_held_out(ensemble_bundle: Path, network_bundle: Callable[[str], Path]) -> None:
    both, alone = (read_bundle(path).calibration["calibration"] for path in (ensemble_bundle, network_bundle("maam")))
    assert both["components"]["maam_fused"]["mean"] == pytest.approx(alone["components"]["fused"]["mean"], abs=0.2)
    assert both["tail"]["hours"] <= alone["tail"]["hours"] * 1.2


def test_a_bundle_with_another_methods_settings_is_refused(ensemble_bundle: Path) -> None:
    bundle = read_bundle(ensemble_bundle)
    plain = {**bundle.preprocessing, "method": "videopatchcore"}
    changed = replace(bundle, members={**bundle.members, PREPROCESSING: canonical_json(plain)})
    with pytest.raises(BundleFormatError, match="cannot stand beside VideoPatchCore"):
        Detector.open(changed)


def test_a_memory_in_a_bank_is_refused_at_build(
    cli: Callable[..., tiny.Outcome], network_footage: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    more = ["--method", "ensemble", "--weights", tiny.NETWORKS / "maam.safetensors", "--memory-read", "bank"]
    outcome = cli(*tiny.build_arguments(network_footage, tmp_path / "x.evb", tiny_encoder), *more)
    assert outcome.code == 1 and "lies in its graph" in outcome.err and len(outcome.err.strip().splitlines()) == 1
