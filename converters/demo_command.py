"""edge-vad demo: the main job on a generated street, from footage to report."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from edge_vad.converters.build import build
from edge_vad.converters.local_engine import LocalEngine
from edge_vad.converters.settings import BuildSettings

from edge_vad.cameras.synthetic import write_dataset
from edge_vad.commands import evaluate as evaluation
from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.detector import Detector
from edge_vad.device import CameraSettings, Device
from edge_vad.errors import OutputError
from edge_vad.evaluation import open_dataset, table, write_report
from edge_vad.footage import find_clips
from edge_vad.unit import Unit

log = logging.getLogger(__name__)
N_NORMAL, N_TEST, SECONDS = 8, 6, 24.0


def main(arguments: Sequence[str]) -> int:
    parser = Parser("demo", "edge-vad demo [--out demo_out] [--seed 7] [--view 0]")
    parser.add_argument(
        "--out", type=Path, default=Path("demo_out"), metavar="DIR", help="a new folder for everything it makes"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the generated street")
    parser.add_argument("--view", type=int, default=0, choices=range(5), help="viewpoint of the generated camera")
    add_profile(parser)
    options = parser.parse_args(arguments)
    profile = profile_of(options)
    out = fresh_folder(options.out)
    log.info("1/4 generate a street: %d normal clips, %d with something unusual, %g s each", N_NORMAL, N_TEST, SECONDS)
    street = out / "street"
    write_dataset(street, seed=options.seed, view=options.view, n_training=N_NORMAL, n_testing=N_TEST, seconds=SECONDS)
    log.info("2/4 build: edge-vad build --normal %s --out %s", street, out / "street.evb")
    settings = BuildSettings(precision=profile.build.precision, ratio=profile.build.ratio, stride=profile.build.stride)
    with closing(LocalEngine()) as engine:
        bundle = build(find_clips([street / "training" / "frames"]), out / "street.evb", settings, engine=engine)
    clip = street / "testing" / "frames" / "01"
    log.info("3/4 run: edge-vad run --bundle %s --source %s", out / "street.evb", clip)
    Unit(Device({"camera": CameraSettings(str(clip), str(out / "street.evb"))}), profile).run()
    log.info(
        "4/4 evaluate: edge-vad evaluate --bundle %s --dataset folder %s --report %s",
        out / "street.evb",
        street,
        out / "report",
    )
    detector = Detector.open(bundle, profile)
    dataset = open_dataset(street)
    result, scores = evaluation.evaluate(detector, dataset, None, bundle.n_bytes)
    write_report(out / "report", result, dataset, scores)
    sys.stdout.write(f"{table(result)}\nreport: {(out / 'report' / 'report.html').resolve()}\n")
    return 0


def fresh_folder(folder: Path) -> Path:
    """A new folder of that name, or of that name with a number where it is taken: a demo never removes anything."""
    chosen = folder
    number = 2
    while chosen.exists() and any(chosen.iterdir()):
        chosen = folder.with_name(f"{folder.name}-{number}")
        number += 1
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{chosen}: cannot be created: {error.strerror}") from error
    return chosen
