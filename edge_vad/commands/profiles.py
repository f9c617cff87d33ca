"""edge-vad profiles: the devices that edge-vad knows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources

from edge_vad.commands.options import Parser
from edge_vad.profile import load_profile, names


def main(arguments: Sequence[str]) -> int:
    parser = Parser("profiles", "edge-vad profiles [NAME|FILE.yaml]")
    parser.add_argument("name", nargs="?", help="show one; a file is checked")
    options = parser.parse_args(arguments)
    if options.name is None:
        for name in names():
            sys.stdout.write(f"{name:<16} {load_profile(name).description}\n")
        return 0
    load_profile(options.name)
    if options.name in names():
        sys.stdout.write((resources.files("edge_vad.profiles") / f"{options.name}.yaml").read_text(encoding="utf-8"))
    else:
        sys.stdout.write(f"{options.name}: valid\n")
    return 0
