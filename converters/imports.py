"""Memory banks of other programs: VideoPatchCore's published files, and the memory of an anomalib PatchCore.

Sources: SkiddieAhn/Paper-VideoPatchCore, Memorization/memorizing.py (one ``torch.save`` of a tensor (m, c) for each bank)
and functions/feature_func.py (what its rows are); anomalib, models/image/patchcore/torch_model.py (the buffer
``memory_bank``, which an ONNX export keeps as an initialiser of that name).

Nothing is unpickled but tensors, and nothing of a graph is run.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from edge_vad.converters.memory import Memory

from edge_vad.banks.exact import ExactBank
from edge_vad.coreset import coreset, n_kept
from edge_vad.errors import ForeignMemoryError
from edge_vad.features import normalised
from edge_vad.files import read_regular
from edge_vad.plugins import require
from edge_vad.streams import OBJECT_PREFIX
from edge_vad.types import Float32
from edge_vad.vectors import MAX_EXPANDED

log = logging.getLogger(__name__)

KINDS = ("spatial", "temporal", "highlevel")
OF_LENGTH_1 = ("spatial", "highlevel")  # what the feature code normalises
MEMORY = "memory_bank"
MAX_BYTES = 2**31  # of a file, and of what it unpacks to; an ONNX file cannot be larger
LARGEST = float(np.finfo(np.float16).max)
COPY = 0.05  # of the footage's distance from itself: rows that are so close to a bank are in it
N_QUERIES = 4096  # rows that the distances are measured with
PURPOSE = "edge-vad bundle import"
WHAT_DECIDES = "the encoder, its taps and their order, mean and std, local.crop, split_channels, spatial_kernel, poolings"


@dataclass(frozen=True, slots=True)
class Imported:
    """A bank of another program. rows: (m, c) float32, as the feature code makes them; source: the file."""

    rows: Float32
    source: Path


def read_videopatchcore(folders: Sequence[Path], kinds: Sequence[str] = KINDS) -> dict[str, Imported]:
    """The banks ``KIND_memory_bank_RATIO.pt`` in folders, by kind. Raises ForeignMemoryError."""
    found = {}
    for kind in kinds:
        paths = sorted(path for folder in folders for path in folder.glob(f"{kind}_{MEMORY}*.pt"))
        if len(paths) > 1:
            raise ForeignMemoryError(f"{paths[0]}, {paths[1]}: two {kind} banks; leave the one that is to be imported")
        if paths:
            tensors = [tensor for _, tensor in _tensors(paths[0])]
            found[kind] = Imported(_fitted(kind, _array(tensors, paths[0]), paths[0]), paths[0])
    if not found:
        raise ForeignMemoryError(f"{', '.join(map(str, folders))}: no {'|'.join(kinds)}_{MEMORY}_RATIO.pt in it")
    return found


def read_anomalib(path: Path) -> dict[str, Imported]:
    """The memory of a PatchCore export, an ONNX file or a state dict, as the spatial bank. Raises ForeignMemoryError."""
    if path.suffix == ".onnx":
        rows = _initialiser(path)
    else:
        rows = _array([tensor for name, tensor in _tensors(path) if _is_memory(name)], path)
    return {"spatial": Imported(_fitted("spatial", rows, path), path)}


def thinned(imported: Mapping[str, Imported], ratio: float) -> dict[str, Imported]:
    """The coreset of every bank, ``ratio`` of its rows."""
    return {
        kind: replace(bank, rows=bank.rows[coreset(bank.rows, n_kept(len(bank.rows), ratio))])
        for kind, bank in imported.items()
    }


def check_widths(imported: Mapping[str, Imported], widths: Mapping[str, int], weighted: Sequence[str]) -> None:
    """ForeignMemoryError unless every bank is scored and its rows are as wide as the features (kind -> c)."""
    for kind, bank in imported.items():
        if kind not in weighted:
            raise ForeignMemoryError(f"{bank.source}: {kind} has no weight, nothing would search it; give it one (weights)")
        if bank.rows.shape[1] != widths[kind]:
            raise ForeignMemoryError(
                f"{bank.source}: rows of {bank.rows.shape[1]} dimensions; the encoder and the settings give {kind} features "
                f"of {widths[kind]}: see taps and local.split_channels"
            )
        if 4 * bank.rows.size > MAX_EXPANDED:
            raise ForeignMemoryError(f"{bank.source}: over {MAX_EXPANDED >> 20} MB of rows; keep a part of them (--ratio)")


def replaced(memory: Memory, imported: Mapping[str, Imported]) -> Memory:
    """The memory of the footage with imported rows in the place of its own, for motion regions and detector boxes alike.

    Every part is then scored against all imported rows but copies of its own. Raises ForeignMemoryError where the rows are
    not of the footage's kind.
    """
    rows, lengths = dict(memory.rows), dict(memory.lengths)
    for name in memory.rows:
        kind = name.removeprefix(OBJECT_PREFIX)
        if kind in imported:
            own = check_alike(name, imported[kind], rows[name], lengths[name])
            rows[name], lengths[name] = by_part(imported[kind], rows[name], lengths[name], COPY * own)
    return replace(memory, rows=rows, lengths=lengths)


def by_part(bank: Imported, rows: Float32, lengths: Sequence[int], reach: float) -> tuple[Float32, list[int]]:
    """Imported rows, those first that are copies of the footage's (closer than ``reach``), part by part; and how many each
    part has: a part that met its own rows again would pass as more normal than anything that comes later."""
    distances, nearest = ExactBank(rows).search(bank.rows)
    part = np.repeat(np.arange(len(lengths)), lengths)[nearest[:, 0]]
    part[distances[:, 0] >= reach] = len(lengths)
    counts = np.bincount(part, minlength=len(lengths) + 1).tolist()
    n_copies = len(part) - counts.pop()
    if n_copies:
        log.warning(
            "%s: %d rows are of this very footage; each is left out where its part is scored, but rows like it may "
            "remain and lower the threshold: other footage is better (--normal)",
            bank.source,
            n_copies,
        )
    return bank.rows[np.argsort(part, kind="stable")], counts


def check_alike(name: str, bank: Imported, rows: Float32, lengths: Sequence[int]) -> float:
    """Median distance of the footage's rows (m, c), of parts of these lengths, to those of the other parts.

    ForeignMemoryError unless the imported rows lie among them. wrong: the same distance with the dimensions of the others
    shuffled, right numbers without their meaning. A bank that is farther than the middle of the two (the geometric mean:
    distances are compared by their ratio) is refused, and where rows are not of length 1 one whose median length is not
    among nine in ten of the footage's.
    """
    ours, near, wrong = [], [], []
    order = np.random.default_rng(0).permutation(rows.shape[1])
    part_of = np.repeat(np.arange(len(lengths)), lengths)
    step = -(-len(rows) // N_QUERIES)
    for part in np.unique(part_of):
        queries, others = rows[part_of == part][::step], rows[part_of != part]
        ours.append(_distances(queries, bank.rows))
        if len(others):
            near.append(_distances(queries, others))
            wrong.append(_distances(queries, others[:, order]))
    if not near:
        raise ForeignMemoryError(f"{bank.source}: too little footage to tell whether the {name} rows fit it; film longer")
    found, own, foreign = (float(np.median(np.concatenate(values))) for values in (ours, near, wrong))
    bound = float(np.sqrt(own * foreign))
    told = f"the footage lies {found:.3g} from the {name} rows (median), {own:.3g} from its own"
    log.info("%s: %d rows; %s, at most %.3g is plausible", bank.source, len(bank.rows), told, bound)
    if found > bound:
        raise ForeignMemoryError(f"{bank.source}: {told}; over {bound:.3g} they are other features: see {WHAT_DECIDES}")
    if found > np.sqrt(own * bound):  # nearer to what is refused than to the footage itself
        log.warning("%s: the %s rows fit the footage badly: see %s", bank.source, name, WHAT_DECIDES)
    low, high = np.quantile(np.linalg.norm(rows, axis=1), [0.05, 0.95])
    length = float(np.median(np.linalg.norm(bank.rows, axis=1)))
    if name.removeprefix(OBJECT_PREFIX) not in OF_LENGTH_1 and not low <= length <= high:
        raise ForeignMemoryError(
            f"{bank.source}: {name} rows of length {length:.3g} (median), of the footage {low:.3g} to {high:.3g}: features "
            f"of another scale: see {WHAT_DECIDES}"
        )
    return own


def _distances(queries: Float32, rows: Float32) -> Float32:
    return ExactBank(rows).search(queries)[0][:, 0]


def _fitted(kind: str, rows: Float32, path: Path) -> Float32:
    """Rows as the feature code of this kind makes them."""
    if kind in OF_LENGTH_1:
        return normalised(rows)
    if (rows < 0).any():  # the published code memorises signed differences; document 000, equation 5, absolute ones
        raise ForeignMemoryError(
            f"{path}: signed differences, which say something else than the absolute ones of this method; import the others "
            "(--banks spatial), the temporal bank is then filled from the footage"
        )
    return rows


def _is_memory(name: str) -> bool:
    return name.rpartition(".")[2] == MEMORY


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_BYTES, follow=True)
    except OSError as error:
        raise ForeignMemoryError(f"{path}: the memory cannot be read: {error.strerror}") from error


def _tensors(path: Path) -> list[tuple[str, Any]]:
    """(key, tensor) of everything in a file of ``torch.save``."""
    torch = require("torch", "torch", PURPOSE)
    data = _read(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
    except Exception as error:
        raise ForeignMemoryError(f"{path}: damaged, or not a file of torch.save (torch 1.6 or later)") from error
    if n_bytes > MAX_BYTES:
        raise ForeignMemoryError(f"{path}: unpacks to {n_bytes} bytes; at most {MAX_BYTES} are read")
    try:
        held = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ForeignMemoryError(
            f"{path}: damaged, or holds more than tensors, and a pickle of other things can run code: it is not loaded; "
            "save the bank alone: torch.save(bank, 'FILE.pt')"
        ) from error
    return _inside(held, path)


def _inside(value: Any, path: Path) -> list[tuple[str, Any]]:
    """Tensors of nested dicts and lists by their own key; a container that comes again, also in itself, counts once."""
    torch = require("torch", "torch", PURPOSE)
    found, seen, waiting = [], set(), [("", value)]
    while waiting:
        name, held = waiting.pop()
        if isinstance(held, torch.Tensor):
            found.append((name, held))
        elif not isinstance(held, dict | list | tuple):
            raise ForeignMemoryError(
                f"{path}: holds {type(held).__name__} {name[:80]!r} beside tensors; save the bank or the state dict alone"
            )
        elif id(held) not in seen:
            seen.add(id(held))
            inner = held.items() if isinstance(held, dict) else enumerate(held)
            waiting += [(str(key), one) for key, one in inner]
    return found


def _array(tensors: Sequence[Any], path: Path) -> Float32:
    """The one tensor among the candidates, as rows."""
    torch = require("torch", "torch", PURPOSE)
    if len(tensors) != 1:
        raise ForeignMemoryError(f"{path}: {len(tensors)} memory banks in it; one is needed, a tensor (rows, dimensions)")
    tensor = tensors[0]
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or not tensor.is_floating_point():
        raise ForeignMemoryError(
            f"{path}: a tensor of {tensor.dtype}, {tensor.layout}; a bank is a dense floating-point one"
        )
    _check_shape(tuple(tensor.shape), path)
    return _checked(tensor.detach().to(torch.float32).numpy(), path)


def _initialiser(path: Path) -> Float32:
    """The rows that an ONNX file keeps as its memory."""
    onnx = require("onnx", "onnx", PURPOSE)
    data = _read(path)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ForeignMemoryError(f"{path}: not a valid ONNX file; export it again") from error
    found = [tensor for tensor in model.graph.initializer if _is_memory(tensor.name)]
    if len(found) != 1:
        raise ForeignMemoryError(
            f"{path}: {len(found)} initialisers named {MEMORY}; one is needed: import the model's state dict"
        )
    tensor = found[0]
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ForeignMemoryError(f"{path}: its weights lie in another file; export it with the weights inside")
    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
        raise ForeignMemoryError(f"{path}: {tensor.name} is not floating-point")
    _check_shape(tuple(tensor.dims), path)
    try:
        rows = onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise ForeignMemoryError(f"{path}: {tensor.name} is damaged; export it again") from error
    with np.errstate(over="ignore"):
        return _checked(rows.astype(np.float32), path)


def _check_shape(shape: tuple[int, ...], path: Path) -> None:
    """Before anything of that size is made: a tensor may repeat one number as often as it likes."""
    if len(shape) != 2 or min(shape) < 1:
        raise ForeignMemoryError(f"{path}: a tensor of shape {shape}; a memory bank is (rows, dimensions), one row or more")
    if 4 * shape[0] * shape[1] > MAX_BYTES:
        raise ForeignMemoryError(f"{path}: {shape[0]} x {shape[1]} numbers; at most {MAX_BYTES >> 20} MB are read")


def _checked(rows: Float32, path: Path) -> Float32:
    if not np.all(np.abs(rows) <= LARGEST):
        raise ForeignMemoryError(f"{path}: not all numbers are finite and below {LARGEST:.0f}; no features of an encoder")
    return np.ascontiguousarray(rows)
