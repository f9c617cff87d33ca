"""hnswlib for another machine: cross-compiled for the whole architecture, in about a minute of one core.

Its own build takes ``-march=native``: such a wheel can end with an illegal instruction on another board, and PyPI has none.
The headers of the target's Python are those of the target's own distribution.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_vad.converters.cross_build import compile_shared, write_wheel
from edge_vad.converters.pip import pip
from edge_vad.converters.targets import Target

from edge_vad.errors import ProvisionError
from edge_vad.files import write_atomically
from edge_vad.manifest import sha256
from edge_vad.plugins import require

DEBIAN_NAMES = {"aarch64": "arm64", "x86_64": "amd64"}
INSTEAD = "leave hnswlib out (--without hnswlib: banks are then searched exactly), or give a wheel of it: --wheel FILE.whl"
TIMEOUT_S = 60.0


def build_hnswlib(target: Target, line: str, cache: Path) -> Path:
    """The wheel of hnswlib for a target. line: ``hnswlib==VERSION --hash=...`` of its source. Raises ProvisionError.

    It lies in the cache under what made it: source, compilers, target.
    """
    require("ziglang", "ziglang", "hnswlib for another machine")
    pybind11 = require("pybind11", "pybind11", "hnswlib for another machine")
    release = line.split()[0].partition("==")[2]
    made_by = f"{line} {version('ziglang')} {version('pybind11')} {target.tag} {target.architecture} {target.glibc}"
    major, minor = target.glibc
    tags = f"{target.tag}-{target.tag}-manylinux_{major}_{minor}_{target.architecture}"
    path = cache / sha256(made_by.encode())[:12] / f"hnswlib-{release}-{tags}.whl"
    if path.is_file():
        return path
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = _source(line, folder)
        headers = _headers(target, folder / "headers")
        module = folder / f"hnswlib.cpython-{target.tag[2:]}-{target.architecture}-linux-gnu.so"
        _compile(target, source, [*headers, Path(pybind11.get_include())], release, module)
        stem = f"hnswlib-{release}"
        metadata = {f"{stem}.dist-info/METADATA": (source / "PKG-INFO").read_bytes()}
        wheel = write_wheel(stem, tags, {module.name: module.read_bytes(), **metadata})
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, wheel)
    return path


def _source(line: str, folder: Path) -> Path:
    """The unpacked source distribution, checked against its hash."""
    (folder / "lock.txt").write_text(line)
    pip("download", "--no-deps", "--no-binary", "hnswlib", "--require-hashes", "--dest", f"{folder}/sdist",
        "--requirement", f"{folder}/lock.txt")  # fmt: skip
    [packed] = (folder / "sdist").iterdir()
    with tarfile.open(packed) as archive:
        archive.extractall(folder / "source", filter="data")
    [source] = (folder / "source").iterdir()
    return source


def _compile(target: Target, source: Path, include: list[Path], release: str, out: Path) -> None:
    arguments = ["-std=c++14", "-fvisibility=hidden", "-DNDEBUG", f'-DVERSION_INFO="{release}"']
    arguments += [
        *(f"-I{path}" for path in (*include, source / "hnswlib")),
        str(source / "python_bindings" / "bindings.cpp"),
    ]
    try:
        compile_shared(target, "c++", arguments, out)
    except ProvisionError as error:
        raise ProvisionError(f"hnswlib {error}; {INSTEAD}") from error


def _headers(target: Target, folder: Path) -> list[Path]:
    """Folders to include: the headers of the target's Python, out of its distribution's package."""
    architecture = DEBIAN_NAMES[target.architecture]
    listing = lzma.decompress(_get(f"{target.mirror}/dists/{target.suite}/main/binary-{architecture}/Packages.xz"))
    name = f"libpython{target.python}-dev"
    entry = next((text for text in listing.decode().split("\n\n") if text.startswith(f"Package: {name}\n")), None)
    if entry is None:
        raise ProvisionError(f"{target.mirror} {target.suite}: has no package {name}; {INSTEAD}")
    fields = dict(re.findall(r"^(Filename|SHA256): (.+)$", entry, re.MULTILINE))
    package = _get(f"{target.mirror}/{fields['Filename']}")
    if sha256(package) != fields["SHA256"]:
        raise ProvisionError(f"{target.mirror}/{fields['Filename']}: is not what the mirror's list says; try again")
    data = next(content for member, content in _members(package) if member.startswith("data.tar"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(folder, [m for m in archive.getmembers() if "/usr/include/" in m.name], filter="data")
    return [folder / "usr/include" / f"python{target.python}", folder / "usr/include"]


def _members(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a .deb, an ar archive: 60 bytes of header, ten of them the size, members at even offsets."""
    at = 8
    while at < len(package):
        name, size = package[at : at + 16].decode().strip().rstrip("/"), int(package[at + 48 : at + 58])
        yield name, package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ProvisionError(f"{url}: {reason}: the headers of the target's Python; {INSTEAD}") from error
