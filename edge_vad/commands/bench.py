"""edge-vad bench: what a frame costs on this device, and whether that fits."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.commands.options import Parser, add_profile, add_wanted, count, duration, profile_of
from edge_vad.detector import Detector
from edge_vad.errors import ReportError
from edge_vad.files import check_writable
from edge_vad.profile import Profile
from edge_vad.profiling import PERCENTILES, matrix_report, measure
from edge_vad.profiling.board import Board
from edge_vad.profiling.compare import check_same, compare, read_report, text, worse
from edge_vad.profiling.header import make_report
from edge_vad.profiling.matrix import Matrix, Wanted, cells, check_one_site, expected_s
from edge_vad.profiling.matrix_report import make_matrix_report
from edge_vad.profiling.measurement import WARM_UP
from edge_vad.profiling.overhead import overhead
from edge_vad.profiling.report import KINDS, places, rendered, write
from edge_vad.profiling.stock import frames_for
from edge_vad.profiling.trace import to_trace
from edge_vad.types import Frame

EXIT_DOES_NOT_HOLD = 3
MOST_OVERHEAD = 0.01
RUN_S, MATRIX_S = 30.0, 10.0


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    if options.compare:
        return _compare(options)
    profile = profile_of(options)
    bundles = [read_bundle(path, profile.trust.load()) for path in options.bundle]
    outputs = places(options.report, options.out) if options.out else {}
    if options.matrix:
        return _matrix(options, profile, bundles, outputs)
    if options.trace:
        check_writable(options.trace)
    return _bench(options, profile, bundles[0], outputs)


def _parse(arguments: Sequence[str]) -> Namespace:
    parser = Parser("bench", "edge-vad bench --bundle site.evb --profile raspberry_pi_5 [--report html --out bench.html]")
    parser.epilog = "exit codes: 0 fine, 3 a bound of the profile's budget is missed, or --fail-over (docs/bench.md)"
    parser.add_argument("--bundle", nargs="+", type=Path, metavar="FILE.evb", help="several for --matrix: one site's")
    add_profile(parser)
    parser.add_argument("--matrix", action="store_true", help="every backend, thread count and bank that this device has")
    add_wanted(parser)
    parser.add_argument("--source", help="frames from there, read into memory first (default: a generated street)")
    parser.add_argument("--fps", type=float, help="frames per second of the source (pictures carry none; default 10)")
    parser.add_argument(
        "--duration", type=duration, metavar="30s", help="of the run after the warm-up (30s; --matrix: 10s each)"
    )
    parser.add_argument("--frames", type=count, metavar="N", help="end after N processed frames instead")
    parser.add_argument("--warm-up", type=count, default=WARM_UP, metavar="N", help=f"frames before that ({WARM_UP})")
    parser.add_argument("--paced", action="store_true", help="at the camera's rate, not back to back: true heat and clock")
    parser.add_argument("--percentile", type=_percentiles, default=PERCENTILES, metavar="50,99.9", help="(50,90,95,99,99.9)")
    parser.add_argument("--report", type=_kinds, default=(), metavar="KIND,...", help=f"{', '.join(KINDS)} (default: md)")
    parser.add_argument("--out", type=Path, metavar="DIR|FILE", help="where reports go (default: standard output)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, for programs")
    parser.add_argument("--trace", type=Path, metavar="FILE.json", help="every frame and stage, for ui.perfetto.dev")
    parser.add_argument("--overhead", action="store_true", help="only what measuring itself costs, with and without it")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="FILE.json", help="two reports: before and after a change")
    parser.add_argument("--fail-over", type=_percent, metavar="10%", help="exit 3 where p50 or p95 end to end grew by more")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="which one --fail-over looks at (wall)")
    parser.add_argument("--force", action="store_true", help="compare reports of different boards or bundles")
    options = parser.parse_args(arguments)
    if (options.bundle is None) == (options.compare is None):
        parser.error("name either --bundle FILE.evb or --compare A.json B.json")
    if options.fail_over is not None and not options.compare:
        parser.error(
            "--fail-over goes with --compare A.json B.json; bounds of one run are the profile's: --set budget.p95_ms=40"
        )
    _check_matrix(parser, options)
    options.report = options.report or (("json",) if options.json else ("md",))
    if options.bundle and len(options.report) > 1 and not options.out:
        parser.error(f"{len(options.report)} reports need --out DIR")
    return options


def _check_matrix(parser: Parser, options: Namespace) -> None:
    """Some options are of one run, some of a matrix."""
    one_run = [name for name in ("paced", "trace", "overhead", "compare") if getattr(options, name)]
    if options.matrix and one_run:
        parser.error(f"--{one_run[0]} does not go with --matrix")
    several = options.bundle and len(options.bundle) > 1
    only = [name for name in ("backends", "threads", "banks") if getattr(options, name)] + ["several bundles"] * bool(
        several
    )
    if only and not options.matrix:
        parser.error(f"{only[0] if several else '--' + only[0]} needs --matrix")
    options.duration = options.duration or (MATRIX_S if options.matrix else RUN_S)


def _matrix(options: Namespace, profile: Profile, bundles: Sequence[Bundle], outputs: Mapping[str, Path]) -> int:
    """One table of all settings; ReportError where none runs."""
    check_one_site(bundles)
    settings = cells(
        [bool(bundle.bank_names) for bundle in bundles],
        profile.inference,
        Wanted(options.backends, options.threads, options.banks),
    )
    frames, source = frames_for(bundles[0], options.source, options.fps)
    about_s = expected_s(len(settings), options.duration)
    sys.stderr.write(f"{len(settings)} settings, two rounds each: about {about_s / 60:.1f} minutes\n")
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
        rows = matrix.measure(settings)
    told = {**board.identity(), "before": before, "after": board.read()}
    board.close()
    if all(row.error for row in rows):
        raise ReportError(f"none of the {len(rows)} settings runs here; the first: {rows[0].cell}: {rows[0].error}")
    report = make_matrix_report(matrix, rows, told, source)
    for kind, path in outputs.items():
        write(path, matrix_report.rendered(kind, report))
    shown = "json" if options.json else "md" if outputs else options.report[0]
    sys.stdout.write(matrix_report.rendered(shown, report))
    sys.stderr.write("".join(f"{path}\n" for path in outputs.values()))
    return 0


def _bench(options: Namespace, profile: Profile, bundle: Bundle, outputs: Mapping[str, Path]) -> int:
    frames, source = frames_for(bundle, options.source, options.fps)
    detector = Detector.open(bundle, profile)
    if options.overhead:
        return _overhead(detector, frames)
    board = Board(profile.inference.device)
    try:
        found = measure(
            detector,
            frames,
            duration_s=options.duration,
            n_frames=options.frames,
            warm_up=options.warm_up,
            paced=options.paced,
            board=board,
        )
    finally:
        board.close()
    report = make_report(found, detector, bundle, profile, source, options.percentile)
    for kind, path in outputs.items():
        write(path, rendered(kind, report, found))
    if options.trace:
        write(options.trace, to_trace(found, {key: report[key] for key in ("bundle", "settings", "versions")}))
    shown = "json" if options.json else "md" if outputs else options.report[0]
    sys.stdout.write(rendered(shown, report, found))
    for written in (*outputs.values(), options.trace):
        sys.stderr.write(f"{written}\n" if written else "")
    return _missed(report["budget"])


def _missed(budget: Sequence[Mapping[str, Any]]) -> int:
    """One line for each bound that was missed."""
    missed = [verdict["text"] for verdict in budget if verdict["holds"] is False]
    sys.stderr.write("".join(f"edge-vad bench: {line}\n" for line in missed))
    return EXIT_DOES_NOT_HOLD if missed else 0


def _compare(options: Namespace) -> int:
    a, b = (read_report(path) for path in options.compare)
    if not options.force:
        check_same(a, b)
    rows = compare(a, b)
    sys.stdout.write(text(a, b, rows))
    if options.fail_over is None:
        return 0
    grown = worse(rows, options.fail_over, options.clock)
    for row in grown:
        sys.stderr.write(
            f"edge-vad bench: {row.percentile} end to end, {row.clock}: {row.a:.2f} -> {row.b:.2f} ms, "
            f"{row.b / row.a - 1:+.1%}, over {options.fail_over:.1%}\n"
        )
    return EXIT_DOES_NOT_HOLD if grown else 0


def _overhead(detector: Detector, frames: list[Frame]) -> int:
    """In words; 3 where recording costs more than a hundredth."""
    found = overhead(detector, frames)
    low, high = sorted(found["ratio_of_halves"])
    sys.stdout.write(
        f"CPU time of a frame {found['cpu_ms_without']:.3f} ms without, {found['cpu_ms_with']:.3f} ms with the recorder: "
        f"x{found['ratio']:.4f} ({low:.4f} to {high:.4f} in two halves; {found['n_frames']} frames, "
        f"{found['n_passes']} passes, every other one recorded)\n"
    )
    return EXIT_DOES_NOT_HOLD if low > 1 + MOST_OVERHEAD else 0


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < q <= 100 for q in found):
        raise ArgumentTypeError(f"{text!r} are no percentiles; write 50,90,95,99,99.9")
    return found


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(text.split(",")))
    if not set(kinds) <= set(KINDS):
        raise ArgumentTypeError(f"{text!r} is no report; known: {', '.join(KINDS)}")
    return kinds


def _percent(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    if not found:
        raise ArgumentTypeError(f"{text!r} is no limit; write it in percent, as 10%")
    return float(found[1]) / 100
