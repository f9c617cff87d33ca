"""The command line: a table of verbs, each imported when it is used."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from edge_vad.errors import EdgeVadError, did_you_mean
from edge_vad.heap import tune_heap

COMMANDS = {  # verb: (module, one line of help)
    "demo": (
        "edge_vad.converters.demo_command",
        "convert a generated street, run it, report: the main job in minutes",
    ),
    "build": ("edge_vad.converters.build_command", "normal footage in, bundle out"),
    "evaluate": ("edge_vad.commands.evaluate", "score labelled footage: AUC, false alarms, speed, an HTML report"),
    "bench": ("edge_vad.commands.bench", "latency percentiles by stage, memory, heat, power; a gate for budgets and CI"),
    "tune": ("edge_vad.commands.tune", "backend, precision, threads and bank for this device, by measuring: a profile"),
    "run": ("edge_vad.commands.run", "alarms on a stream, as JSON lines"),
    "status": ("edge_vad.commands.status", "what a running unit sees, says and suffers from"),
    "events": ("edge_vad.commands.events", "the event log of a unit: a table, JSON lines, or as they come"),
    "doctor": ("edge_vad.commands.doctor", "whether this device is fit: packages, cameras, bundle, disk, clock, heat"),
    "learn": ("edge_vad.commands.learn", "let a unit learn its own normal view, as a bundle that can be taken back"),
    "train": (
        "edge_vad.converters.train_command",
        "normal footage in, the weights of a network out: maam, amco, desd, stpag",
    ),
    "encoder": ("edge_vad.converters.encoder_command", "export | quantize: the encoder steps of build, alone"),
    "bundle": (
        "edge_vad.commands.bundle",
        "inspect | verify | check | diff | sign | keygen | import: what is in it, and whose it is",
    ),
    "store": ("edge_vad.commands.store", "install | activate | confirm | rollback | list | gc: the bundles on this device"),
    "service": ("edge_vad.commands.service", "install | uninstall: a unit as a systemd service that starts with the device"),
    "provision": (
        "edge_vad.converters.provision_command",
        "everything that a unit needs, in one file, for a unit without a network",
    ),
    "profiles": ("edge_vad.commands.profiles", "the devices that edge-vad knows"),
}
EXIT_ERROR, EXIT_USAGE = 1, 2
PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.NOTSET: 7}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 fine, 1 an EdgeVadError (one line), 2 usage, 3 a check that did not hold."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # OpenCV writes its own lines to standard error; what matters of them is in the error that is raised.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    verbose = "-v" in arguments or "--verbose" in arguments
    arguments = [a for a in arguments if a not in ("-v", "--verbose")]
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_help()
        return 0
    if arguments[0] == "--version":
        from edge_vad import __version__

        sys.stdout.write(f"edge-vad {__version__}\n")
        return 0
    # Before numpy is imported: its thread pool and the backend's fight for the cores, and frames are small.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # ONNX Runtime 1.29 and later report their use to their maker unless this is set before they are imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    tune_heap()
    verb, rest = arguments[0], arguments[1:]
    if verb not in COMMANDS:
        sys.stderr.write(f"edge-vad: no command {verb!r}{did_you_mean(verb, COMMANDS)}; see edge-vad --help\n")
        return EXIT_USAGE
    logging.basicConfig(format="%(message)s", level=logging.DEBUG if verbose else logging.INFO, stream=sys.stderr)
    if _journal_reads():
        logging.getLogger().handlers[0].setFormatter(JournalFormatter())
    return _run(verb, rest, verbose)


def _run(verb: str, arguments: list[str], verbose: bool) -> int:
    try:
        command = importlib.import_module(COMMANDS[verb][0])
        return int(command.main(arguments))
    except EdgeVadError as error:
        if verbose:
            raise
        sys.stderr.write(f"{'<3>' * _journal_reads()}edge-vad {verb}: {error}\n")
        return EXIT_ERROR
    except BrokenPipeError:
        # Whoever read the output has gone; nothing more can be said to it, also not by the interpreter's own flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130


class JournalFormatter(logging.Formatter):
    """Each line with its priority in front, as journald takes it from a stream. Source: sd-daemon(3)."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in PRIORITIES.items() if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def _journal_reads() -> bool:
    """Whether standard error is the stream that systemd named; a program in between may have redirected it."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        stream = os.fstat(2)
    except OSError:
        return False
    return named == f"{stream.st_dev}:{stream.st_ino}"


def _print_help() -> None:
    lines = [
        "edge-vad build --normal footage/ --out site.evb     # then: edge-vad run --bundle site.evb --source clip.mp4",
        "",
    ]
    lines += [f"  {verb:<10} {text}" for verb, (_, text) in COMMANDS.items()]
    lines += ["", "edge-vad VERB --help says more of each. -v shows what goes on, and tracebacks.", ""]
    sys.stdout.write("\n".join(lines))
