"""Options that several verbs share."""

from __future__ import annotations

import argparse
from typing import NoReturn

from edge_vad.profile import Profile, load_profile


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
