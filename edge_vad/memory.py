"""Features of normal footage to the rows of memory banks: what `edge-vad build` and `edge-vad learn` share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_vad.coreset import coreset, n_kept
from edge_vad.streams import MEMORISED, OBJECT_PREFIX, FrameFeatures, Settings
from edge_vad.types import Float32


@dataclass(slots=True)
class Part:
    """A stretch of normal footage for cross-fitting: timestamps and features of its processed frames."""

    times: list[float]
    features: list[FrameFeatures]


def part_rows(part: Part, name: str) -> list[Float32]:
    """Rows of one bank in a part, as they are memorised."""
    if name == "highlevel":
        return [f.highlevel[None] for f in part.features if f.highlevel is not None]
    prefix = OBJECT_PREFIX if name.startswith(OBJECT_PREFIX) else ""
    kind = name.removeprefix(prefix)
    found = []
    for features in part.features:
        local = features.local[prefix]
        rows = local.rows.get(MEMORISED + kind, local.rows.get(kind))
        if rows is None or not local.known:
            continue
        if kind == "temporal":
            rows = rows[local.continued]
        found.append(rows.reshape(-1, rows.shape[2]))
    return found


def memorise(part: Part, scene: Settings, ratio: float) -> dict[str, Float32]:
    """The coreset of every bank of one part; a bank that nothing fell into is left out."""
    kept = {}
    for name in scene.banks:
        rows = part_rows(part, name)
        if rows and sum(len(r) for r in rows):
            all_rows = np.concatenate(rows)
            kept[name] = all_rows[coreset(all_rows, n_kept(len(all_rows), ratio))]
    return kept
