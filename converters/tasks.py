"""The work of a build in pieces that any process may do: each is a function of the files that it reads and writes.

``memorise``: a clip -> its features, cut into parts, and the coreset of every part. ``score``: a part -> its raw
components against the memory of all other parts. A task is finished when its receipt lies in the folder; the receipt is
written last and names the files that belong to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from edge_vad.converters.normal_footage import processed
from edge_vad.converters.recipe import Recipe
from edge_vad.converters.spill import Piece, Spool, cut, read, read_frames

from edge_vad import tensorfile
from edge_vad.banks.base import open_bank
from edge_vad.errors import SourceError
from edge_vad.files import write_atomically
from edge_vad.footage import Clip, pictures_in
from edge_vad.manifest import canonical_json, sha256
from edge_vad.memory import Part, memorise
from edge_vad.methods.videopatchcore import BankSearch
from edge_vad.streams import FrameFeatures
from edge_vad.types import Float32
from edge_vad.vectors import VectorType, compress, expand

Moved = Callable[[int], None]  # frames that are done so far


@dataclass(frozen=True, slots=True)
class Task:
    """What to do, as JSON values. name: what people call it; key: prefix of its files, a hash of all that it depends on;
    weight: processed frames, 0 where unknown; inputs: files that must lie in the folder."""

    kind: str
    name: str
    key: str
    weight: int
    arguments: dict[str, Any]
    inputs: tuple[str, ...]

    @property
    def receipt(self) -> str:
        """Name of the file that says that the task is finished."""
        return f"{self.key}.json"

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """What `to_json` wrote."""
        plain = json.loads(text)
        return cls(**{**plain, "inputs": tuple(plain["inputs"])})


def memorise_task(clip: Clip, recipe: str, weight: int) -> Task:
    """The features and coresets of a clip; recipe: name of its file. Raises SourceError."""
    content, dates = identity(clip.path)
    path = str(clip.path.absolute())
    key = _key("memorise", recipe, path, content, dates)
    return Task("memorise", str(clip.path), key, weight, {"recipe": recipe, "clip": path, "content": content}, (recipe,))


def score_task(
    before: Task, receipt: Mapping[str, Any], part: int, number: int, memory: Mapping[str, str], vectors: VectorType
) -> Task:
    """The raw components of part ``part`` of a memorised clip, which is part ``number`` of all.

    before, receipt: the clip's task and what it left; memory: bank -> name of its file.
    """
    start, stop = receipt["parts"][part]
    pieces = [piece for piece in receipt["pieces"] if piece[1] < stop and start < piece[2]]
    recipe = before.arguments["recipe"]
    key = _key("score", recipe, before.key, part, number, memory, vectors)
    arguments = {"recipe": recipe, "start": start, "stop": stop, "pieces": pieces}
    arguments |= {"number": number, "memory": dict(memory), "vectors": vectors}
    inputs = (recipe, *memory.values(), *(name for name, _, _ in pieces))
    return Task("score", before.name, key, stop - start, arguments, inputs)


def _key(*parts: Any) -> str:
    return _hash(parts)[:32]


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode())  # file names need not be UTF-8


def identity(path: Path) -> tuple[str, str]:
    """Hashes of the names and sizes of a clip's files, and of their times of change. Raises SourceError.

    Not of their content: reading days of footage once more would take longer than the build saves when it goes on.
    """
    files = [path] if path.is_file() else pictures_in(path)
    try:
        found = [(file.name, file.stat()) for file in files]
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    return _hash([[name, status.st_size] for name, status in found]), _hash([status.st_mtime_ns for _, status in found])


def perform(task: Task, folder: Path, moved: Moved) -> None:
    """Do a task; its inputs lie in ``folder``, and so does what comes of it. Raises what the task raises."""
    {"memorise": _memorise_clip, "score": _score_part}[task.kind](task, folder, moved)


def _memorise_clip(task: Task, folder: Path, moved: Moved) -> None:
    recipe = _recipe(task, folder)
    spool = _spill(task, recipe, folder, moved)
    parts = cut(spool.sizes, recipe.scene.stride, recipe.n_cuts)
    coresets = [f"{task.key}.{i:05d}.coreset" for i in range(len(parts))]
    for name, (start, stop) in zip(coresets, parts, strict=True):
        kept = _coresets(read_frames(folder, spool.pieces, start, stop), recipe)
        write_atomically(folder / name, tensorfile.save(kept, {"task": task.key}))
    _finish(task, folder, {"parts": parts, "coresets": coresets, "pieces": spool.pieces})


def _spill(task: Task, recipe: Recipe, folder: Path, moved: Moved) -> Spool:
    """Features of every processed frame of a clip, in the folder."""
    clip = Clip(task.name, Path(task.arguments["clip"]))
    before = identity(clip.path)
    if before[0] != task.arguments["content"]:
        raise SourceError(f"{clip.path}: not the footage that the build was started with, or it has changed; start again")
    extractor = recipe.extractor()
    spool = Spool(folder, task.key)
    for n, frame in enumerate(processed(clip, recipe.scene.stride, recipe.fps), 1):
        spool.add(frame.timestamp, extractor(frame))
        moved(n)
    spool.flush()
    if identity(clip.path) != before:
        raise SourceError(f"{clip.path}: changed while it was read; start again when the footage is complete")
    return spool


def _coresets(frames: Iterator[tuple[float, FrameFeatures]], recipe: Recipe) -> dict[str, Float32]:
    """Of one part, by bank. The part is forgotten on return: two of them are never held."""
    times, features = zip(*frames, strict=True)
    return memorise(Part(list(times), list(features)), recipe.scene, recipe.ratio)


def _score_part(task: Task, folder: Path, moved: Moved) -> None:
    recipe = _recipe(task, folder)
    said = task.arguments
    banks = {name: open_bank("exact", _others(folder / file, said)) for name, file in said["memory"].items()}
    search = BankSearch(recipe.scene, banks)
    times, scored = [], []
    pieces = cast(list[Piece], said["pieces"])
    for n, (timestamp, features) in enumerate(read_frames(folder, pieces, said["start"], said["stop"]), 1):
        times.append(timestamp)
        scored.append(search(features).components)
        moved(n)
    raw = {name: np.array([s[name] for s in scored], dtype=np.float64) for name in scored[0]}
    scores = f"{task.key}.scores"
    write_atomically(folder / scores, tensorfile.save({"times": np.array(times), **raw}, {}))
    _finish(task, folder, {"scores": scores, "components": list(raw)})


def _others(path: Path, said: Mapping[str, Any]) -> Float32:
    """Rows of a bank as they will be stored, without those of the part itself; all where no other part has any."""
    arrays, _ = tensorfile.load(read(path), path.name)
    rows, lengths = arrays["rows"], arrays["lengths"]
    start = int(lengths[: said["number"]].sum())
    stop = start + int(lengths[said["number"]])
    if len(lengths) > 1 and stop - start < len(rows):
        rows = np.concatenate([rows[:start], rows[stop:]])
    vectors = said["vectors"]
    assert vectors in get_args(VectorType)
    return expand(compress(rows, vectors))


def _recipe(task: Task, folder: Path) -> Recipe:
    name = task.arguments["recipe"]
    return Recipe.load(read(folder / name), name)


def _finish(task: Task, folder: Path, receipt: Mapping[str, Any]) -> None:
    write_atomically(folder / task.receipt, canonical_json(receipt))


def files_of(receipt: Mapping[str, Any]) -> list[str]:
    """The files that a task left besides its receipt."""
    pieces = [name for name, _, _ in receipt.get("pieces", ())]
    return [*pieces, *receipt.get("coresets", ()), *([receipt["scores"]] if "scores" in receipt else [])]
