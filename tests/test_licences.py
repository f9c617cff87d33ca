"""THIRD_PARTY_LICENSES.md names every package that edge-vad brings, with the licence that the installed package states."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "THIRD_PARTY_LICENSES.md").read_text(encoding="utf-8")
LOCKS = sorted((ROOT / "converters" / "locks").glob("*.txt"))  # what the overlays of `edge-vad provision` hold
ON_A_DEVICE = ("", "runtime", "hnsw", "signing", "mqtt", "gpio", "openvino", "nvml", "picamera2")
ON_A_DESKTOP = ("torch", "nncf", "mat", "dask", "provision", "converters")
DEVELOPMENT = ("dev", "docs")  # nothing of it is shipped or runs beside edge-vad
# What packages say that state no SPDX expression, by the field or classifier that says it.
SPDX = {
    "MIT": "MIT",
    "MIT License": "MIT",
    "Apache 2.0": "Apache-2.0",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD-3-Clause": "BSD-3-Clause",
}


def table(heading: str) -> dict[str, str]:
    """Licence by package, of one section's table."""
    section = re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading)]
    rows = re.findall(r"^\| ([a-z0-9-]+) \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    assert len(rows) == len(dict(rows)) == text.count("\n| "), "every row is a package, and stands once"
    return dict(rows[2:])


DEVICE, DESKTOP = table("On a device"), table("On the desktop")


def required(package: str, extras: Iterable[str]) -> set[str]:
    """Names that a package asks for on this machine."""
    named = map(Requirement, metadata.requires(package) or ())
    return {
        canonicalize_name(r.name) for r in named if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)
    }


def with_their_own(names: set[str]) -> set[str]:
    """Those packages and all that they bring, as far as they are installed."""
    found: set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        try:
            names |= required(name, [""]) - found
        except metadata.PackageNotFoundError:
            continue
    return found


def stated(package: str) -> str:
    """The licence of an installed package as SPDX: from its metadata, else from its licence file."""
    said = metadata.metadata(package)
    if expression := said.get("License-Expression"):
        return str(expression)
    for line in [str(said.get("License")), *(said.get_all("Classifier") or [])]:
        if line in SPDX:
            return SPDX[line]
    texts = [file.read_text() for file in metadata.files(package) or () if "LICENSE" in file.name]
    return "Apache-2.0" if any(re.search(r"Apache (Software )?License", text) for text in texts) else "unknown"


def test_what_a_device_gets_is_listed_to_the_last_dependency() -> None:
    locked = {name for lock in LOCKS for name in re.findall(r"^([a-z0-9-]+)==", lock.read_text(), re.MULTILINE)}
    assert len(LOCKS) >= 5 and with_their_own(required("edge-vad", ON_A_DEVICE)) | locked == set(DEVICE)


def test_what_a_desktop_gets_is_listed() -> None:
    """The direct dependencies; they bring further ones, which the document says."""
    assert required("edge-vad", ON_A_DESKTOP) - set(DEVICE) == set(DESKTOP)


def test_every_extra_is_one_or_the_other() -> None:
    extras = set(metadata.metadata("edge-vad").get_all("Provides-Extra") or ())
    assert extras - set(DEVELOPMENT) == {*ON_A_DEVICE, *ON_A_DESKTOP} - {""}


@pytest.mark.parametrize("package", sorted(DEVICE | DESKTOP))
def test_the_licence_is_the_one_that_the_package_states(package: str) -> None:
    try:
        found = stated(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    assert found == (DEVICE | DESKTOP)[package]
