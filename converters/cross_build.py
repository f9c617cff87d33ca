"""Compiled for another machine, for every processor of its architecture, and put into wheels.

The compiler is zig's clang (package ziglang), which brings its C and C++ libraries for every processor and glibc.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from edge_vad.converters.targets import Target

from edge_vad.errors import ProvisionError

DATE = (1980, 1, 1, 0, 0, 0)


def compile_shared(target: Target, language: Literal["cc", "c++"], arguments: Sequence[str], out: Path) -> None:
    """A shared library at ``out``. Raises ProvisionError with the first line that the compiler says; -w: the warnings are
    those of others."""
    major, minor = target.glibc
    command = [sys.executable, "-m", "ziglang", language, "-target", f"{target.architecture}-linux-gnu.{major}.{minor}"]
    command += ["-mcpu=baseline", "-O3", "-shared", "-fPIC", "-w", "-Wl,-s", *arguments, "-o", str(out)]
    # Of its own, so that no read-only home folder stands in the way.
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(out.parent / "zig")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no word"])[0]
        raise ProvisionError(f"cannot be compiled for {target.system}: {said}")


def write_wheel(stem: str, tags: str, files: Mapping[str, bytes]) -> bytes:
    """A wheel NAME-VERSION with these files, METADATA among them (PEP 427), always with the same bytes."""
    info = f"{stem}.dist-info"
    said = f"Wheel-Version: 1.0\nGenerator: edge-vad\nRoot-Is-Purelib: false\nTag: {tags}\n"
    members = {**files, f"{info}/WHEEL": said.encode()}
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
