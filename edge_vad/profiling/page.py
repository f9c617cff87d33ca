"""The HTML report: one file, no script, nothing from a network."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from edge_vad.evaluation.style import CSS
from edge_vad.profiling import drawing
from edge_vad.profiling.facts import facts, notes, times
from edge_vad.profiling.measurement import Measurement

Report = Mapping[str, Any]

COLOURS = ("#3b7dd8", "#e08a3c", "#3fa66b", "#b065c4", "#c9a227", "#d65a6f", "#4fb3bf", "#8c6d4f", "#7a86c8", "#9aa5ad")
STAGES_CSS = "".join(f".s{i} {{ fill: {c}; background: {c}; }} " for i, c in enumerate(COLOURS))
MORE_CSS = """.ok { color: var(--hit); } .bad { color: var(--false); } dd { overflow-wrap: anywhere; }
main > .card + .card { margin-top: .7rem; } """
READINGS = (
    ("temperature_c", "C", "Temperature"),
    ("clock_mhz", "MHz", "Clock"),
    ("power_w", "W", "Power of the board"),
    ("gpu_temperature_c", "C", "Temperature of the GPU"),
    ("gpu_clock_mhz", "MHz", "Clock of the GPU"),
    ("gpu_power_w", "W", "Power of the GPU"),
)


def page(report: Report, measurement: Measurement) -> str:
    """The whole page."""
    name = f"{report['bundle']['name']} serial {report['bundle']['serial']}"
    sections = [
        f'<h1>Bench: {escape(name)}</h1><p class="soft">{escape(facts_line(report))}</p>',
        _tiles(report),
        _budget(report),
        _times(report),
        _charts(report, measurement),
        _header(report),
        "<h2>Notes</h2>" + "".join(f'<p class="soft">{escape(note)}</p>' for note in notes(report)),
    ]
    head = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Bench: {escape(name)}</title><style>{CSS}{MORE_CSS}{STAGES_CSS}</style></head>"
    )
    return f"{head}<body><main>{''.join(sections)}</main></body></html>\n"


def facts_line(report: Report) -> str:
    told = dict(facts(report))
    return f"{told['measured']}. {told['board']}. Written {report['written']}."


def _tiles(report: Report) -> str:
    wall, cpu = report["end_to_end"]["wall_ms"], report["end_to_end"]["cpu_ms"]
    tiles = [
        (f"{wall['p50']:.1f} ms", "p50 of a frame, wall"),
        (f"{wall['p95']:.1f} ms", "p95 of a frame, wall"),
        (f"{cpu['p50']:.1f} ms", "p50 of a frame, CPU"),
        (f"{report['fps']:.1f}", "frames per second (1000 / mean)"),
        (f"{report['memory']['used_mb']:.0f} MB", "memory at most"),
    ]
    if "temperature_c_max" in report["board"]:
        tiles.append((f"{report['board']['temperature_c_max']:g} C", "hottest reading"))
    cells = "".join(f'<div class="card tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{cells}</div>'


def _budget(report: Report) -> str:
    styles = {True: "ok", False: "bad", None: "soft"}
    lines = "".join(f'<p class="{styles[v["holds"]]}">{escape(v["text"])}</p>' for v in report["budget"])
    return f'<h2>Budget</h2><div class="card">{lines or "The profile has none."}</div>'


def _times(report: Report) -> str:
    head, *rows = times(report)
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<h2>Percentiles</h2><div class="card scroll"><table><tr>{top}</tr>{body}</table></div>'


def _charts(report: Report, m: Measurement) -> str:
    t_s = (m.start_ns - m.start_ns[0]) / 1e9
    ms = m.wall_ns / 1e6
    bound = next((v["bound"] for v in report["budget"] if v["name"] == "p95_ms"), None)
    marks = [(key, value) for key, value in report["end_to_end"]["wall_ms"].items() if key.startswith("p")]
    names = [*m.spans.names, "other"]
    by_stage = m.by_stage(m.spans.wall_ns)
    stages = np.vstack([by_stage, np.maximum(m.wall_ns - by_stage.sum(axis=0), 0)]) / 1e6
    key = "".join(f'<span class="key s{i % 10}"></span>{escape(name)}' for i, name in enumerate(names))
    charts = [
        ("Wall time of a frame over the run", drawing.timeline(t_s, ms, bound, "Wall time of a frame over the run")),
        (f"Wall time by stage, means over short stretches of the run. {key}", drawing.stacked(t_s, stages, "Stages")),
        ("Frames by wall time", drawing.histogram(ms, marks, "Histogram of the wall time")),
        *_readings(m),
    ]
    cards = "".join(f'<div class="card"><p class="soft">{text}</p>{chart}</div>' for text, chart in charts)
    return f"<h2>Over time</h2>{cards}"


def _readings(m: Measurement) -> list[tuple[str, str]]:
    told = [{"t_s": 0.0, **m.before}, *m.samples, {"t_s": m.duration_s, **m.after}]
    found = []
    for key, unit, title in READINGS:
        known = [(values["t_s"], values[key]) for values in told if key in values]
        if known:
            t_s, values = zip(*known, strict=True)
            found.append((title, drawing.readings(t_s, values, unit, title)))
    return found


def _header(report: Report) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(report))
    return f'<h2>What was measured, and on what</h2><div class="card"><dl>{rows}</dl></div>'
