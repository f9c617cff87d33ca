"""edge-vad profiles: the devices that edge-vad knows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources

from edge_vad.commands.options import Parser
from edge_vad.errors import ProfileError, did_you_mean
from edge_vad.plugins import available
from edge_vad.profile import Budget, Profile, load_profile, names

ACTIONS = ("list", "show", "validate")
UNITS = {"fps": " fps", "p95_ms": " ms p95", "memory_mb": " MB", "temperature_c": " C"}


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        "profiles", "edge-vad profiles [NAME|FILE.yaml], or: edge-vad profiles list | show NAME | validate FILE.yaml"
    )
    parser.add_argument("words", nargs="*", metavar="NAME", help="show one, with its comments; a file is checked")
    words = list(parser.parse_args(arguments).words)
    action = words.pop(0) if words and words[0] in ACTIONS else ("show" if words else "list")
    if len(words) != (action != "list"):
        parser.error(f"profiles {action} takes {'no name' if action == 'list' else 'one name'}")
    if action == "list":
        return _list()
    return _show(words[0]) if action == "show" and words[0] in names() else _validate(words[0])


def _list() -> int:
    profiles = [load_profile(name) for name in names()]
    name_width, width = (max(len(getattr(p, key)) for p in profiles) for key in ("name", "description"))
    for profile in profiles:
        line = f"{profile.name:<{name_width}} {profile.description:<{width}}  {_bounds(profile.budget)}"
        sys.stdout.write(line.rstrip() + "\n")
    return 0


def _bounds(budget: Budget) -> str:
    bounds = [f"{value:g}{unit}" for key, unit in UNITS.items() if (value := getattr(budget, key)) is not None]
    return ", ".join(bounds)


def _show(name: str) -> int:
    sys.stdout.write((resources.files("edge_vad.profiles") / f"{name}.yaml").read_text(encoding="utf-8"))
    return 0


def _validate(name: str) -> int:
    _check_names(name, load_profile(name))
    sys.stdout.write(f"{name}: valid\n")
    return 0


def _check_names(where: str, profile: Profile) -> None:
    """Raises ProfileError for a backend or bank of edge-vad's own that does not exist; your own modules are not imported."""
    inference = profile.inference
    named = [("backend", "backends", inference.backend), ("bank", "banks", inference.bank)]
    for key, kind, value in named:
        known = available(kind) + ["auto"] * (kind == "banks")
        if "." not in value and value not in known:
            raise ProfileError(f"profile {where}: inference: {key}: there is no {value!r}{did_you_mean(value, known)}")
