"""edge-vad tune: the settings of this device, by measuring on it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.commands.options import Parser, add_profile, add_wanted, count, duration, profile_of
from edge_vad.errors import OutputError
from edge_vad.files import check_writable, write_atomically
from edge_vad.profile import Profile
from edge_vad.profile_text import profile_text
from edge_vad.profiling.board import Board
from edge_vad.profiling.matrix import Matrix, Wanted, cells, check_one_site, expected_s
from edge_vad.profiling.matrix_report import HEAD, facts, make_matrix_report, table
from edge_vad.profiling.measurement import WARM_UP
from edge_vad.profiling.stock import frames_for
from edge_vad.profiling.table import aligned
from edge_vad.profiling.tuning import Tuned, changes, is_trained, n_measured, precision_of, tune, tuned_profile

MEASURE_S = 10.0
OTHER_PRECISION = {"int8": "fp32", "fp32": "int8", "fp16": "int8"}


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    profile = profile_of(options)
    check_writable(options.out)
    if options.out.exists() and not options.force:
        raise OutputError(f"{options.out}: is there already; name another file, or overwrite it with --force")
    bundles = [read_bundle(path, profile.trust.load()) for path in options.bundle]
    check_one_site(bundles)
    found, report = _measured(options, profile, bundles)
    chosen = options.bundle[found.picked.cell.bundle]
    told = [*found.notes, *_advice(options.bundle, bundles)]
    text = _text(options.out.stem, found, profile, bundles, report, told)
    write_atomically(options.out.absolute(), text.encode())
    sys.stdout.write("\n".join(aligned([HEAD, *table(report)])) + "\n\n")
    sys.stdout.write("".join(f"{line}\n" for line in told))
    sys.stderr.write("".join(f"edge-vad tune: warning: {line}\n" for line in found.warnings))
    sys.stdout.write(f"{options.out}: written; next: edge-vad run --bundle {chosen} --profile {options.out} --source CLIP\n")
    return 0


def _parse(arguments: Sequence[str]) -> Namespace:
    parser = Parser("tune", "edge-vad tune --bundle site.evb [site-fp32.evb] --profile raspberry_pi_5 --out tuned.yaml")
    parser.epilog = "measures backends, devices, threads and banks here, each in its own process (docs/profiles.md)"
    parser.add_argument(
        "--bundle", nargs="+", type=Path, required=True, metavar="FILE.evb", help="one site's, in one or several precisions"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.yaml", help="the profile to write")
    add_profile(parser)
    add_wanted(parser)
    parser.add_argument("--source", help="frames from there, read into memory first (default: a generated street)")
    parser.add_argument("--fps", type=float, help="frames per second of the source (pictures carry none; default 10)")
    parser.add_argument(
        "--duration", type=duration, default=MEASURE_S, metavar="10s", help=f"of each setting ({MEASURE_S:g}s)"
    )
    parser.add_argument("--frames", type=count, metavar="N", help="two times N processed frames of each setting instead")
    parser.add_argument("--warm-up", type=count, default=WARM_UP, metavar="N", help=f"frames before that ({WARM_UP})")
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    options = parser.parse_args(arguments)
    if options.out.suffix not in (".yaml", ".yml"):
        parser.error(f"--out {options.out}: a profile is a .yaml file")
    return options


def _measured(options: Namespace, profile: Profile, bundles: Sequence[Bundle]) -> tuple[Tuned, dict[str, Any]]:
    """What was chosen, and a report of all that was measured."""
    settings = cells(
        [bool(bundle.bank_names) for bundle in bundles],
        profile.inference,
        Wanted(options.backends, options.threads, options.banks),
    )
    frames, source = frames_for(bundles[0], options.source, options.fps)
    n_settings = n_measured(settings)
    about_s = expected_s(n_settings, options.duration)
    sys.stderr.write(f"{n_settings} settings, two rounds each: about {about_s / 60:.1f} minutes\n")
    board = Board(profile.inference.device)
    before = board.read()
    with Matrix(
        list(zip(options.bundle, bundles, strict=True)),
        profile,
        frames,
        duration_s=options.duration,
        warm_up=options.warm_up,
        n_frames=options.frames,
    ) as matrix:
        found = tune(settings, matrix.measure, bundles, profile)
    told = {**board.identity(), "before": before, "after": board.read()}
    board.close()
    return found, make_matrix_report(matrix, found.rows, told, source)


def _advice(paths: Sequence[Path], bundles: Sequence[Bundle]) -> list[str]:
    """How to measure another precision too, where all bundles have the same."""
    precisions = {precision_of(bundle) for bundle in bundles}
    [path, *_] = paths
    other = OTHER_PRECISION.get(min(precisions)) if len(precisions) == 1 else None
    if other is None:
        return []
    second = path.with_name(f"{path.stem}-{other}.evb")
    method = f"--method {bundles[0].method} --weights RUN_DIR " if is_trained(bundles[0]) else ""
    return [
        f"only {min(precisions)} was measured, the precision of {path}; {other} too: edge-vad build {method}--normal "
        f"FOOTAGE --precision {other} --out {second}, then edge-vad tune --bundle {path} {second} --out FILE.yaml"
    ]


def _text(
    name: str, found: Tuned, base: Profile, bundles: Sequence[Bundle], report: Mapping[str, Any], told: Sequence[str]
) -> str:
    """The profile as YAML, with what was measured at its top."""
    board = report["board"]
    model = board.get("model") or board.get("processor") or board["machine"]
    precisions = [precision_of(bundle) for bundle in bundles]
    profile = tuned_profile(found, base, name, f"{base.name}, tuned on {model}", precisions)
    head = [
        f"{base.name}, tuned on this device with edge-vad tune.",
        *(f"{what}: {text}" for what, text in facts(report)),
        "",
        *told,
        *(f"warning: {line}" for line in found.warnings),
        "",
        *aligned([HEAD, *table(report)]),
        "",
    ]
    return profile_text(profile, head, changes(base, profile))
