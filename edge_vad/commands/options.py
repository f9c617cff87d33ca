"""Options that several verbs share."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from edge_vad.profile import Profile, load_profile

UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class Parser(argparse.ArgumentParser):
    """A parser whose help begins with an example."""

    def __init__(self, verb: str, example: str) -> None:
        super().__init__(
            prog=f"edge-vad {verb}",
            usage=f"{example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_profile(parser: argparse.ArgumentParser) -> None:
    """--profile NAME and --set key.key=value."""
    parser.add_argument(
        "--profile", default="desktop_cpu", metavar="NAME", help="a device, or a YAML file (edge-vad profiles)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one value of the profile")


def profile_of(options: argparse.Namespace) -> Profile:
    """The profile that `add_profile`'s options name."""
    return load_profile(options.profile, options.set)


def duration(text: str) -> float:
    """The type of an option: ``30s``, ``5m``, ``1h`` as seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|)", text)
    if not found or not 0 < float(found[1]) * UNITS[found[2]] <= 7 * 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 30s, 5m or 1h")
    return float(found[1]) * UNITS[found[2]]


def count(text: str) -> int:
    """The type of an option: a number of frames."""
    if not text.isdecimal() or not 1 <= int(text) <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of frames")
    return int(text)


def add_wanted(parser: argparse.ArgumentParser) -> None:
    """--backends, --threads, --banks: fewer settings than this device has."""
    parser.add_argument(
        "--backends", type=_names, metavar="A,B", help="only these backends (default: all that are installed)"
    )
    parser.add_argument(
        "--threads", type=_counts, metavar="1,2", help="only these numbers of threads (default: 1, 2, 4 ...)"
    )
    parser.add_argument("--banks", type=_names, metavar="A,B", help="only these banks (default: all that are installed)")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part for part in text.split(",") if part))
    if not names:
        raise argparse.ArgumentTypeError("names nothing")
    return names


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= 1024 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} are no numbers of threads; write 1,2,4")
    return tuple(dict.fromkeys(map(int, parts)))
