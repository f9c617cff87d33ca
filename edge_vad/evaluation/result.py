"""All numbers of an evaluation in one dictionary, and as a short table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_vad.evaluation import metrics
from edge_vad.evaluation.datasets import Dataset, LabelledClip
from edge_vad.evaluation.labels import Bools
from edge_vad.evaluation.localisation import localisation
from edge_vad.evaluation.scores import ClipScores, Floats, paired

LOOKS_AHEAD = "looks ahead: for comparison with published numbers only"

Pairs = list[tuple[LabelledClip, ClipScores]]


def summarise(
    dataset: Dataset,
    clip_scores: Sequence[ClipScores],
    *,
    budget_per_hour: float | None,
    cold_start_frames: int,
    peak_rss_mb: float | None,
    bundle_bytes: int | None,
) -> dict[str, Any]:
    """Every metric of the protocol, ready for JSON (what is not defined is None).

    budget_per_hour: the false events per hour that the threshold was calibrated for.
    cold_start_frames: how many frames at the start of a clip the detector cannot score fully; all frames count in every
        number, and ``cold_start`` says what the causal AUC is without them.
    Raises ValueError when scores and clips are not one to one, LabelError when their lengths differ.
    """
    pairs = paired(dataset, clip_scores)
    labels = [clip.labels for clip, _ in pairs]
    result = {
        "causal": _accuracy(pairs, labels, smooth=False),
        "offline": _accuracy(pairs, labels, smooth=True),
        "document": _document(pairs, labels, dataset.other),
        "labels": dataset.labels,
        "other_labels": {name: _with_labels(pairs, other) for name, other in dataset.other.items()},
        "false_alarms": _false_alarms(pairs, budget_per_hour),
        "localisation": localisation(pairs),
        "cold_start": {"frames": cold_start_frames, "frame_auc_without": _without_start(pairs, cold_start_frames)},
        "n_frames": sum(len(s.scores) for _, s in pairs),
        "cpu_ms_per_frame": _cpu_ms_per_frame(pairs),
        "peak_rss_mb": peak_rss_mb,
        "bundle_bytes": bundle_bytes,
        "clips": [_clip_row(clip, s) for clip, s in pairs],
    }
    cleaned: dict[str, Any] = _null_for_nan(result)
    return cleaned


def to_json(result: dict[str, Any]) -> str:
    """The result as JSON text; nan and infinity, which JSON does not have, become null."""
    return json.dumps(_null_for_nan(result), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _accuracy(pairs: Pairs, labels: list[Bools], *, smooth: bool) -> dict[str, Any]:
    scores = _series(pairs, None, smooth)
    return {
        "frame_auc": _frame_auc(scores, labels),
        "micro_interval_95": list(metrics.micro_interval(scores, labels)),
        "eer": metrics.equal_error_rate(np.concatenate(scores), np.concatenate(labels)),
        "components": {name: _frame_auc(_series(pairs, name, smooth), labels) for name in _component_names(pairs)},
    }


def _series(pairs: Pairs, component: str | None, smooth: bool) -> list[Floats]:
    series = [s.scores if component is None else s.components[component] for _, s in pairs]
    return [metrics.smooth_offline(values) for values in series] if smooth else series


def _component_names(pairs: Pairs) -> list[str]:
    names = list(pairs[0][1].components)
    for _, scores in pairs:
        if set(scores.components) != set(names):
            raise ValueError(
                f"clip {scores.name} has the components {sorted(scores.components)}, others have {sorted(names)}"
            )
    return names


def _frame_auc(scores: Sequence[Floats], labels: Sequence[Bools]) -> dict[str, float]:
    return {"micro": metrics.micro_auc(scores, labels), "macro": metrics.macro_auc(scores, labels)}


def _with_labels(pairs: Pairs, other: dict[str, Bools]) -> dict[str, Any]:
    labels = [other[s.name] for _, s in pairs]
    return {
        "causal": {"frame_auc": _frame_auc(_series(pairs, None, False), labels)},
        "offline": {"frame_auc": _frame_auc(_series(pairs, None, True), labels)},
    }


def _document(pairs: Pairs, labels: list[Bools], other: dict[str, dict[str, Bools]]) -> dict[str, Any] | None:
    """With the normalisation of the method's own document; None where a clip has no such scores."""
    scores = [s.document for _, s in pairs if s.document is not None]
    if len(scores) < len(pairs):
        return None
    others = {name: _frame_auc(scores, [by_clip[s.name] for _, s in pairs]) for name, by_clip in other.items()}
    return {"note": LOOKS_AHEAD, "frame_auc": _frame_auc(scores, labels), "other_labels": others}


def _without_start(pairs: Pairs, n_frames: int) -> dict[str, float]:
    return _frame_auc([s.scores[n_frames:] for _, s in pairs], [clip.labels[n_frames:] for clip, _ in pairs])


def _false_alarms(pairs: Pairs, budget_per_hour: float | None) -> dict[str, float | None]:
    found = metrics.false_alarms([s.scores for _, s in pairs], [c.labels for c, _ in pairs], [s.fps for _, s in pairs])
    return {
        "budget_per_hour": budget_per_hour,
        "fpr_on_normal_test_frames": found.fpr,
        "detection_rate": found.detection_rate,
        "events_per_hour_on_normal_test_frames": found.events_per_hour,
        "false_events": found.false_events,
        "normal_test_hours": found.normal_hours,
    }


