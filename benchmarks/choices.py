"""How the defaults were chosen, without any benchmark's test labels.

    python benchmarks/choices.py --normal ../shared/data/ped2/training/frames    # events pasted into normal footage
    python benchmarks/choices.py --views 0,1,2,3,4                               # generated streets with exact truth

Normal footage is split in two; each half is built into a bundle and scored on the other half with pasted events. One
pass gives the standardised components of every frame; the table then shows the AUC of each component and of several
weightings of them.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from edge_vad.converters.build import build
from edge_vad.converters.settings import WEIGHTS, BuildSettings
from numpy.typing import NDArray
from pasted import KINDS, paste, sprites

from edge_vad.cameras import open_camera
from edge_vad.cameras.synthetic import ANOMALIES, SyntheticStreet, write_dataset
from edge_vad.detector import Detector
from edge_vad.evaluation.metrics import frame_auc
from edge_vad.footage import Clip, find_clips
from edge_vad.streams import COMPONENTS
from edge_vad.types import Frame

Stream = tuple[str, list[Frame], NDArray[np.bool_]]
BASE = {"spatial": 1.0, "speed": 1.0}
WEIGHTINGS: dict[str, dict[str, float]] = {
    "default": WEIGHTS,
    "spatial + speed": BASE,
    "+ velocity/2": BASE | {"velocity": 0.5},
    "+ velocity": BASE | {"velocity": 1.0},
    "+ temporal/2": BASE | {"temporal": 0.5},
    "+ (temp. + velo.)/2": BASE | {"temporal": 0.5, "velocity": 0.5},
    "+ temp./2 + velocity": BASE | {"temporal": 0.5, "velocity": 1.0},
    "+ temporal + velocity": BASE | {"temporal": 1.0, "velocity": 1.0},
    "... + highlevel/4": BASE | {"temporal": 0.5, "velocity": 0.5, "highlevel": 0.25},
    "2 spatial + speed": {"spatial": 2.0, "speed": 1.0},
    "spatial + 2 speed": {"spatial": 1.0, "speed": 2.0},
}
MOTION = BASE | {"temporal": 0.5, "velocity": 0.5}
WITH_OBJECTS: dict[str, dict[str, float]] = {
    "motion only": MOTION,
    "objects only": {"object_" + n: w for n, w in MOTION.items()},
    "both": MOTION | {"object_" + n: w for n, w in MOTION.items()},
    "both, objects half": MOTION | {"object_" + n: w / 2 for n, w in MOTION.items()},
    "+ object_spatial": MOTION | {"object_spatial": 1.0},
    "+ object spatial, speed": MOTION | {"object_spatial": 1.0, "object_speed": 1.0},
    "+ object_velocity": MOTION | {"object_spatial": 1.0, "object_speed": 1.0, "object_velocity": 1.0},
}


def frames_of(clip: Clip) -> list[Frame]:
    with open_camera(clip.path) as camera:
        return list(camera.frames())


def pasted_streams(clips: list[Clip], donors: list[Clip]) -> Iterator[Stream]:
    """Every clip with one event of each kind, cut out of other clips."""
    found = [sprite for clip in donors for sprite in sprites(frames_of(clip))]
    for number, clip in enumerate(clips):
        frames = frames_of(clip)
        for kind_number, kind in enumerate(KINDS):
            generator = np.random.default_rng([kind_number, number])
            events, labels = paste(frames, found[generator.integers(len(found))], kind, generator)
            yield kind, events, labels


def street_streams(view: int, seconds: int, per_kind: int) -> Iterator[Stream]:
    for kind in ANOMALIES:
        for number in range(per_kind):
            street = SyntheticStreet(f"seed={9000 + number},anomalies={kind},seconds={seconds},view={view}")
            labels = np.zeros(street.n_frames or 0, dtype=bool)
            for first, last in street.labels():
                labels[first - 1 : last] = True
            yield kind, list(street.frames()), labels


def scored(detector: Detector, streams: Iterator[Stream], settings: BuildSettings) -> list[tuple]:
    """(kind, unweighted components name -> (n,), labels) of every stream."""
    rows = []
    for kind, frames, labels in streams:
        detector.reset()
        results = [detector.process(frame) for frame in frames]
        shares = {n: np.array([r.components[n] for r in results]) / settings.weight(n) for n in results[0].components}
        rows.append((kind, shares, labels))
    return rows


def causal_mean(values: NDArray[np.float64], n: int = 9) -> NDArray[np.float64]:
    total = np.cumsum(np.concatenate([[0.0], values]))
    i = np.arange(1, len(total))
    return (total[i] - total[np.maximum(0, i - n)]) / np.minimum(i, n)


def print_table(rows: list[tuple], title: str) -> None:
    kinds = list(dict.fromkeys(kind for kind, _, _ in rows))
    print(f"\n{title:<24}" + "".join(f"{k:>9}" for k in kinds) + "     mean")
    with_objects = any(name.startswith("object_") for name in rows[0][1])
    weightings = {n: {n: 1.0} for n in rows[0][1]} | (WITH_OBJECTS if with_objects else WEIGHTINGS)
    for label, weights in weightings.items():
        by_kind = []
        for kind in kinds:
            chosen = [
                (sum(weights.get(n, 0) * v for n, v in shares.items()), labels) for k, shares, labels in rows if k == kind
            ]
            scores = np.concatenate([causal_mean(np.asarray(total, dtype=float)) for total, _ in chosen])
            by_kind.append(frame_auc(scores, np.concatenate([labels for _, labels in chosen])))
        print(f"  {label:<22}" + "".join(f"{a:9.3f}" for a in by_kind) + f"{np.nanmean(by_kind):9.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normal", help="normal footage to paste events into")
    parser.add_argument("--views", default="", help="viewpoints of the generated street")
    parser.add_argument("--detector", help="an object detector")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    settings = BuildSettings(detector=options.detector, weights=dict.fromkeys(COMPONENTS, 1.0))
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "choices.evb"
        if options.normal:
            clips = find_clips([options.normal])
            rows = []
            for half in (0, 1):
                build([c for i, c in enumerate(clips) if i % 2 == half], bundle, settings)
                others = [c for i, c in enumerate(clips) if i % 2 != half]
                rows += scored(Detector.open(bundle), pasted_streams(others, clips), settings)
            print_table(rows, "pasted events")
        for view in (int(v) for v in options.views.split(",") if v):
            street = Path(folder) / f"street{view}"
            write_dataset(street, seed=7, view=view, n_training=8, n_testing=1, seconds=24)
            build(find_clips([street / "training" / "frames"]), bundle, settings)
            print_table(scored(Detector.open(bundle), street_streams(view, 24, 2), settings), f"street, view {view}")


if __name__ == "__main__":
    main()
