"""Cameras for the tests of live operation: they must be importable in capture processes, too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live_parts.pictures import street
from live_stage import HERE, Stage


@pytest.fixture(autouse=True)
def importable_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture processes find the scripted camera."""
    monkeypatch.setenv("PYTHONPATH", HERE)


@pytest.fixture(scope="session")
def street_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of the street for scripted cameras, which have no time to draw them."""
    path = tmp_path_factory.mktemp("pictures") / "street.npy"
    np.save(path, street())
    return path


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Live cameras are staged ones, which are connected again at once."""
    stage = Stage()
    monkeypatch.setattr("edge_vad.feed.Capture", stage.capture)
    monkeypatch.setattr("edge_vad.feed.FIRST_RETRY_S", 0.01)
    monkeypatch.setattr("edge_vad.feed.LAST_RETRY_S", 0.05)
    monkeypatch.setattr("edge_vad.unit.HOUSEKEEPING_S", 0.05)
    monkeypatch.setattr("edge_vad.unit.IDLE_S", 0.02)
    yield stage
    os.close(stage.event)
