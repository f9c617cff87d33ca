"""edge-vad evaluate: how good a bundle is on labelled footage, and what it costs."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_vad.bundle import read_bundle
from edge_vad.cameras import open_camera
from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.detector import Detector
from edge_vad.evaluation import (
    ClipScores,
    Dataset,
    check_folder,
    open_dataset,
    summarise,
    table,
    to_json,
    videos_dataset,
    write_report,
)
from edge_vad.evaluation.scores import Floats, back_filled
from edge_vad.footage import Clip
from edge_vad.progress import progress
from edge_vad.types import Result

DATASETS = ("ped2", "ucsd", "folder")  # all are read by their layout; the name is what users know


def main(arguments: Sequence[str]) -> int:
    parser = Parser("evaluate", "edge-vad evaluate --bundle site.evb --dataset ped2 DIR --report OUT_DIR")
    parser.add_argument("--bundle", required=True, metavar="FILE.evb")
    parser.add_argument("--dataset", nargs=2, metavar=("NAME", "DIR"), help=f"a data set folder: {', '.join(DATASETS)}")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folders of pictures or videos, with --labels")
    parser.add_argument(
        "--labels", metavar="FILE.json|official|mat", help="labels of --videos; or which labels of a data set"
    )
    parser.add_argument("--report", required=True, type=Path, metavar="OUT_DIR", help="result.json and report.html")
    add_profile(parser)
    parser.add_argument("--fps", type=float, help="frames per second of the footage (pictures carry none; default 10)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    options = parser.parse_args(arguments)
    if (options.dataset is None) == (options.videos is None):
        parser.error("name either --dataset NAME DIR or --videos DIR --labels FILE.json")
    if options.videos and not options.labels:
        parser.error("--videos needs --labels FILE.json")
    if options.dataset and options.dataset[0] not in DATASETS:
        parser.error(f"no data set {options.dataset[0]!r} (known: {', '.join(DATASETS)})")
    dataset = (
        videos_dataset(options.videos, Path(options.labels))
        if options.videos
        else open_dataset(Path(options.dataset[1]), options.labels or "official")
    )
    check_folder(options.report)
    bundle = read_bundle(options.bundle)
    detector = Detector.open(bundle, profile_of(options))
    result, scores = evaluate(detector, dataset, options.fps, bundle.n_bytes)
    write_report(options.report, result, dataset, scores)
    sys.stdout.write(to_json(result) if options.json else table(result))
    sys.stdout.write(f"\n{options.report / 'report.html'}\n" if not options.json else "\n")
    return 0


def evaluate(
    detector: Detector, dataset: Dataset, fps: float | None, n_bytes: int
) -> tuple[dict[str, object], list[ClipScores]]:
    """Score every clip as a stream of its own; returns the result (see `evaluation.result`) and the scores."""
    clips = [labelled.clip for labelled in dataset.clips]
    scores = [score_clip(detector, clip, fps) for clip in progress(clips, "evaluate", len(clips))]
    result = summarise(
        dataset,
        scores,
        budget_per_hour=detector.budget_per_hour,
        cold_start_frames=detector.cold_start_frames(scores[0].fps),
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        bundle_bytes=n_bytes,
    )
    return result, scores


def score_clip(detector: Detector, clip: Clip, fps: float | None) -> ClipScores:
    """Causal scores of one clip, frame by frame, from a fresh start."""
    detector.reset()
    with open_camera(clip.path, fps) as camera:
        results: list[Result] = []
        size = (1, 1)
        for frame in camera.frames():
            results.append(detector.process(frame))
            size = (frame.image.shape[1], frame.image.shape[0])
        rate = camera.fps
    stages: dict[str, float] = {}
    for result in results:
        for stage, ms in result.stage_ms.items():
            stages[stage] = stages.get(stage, 0.0) + ms
    names = sorted({name for result in results for name in result.components})
    raw_names = sorted({name for result in results for name in result.raw})
    raw = {n: np.array([r.raw.get(n, np.nan) for r in results], dtype=np.float64) for n in raw_names}
    return ClipScores(
        name=clip.name,
        path=clip.path,
        fps=rate,
        scores=np.array([r.score for r in results]),
        components={n: np.array([r.components.get(n, 0.0) for r in results]) for n in names},
        maps=[r.anomaly_map.astype(np.float16) for r in results],
        peaks=np.array([_peak(r, size) for r in results]),
        stage_ms=stages,
        raw=raw,
        document=_document(detector, raw),
    )


def _document(detector: Detector, raw: Mapping[str, Floats]) -> Floats | None:
    """The document's own score of a clip; None where there is none, or where a component never became known."""
    series = {name: back_filled(values) for name, values in raw.items()}
    known = {name: values for name, values in series.items() if values is not None}
    return detector.document(known) if known and len(known) == len(series) else None


def _peak(result: Result, size: tuple[int, int]) -> tuple[float, float]:
    """Centre of the anomaly map's highest cell, in pixels of the image; NaN where nothing was scored."""
    heat = result.anomaly_map
    if not heat.size or heat.max() <= 0:
        return float("nan"), float("nan")
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return (column + 0.5) * size[0] / heat.shape[1], (row + 0.5) * size[1] / heat.shape[0]
