"""install.py on a unit: in folders that stand for those of the unit, with the real store; pip and systemd stand aside.

The real thing, in a root of its own, is tested by make test-arm64 and make test-vm.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_bundle
import yaml
from edge_vad.converters import install_unit, targets
from edge_vad.converters.install_unit import CURRENT, Refused
from test_provision import wheel
from tiny import Outcome

import edge_vad.service
from edge_vad.commands import store as store_command
from edge_vad.store import Store

Cli = Callable[..., Outcome]
CUT_POINTS = ("run", "replace", "link", "mark", "hand_over", "sweep")
# Of site-packages, and whether a unit reads it.
SITE = {
    "numpy/__init__.py": True,
    "numpy/__init__.pyi": False,
    "numpy/_core/multiarray.py": True,
    "numpy/_core/include/numpy/ndarrayobject.h": False,
    "numpy/_core/tests/test_multiarray.py": False,
    "numpy/_core/tests/data/a.pyi": False,
    "numpy/f2py/crackfortran.py": False,
    "numpy/tests/test_lazyloading.py": False,
    "numpy/testing/__init__.py": True,
    "onnxruntime/capi/onnxruntime.so": True,
    "onnxruntime/transformers/fusion_gpt.py": False,
    "onnxruntime/ThirdPartyNotices.txt": True,
}


class Cut(BaseException):
    """The power."""


class Unit:
    """A unit's folders. overlays: what was provisioned for it, unpacked, by name."""

    def __init__(self, root: Path, cli: Cli, patch: pytest.MonkeyPatch) -> None:
        self.root, self._cli, self._patch = root, cli, patch
        self.broken = ""  # the release whose service does not come up
        self.commands: list[str] = []
        places = {"RELEASES": "opt", "CURRENT": "opt/current", "PREVIOUS": "opt/previous", "CONFIG": "etc", "STATE": "var"}
        for name, place in places.items():
            patch.setattr(install_unit, name, root / place)
        (root / "systemd").mkdir(parents=True)
        patch.setattr(install_unit, "SYSTEMD", root / "systemd")
        patch.setattr(edge_vad.service, "STATE", root / "var")
        patch.setattr(install_unit, "run", self._run)
        patch.setattr(store_command, "check_in_child", lambda path, bundle_id, profile: None)

    def provision(self, folder: str, serial: int = 1, **more: object) -> Path:
        """An overlay with a bundle of that serial, unpacked in a folder."""
        desk = self.root / folder
        desk.mkdir()
        small_bundle.write(desk / "site.evb", serial)
        plain = {"name": "gate", "profile": "raspberry_pi_5", "set": [f"trust.keys={self.root}/etc/trusted.d"]}
        cameras = {"gate": {"source": "/dev/video0", "store": str(self.root / "var/gate")}}
        (desk / "device.yaml").write_text(yaml.safe_dump({**plain, "cameras": cameras, **more}))
        said = self._cli(
            "provision",
            "--bundle",
            desk / "site.evb",
            "--config",
            desk / "device.yaml",
            "--target",
            "debian_trixie",
            "--out",
            desk / "o.tar",
        )
        assert said.code == 0, said.err
        with tarfile.open(desk / "o.tar") as archive:
            archive.extractall(desk, filter="data")
        return desk / "edge-vad-overlay"

    def install(self, overlay: Path, *options: str) -> int:
        self.commands.clear()
        self._patch.setattr(install_unit, "OVERLAY", overlay)
        return install_unit.main(options)

    def runs(self) -> tuple[str, str, str]:
        """What a unit would run now: its release, the name of its configuration, its bundle."""
        store = Store(self.root / "var/gate")
        config = yaml.safe_load((self.root / "etc/device.yaml").read_text())
        assert store.current
        return (self.root / "opt/current").readlink().name, config["name"], store.current

    def _run(self, *command: str) -> str:
        self.commands.append(" ".join(command))
        if command[1:3] == ("-m", "venv"):
            (Path(command[-1]) / "bin").mkdir(parents=True)
        elif command[2:3] == ("install",):
            for name in SITE:
                path = Path(command[0]).parents[1] / "lib/python3.13/site-packages" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        elif command[1:4] == ("-m", "edge_vad", "store"):
            said = self._cli(*command[3:])
            if said.code:
                raise Refused(said.err)
        elif command[1:4] == ("-m", "edge_vad", "service"):
            return "edge-vad-gate.service starts with the device\n"
        elif command[:2] == ("systemctl", "restart") and self.broken == (self.root / "opt/current").readlink().name:
            raise Refused("systemctl restart edge-vad-gate.service: Job failed")
        return ""


