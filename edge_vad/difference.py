"""What changed between two bundles, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge_vad.bundle import Bundle
from edge_vad.manifest import MANIFEST, SIGNATURE

DERIVED = ("features", "banks")  # fingerprints in calibration.json: they follow from the rest


def differences(a: Bundle, b: Bundle) -> list[str]:
    """One line per difference, empty when the content is the same: values with their change, files with their sizes."""
    lines = list(_values("", _described(a), _described(b)))
    for name in sorted({*a.members, *b.members} - {MANIFEST}):
        old, new = a.members.get(name), b.members.get(name)
        if old == new:
            continue
        if name == SIGNATURE:
            lines.append(f"{name}: {'added' if old is None else 'removed' if new is None else 'other'}")
            continue
        sizes = " -> ".join("none" if data is None else f"{len(data):,} bytes" for data in (old, new))
        lines.append(f"{name}: {sizes}" + ("" if old is None or new is None or len(old) != len(new) else ", other content"))
    if (total := (a.n_bytes, b.n_bytes)) and total[0] != total[1]:
        lines.append(f"size: {total[0]:,} -> {total[1]:,} bytes ({total[1] / total[0] - 1:+.1%})")
    return lines


def _described(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    calibration = {key: value for key, value in bundle.calibration.items() if key not in DERIVED}
    return {
        "name": manifest.name,
        "serial": manifest.serial,
        "method": manifest.method,
        "compatible": manifest.compatible,
        "written_by": manifest.written_by,
        "models": {r: {"name": m.name, "precision": m.precision, "taps": list(m.taps)} for r, m in manifest.models.items()},
        "banks": {n: {"rows": b.rows, "dimensions": b.dimensions, "vectors": b.vectors} for n, b in manifest.banks.items()},
        "footage.clips": manifest.footage.clips,
        "footage.frames_processed": manifest.footage.frames_processed,
        "footage.ratio": manifest.footage.ratio,
        "calibration": calibration,
        "preprocessing": bundle.preprocessing,
    }


def _values(path: str, a: Any, b: Any) -> Iterator[str]:
    """Lines for the leaves that differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _values(f"{path}.{key}" if path else key, a.get(key), b.get(key))
    elif a != b:
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (a, b))
        change = f" ({b / a - 1:+.1%})" if numbers and a else ""
        yield f"{path}: {_short(a)} -> {_short(b)}{change}"


def _short(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
