"""The wheels that a target needs: downloaded by version and hash, compiled where there are none, edge-vad's own.

pip does what it is good at (indexes, proxies, tags, hashes); nothing is taken whose hash is not in the target's lock.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlparse

from edge_vad.converters.hnswlib_wheel import build_hnswlib
from edge_vad.converters.kernels_wheel import with_kernels
from edge_vad.converters.pip import pip
from edge_vad.converters.targets import Target

import edge_vad
from edge_vad.errors import ProvisionError
from edge_vad.files import make_folder, write_atomically
from edge_vad.manifest import sha256

COMPILED = ("hnswlib",)  # no wheels on PyPI, and a source that compiles for the very processor it is built on
WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-[^-]+)?-[^-]+-[^-]+-[^-]+\.whl")
EPOCH = "315532800"  # 1980-01-01, the first date that a wheel can hold


def cache_folder() -> Path:
    """Where downloads and compiled wheels stay."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-vad" / "wheels"


def locked(target: Target, groups: Iterable[str]) -> list[str]:
    """The lines ``name==version --hash=sha256:...`` of these groups of a target's lock."""
    lines, group = [], ""
    for line in target.lock.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"# \[(\w+)\]", line):
            group = heading[1]
        elif line and not line.startswith("#") and group in groups:
            lines.append(line)
    return lines


def wheels_of(target: Target, groups: Iterable[str], own: Sequence[Path], without: Iterable[str], cache: Path) -> list[Path]:
    """Every wheel of an overlay: the locked ones and edge-vad, with ``own`` in the place of those of the same name.

    Raises ProvisionError where one cannot be had.
    """
    replaced = {pinned(path)[0]: path for path in own}
    left_out = {*replaced, *without}
    if any(name.startswith("onnxruntime-") for name in replaced):
        left_out.add("onnxruntime")  # -gpu and others are the same module: they would overwrite each other's files
    lines = [line for line in locked(target, groups) if line.split("==")[0] not in left_out]
    _make(cache)
    downloaded = _cached(target, [line for line in lines if line.split("==")[0] not in COMPILED], cache)
    compiled = [build_hnswlib(target, line, cache) for line in lines if line.split("==")[0] in COMPILED]
    package = [] if "edge-vad" in replaced else [with_kernels(own_wheel(cache), target, cache)]
    return sorted([*downloaded, *compiled, *package, *replaced.values()], key=lambda path: path.name)


def pinned(wheel: Path) -> tuple[str, str]:
    """Name (normalised, PEP 503) and version in a wheel's file name. Raises ProvisionError."""
    found = WHEEL.fullmatch(wheel.name)
    if not found:
        raise ProvisionError(f"{wheel}: is not a wheel (name-version-python-abi-platform.whl)")
    return re.sub(r"[-_.]+", "-", found["name"]).lower(), found["version"]


def download(target: Target, lines: Sequence[str], folder: Path) -> None:
    """Wheels for a target, each checked against its hash. Raises ProvisionError."""
    platforms = [word for platform in target.platforms for word in ("--platform", platform)]
    with TemporaryDirectory() as scratch:
        (Path(scratch) / "lock.txt").write_text("\n".join(lines))
        pip(
            "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation", "cp",
            "--python-version", target.python, *platforms, "--dest", str(folder), "--requirement", f"{scratch}/lock.txt",
        )  # fmt: skip


def own_wheel(cache: Path) -> Path:
    """edge-vad itself, for every machine: built from the sources of an editable installation, else this very version from
    the index."""
    with TemporaryDirectory() as scratch:
        if source := _source():
            # In a copy: an old build/ beside the sources would get into the wheel.
            ignored = shutil.ignore_patterns(
                ".*", "build", "dist", "tests", "benchmarks", "docs", "site", "*.egg-info", "demo_out"
            )
            shutil.copytree(source, f"{scratch}/source", ignore=ignored)
            folders = ("--wheel-dir", f"{scratch}/wheels", f"{scratch}/source")
            pip("wheel", "--no-deps", *folders, SOURCE_DATE_EPOCH=EPOCH, EDGE_VAD_KERNELS="off")
        else:
            pip(
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--dest",
                f"{scratch}/wheels",
                f"edge-vad=={edge_vad.__version__}",
            )
        [made] = Path(scratch, "wheels").glob("edge_vad-*.whl")
        folder = cache / sha256(made.read_bytes())[:12]
        _make(folder)
        write_atomically(folder / made.name, made.read_bytes())
        return folder / made.name


def _cached(target: Target, lines: Sequence[str], cache: Path) -> list[Path]:
    """The wheels of a lock, from the cache where they lie there whole."""
    wanted = {line.rpartition("sha256:")[2]: line for line in lines}
    here = {sha256(path.read_bytes()): path for path in cache.glob("*.whl")}
    if missing := [line for key, line in wanted.items() if key not in here]:
        with TemporaryDirectory(dir=cache) as folder:
            download(target, missing, Path(folder))
            for path in Path(folder).iterdir():
                path.rename(cache / path.name)
                here[sha256((cache / path.name).read_bytes())] = cache / path.name
    return [here[key] for key in wanted]


def _make(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise ProvisionError(f"{folder}: cannot be made: {error.strerror}; set XDG_CACHE_HOME to another folder") from error


def _source() -> Path | None:
    """The folder of an editable installation. Metadata without an origin is a build's, beside the sources."""
    told = [json.loads(said) for found in distributions(name="edge-vad") if (said := found.read_text("direct_url.json"))]
    editable = [one for one in told if one.get("dir_info", {}).get("editable")]
    return Path(unquote(urlparse(editable[0]["url"]).path)) if editable else None