@pytest.fixture
def unit(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Unit:
    here = {"architecture": platform.machine(), "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    monkeypatch.setitem(targets.TARGETS, "debian_trixie", replace(targets.TARGETS["debian_trixie"], **here))
    library = [wheel(tmp_path / "wheels", name) for name in ("pip", "edge_vad")]
    monkeypatch.setattr("edge_vad.converters.provision_command.wheels_of", lambda *_: library)
    monkeypatch.setattr(install_unit.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    return Unit(tmp_path / "unit", cli, monkeypatch)


@contextmanager
def power_cut(patch: pytest.MonkeyPatch, after: int) -> Iterator[list[int]]:
    """The power fails at that change, before it is made; yields how many were made."""
    made = [0]
    with patch.context() as patched:
        for name in CUT_POINTS:
            real: Any = getattr(install_unit, name)

            def step(*arguments: Any, real: Any = real) -> Any:
                if made[0] == after:
                    raise Cut
                made[0] += 1
                return real(*arguments)

            patched.setattr(install_unit, name, step)
        yield made


def test_a_release_is_installed_once(unit: Unit) -> None:
    overlay = unit.provision("first")
    assert unit.install(overlay, "--check") == 0 and not (unit.root / "opt").exists()
    assert unit.install(overlay) == 0
    first = unit.runs()
    assert overlay.with_name("edge-vad-overlay.installed").read_text() == first[0]
    assert any(command.startswith("systemctl restart") for command in unit.commands)
    assert unit.install(overlay) == 0 and unit.runs() == first
    assert not [c for c in unit.commands if "pip" in c or "restart" in c or "activate" in c]


def test_what_no_unit_reads_is_left_out(unit: Unit) -> None:
    assert unit.install(unit.provision("first")) == 0
    site = unit.root / "opt/current/lib/python3.13/site-packages"
    found = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert found == {name for name, is_read in SITE.items() if is_read}


def test_the_next_one_can_be_taken_back(unit: Unit) -> None:
    assert unit.install(unit.provision("first")) == 0
    first = unit.runs()
    Store(unit.root / "var/gate").confirm()
    second = unit.provision("second", serial=2, name="gate-2")
    assert unit.install(second) == 0
    now = unit.runs()
    assert now[1] == "gate-2" and not set(now) & set(first)
    assert unit.install(second, "--rollback") == 0
    assert unit.runs() == first
    assert unit.install(second) == 0 and unit.runs() == now


def test_a_bundle_at_a_path_is_taken_back_too(unit: Unit) -> None:
    path = unit.root / "etc/site.evb"
    cameras = {"gate": {"source": "/dev/video0", "bundle": str(path)}}
    assert unit.install(unit.provision("first", cameras=cameras)) == 0
    first = path.read_bytes()
    second = unit.provision("second", serial=2, cameras=cameras)
    assert unit.install(second) == 0 and path.read_bytes() != first
    assert unit.install(second, "--rollback") == 0 and path.read_bytes() == first


def test_releases_that_nobody_goes_back_to_are_deleted(unit: Unit) -> None:
    for number in range(1, 4):
        assert unit.install(unit.provision(f"overlay{number}", serial=number)) == 0
        Store(unit.root / "var/gate").confirm()
    assert len([path for path in (unit.root / "opt").iterdir() if path.is_dir() and not path.is_symlink()]) == 2


def test_a_service_that_does_not_come_up_brings_the_release_before_back(unit: Unit) -> None:
    assert unit.install(unit.provision("first")) == 0
    first = unit.runs()
    Store(unit.root / "var/gate").confirm()
    bad = unit.provision("bad", serial=2, name="bad")
    unit._patch.setattr(install_unit, "OVERLAY", bad)
    unit.broken = install_unit.check(bad).name
    assert unit.install(bad) == 1
    assert unit.runs() == first
    assert not (unit.root / "opt/previous").exists(), "what failed is nothing to go back to"
    unit.broken = ""
    assert unit.install(bad) == 0 and unit.runs()[1] == "bad"


def test_every_power_cut_is_completed_by_running_it_again(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unit.install(unit.provision("first")) == 0
    Store(unit.root / "var/gate").confirm()
    first = unit.runs()
    second = unit.provision("second", serial=2, name="gate-2")
    shutil.copytree(unit.root, unit.root.with_name("before"), symlinks=True)
    assert unit.install(second) == 0
    wanted = unit.runs()
    for after in range(100):
        shutil.rmtree(unit.root)
        shutil.copytree(unit.root.with_name("before"), unit.root, symlinks=True)
        with power_cut(monkeypatch, after) as made:
            try:
                unit.install(second)
            except Cut:
                pass
            else:
                break
        release, name, bundle = unit.runs()  # whatever it is, all of it is there
        assert release in (first[0], wanted[0]) and bundle in (first[2], wanted[2]) and name in (first[1], wanted[1])
        assert (unit.root / "opt" / release / "installed").is_file()
        assert unit.install(second) == 0 and unit.runs() == wanted
        assert (unit.root / "opt/previous").readlink().name == first[0]
    assert made[0] > 12


@pytest.mark.parametrize(
    "changed", ["device.yaml", "bundles/site.evb", "wheels/pip-1.0-py3-none-any.whl", "install.py", "overlay.json"]
)
def test_a_damaged_overlay_changes_nothing(unit: Unit, changed: str, capfd: pytest.CaptureFixture[str]) -> None:
    overlay = unit.provision("first")
    path = overlay / changed
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert unit.install(overlay) == 1
    assert capfd.readouterr().err == f"install.sh: {changed}: is damaged; copy the overlay again\n"
    path.unlink()
    assert unit.install(overlay) == 1 and "is missing" in capfd.readouterr().err
    path.write_bytes(data)
    (overlay / "wheels/evil-1.0-py3-none-any.whl").write_bytes(b"")
    assert unit.install(overlay) == 1 and "is not part of the overlay" in capfd.readouterr().err
    assert not (unit.root / "opt").exists() and not (unit.root / "etc").exists()


@pytest.mark.parametrize(("what", "value"), [("machine", "riscv64"), ("version_info", (3, 9))])
def test_it_is_for_one_system_alone(unit: Unit, what: str, value: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    overlay = unit.provision("first")
    monkeypatch.setattr(*((install_unit.platform, what, lambda: value) if what == "machine" else (sys, what, value)))
    assert unit.install(overlay) == 1
    assert "made for" in capfd.readouterr().err and not (unit.root / "opt").exists()


def test_too_little_room_is_told_before_anything_is_written(unit: Unit, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    overlay = unit.provision("first")
    monkeypatch.setattr(install_unit.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    assert unit.install(overlay) == 1
    assert "MB are needed" in capfd.readouterr().err and not list((unit.root / "opt").glob("*/"))


def test_a_configuration_that_was_changed_on_the_unit_is_kept_beside(unit: Unit) -> None:
    assert unit.install(unit.provision("first")) == 0
    (unit.root / "etc/device.yaml").write_text("changed: here\n")
    Store(unit.root / "var/gate").confirm()
    assert unit.install(unit.provision("second", serial=2)) == 0
    assert (unit.root / "etc/device.yaml.before").read_text() == "changed: here\n"


def test_there_is_nothing_to_go_back_to(unit: Unit, capfd: pytest.CaptureFixture[str]) -> None:
    overlay = unit.provision("first")
    assert unit.install(overlay, "--rollback") == 1
    assert "there is no release to go back to" in capfd.readouterr().err


def test_only_one_at_a_time(unit: Unit, capfd: pytest.CaptureFixture[str]) -> None:
    overlay = unit.provision("first")
    with install_unit.locked():
        assert unit.install(overlay) == 1
    assert "another installation runs" in capfd.readouterr().err
    assert Path("/opt/edge-vad/current") == CURRENT, "these tests stay in their folders"
