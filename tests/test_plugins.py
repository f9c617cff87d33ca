"""Names to classes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_vad.cameras import Camera, open_camera
from edge_vad.errors import MissingPackageError, PluginError
from edge_vad.plugins import available, load, require

CAMERA = """
from edge_vad.cameras import Camera

class {name}(Camera):
    fps = 5.0
    def __init__(self, location, fps=None, size=None):
        self.location = location
    def frames(self):
        return iter(())
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An integrator's own package; write its modules there."""
    folder = tmp_path / "my_company"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("my_company")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"no camera named 'opncv' .did you mean 'opencv'"):
        load("cameras", "opncv", Camera)


def test_the_base_is_no_plugin() -> None:
    assert "base" not in available("cameras")
    with pytest.raises(PluginError, match="no camera named 'base'"):
        load("cameras", "base", Camera)


def test_a_dotted_name_is_the_integrators_own_module(module: Path) -> None:
    (module / "thermal.py").write_text(CAMERA.format(name="Thermal"))
    assert load("cameras", "my_company.thermal", Camera).__name__ == "Thermal"
    camera = open_camera("my_company.thermal:/dev/video7")
    assert camera.location == "/dev/video7"  # type: ignore[attr-defined]


def test_of_two_classes_one_must_be_named(module: Path) -> None:
    (module / "two.py").write_text(CAMERA.format(name="Left") + CAMERA.format(name="Right"))
    with pytest.raises(PluginError, match="exactly one subclass of Camera, found 2"):
        load("cameras", "my_company.two", Camera)
    assert load("cameras", "my_company.two:Right", Camera).__name__ == "Right"
    with pytest.raises(PluginError, match="found 0"):
        load("cameras", "my_company.two:Middle", Camera)


def test_a_module_without_a_class_or_that_is_not_there(module: Path) -> None:
    (module / "empty.py").write_text("from edge_vad.cameras import Camera\n")
    with pytest.raises(PluginError, match="found 0"):
        load("cameras", "my_company.empty", Camera)
    with pytest.raises(PluginError, match=r"cannot be imported: No module named 'my_company\.none'"):
        load("cameras", "my_company.none", Camera)


def test_a_missing_package_comes_with_its_pip_command() -> None:
    with pytest.raises(MissingPackageError, match="the sink mqtt needs the package paho-mqtt: pip install 'paho-mqtt'"):
        require("no_such_module_paho", "paho-mqtt", "the sink mqtt")
    assert require("json", "json", "nothing").dumps([]) == "[]"
