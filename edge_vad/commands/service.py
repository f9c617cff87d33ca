"""edge-vad service: a unit that starts with the device, and again whenever it ends."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from edge_vad import service
from edge_vad.commands.options import Parser
from edge_vad.device import load_device


def main(arguments: Sequence[str]) -> int:
    parser = Parser("service", "edge-vad service install --config /etc/edge-vad/device.yaml | uninstall [NAME]")
    actions = parser.add_subparsers(dest="action", required=True, parser_class=ArgumentParser)
    add = actions.add_parser("install", help="write the systemd service of a unit, and start it", allow_abbrev=False)
    add.add_argument("--config", type=Path, required=True, metavar="FILE.yaml", help="the unit (docs/live.md)")
    add.add_argument("--user", metavar="NAME", help="run as this user; without it as one that systemd makes up")
    add.add_argument("--dry-run", action="store_true", help="print the service file and change nothing")
    add.add_argument("--no-start", action="store_true", help="only have it start with the device; works in an image too")
    remove = actions.add_parser("uninstall", help="stop it and take it away; its data stays", allow_abbrev=False)
    remove.add_argument("name", nargs="?", metavar="NAME", help="of the unit, where several are installed")
    options = parser.parse_args(arguments)
    return _install(options) if options.action == "install" else _uninstall(options)


def _install(options: Namespace) -> int:
    made = service.service_of(options.config, options.user)
    _warn_of_footage(options.config)
    if options.dry_run:
        sys.stdout.write(made.text)
        return 0
    if options.no_start:
        service.prepare(made)
        sys.stdout.write(f"{made.name} starts with the device\n")
        return 0
    service.install(made)
    sys.stdout.write(f"{made.name} runs and starts with the device; see: edge-vad status, journalctl --unit {made.name}\n")
    return 0


def _uninstall(options: Namespace) -> int:
    sys.stdout.write(f"{service.uninstall(options.name)} is stopped and gone; its data stays in {service.STATE}\n")
    return 0


def _warn_of_footage(config: Path) -> None:
    from edge_vad.cameras import is_live

    for name, camera in load_device(config).cameras.items():
        if not is_live(camera.source):
            said = f"camera {name}: {camera.source} is stored footage; when it ends, the service starts from its beginning"
            sys.stderr.write(f"edge-vad service: {said}\n")
