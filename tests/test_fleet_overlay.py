"""An overlay on a unit that has never seen edge-vad: installed, watched and taken back by the playbook that updates."""

from __future__ import annotations

import ensurepip
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fleet
import pytest
import update_parts
from fleet import Fleet, play, recap, running, short, words
from update_parts import Releases

from edge_vad.bundle import read_bundle

why_not = fleet.missing()


@pytest.fixture
def releases(tmp_path: Path, footage: Path, tiny_encoder: Path) -> Releases:
    return Releases.make(tmp_path / "releases", footage, tiny_encoder)


@pytest.fixture
def bare(tmp_path: Path, releases: Releases) -> Iterator[Fleet]:
    """One unit that has never seen edge-vad."""
    made = Fleet(tmp_path, releases.owner)
    try:
        made.add("bare", "127.0.0.17")
        yield made
    finally:
        made.end()


def overlay(folder: Path, bundle: Path, owner: Path) -> Path:
    """With the real installer; in the place of 200 MB of wheels, one that leads to what is installed here."""
    from edge_vad.converters.overlay import Parts, write_overlay
    from edge_vad.converters.targets import TARGETS

    from edge_vad.device import load_device

    config = folder / "device.yaml"
    config.write_text(update_parts.device_yaml(fleet.STORE, fleet.DATA, fleet.KEYS))
    config.chmod(0o644)
    here = folder / "edge_vad_here-1-py3-none-any.whl"
    about = "edge_vad_here-1.dist-info"
    members = {
        "edge_vad_here.pth": f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n",
        f"{about}/entry_points.txt": "[console_scripts]\nedge-vad = edge_vad.cli:main\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: edge-vad-here\nVersion: 1\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(here, "w") as wheel:
        for name, text in members.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in [*members, f"{about}/RECORD"]))
    [pip] = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    target = replace(
        TARGETS["debian_bookworm"], python="{}.{}".format(*sys.version_info[:2]), architecture=os.uname().machine
    )
    device = load_device(config)
    files = {"gate": bundle}
    parts = Parts(target, device, config, {"gate": read_bundle(bundle)}, files, [owner], [here, pip])
    out = folder / f"{bundle.stem}.tar"
    write_overlay(out, parts)
    return out


def same_python() -> bool:
    words = ["/usr/bin/python3", "-c", "import sys, venv; print('{}.{}'.format(*sys.version_info[:2]))"]
    said = subprocess.run(words, capture_output=True, text=True, check=False) if Path(words[0]).exists() else None
    return said is not None and said.stdout.strip() == "{}.{}".format(*sys.version_info[:2])


@pytest.mark.skipif(bool(why_not), reason=why_not)
@pytest.mark.skipif(not same_python(), reason="needs a /usr/bin/python3 that can load what is installed here")
def test_an_overlay_is_installed_watched_and_taken_back(bare: Fleet, releases: Releases, tmp_path: Path) -> None:
    """A first installation, the same again, and an overlay whose bundle does not fit the camera."""
    unit = bare.units["bare"]
    good, bad = (overlay(tmp_path, bundle, releases.owner) for bundle in (releases.first, releases.smaller))
    said = play(bare, "update.yml", "-e", f"edge_vad_overlay={good}")
    assert said.returncode == 0, said.stdout + said.stderr
    was = running(unit)
    release = unit.path("/opt/edge-vad/current").readlink()
    assert was[0] == short(releases.first)
    again = play(bare, "update.yml", "-e", f"edge_vad_overlay={good}")
    assert again.returncode == 0 and recap(again)["bare"]["changed"] == 0, again.stdout
    assert running(unit) == was, "nothing was restarted"
    said = play(bare, "update.yml", "-e", f"edge_vad_overlay={bad}", "-e", "edge_vad_health_s=6")
    assert said.returncode == 2 and recap(said)["bare"]["rescued"] == 1, said.stdout + said.stderr
    assert f"bare runs {was[0]} (Say what is wrong: gate is running: pictures of 180x120" in words(said)
    assert running(unit)[0] == short(releases.first) and unit.path("/opt/edge-vad/current").readlink() == release
