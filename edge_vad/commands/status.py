"""edge-vad status: what a running unit sees, says and suffers from."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_vad.commands.options import Parser
from edge_vad.status import RUNTIME, Found, find_units

EXIT_NONE, EXIT_DOES_NOT_HOLD = 1, 3
N_EVENTS = 5
WIDTH = 118
DRIFT_TOLD = 0.5


def main(arguments: Sequence[str]) -> int:
    parser = Parser("status", "edge-vad status [NAME] [--json]")
    parser.add_argument("name", nargs="?", help="one unit (name: in its device.yaml); all that run here without it")
    parser.add_argument(
        "--runtime", type=Path, metavar="DIR", help="where the unit puts its status (runtime: in device.yaml)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.epilog = "exit codes: 0 all is running, 1 no unit runs, 3 something is lost, failed, degraded or stale"
    options = parser.parse_args(arguments)
    units = find_units(options.runtime, options.name)
    if not units:
        which = f"unit {options.name}" if options.name else "unit"
        where = f"no {which} runs here (looked in {options.runtime or RUNTIME})"
        sys.stderr.write(f"edge-vad status: {where}; start one: edge-vad run --config device.yaml\n")
        return EXIT_NONE
    troubles = {unit.path: troubles_of(unit) for unit in units}
    if options.json:
        told = [
            {**unit.status, "file": str(unit.path), "stale": unit.stale, "troubles": troubles[unit.path]} for unit in units
        ]
        sys.stdout.write(json.dumps(told, indent=2, sort_keys=True) + "\n")
    else:
        sys.stdout.write("\n".join(describe(unit, troubles[unit.path]) for unit in units))
    return EXIT_DOES_NOT_HOLD if any(troubles.values()) else 0


def troubles_of(unit: Found) -> list[str]:
    """Everything that is not as it should be, one line each."""
    if unit.stale:
        return [unit.stale]
    return [*_camera_troubles(_map(unit.status, "cameras")), *_other_troubles(unit.status)]


def _camera_troubles(cameras: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(cameras):
        camera = _map(cameras, name)
        state, reason = camera.get("state"), camera.get("reason")
        if state not in ("running", "ended") or reason:
            yield f"{name} is {state}" + (f": {reason}" if reason else "")
        if camera.get("degraded"):
            yield f"{name} is degraded: more than half of its frames are dropped"
        if (view := camera.get("view", "clear")) != "clear":
            yield f"{name}: the view is {view}"


def _other_troubles(status: Mapping[str, Any]) -> Iterator[str]:
    for part in ("delivery", "media"):
        for name, value in _flat(_map(status, part)):
            if value and name.rpartition(".")[2] in ("last_error", "error", "failing", "reason", "lost"):
                yield f"{part}: {name.replace('.', ' ')} {value}"
    for told in _map(status, "device").get("throttled") or []:
        if "since boot" not in str(told):
            yield f"the board reports {told}"


def describe(unit: Found, troubles: Sequence[str]) -> str:
    """One unit for people, on one screen."""
    status = unit.status
    head = f"{status.get('unit', unit.path.stem)}: {'stale' if unit.stale else status.get('state', '?')}"
    lines = [f"{head}, up {duration(status.get('uptime_s'))}, process {status.get('pid', '?')}"]
    lines += [f"  ! {text}" for text in troubles]
    for name, camera in sorted(_map(status, "cameras").items()):
        lines += [f"  {line}" for line in _camera(name, camera, "was " * bool(unit.stale))]
    rows = {
        "delivery": _counted(_map(status, "delivery")),
        "media": _counted(_map(status, "media")),
        "board": _board(status),
    }
    lines += [f"  {title:<10} {text}" for title, text in rows.items() if text]
    recent = [record for record in status.get("recent") or [] if isinstance(record, Mapping)][-N_EVENTS:]
    lines += [f"  {'recent' if not i else '':<10} {_event(record)}" for i, record in enumerate(reversed(recent))]
    return "\n".join(printable(line)[:WIDTH] for line in lines) + "\n"


def _camera(name: str, camera: Any, was: str = "") -> Iterator[str]:
    if not isinstance(camera, Mapping):
        return
    bundle, fps, latency = (_map(camera, key) for key in ("bundle", "fps", "latency_ms"))
    trial = ", on trial" if camera.get("on_trial") else ""
    score = camera.get("score")
    shown = f"{score:.2f}" if isinstance(score, (int, float)) else "-"
    yield (
        f"{name:<10} {was}{camera.get('state')}, view {camera.get('view')}, score {shown}, "
        f"{fps.get('captured', 0):g} fps captured, {fps.get('scored', 0):g} scored; {camera.get('source')}"
    )
    bundle_id = str(bundle.get("id"))[:12]
    times = [f"{value:.0f}" for value in latency.values() if isinstance(value, (int, float))]
    told = f"; latency {'/'.join(latency)} {'/'.join(times)} ms" if times else ""
    named = f"bundle {bundle.get('name')} serial {bundle.get('serial')} ({bundle_id}{trial})"
    yield f"{'':<10} {named}, {camera.get('backend')}{told}"
    counted = ("captured", "scored", "dropped", "skipped", "events")
    counts = ", ".join(f"{camera.get(key, 0):,} {key}" for key in counted if isinstance(camera.get(key, 0), int))
    yield f"{'':<10} {counts}, lost {camera.get('lost', 0)} times"
    drift = {name: value for name, value in _map(camera, "drift").items() if isinstance(value, (int, float))}
    if any(abs(value) >= DRIFT_TOLD for value in drift.values()):
        shown = ", ".join(f"{name} {value:+.1f}" for name, value in sorted(drift.items()))
        yield f"{'':<10} drift from normal footage, in its deviations: {shown}"


def _board(status: Mapping[str, Any]) -> str:
    device = _map(status, "device")
    units = {"temperature_c": "C", "clock_mhz": "MHz", "power_w": "W", "gpu_percent": "% GPU"}
    parts = [f"{device[key]:g} {unit}" for key, unit in units.items() if isinstance(device.get(key), (int, float))]
    words = {"load": "load", "memory_mb": "MB used", "available_mb": "MB free", "governor": "governor"}
    for key, word in words.items():
        value = device.get(key)
        if value is not None:
            parts.append(f"{word} {value}" if key in ("load", "governor") else f"{value:,} {word}")
    throttled = device.get("throttled")
    if throttled is not None:
        parts.append(", ".join(map(str, throttled)) or "not throttled")
    return ", ".join(parts)


def _counted(parts: Mapping[str, Any]) -> str:
    """What each part counts, in its own words; errors are among the troubles."""
    told = []
    for name, counts in parts.items():
        if isinstance(counts, Mapping):
            shown = [f"{_number(value)} {key}" for key, value in counts.items() if isinstance(value, (int, float))]
            told.append(f"{name} {', '.join(shown)}")
    return "; ".join(told)


def _event(record: Mapping[str, Any]) -> str:
    seconds = record.get("monotonic_s")
    age = duration(time.monotonic() - seconds if isinstance(seconds, (int, float)) else None)
    details = {key: record[key] for key in ("id", "peak_score", "reason", "gap_s") if record.get(key) not in (None, "")}
    told = ", ".join(f"{key} {value}" for key, value in details.items())
    what = " ".join(str(record.get(key, "")) for key in ("camera", "type", "kind")).strip()
    return f"{age:>7} ago  {what}" + (f": {told}" if told else "")


def duration(seconds: Any) -> str:
    """Seconds for people: 12 s, 3 min, 5.2 h, 4.1 d."""
    if not isinstance(seconds, (int, float)):
        return "?"
    for limit, size, form in ((60, 1, "{:.0f} s"), (3600, 60, "{:.0f} min"), (36 * 3600, 3600, "{:.1f} h")):
        if seconds < limit:
            return form.format(seconds / size)
    return f"{seconds / 86400:.1f} d"


def printable(text: str) -> str:
    """Text of elsewhere, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _number(value: float) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _map(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
