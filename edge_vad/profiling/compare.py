"""Two reports of bench side by side: a gate for an engineer's own CI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_vad.errors import ReportError
from edge_vad.files import read_regular
from edge_vad.profiling.table import aligned

KIND, SCHEMA = "edge-vad bench", 1
MAX_BYTES = 64 * 2**20
GATED = ("p50", "p95")
SAME_BOARD = ("model", "processor", "machine", "n_cpus", "gpu")
Clock = Literal["wall", "cpu"]
Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """Two times of one stage (or ``end to end``), milliseconds. ratio: b / a, None where a is 0."""

    what: str
    clock: Clock
    percentile: str
    a: float
    b: float

    @property
    def ratio(self) -> float | None:
        return self.b / self.a if self.a else None


def read_report(path: Path) -> dict[str, Any]:
    """A JSON report; ReportError for anything else, and for another schema."""
    try:
        report = json.loads(read_regular(path, MAX_BYTES, follow=True))
    except OSError as error:
        raise ReportError(f"{path}: the report cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not a JSON report of edge-vad bench") from error
    if not isinstance(report, dict) or report.get("kind") != KIND:
        raise ReportError(f"{path}: not a JSON report of edge-vad bench; write one with --report json --out FILE.json")
    if report.get("schema") != SCHEMA:
        raise ReportError(f"{path}: report schema {report.get('schema')!r}, this edge-vad reads {SCHEMA}; measure again")
    return report


def check_same(a: Report, b: Report) -> None:
    """Raises ReportError where board or bundle differ: the ratio would say nothing of the software."""
    for key in SAME_BOARD:
        if a["board"].get(key) != b["board"].get(key):
            raise ReportError(
                f"the reports are of different boards: {key} {a['board'].get(key)!r} and {b['board'].get(key)!r}; "
                "measure both on one, or compare with --force"
            )
    if a["bundle"]["id"] != b["bundle"]["id"]:
        names = ["{name} serial {serial} ({id:.12})".format(**report["bundle"]) for report in (a, b)]
        raise ReportError(f"the reports are of different bundles: {names[0]} and {names[1]}; compare with --force")


def compare(a: Report, b: Report) -> list[Row]:
    """Every percentile that both have, end to end first, then by stage; ReportError where p50 or p95 is missing."""
    try:
        rows = _rows("end to end", a["end_to_end"], b["end_to_end"])
        for stage in [name for name in a["stages"] if name in b["stages"]]:
            rows += _rows(stage, a["stages"][stage], b["stages"][stage])
    except (LookupError, TypeError, AttributeError) as error:
        raise ReportError(f"a report without {error}; measure again") from error
    gated = {row.percentile for row in rows if row.what == "end to end"}
    if missing := [name for name in GATED if name not in gated]:
        raise ReportError(f"a report without {' and '.join(missing)} end to end; measure again")
    return rows


def _rows(what: str, a: Report, b: Report) -> list[Row]:
    clocks: tuple[Clock, ...] = ("wall", "cpu")
    return [
        Row(what, clock, name, float(value), float(b[f"{clock}_ms"][name]))
        for clock in clocks
        for name, value in a[f"{clock}_ms"].items()
        if name.startswith("p") and name in b[f"{clock}_ms"]
    ]


def worse(rows: Sequence[Row], limit: float, clock: Clock) -> list[Row]:
    """End to end, p50 and p95 of that clock, where b takes more than ``limit`` (0.1: a tenth) longer than a."""
    gated = [row for row in rows if row.what == "end to end" and row.clock == clock and row.percentile in GATED]
    return [row for row in gated if row.b > row.a * (1 + limit)]


def text(a: Report, b: Report, rows: Sequence[Row]) -> str:
    """The table, one line for a stage and clock, ``a -> b ratio`` for each percentile; and what to mind."""
    names = list(dict.fromkeys(row.percentile for row in rows))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        ratio = "" if row.ratio is None else f" x{row.ratio:.2f}"
        lines.setdefault((row.what, row.clock), {})[row.percentile] = f"{row.a:.2f} -> {row.b:.2f}{ratio}"
    cells = [[what, clock, *(found.get(name, "") for name in names)] for (what, clock), found in lines.items()]
    table = aligned([["ms", "clock", *names], *cells])
    return "\n".join([*table, "", *(f"note: {note}" for note in notes(a, b, rows))]) + "\n"


def notes(a: Report, b: Report, rows: Sequence[Row]) -> list[str]:
    """What else differs, how steady each run was, and whether it is the machine's load rather than the software."""
    found = [f"{name} {before} and {after}" for name, before, after in _settings(a, b)]
    for name, report in (("first", a), ("second", b)):
        parts = report["end_to_end"].get("parts", {})
        low, high = _range(parts.get("wall_p50_ms")), _range(parts.get("cpu_p50_ms"))
        load = "{} to {}".format(*(report["board"].get(when, {}).get("load", "?") for when in ("before", "after")))
        found.append(f"{name} run: p50 of its fifths {low} ms wall, {high} ms CPU; load {load}")
    p50 = {row.clock: row.ratio or 1.0 for row in rows if row.what == "end to end" and row.percentile == "p50"}
    if p50["wall"] - p50["cpu"] > 0.05:
        found.append(
            f"wall time changed by {p50['wall'] - 1:+.0%}, CPU time by {p50['cpu'] - 1:+.0%}: "
            "waiting, other load or a lower share of the processor; --clock cpu gates on CPU time"
        )
    return found


def _range(values: Any) -> str:
    return f"{min(values):.2f}-{max(values):.2f}" if values else "?"


def _settings(a: Report, b: Report) -> list[tuple[str, Any, Any]]:
    """What was set or installed differently."""
    found = []
    for part in ("settings", "versions"):
        before, after = a.get(part, {}), b.get(part, {})
        found += [(k, before.get(k), after.get(k)) for k in {**before, **after} if before.get(k) != after.get(k)]
    return [*found, *((k, a["run"][k], b["run"][k]) for k in ("paced",) if a["run"].get(k) != b["run"].get(k))]
