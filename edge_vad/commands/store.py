"""edge-vad store: the bundles on this device."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.profile import Profile
from edge_vad.self_test import check_in_child
from edge_vad.store import Store

ACTIONS = ("install", "activate", "confirm", "rollback", "list", "gc")


def main(arguments: Sequence[str]) -> int:
    parser = Parser("store", "edge-vad store install site.evb | activate ID | confirm | rollback | list | gc [options]")
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("what", nargs="?", metavar="FILE.evb|ID", help="install: a bundle; activate: the start of an id")
    parser.add_argument("--store", metavar="DIR", help="the store's folder (default: the profile's)")
    parser.add_argument("--allow-older", action="store_true", help="accept a lower serial than the one that ran here")
    parser.add_argument("--json", action="store_true", help="list: as JSON")
    add_profile(parser)
    options = parser.parse_args(arguments)
    if (options.what is not None) != (options.action in ("install", "activate")):
        parser.error(f"{options.action} takes " + ("no argument" if options.what else "a FILE.evb or an ID"))
    profile = profile_of(options)
    store = open_store(profile, options.store)
    if options.action == "list":
        sys.stdout.write(_as_json(store) if options.json else _as_text(store))
    else:
        sys.stdout.write(_change(store, options.action, options.what, profile, options.allow_older) + "\n")
    return 0


def open_store(profile: Profile, folder: str | None = None) -> Store:
    """The store of a device, in the profile's folder or another one."""
    return Store(Path(folder or profile.store.folder), profile.trust.load(), profile.store.attempts)


def _change(store: Store, action: str, what: str, profile: Profile, allow_older: bool) -> str:
    """Do it, and say what was done."""
    if action == "install":
        bundle_id = store.install(Path(what), lambda path, i: check_in_child(path, i, profile), allow_older=allow_older)
        return f"installed {bundle_id[:12]}; next: edge-vad store activate {bundle_id[:12]}"
    if action == "activate":
        bundle_id = store.find(what)
        store.activate(bundle_id, allow_older=allow_older)
        return f"{bundle_id[:12]} runs from the next start on, on trial until it is confirmed"
    if action == "confirm":
        store.confirm()
        return f"confirmed {(store.current or 'nothing')[:12]}"
    if action == "rollback":
        return f"returned to {store.rollback()[:12]}; it runs from the next start on"
    gone = store.collect_garbage()
    return f"deleted {len(gone)}: {', '.join(name[:24] for name in gone)}" if gone else "nothing to delete"


def _as_json(store: Store) -> str:
    listed = {
        "bundles": [asdict(entry) for entry in store.entries()],
        "serial": store.serial,
        "last_rollback": store.last_rollback,
    }
    return json.dumps(listed, indent=2, sort_keys=True) + "\n"


def _as_text(store: Store) -> str:
    lines = [
        f"{entry.id[:12]}  serial {entry.serial:<4} {entry.n_bytes:>11,} bytes  {entry.name:<20} "
        f"{entry.error or ', '.join(entry.states)}".rstrip()
        for entry in store.entries()
    ]
    if given_up := store.last_rollback:
        lines.append(f"last rollback: from {str(given_up.get('from'))[:12]}: {given_up.get('reason')}")
    return "\n".join(lines or [f"{store.folder}: no bundle is installed: edge-vad store install site.evb"]) + "\n"
