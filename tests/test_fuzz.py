"""Bundles that are damaged and made to look whole again: refused by name, or they score as before.

`make fuzz` runs this longer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fuzzed_bundles
import fuzzing
import numpy as np
import pytest
import tiny
from fuzzed_bundles import SIZE, remake

from edge_vad import archive
from edge_vad.bundle import checked, read_bundle
from edge_vad.detector import Detector
from edge_vad.errors import BundleFormatError, EdgeVadError
from edge_vad.manifest import CALIBRATION, MANIFEST, PREPROCESSING, canonical_json
from edge_vad.trust import UNCHECKED

N_MUTANTS = 2300
REFUSALS = ("BundleFormatError", "BundleModelError", "BundleIntegrityError", "BundleVersionError", "BackendError")
SETTINGS = """
index: always
vectors: int8
weights: {spatial: 1.0, temporal: 0.5, velocity: 1.0, speed: 1.0, highlevel: 0.5}
"""


@pytest.fixture(scope="module")
def bundles(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small bundles with search graphs: fp16 rows; int8 rows and every component; the same with an object detector.

    They have fewer golden frames than others, to be opened sooner: what is found with these is found with more.
    """
    from edge_vad.converters import packing

    from edge_vad.cli import main

    folder = tmp_path_factory.mktemp("fuzzed")
    for number in (1, 2):
        tiny.write_clip(folder / "normal" / f"{number:02d}", 30, seed=number, size=SIZE)
    (folder / "graphs.yaml").write_text("index: always\n")
    (folder / "all.yaml").write_text(SETTINGS)
    (folder / "detector.onnx").write_bytes(fuzzed_bundles.detector_model())
    made = {"plain": ["graphs.yaml"], "all": ["all.yaml"], "objects": ["all.yaml", "--detector", folder / "detector.onnx"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "GOLDEN_FRAMES", 4)
        patch.setattr(packing, "GOLDEN_STRANGE", 3)
        for name, (settings, *more) in made.items():
            options = ["--config", str(folder / str(settings)), *map(str, more)]
            assert main(tiny.build_arguments(folder / "normal", folder / f"{name}.evb", tiny_encoder, *options)) == 0
    return [folder / f"{name}.evb" for name in made]


def test_a_bundle_that_is_remade_without_a_mutation_is_the_same(bundles: list[Path]) -> None:
    for path in bundles:
        members = archive.unpack(path.read_bytes(), str(path))
        assert remake(members) == members


def test_the_probe_is_not_the_golden_clip_and_has_scores_to_compare(bundles: list[Path]) -> None:
    for path in bundles:
        frames = {frame.image.tobytes() for frame in fuzzed_bundles.probe_frames()}
        assert not frames & {frame.image.tobytes() for frame in tiny.clip_frames(30, seed=1, size=SIZE)}
        found = fuzzed_bundles.scores(Detector.open(path))
        assert np.ptp(found) > 3 * fuzzed_bundles.MAX_WRONG


def test_what_no_self_test_can_see_is_bound_by_hashes(bundles: list[Path]) -> None:
    """Not remade, the same mutations are all refused before a single number is read."""
    refused = 0
    members = archive.unpack(bundles[0].read_bytes(), "b")
    for seed in range(200):
        generator = np.random.default_rng(seed)
        try:
            name, _, mutated = fuzzed_bundles.mutated(members, generator)
        except fuzzed_bundles.Unchanged:
            continue
        if name != MANIFEST:
            with pytest.raises(EdgeVadError):
                checked({**members, name: mutated[name]}, "b", UNCHECKED)
            refused += 1
    assert refused > 100
    assert checked(members, "b", UNCHECKED).id == read_bundle(bundles[0]).id


def test_mutated_bundles_are_refused_by_name_or_score_as_before(bundles: list[Path], tmp_path: Path) -> None:
    found = fuzzing.run("fuzzed_bundles:cases", bundles, N_MUTANTS, tmp_path)
    assert not fuzzing.of_kind(found, "wrong", "crash", "hang", "escaped", "two lines")
    counts = fuzzing.counts(found)
    assert set(counts) <= {"right", "unchanged", "SelfTestError", *REFUSALS}
    if not fuzzing.is_timed():
        assert counts.total() - counts["unchanged"] >= 2000
        assert counts["right"] >= 150 and counts["SelfTestError"] >= 500
        assert all(counts[kind] >= 20 for kind in REFUSALS[:3])


OUT_OF_RANGE: list[tuple[str, tuple[str | int, ...], Any]] = [
    (PREPROCESSING, ("image_size", 0), 8),
    (PREPROCESSING, ("image_size", 1), 100_000),
    (PREPROCESSING, ("factor",), 0),
    (PREPROCESSING, ("factor",), 50),
    (PREPROCESSING, ("fps",), 0),
    (PREPROCESSING, ("fps",), 1e300),
    (PREPROCESSING, ("stride",), -1),
    (PREPROCESSING, ("stride",), 2**40),
    (PREPROCESSING, ("components", 0), "spacial"),
    (PREPROCESSING, ("components", 0), "object_spatial"),
    (PREPROCESSING, ("components", 0), "speed"),
    (PREPROCESSING, ("components",), []),
    (PREPROCESSING, ("components",), ["spatial", "speed"]),
    (PREPROCESSING, ("perspective", "offset"), 1e300),
    (PREPROCESSING, ("perspective", "slope"), -1),
    (PREPROCESSING, ("perspective", "max_height"), 0),
    (PREPROCESSING, ("preprocessing", "mean", 0), 1e300),
    (PREPROCESSING, ("preprocessing", "mean"), [1, 2]),
    (PREPROCESSING, ("preprocessing", "std", 2), 0),
    (PREPROCESSING, ("preprocessing", "std", 2), -1),
    (PREPROCESSING, ("preprocessing", "multiple"), 0),
    (PREPROCESSING, ("preprocessing", "taps"), []),
    (PREPROCESSING, ("preprocessing", "fixed_size"), -64),
    (PREPROCESSING, ("motion", "threshold"), 256),
    (PREPROCESSING, ("motion", "lag_s"), 0),
    (PREPROCESSING, ("motion", "lag_s"), 100),
    (PREPROCESSING, ("motion", "min_fraction"), -0.1),
    (PREPROCESSING, ("motion", "max_regions"), 0),
    (PREPROCESSING, ("motion", "max_speed"), 1e6),
    (PREPROCESSING, ("motion", "usual_speed"), 0),
    (PREPROCESSING, ("local", "crop"), 0),
    (PREPROCESSING, ("local", "crop"), 10**6),
    (PREPROCESSING, ("local", "enlarge"), 0),
    (PREPROCESSING, ("local", "split_channels"), 0),
    (PREPROCESSING, ("local", "spatial_kernel"), 0),
    (PREPROCESSING, ("local", "margin"), -1),
    (PREPROCESSING, ("local", "clip_s"), 1e300),
    (PREPROCESSING, ("highlevel", "every"), 0),
    (PREPROCESSING, ("highlevel", "decimate"), 0),
    (PREPROCESSING, ("highlevel", "decimate"), 60),
    (PREPROCESSING, ("highlevel", "levels"), -1),
    (PREPROCESSING, ("objects",), {"input_name": "x", "output_name": "y", "head": "yolox", "input_size": [33, 64]}),
    (CALIBRATION, ("calibration", "components", "spatial", "mean"), 1e300),
    (CALIBRATION, ("calibration", "components", "spatial", "std"), 0),
    (CALIBRATION, ("calibration", "components", "spatial", "std"), -1),
    (CALIBRATION, ("calibration", "components", "spatial", "floor"), -1),
    (CALIBRATION, ("calibration", "components", "spatial", "weight"), -1),
    (CALIBRATION, ("calibration", "components"), {}),
    (CALIBRATION, ("calibration", "components", "another"), {"floor": 1, "mean": 0, "std": 1, "weight": 1}),
    (CALIBRATION, ("calibration", "window_s"), 0),
    (CALIBRATION, ("calibration", "centre"), 1e300),
    (CALIBRATION, ("calibration", "centre"), 1e5),
    (CALIBRATION, ("calibration", "tail", "threshold"), -1e5),
    (CALIBRATION, ("calibration", "tail", "scale"), -1),
    (CALIBRATION, ("calibration", "tail", "budget_per_hour"), 0),
    (CALIBRATION, ("calibration", "tail", "hours"), -1),
    (CALIBRATION, ("events", "enter"), 1e300),
    (CALIBRATION, ("events", "min_frames"), 0),
    (CALIBRATION, ("events", "cooldown_s"), -1),
    (CALIBRATION, ("period_s",), 0),
    (CALIBRATION, ("period_s",), "0.2"),
    (CALIBRATION, ("period_s",), None),
]


@pytest.mark.parametrize(
    ("member", "path", "value"), OUT_OF_RANGE, ids=lambda v: ".".join(map(str, v)) if type(v) is tuple else None
)
def test_a_value_out_of_range_is_refused_by_name_with_and_without_the_self_test(
    member: str, path: tuple[str | int, ...], value: Any, tiny_bundle: Path
) -> None:
    members = archive.unpack(tiny_bundle.read_bytes(), "b")
    plain = json.loads(members[member])
    parent = plain
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    bundle = checked(remake({**members, member: canonical_json(plain)}), "b", UNCHECKED)
    for self_test in (True, False):
        with pytest.raises(
            BundleFormatError, match=r"^(preprocessing|calibration)\.json: |^the components need the banks "
        ) as caught:
            Detector.open(bundle, self_test=self_test)
        assert "\n" not in str(caught.value)
