"""The page of the methods says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from edge_vad.converters.systems import SYSTEMS, system_class

from edge_vad.methods import Method, amco, stpag
from edge_vad.methods._network import NetworkMethod
from edge_vad.patches import N_WORST
from edge_vad.plugins import available, load
from edge_vad.streams import COMPONENTS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
ROWS = {name: cells.split(" | ") for name, cells in re.findall(r"^\| `(\w+)` \| ((?:none|network) .+) \|$", PAGE, re.M)}
OLDER = {"amco": ("motion",)}  # in bundles of before alone
ENSEMBLE = ROWS.pop("ensemble")  # its window and components are those of others


def components_of(name: str) -> tuple[str, ...]:
    kind = load("methods", name, Method)
    return kind.names if issubclass(kind, NetworkMethod) else COMPONENTS


def test_the_table_has_every_method() -> None:
    assert {"ensemble", *ROWS} == {*available("methods")} == {"ensemble", "videopatchcore", *SYSTEMS}
    assert {name for name, row in ROWS.items() if row[0] == "network"} == set(SYSTEMS)


@pytest.mark.parametrize("name", ROWS)
def test_window_and_components_are_those_of_the_code(name: str) -> None:
    _, window, components, _ = ROWS[name]
    assert re.findall(r"`(\w+)`", components) == [n for n in components_of(name) if n not in OLDER.get(name, ())]
    assert window == ("-" if name == "videopatchcore" else str(system_class(name).n_frames))


def test_the_numbers_of_the_documents_scores() -> None:
    assert f"log of `change` + {amco.SHARE:g} log of `appearance`" in PAGE
    shares = stpag.SHARES
    assert (
        f"{shares['appearance']} (1 - PSNR) + {shares['motion']} motion" in PAGE and f"+ {shares['semantic']} prob" in PAGE
    )
    for name in ("amco", "desd"):
        assert load("methods", name, NetworkMethod).shares == {"appearance": 0.2}
        assert re.search(rf"^\| `appearance` \(`{name}`\) .* counts a fifth \|$", PAGE, re.M)
    assert N_WORST == 4 and "the four worst ones" in " ".join(PAGE.split())
    assert all(target.newest == 1 for target in system_class("stpag").targets.values())
    assert "worst error of the newest frame of the clip" in PAGE
