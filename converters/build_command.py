"""edge-vad build: normal footage in, bundle out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

from edge_vad.converters.build import build
from edge_vad.converters.engine import open_engine
from edge_vad.converters.quantisation import Calibration, Precision, Quantizer
from edge_vad.converters.settings import BuildSettings
from edge_vad.converters.systems import SYSTEMS

from edge_vad.bundle import Bundle
from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.errors import ProfileError
from edge_vad.evaluation.datasets import normal_clips
from edge_vad.footage import Clip, find_clips
from edge_vad.profile import Profile, parse_yaml
from edge_vad.strict import from_plain

MEMORY = "videopatchcore"
ENSEMBLE = "ensemble"
METHODS = (MEMORY, *SYSTEMS, ENSEMBLE)
# In the place of the profile's: INT8 of convolutions over time is slower, and no smaller than fp16 (docs/precision.md).
PREFERRED = {"stpag": {"precision": "fp16"}}
# Flags that have the name of their setting.
FLAGS = (
    "precision",
    "calibration",
    "quantizer",
    "ratio",
    "detector",
    "fps",
    "budget_per_hour",
    "serial",
    "memory_read",
    "top_k",
)


def main(arguments: Sequence[str]) -> int:
    parser = Parser("build", "edge-vad build --normal footage/ --out site.evb [options]")
    parser.add_argument(
        "--normal", nargs="+", required=True, metavar="PATH",
        help="folders of pictures, folders of such folders or of videos, videos, or a data set folder (its normal part)",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.evb", help="the bundle to write")
    parser.add_argument(
        "--method", default=MEMORY, choices=METHODS,
        help=f"{MEMORY} (default) needs no training; the others a network: --weights",
    )  # fmt: skip
    parser.add_argument("--weights", type=Path, metavar="RUN_DIR", help="a network of edge-vad train")
    parser.add_argument(
        "--memory-read", choices=("graph", "bank"), help="of a network's memory: its graph (default) or a bank"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="items that the bank finds for a query (default 8)")
    add_profile(parser)
    parser.add_argument(
        "--encoder", metavar="NAME|FILE.onnx", help="efficientnet_lite0 (default), package.module:factory, a file"
    )
    parser.add_argument("--taps", metavar="A,B", help="named taps of an encoder that does not name its own")
    parser.add_argument("--precision", choices=get_args(Precision), help="of the encoder (default: the profile's)")
    parser.add_argument("--calibration", choices=get_args(Calibration), help="how INT8 reads its ranges off the footage")
    parser.add_argument("--quantizer", choices=get_args(Quantizer), help="what makes INT8 of the encoder")
    parser.add_argument("--ratio", type=float, help="part of features that the coreset keeps, 0.01 to 0.10")
    parser.add_argument(
        "--detector", metavar="FILE.onnx", help="an object detector (YOLOX, YOLOv5, YOLOv8/11) for better regions"
    )
    parser.add_argument("--fps", type=float, help="frames per second of the footage (pictures carry none; default 10)")
    parser.add_argument(
        "--budget-per-hour", type=float, metavar="N", help="false alarms per hour that the threshold is set for (default 1)"
    )
    parser.add_argument("--serial", type=int, help="release number; devices refuse a lower one than they ran (default 1)")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="every build setting (docs/build.md)")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes of --engine local (default: one per core)")
    parser.add_argument("--engine", default="local", metavar="NAME", help="local (default), dask://HOST:PORT, your.module")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for unfinished work (default: FILE.evb.work)")
    options = parser.parse_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {options.jobs}")
    if (options.method == MEMORY) != (options.weights is None):
        parser.error(f"--weights RUN_DIR belongs to the trained methods ({', '.join(METHODS[1:])}), and they need it")
    profile = profile_of(options)
    settings = settings_of(options, profile, **PREFERRED.get(options.method, {}))
    if options.method == MEMORY and settings.memory_read == "bank":
        parser.error(
            f"--memory-read bank belongs to networks with a memory (maam, amco); all memory of {MEMORY} lies in banks"
        )
    start = time.monotonic()
    bundle = _build(options, settings)
    banks = ", ".join(f"{name} {entry.rows}x{entry.dimensions}" for name, entry in sorted(bundle.manifest.banks.items()))
    sys.stdout.write(
        f"{options.out}: {bundle.n_bytes / 1e6:.2f} MB in {time.monotonic() - start:.0f} s; "
        f"{f'banks: {banks}' if banks else f'method: {options.method}'}\n"
        f"next: edge-vad run --bundle {options.out} --source CLIP, or edge-vad evaluate --bundle {options.out} ...\n"
    )
    return 0


def _build(options: Any, settings: BuildSettings) -> Bundle:
    clips = clips_of(options.normal)
    if options.method in SYSTEMS:
        from edge_vad.converters.network_build import build_network  # needs torch

        return build_network(clips, options.out, options.weights, options.method, settings)
    partner = None
    if options.method == ENSEMBLE:
        from edge_vad.converters.ensemble_build import network_partner

        partner = network_partner(clips, options.weights, settings)
    with closing(open_engine(options.engine, options.jobs)) as engine:
        return build(clips, options.out, settings, engine=engine, work=options.work, partner=partner)


def clips_of(paths: Sequence[str]) -> list[Clip]:
    """The clips of several paths; of a data set folder its normal part."""
    clips: list[Clip] = []
    for path in paths:
        is_dataset = any((Path(path) / part).is_dir() for part in ("training", "Train"))
        clips += normal_clips(Path(path)) if is_dataset else find_clips([path])
    return clips


def settings_of(options: Any, profile: Profile, **preferred: Any) -> BuildSettings:
    """Flags over the configuration file over what this command prefers over the profile."""
    values: dict[str, Any] = {
        "precision": profile.build.precision,
        "ratio": profile.build.ratio,
        "stride": profile.build.stride,
        "vectors": profile.build.vectors,
        **preferred,
    }
    where = "flags"
    if options.config:
        where = str(options.config)
        try:
            values |= parse_yaml(options.config.read_text(encoding="utf-8"), where)
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(f"{where}: the configuration cannot be read: {error}") from error
    flags = {key: getattr(options, key, None) for key in FLAGS}
    flags |= {"encoder_name": options.encoder, "taps": options.taps.split(",") if options.taps else None}
    values |= {key: value for key, value in flags.items() if value is not None}
    return from_plain(BuildSettings, values, where, ProfileError)
