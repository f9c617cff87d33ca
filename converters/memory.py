"""Features of normal footage, and the calibration of their distances: two passes of tasks that any engine may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from edge_vad.converters.engine import Engine
from edge_vad.converters.recipe import Recipe, code_version
from edge_vad.converters.settings import BuildSettings
from edge_vad.converters.tasks import Task, memorise_task, score_task
from edge_vad.converters.work import WorkFolder

from edge_vad import tensorfile
from edge_vad.footage import Clip
from edge_vad.streams import Settings
from edge_vad.types import Float32

MIN_PARTS = 8  # cross-fitting wants this many parts; fewer clips are cut into pieces


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept of normal footage. tasks, receipts: of every clip; rows: bank -> (m, c) of all parts behind each other;
    lengths: bank -> rows of every part."""

    tasks: Sequence[Task]
    receipts: Sequence[Mapping[str, Any]]
    rows: Mapping[str, Float32]
    lengths: Mapping[str, Sequence[int]]

    @property
    def n_frames(self) -> int:
        """Processed frames."""
        return sum(stop - start for receipt in self.receipts for start, stop in receipt["parts"])


def memorise_footage(
    clips: Sequence[Clip],
    n_frames: Sequence[int | None],
    scene: Settings,
    models: Mapping[str, bytes],
    settings: BuildSettings,
    work: WorkFolder,
    engine: Engine,
) -> Memory:
    """Features of all clips by the runtime's own code, spilled to the work folder, and the coreset of every part.

    A bank that nothing fell into is left out.
    """
    n_cuts = max(1, -(-MIN_PARTS // len(clips)))
    recipe = work.store(Recipe(scene, models, settings.ratio, settings.fps, n_cuts, code_version()).save(), "recipe")
    weights = [-(-(n or 0) // scene.stride) for n in n_frames]
    tasks = [memorise_task(clip, recipe, weight) for clip, weight in zip(clips, weights, strict=True)]
    receipts = work.finish(tasks, engine, "features")
    parts = [tensorfile.load(work.read(name), name)[0] for receipt in receipts for name in receipt["coresets"]]
    found = [name for name in scene.banks if any(name in part for part in parts)]
    rows = {name: np.concatenate([part[name] for part in parts if name in part]) for name in found}
    lengths = {name: [len(part.get(name, ())) for part in parts] for name in found}
    return Memory(tasks, receipts, rows, lengths)


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw components (n,) by name of a part of a clip, at the timestamps (n,). clip: its path."""

    clip: str
    times: np.ndarray
    raw: Mapping[str, np.ndarray]


def cross_scores(memory: Memory, scene: Settings, settings: BuildSettings, work: WorkFolder, engine: Engine) -> list[Scores]:
    """Every part, scored against the memory of the others."""
    banks = {name: work.store(_bank(memory, name), f"{name}.memory") for name in memory.rows}
    tasks: list[Task] = []
    for clip, receipt in zip(memory.tasks, memory.receipts, strict=True):
        for part in range(len(receipt["parts"])):
            tasks.append(score_task(clip, receipt, part, len(tasks), banks, settings.vectors))
    found = []
    for task, receipt in zip(tasks, work.finish(tasks, engine, "calibrate"), strict=True):
        raw, _ = tensorfile.load(work.read(receipt["scores"]), receipt["scores"])
        found.append(Scores(task.name, raw["times"], {name: raw[name] for name in receipt["components"]}))
    return found


def _bank(memory: Memory, name: str) -> bytes:
    lengths = np.array(memory.lengths[name], dtype=np.int64)
    return tensorfile.save({"rows": memory.rows[name], "lengths": lengths}, {})
