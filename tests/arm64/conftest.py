"""Footage and units, each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from roots import Unavailable, emulator
from units import SYSTEMS, Footage, Unit, make_footage, make_unit


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    return make_footage(tmp_path_factory.mktemp("footage"))


@pytest.fixture(scope="session")
def qemu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return emulator(tmp_path_factory.mktemp("emulator"))
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def unit_of(qemu: Path, footage: Footage, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Unit]:
    """A unit by the name of its system, made when it is first asked for."""
    made: dict[str, Unit] = {}

    def unit(name: str) -> Unit:
        if name not in made:
            try:
                made[name] = make_unit(SYSTEMS[name], footage, tmp_path_factory.mktemp(name), qemu)
            except Unavailable as error:
                pytest.skip(str(error))
        return made[name]

    return unit
