"""The engine cache: what a runtime compiles for one device, kept outside bundles and never used on another device.

An engine is code: whoever can write one runs it. The folders belong to the user who runs edge-vad, and to nobody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
import stat
from pathlib import Path

from edge_vad.errors import BackendError

SYSTEM = Path("/var/cache/edge-vad")
TENSORRT_MAJORS = (11, 10, 9, 8)
NAME_BYTES = 256


def cache_folder(configured: str = "") -> Path:
    """The folder that a profile names, else systemd's for this service, root's, or that of the user."""
    if configured:
        return Path(configured).expanduser()
    given = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given) / "engines"
    if os.geteuid() == 0:
        return SYSTEM / "engines"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-vad" / "engines"


def private_folder(cache: Path, *below: str) -> Path:
    """The folder ``cache/below...``, made where it is missing. Raises BackendError.

    Refused is one that others may write into: they could put their code in the place of an engine.
    """
    folder = cache
    for part in ("", *below):
        folder /= re.sub(r"[^\w.-]+", "_", part)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
        except OSError as error:
            raise BackendError(
                f"{folder}: the engine cache cannot be made: {error.strerror}; set inference.engine_cache"
            ) from error
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BackendError(
                f"{folder}: the engine cache must belong to the user who runs edge-vad, and nobody else may write it: "
                "remove it (it is made again), or set inference.engine_cache"
            )
    return folder


def gpu_name(number: int) -> str:
    """The name of an NVIDIA GPU, as its driver says it. Raises BackendError where there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(f"no NVIDIA driver is here ({error}): install it, or use device cpu") from error
    device, name = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
    failed = cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), number)
    failed = failed or cuda.cuDeviceGetName(name, NAME_BYTES, device)
    if failed:
        raise BackendError(f"no NVIDIA GPU of the number {number} is here (CUDA driver error {failed}): see nvidia-smi")
    return name.value.decode(errors="replace")


def tensorrt_version() -> str:
    """The version of the TensorRT that is installed, by pip or in the system. Raises BackendError where there is none."""
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("tensorrt_libs")  # that of pip: makes its libraries known to this process
    for major in TENSORRT_MAJORS:
        try:
            library = ctypes.CDLL(f"libnvinfer.so.{major}")
        except OSError:
            continue
        return str(library.getInferLibVersion())
    raise BackendError("TensorRT is not installed here (no libnvinfer.so): pip install tensorrt, or use device cuda:0")
