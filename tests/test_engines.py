"""The engine cache: where it lies, and who may write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_vad.engines import SYSTEM, cache_folder, gpu_name, private_folder
from edge_vad.errors import BackendError


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A user who is not root and has set nothing."""
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return monkeypatch


def test_the_folder_is_that_of_the_profile_the_service_root_or_the_user(user: pytest.MonkeyPatch) -> None:
    assert cache_folder() == Path("/home/someone/.cache/edge-vad/engines")
    assert cache_folder("~/engines") == Path("/home/someone/engines")
    user.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder() == Path("/fast/edge-vad/engines")
    user.setattr("os.geteuid", lambda: 0)
    assert cache_folder() == SYSTEM / "engines" == Path("/var/cache/edge-vad/engines")
    user.setenv("CACHE_DIRECTORY", "/var/cache/private/edge-vad:/other")
    assert cache_folder() == Path("/var/cache/private/edge-vad/engines")
    assert cache_folder("/mine") == Path("/mine")


def test_folders_are_made_for_their_owner_alone_whatever_the_names(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "engines", "NVIDIA A/../B", "model")
    assert made == tmp_path / "engines" / "NVIDIA_A_.._B" / "model"
    assert [p.stat().st_mode & 0o777 for p in (made, made.parent, made.parent.parent)] == [0o700] * 3
    assert private_folder(tmp_path / "engines", "NVIDIA A/../B", "model") == made


@pytest.mark.parametrize("level", ["", "gpu"])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, level: str, mode: int) -> None:
    """An engine is code."""
    private_folder(tmp_path / "engines", "gpu")
    (tmp_path / "engines" / level).chmod(mode)
    with pytest.raises(BackendError, match="nobody else may write it.*inference.engine_cache"):
        private_folder(tmp_path / "engines", "gpu")


def test_a_folder_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_folder(tmp_path / "engines")
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    with pytest.raises(BackendError, match="must belong to the user"):
        private_folder(tmp_path / "engines")


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match=f"{tmp_path}/file/engines: the engine cache cannot be made"):
        private_folder(tmp_path / "file" / "engines")


def test_a_machine_without_an_nvidia_driver_says_so() -> None:
    try:
        name = gpu_name(0)
    except BackendError as error:
        assert "NVIDIA" in str(error)
    else:
        assert name
