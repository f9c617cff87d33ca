"""edge-vad's own wheel for another machine: with its inner loops (`edge_vad.kernels`) compiled."""

from __future__ import annotations

import logging
import re
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_vad.converters.cross_build import compile_shared, write_wheel
from edge_vad.converters.targets import Target

from edge_vad import kernels
from edge_vad.errors import ProvisionError
from edge_vad.files import write_atomically
from edge_vad.manifest import sha256

log = logging.getLogger(__name__)

SOURCE = "edge_vad/kernels.c"


def with_kernels(pure: Path, target: Target, cache: Path) -> Path:
    """The wheel ``pure`` of edge-vad with the kernels in it; ``pure`` itself, with a warning, without a compiler.

    It lies in the cache under what made it: wheel, compiler, target. Raises ProvisionError.
    """
    if not find_spec("ziglang"):
        log.warning("nothing can be compiled for the unit, so its frames take 40 % longer: pip install ziglang")
        return pure
    stem = "-".join(pure.name.split("-")[:2])
    major, minor = target.glibc
    tags = f"py3-none-manylinux_{major}_{minor}_{target.architecture}"
    made_by = f"{sha256(pure.read_bytes())} {version('ziglang')} {tags}"
    path = cache / sha256(made_by.encode())[:12] / f"{stem}-{tags}.whl"
    if path.is_file():
        return path
    with zipfile.ZipFile(pure) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name in ("WHEEL", "RECORD"):  # it gets others
        files.pop(f"{stem}.dist-info/{name}")
    files[f"edge_vad/{kernels.NAME}"] = compiled(files[SOURCE], target)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, write_wheel(stem, tags, files))
    return path


def compiled(source: bytes, target: Target) -> bytes:
    """The shared library of kernels.c, with the options that it names itself."""
    options = re.search(rb"\* cc (.+)", source)
    if not options:
        raise ProvisionError(f"{SOURCE}: does not say how it is compiled; install edge-vad again")
    with TemporaryDirectory() as folder:
        file, out = Path(folder, "kernels.c"), Path(folder, kernels.NAME)
        file.write_bytes(source)
        try:
            compile_shared(target, "cc", [*options[1].decode().split(), str(file), "-lm"], out)
        except ProvisionError as error:
            raise ProvisionError(f"{SOURCE} {error}; give a wheel of edge-vad: --wheel FILE.whl") from error
        return out.read_bytes()