def _cpu_ms_per_frame(pairs: Pairs) -> dict[str, float]:
    n_frames = max(1, sum(len(s.scores) for _, s in pairs))
    stages: dict[str, float] = {}
    for _, scores in pairs:
        for stage, ms in scores.stage_ms.items():
            stages[stage] = stages.get(stage, 0.0) + ms / n_frames
    return {"total": sum(stages.values()), **stages}


def _clip_row(clip: LabelledClip, scores: ClipScores) -> dict[str, Any]:
    fpr, detection_rate = metrics.alarm_rates(scores.scores, clip.labels)
    return {
        "name": scores.name,
        "n_frames": len(clip.labels),
        "n_anomalous": int(clip.labels.sum()),
        "auc": metrics.frame_auc(scores.scores, clip.labels),
        "fpr": fpr,
        "detection_rate": detection_rate,
    }


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null_for_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_null_for_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(result: dict[str, Any]) -> str:
    """The result for a terminal: AUCs in aligned columns, then one line each for the rest. No newline at the end."""
    return "\n".join([*_auc_lines(result), "", *_fact_lines(result)])


def auc_rows(result: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(what, micro, 95 % interval, macro, EER) for the score, its components, other label sets and the document's score."""
    rows = []
    for kind in ("causal", "offline"):
        part = result[kind]
        low, high = part["micro_interval_95"]
        interval = "-" if low is None or high is None else f"{low:.3f}-{high:.3f}"
        auc = part["frame_auc"]
        rows.append((kind, number(auc["micro"]), interval, number(auc["macro"]), number(part["eer"])))
        for name, auc in part["components"].items():
            rows.append((f"  {name}", number(auc["micro"]), "", number(auc["macro"]), ""))
        for name, other in result["other_labels"].items():
            auc = other[kind]["frame_auc"]
            rows.append((f"  with {name} labels", number(auc["micro"]), "", number(auc["macro"]), ""))
    return [*rows, *_document_rows(result["document"])]


def _document_rows(part: dict[str, Any] | None) -> list[tuple[str, str, str, str, str]]:
    if part is None:
        return []
    aucs = {"document (looks ahead)": part["frame_auc"]}
    aucs |= {f"  with {name} labels": auc for name, auc in part["other_labels"].items()}
    return [(name, number(auc["micro"]), "", number(auc["macro"]), "") for name, auc in aucs.items()]


def number(value: float | None, digits: int = 3) -> str:
    """A number for people; ``-`` when it is not defined."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share for people; ``-`` when it is not defined."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _auc_lines(result: dict[str, Any]) -> list[str]:
    rows = [(f"frame AUC ({result['labels']} labels)", "micro", "95 % of micro", "macro", "EER"), *auc_rows(result)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
    return lines


def _fact_lines(result: dict[str, Any]) -> list[str]:
    facts = facts_of(result)
    width = max(len(name) for name, _ in facts)
    return [f"{name.ljust(width)}  {text}" for name, text in facts]


def facts_of(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What is not an AUC, as (name, text)."""
    alarms, place, start = result["false_alarms"], result["localisation"], result["cold_start"]
    minutes = 60 * alarms["normal_test_hours"]
    budget = "no budget stated" if alarms["budget_per_hour"] is None else f"budget {alarms['budget_per_hour']:g} per hour"
    facts = [
        ("detected", f"{percent(alarms['detection_rate'])} of anomalous frames (score at or above 1.0)"),
        ("false alarms", f"{percent(alarms['fpr_on_normal_test_frames'])} of normal frames"),
        ("false events", f"{alarms['false_events']} in {minutes:.1f} normal minutes = {_per_hour(alarms)} ({budget})"),
    ]
    if place is not None:
        on_anomalous = f"{percent(place['inside_on_anomalous'])} of all anomalous frames, chance {percent(place['chance'])}"
        facts.append(("localised", f"{percent(place['inside_on_true_positives'])} of detected frames, {on_anomalous}"))
    if start["frames"]:
        auc = start["frame_auc_without"]
        without = f"micro {number(auc['micro'])}, macro {number(auc['macro'])} without the first {start['frames']} frames"
        facts.append(("cold start", f"{without} of each clip"))
    if result["document"] is not None:
        facts.append(("document", f"normalised over each whole clip; it {result['document']['note']}"))
    return [*facts, *_cost_facts(result)]


def _per_hour(alarms: dict[str, Any]) -> str:
    return f"{number(alarms['events_per_hour_on_normal_test_frames'], 1)} per hour"


def _cost_facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    stages = {name: ms for name, ms in result["cpu_ms_per_frame"].items() if name != "total"}
    parts = ", ".join(f"{name} {ms:.1f}" for name, ms in sorted(stages.items(), key=lambda item: -item[1]))
    cpu = f"{result['cpu_ms_per_frame']['total']:.1f} ms a frame over {result['n_frames']} frames"
    facts = [("CPU", f"{cpu} ({parts})" if parts else cpu)]
    if result["peak_rss_mb"] is not None:
        facts.append(("memory", f"{result['peak_rss_mb']:.0f} MB at most"))
    if result["bundle_bytes"] is not None:
        facts.append(("bundle", f"{result['bundle_bytes'] / 1e6:.2f} MB"))
    return facts
