"""The HTML page of a report: plain functions from the result to text, no template engine, no script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any

import numpy as np

from edge_vad.evaluation import charts, metrics, pictures
from edge_vad.evaluation.datasets import LabelledClip
from edge_vad.evaluation.pictures import Pick
from edge_vad.evaluation.result import auc_rows, facts_of, number, percent
from edge_vad.evaluation.scores import ClipScores, Floats
from edge_vad.evaluation.style import CSS

Pairs = Sequence[tuple[LabelledClip, ClipScores]]

_LABELS = {
    "official": "the data set's official labels",
    "mat": "the labels of its .mat file",
    "file": "the labels of the given file",
}


def page(result: dict[str, Any], pairs: Pairs) -> str:
    """The whole page. Raises SourceError or LabelError when footage or a mask cannot be read again."""
    sections = [
        _header(result),
        _tiles(result),
        _accuracy(result, pairs),
        _facts(result),
        _over_time(pairs),
        _pictures(pairs),
        _clips(result),
        _notes(result),
    ]
    head = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation report</title><style>{CSS}</style></head>"
    )
    return f"{head}<body><main>{''.join(sections)}</main></body></html>\n"


def _header(result: dict[str, Any]) -> str:
    n_anomalous = sum(clip["n_anomalous"] for clip in result["clips"])
    facts = f"{len(result['clips'])} test clips, {result['n_frames']} frames, {n_anomalous} of them anomalous"
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return (
        "<h1>Video anomaly detection: evaluation</h1>"
        f'<p class="soft">{facts} by {_LABELS[result["labels"]]}. Written {escape(written)}.</p>'
    )


def _tiles(result: dict[str, Any]) -> str:
    alarms, causal = result["false_alarms"], result["causal"]
    low, high = causal["micro_interval_95"]
    interval = "" if low is None else f", 95 % interval {low:.3f} to {high:.3f}"
    tiles = [
        (number(causal["frame_auc"]["micro"]), f"frame AUC, causal, micro{interval}"),
        (number(causal["frame_auc"]["macro"]), "frame AUC, causal, macro (mean of clips)"),
        (percent(alarms["detection_rate"]), "of anomalous frames at or above the threshold"),
        (percent(alarms["fpr_on_normal_test_frames"]), "of normal frames at or above the threshold"),
        (f"{result['cpu_ms_per_frame']['total']:.1f} ms", "CPU time a frame"),
    ]
    if result["localisation"] is not None:
        share = percent(result["localisation"]["inside_on_true_positives"])
        tiles.insert(4, (share, "of detected frames have the map's maximum on the anomaly"))
    cells = "".join(f'<div class="card tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{cells}</div>'


def _accuracy(result: dict[str, Any], pairs: Pairs) -> str:
    rows = [_auc_row(row) for row in auc_rows(result)]
    head = "<tr><th></th><th>micro</th><th>95 % of micro</th><th>macro</th><th>EER</th></tr>"
    table = f'<div class="card scroll"><table>{head}{"".join(rows)}</table></div>'
    roc = f'<div class="card">{_roc(result, pairs)}</div>'
    return f'<h2>Frame level accuracy</h2><div class="two">{table}{roc}</div>'


def _auc_row(row: tuple[str, ...]) -> str:
    name = row[0]
    style = ' class="sub"' if name.startswith(" ") else ""
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
    return f"<tr><td{style}>{escape(name.strip())}</td>{cells}</tr>"


def _roc(result: dict[str, Any], pairs: Pairs) -> str:
    labels = np.concatenate([clip.labels for clip, _ in pairs])
    if labels.all() or not labels.any():
        return '<p class="soft">No ROC curve: the test footage has frames of one class only.</p>'
    causal = [s.scores for _, s in pairs]
    offline = [metrics.smooth_offline(values) for values in causal]
    curves = [_curve(result, "causal", "a", causal, labels), _curve(result, "offline", "b", offline, labels)]
    alarms = result["false_alarms"]
    point = (alarms["fpr_on_normal_test_frames"], alarms["detection_rate"])
    chart = charts.roc_chart(curves, point, "ROC curves, causal and offline")
    return f'{chart}<p class="soft">All frames together. The ring is the threshold (score 1.0, causal).</p>'


def _curve(result: dict[str, Any], kind: str, style: str, scores: list[Floats], labels: metrics.Bools) -> charts.Curve:
    fpr, tpr, _ = metrics.roc(np.concatenate(scores), labels)
    return charts.Curve(f"{kind}, AUC {number(result[kind]['frame_auc']['micro'])}", fpr, tpr, style)


def _facts(result: dict[str, Any]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts_of(result))
    stages = {name: ms for name, ms in result["cpu_ms_per_frame"].items() if name != "total"}
    bars = charts.stage_bars(stages, "CPU milliseconds a frame, by stage") if stages else ""
    cpu = f'<div class="card">{bars}<p class="soft">CPU milliseconds a frame, by stage.</p></div>' if stages else ""
    return f'<h2>Alarms and cost</h2><div class="two"><div class="card"><dl>{rows}</dl></div>{cpu}</div>'


def _over_time(pairs: Pairs) -> str:
    span = charts.shared_range([s.scores for _, s in pairs])
    key = (
        '<p class="soft"><span class="key truth"></span>anomalous by label'
        '<span class="key hit"></span>detected<span class="key false"></span>false alarm. '
        "Causal score by frame; the dashed line is the threshold. All clips have the same scale, the highest peaks are "
        "cut.</p>"
    )
    figures = "".join(_clip_figure(clip, scores, span) for clip, scores in pairs)
    return f'<h2>Score over time</h2>{key}<div class="two">{figures}</div>'


def _clip_figure(clip: LabelledClip, scores: ClipScores, span: tuple[float, float]) -> str:
    auc = metrics.frame_auc(scores.scores, clip.labels)
    text = "one class only, no AUC" if np.isnan(auc) else f"AUC {auc:.3f}"
    chart = charts.score_chart(scores.scores, clip.labels, span, f"Score of clip {scores.name} over time")
    return f'<figure class="card"><figcaption><b>{escape(scores.name)}</b> {text}</figcaption>{chart}</figure>'


def _pictures(pairs: Pairs) -> str:
    groups = [
        ("Worst misses", "Anomalous frames with the lowest scores, one for each event.", pictures.worst_misses(pairs)),
        ("Worst false alarms", "Normal frames with the highest scores.", pictures.worst_false_alarms(pairs)),
        ("Best detections", "Anomalous frames with the highest scores.", pictures.best_detections(pairs)),
    ]
    images = pictures.embedded(pairs, {pick for _, _, picks in groups for pick in picks})
    key = (
        '<p class="soft"><span class="key ramp"></span>anomaly map from '
        f"{pictures.FIRST_COLOUR:g} to {pictures.FULL_COLOUR:g} times the threshold"
        '<span class="key ring"></span>its maximum'
        '<span class="key outline"></span>true outline of the anomaly, where known</p>'
    )
    parts = [f"<h2>Frames to look at</h2>{key}"]
    for title, text, picks in groups:
        figures = "".join(_picture(pairs, pick, images[pick]) for pick in picks) or '<p class="soft">There are none.</p>'
        parts.append(f'<h3>{title}</h3><p class="soft">{text}</p><div class="pictures">{figures}</div>')
    return "".join(parts)


def _picture(pairs: Pairs, pick: Pick, image: str) -> str:
    _, scores = pairs[pick.clip]
    name = escape(scores.name)
    components = ", ".join(f"{escape(k)} {v[pick.index]:.2f}" for k, v in scores.components.items())
    detail = f"<br>{components}" if components else ""
    caption = f"<b>score {pick.score:.2f}</b>, clip {name}, frame&nbsp;{pick.index}{detail}"
    alt = f"clip {name}, frame {pick.index}"
    return f'<figure class="card"><img src="{image}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'


def _clips(result: dict[str, Any]) -> str:
    head = "<tr><th>clip</th><th>frames</th><th>anomalous</th><th>AUC</th><th>detected</th><th>false alarms</th></tr>"
    rows = []
    for clip in result["clips"]:
        cells = [str(clip["n_frames"]), str(clip["n_anomalous"]), number(clip["auc"])]
        cells += [percent(clip["detection_rate"]), percent(clip["fpr"])]
        rows.append(f"<tr><td>{escape(clip['name'])}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f'<h2>Clips</h2><div class="card scroll"><table>{head}{"".join(rows)}</table></div>'


def _notes(result: dict[str, Any]) -> str:
    notes = [
        "Causal scores use past frames only, as on a device. Offline scores are smoothed over past and future frames "
        "(gaussian, sigma 5 frames) and are given for comparison with publications.",
        "Micro: one AUC over all frames together. Macro: the mean of the clips' AUCs, over clips with both classes. "
        "The interval is a bootstrap over whole clips; differences inside it are not resolved by this test set.",
        "A false event is a run of frames at or above the threshold without an anomalous frame in it.",
        "Frames are counted from 0. All frames count in every number, the first of a clip included.",
    ]
    if result["document"] is not None:
        notes.append(
            "Document: each clip's raw scores normalised as the method's own document does it, over the whole clip, its "
            f"future included. It {result['document']['note']}; no device can do it."
        )
    hours = result["false_alarms"]["normal_test_hours"]
    if hours < 1:
        notes.append(f"With {60 * hours:.1f} minutes of normal test footage, false events per hour are an extrapolation.")
    return "<h2>Notes</h2>" + "".join(f'<p class="soft">{escape(note)}</p>' for note in notes)
