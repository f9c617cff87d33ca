"""A matrix for people and machines: Markdown, JSON, CSV, HTML."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from html import escape
from typing import Any

from edge_vad.profile import Inference
from edge_vad.profiling.header import about, main_model, versions
from edge_vad.profiling.matrix import N_ROUNDS, Matrix, Row, by_speed
from edge_vad.profiling.table import aligned

KIND, SCHEMA = "edge-vad matrix", 1
HEAD = ("setting", "bundle", "p50", "p95", "p99", "CPU ms", "MB", "fps", "frames", "score deviation")
Report = Mapping[str, Any]


def make_matrix_report(matrix: Matrix, rows: Sequence[Row], board: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Everything that is known of a matrix as plain values, the fastest row first. source: where its frames came from."""
    bundles = [{"file": str(path), **about(bundle)} for path, bundle in matrix.bundles]
    installed: dict[str, str] = {}
    for name in dict.fromkeys(row.cell.backend for row in rows if not row.error):
        installed |= versions(replace(matrix.profile, inference=Inference(name)))
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "profile": matrix.profile.name,
        "source": source,
        "n_rounds": N_ROUNDS,
        "bundles": bundles,
        "board": dict(board),
        "versions": installed,
        "cells": [_plain(row, bundles[row.cell.bundle]) for row in by_speed(rows)],
    }


def _plain(row: Row, bundle: Report) -> dict[str, Any]:
    named = {"setting": str(row.cell), **asdict(row.cell), "bundle": bundle["name"], "models": bundle["models"]}
    if row.error:
        return {**named, "error": row.error}
    costs = {"wall_ms": dict(row.wall_ms), "cpu_ms": row.cpu_ms, "used_mb": row.used_mb, "fps": round(row.fps, 3)}
    scores = {"deviation": row.deviation, "allowed": row.allowed, "equal": row.equal}
    return {**named, **costs, "n_frames": row.n_frames, "banks": dict(row.banks), **scores}


def rendered(kind: str, report: Report) -> str:
    """The report as text: json, csv, md or html."""
    return {"json": to_json, "csv": to_csv, "md": to_markdown, "html": to_html}[kind](report)


def to_json(report: Report) -> str:
    return json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def to_csv(report: Report) -> str:
    """One row per setting."""
    text = io.StringIO()
    columns = ("bundle", "backend", "device", "precision", "threads", "bank")
    costs = ("cpu_ms", "used_mb", "fps", "n_frames", "deviation", "allowed", "equal", "error")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "p50_ms", "p95_ms", "p99_ms", *costs])
    for cell in report["cells"]:
        wall = cell.get("wall_ms", {})
        times = [wall.get(name, "") for name in ("p50", "p95", "p99")]
        writer.writerow([*(cell[name] for name in columns), *times, *(cell.get(name, "") for name in costs)])
    return text.getvalue()


def to_markdown(report: Report) -> str:
    lines = [f"# edge-vad bench --matrix: {', '.join(b['name'] for b in report['bundles'])}", ""]
    lines += [f"- {name}: {text}" for name, text in facts(report)]
    lines += ["", *aligned([HEAD, *table(report)]), ""]
    lines += [f"- not run: {text}" for text in refusals(report)]
    lines += [f"- {note}" for note in notes(report)]
    return "\n".join(lines) + "\n"


def to_html(report: Report) -> str:
    """One file, no script, nothing from a network."""
    from edge_vad.evaluation.style import CSS

    top = "".join(f"<th>{escape(cell)}</th>" for cell in HEAD)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table(report))
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(report))
    small = "".join(f'<p class="soft">{escape(text)}</p>' for text in [*_not_run(report), *notes(report)])
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Bench: matrix</title><style>{CSS}</style></head><body><main><h1>Bench: matrix</h1>"
        f'<div class="card scroll"><table><tr>{top}</tr>{body}</table></div>{small}'
        f'<h2>What was measured, and on what</h2><div class="card"><dl>{told}</dl></div></main></body></html>\n'
    )


def facts(report: Report) -> list[tuple[str, str]]:
    """(name, text) of the header."""
    board = report["board"]
    parts = [board.get("model"), board.get("processor"), board.get("gpu"), board["machine"]]
    cpus = f"{board['n_usable_cpus']} of {board['n_cpus']} CPUs"
    bundles = [
        (b["file"], f"{', '.join(b['models'].values())}, serial {b['serial']} ({b['id'][:12]})") for b in report["bundles"]
    ]
    ends = board.get("before", {}), board.get("after", {})
    felt = [
        (name, f"{ends[0][key]:g} before, {ends[1][key]:g} after")
        for key, name in (("load", "load"), ("temperature_c", "temperature, C"))
        if key in ends[0] and key in ends[1]
    ]
    return [
        *bundles,
        ("board", ", ".join([*(part for part in parts if part), cpus, board["os"]])),
        *felt,
        ("frames", f"{report['source']}, {report['n_rounds']} rounds, the second backwards; profile {report['profile']}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())),
        ("written", report["written"]),
    ]


def table(report: Report) -> list[list[str]]:
    """One line for each setting that ran, the fastest p95 first."""
    lines = []
    for cell in report["cells"]:
        if "error" in cell:
            continue
        times = [f"{cell['wall_ms'][name]:.2f}" for name in ("p50", "p95", "p99")]
        costs = [f"{cell['cpu_ms']:.2f}", f"{cell['used_mb']:.0f}", f"{cell['fps']:.1f}", str(cell["n_frames"])]
        scores = f"{cell['deviation']:.1e}" + ("" if cell["equal"] else f" > {cell['allowed']:g}")
        models = " ".join([cell["bundle"], main_model(cell["models"], "").rpartition(" ")[2]]).strip()
        lines.append([cell["setting"], models, *times, *costs, scores])
    return lines


def refusals(report: Report) -> list[str]:
    """Settings that did not run, those with one reason in one line."""
    why: dict[str, list[str]] = {}
    for cell in report["cells"]:
        if "error" in cell:
            why.setdefault(cell["error"], []).append(f"{cell['setting']} ({cell['bundle']})")
    return [f"{'; '.join(settings)}: {reason}" for reason, settings in why.items()]


def _not_run(report: Report) -> list[str]:
    return [f"not run: {text}" for text in refusals(report)]


def notes(report: Report) -> list[str]:
    """How to read it, and which settings score otherwise."""
    found = [
        "p50, p95, p99: wall ms of a processed frame; CPU ms: of all threads; MB: peak of the process without the frames",
        "score deviation: largest difference of a score to that of the bundle's first setting, as a part of it above 1",
    ]
    others = [f"{c['setting']} ({c['bundle']})" for c in report["cells"] if c.get("equal") is False]
    return found + [f"scores differ by more than the self-test allows: {name}" for name in others]
