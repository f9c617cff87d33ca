"""A report for people and machines: Markdown, JSON, CSV; `edge_vad.profiling.page` has the HTML."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vad.errors import OutputError
from edge_vad.files import check_writable, make_folder, write_atomically, writing
from edge_vad.profiling.facts import facts, notes, times
from edge_vad.profiling.measurement import Measurement
from edge_vad.profiling.table import aligned

KINDS = ("json", "csv", "md", "html")
Report = Mapping[str, Any]


def rendered(kind: str, report: Report, measurement: Measurement) -> str:
    """The report as text of one of `KINDS`."""
    texts = {"json": to_json, "md": to_markdown}
    if kind in texts:
        return texts[kind](report)
    if kind == "csv":
        return to_csv(measurement)
    from edge_vad.profiling.page import page  # brings the evaluation with it: not before the memory was measured

    return page(report, measurement)


def places(kinds: tuple[str, ...], out: Path) -> dict[str, Path]:
    """Where each kind goes: one kind into the file ``out``, where that has a suffix; else bench.KIND in the folder.

    Raises OutputError before minutes of work where that cannot be written; the folder is made.
    """
    if out.suffix and not out.is_dir():
        if len(kinds) > 1:
            raise OutputError(f"{out}: {len(kinds)} reports do not fit into one file; name a folder")
        check_writable(out)
        return {kinds[0]: out}
    with writing(out):
        make_folder(out.absolute())
    found = {kind: out / f"bench.{kind}" for kind in kinds}
    for path in found.values():
        check_writable(path)
    return found


def write(path: Path, text: str) -> None:
    """The file is complete or not there; OutputError."""
    write_atomically(path.absolute(), text.encode())


def to_json(report: Report) -> str:
    return json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def to_csv(measurement: Measurement) -> str:
    """One row per processed frame: start (s since the first), wall and CPU ms, and both of every stage (0: did not run)."""
    m = measurement
    by_stage = [m.by_stage(m.spans.wall_ns), m.by_stage(m.spans.cpu_ns)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{name}_{clock}_ms".replace(" ", "_") for name in m.spans.names for clock in ("wall", "cpu")]
    writer.writerow(["frame", "start_s", "wall_ms", "cpu_ms", *columns])
    for i in range(m.n_frames):
        stages = [f"{table[stage, i] / 1e6:.5f}" for stage in range(len(m.spans.names)) for table in by_stage]
        start_s = (int(m.start_ns[i]) - int(m.start_ns[0])) / 1e9
        writer.writerow([i, f"{start_s:.6f}", f"{m.wall_ns[i] / 1e6:.5f}", f"{m.cpu_ns[i] / 1e6:.5f}", *stages])
    return text.getvalue()


def to_markdown(report: Report) -> str:
    bundle = report["bundle"]
    lines = [f"# edge-vad bench: {bundle['name']} serial {bundle['serial']} ({bundle['id'][:12]})", ""]
    lines += _left(facts(report))
    lines += ["", *aligned(times(report)), ""]
    lines += [f"- {note}" for note in notes(report)]
    lines += [f"- {verdict['text']}" for verdict in report["budget"]]
    return "\n".join(lines) + "\n"


def _left(rows: list[tuple[str, str]]) -> list[str]:
    """A table of names and texts."""
    safe = [("", ""), *((name, text.replace("|", "\\|")) for name, text in rows)]
    widths = [max(3, *(len(row[i]) for row in safe)) for i in (0, 1)]
    lines = [f"| {name.ljust(widths[0])} | {text.ljust(widths[1])} |" for name, text in safe]
    return [lines[0], f"| {'-' * widths[0]} | {'-' * widths[1]} |", *lines[1:]]
