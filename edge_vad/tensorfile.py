"""Arrays in a bundle: safetensors files, with limits of our own on top, and what such a file says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_vad.errors import BundleFormatError

MAX_HEADER_BYTES = 2**16
MAX_ARRAYS = 64


def save(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file; the same arrays and metadata give the same bytes."""
    from safetensors.numpy import save as save_arrays

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return _with_sorted_header(save_arrays(contiguous, metadata=dict(metadata)))


def load(data: bytes, where: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata; BundleFormatError when the file is malformed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_arrays

    said = metadata(data, where)
    try:
        return dict(load_arrays(data)), said
    except (SafetensorError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise BundleFormatError(f"{where}: not a safetensors file: {str(error)!r}") from error  # one line: it quotes names


def metadata(data: bytes, where: str) -> dict[str, str]:
    """What the file says of itself, without looking at its arrays."""
    said = _header(data, where).get("__metadata__", {})
    if not isinstance(said, dict) or not all(isinstance(v, str) for v in said.values()):
        raise BundleFormatError(f"{where}: metadata that is not text")
    return said


def _header(data: bytes, where: str) -> dict[str, Any]:
    """The JSON header: small, without duplicate keys (the library takes the last one of them)."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise BundleFormatError(f"{where}: not a safetensors file: its header is cut off or too long")
    try:
        header = json.loads(data[8 : 8 + size].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"{where}: not a safetensors file: {error or 'its header is not JSON'}") from error
    if not isinstance(header, dict) or len(header) > MAX_ARRAYS:
        raise BundleFormatError(f"{where}: not a safetensors file: its header lists no arrays, or too many")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _with_sorted_header(data: bytes) -> bytes:
    """The library writes metadata in the order of a hash table, which differs from run to run."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the arrays
    return len(text).to_bytes(8, "little") + text + data[8 + size :]
