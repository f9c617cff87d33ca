"""Bundles that are damaged and made to look whole again: refused by name, or they score as before.

`make fuzz` runs this longer.
"""

from __future__ import annotations

from pathlib import Path

import fuzzed_bundles
import fuzzing
import numpy as np
import pytest
import tiny
from fuzzed_bundles import SIZE, remake

from edge_vad import archive
from edge_vad.bundle import checked, read_bundle
from edge_vad.manifest import MANIFEST
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
        found = fuzzed_bundles.scores(fuzzed_bundles.Detector.open(path))
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
            with pytest.raises(fuzzed_bundles.EdgeVadError):
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
