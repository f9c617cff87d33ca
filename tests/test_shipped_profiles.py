"""The nine device profiles: complete, a comment on every line, and honest about what was not measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from edge_vad.profile import Budget, Profile, load_profile, names
from edge_vad.strict import to_plain

ROOT = Path(__file__).resolve().parents[1]
DEVICES = {
    "raspberry_pi_zero_2w", "raspberry_pi_4", "raspberry_pi_5", "jetson_nano", "jetson_orin_nano", "jetson_agx_orin",
    "intel_openvino", "desktop_cpu", "desktop_cuda",
}  # fmt: skip
MEASURED = {"desktop_cpu"}
LINE = re.compile(r"^(  )?\w+:( .*\S)? +# \S")


def text_of(name: str) -> str:
    return (ROOT / f"profiles/{name}.yaml").read_text(encoding="utf-8")


def test_there_are_nine() -> None:
    assert set(names()) == DEVICES


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_a_profile_is_complete_and_loads(name: str) -> None:
    profile, shown = load_profile(name), yaml.safe_load(text_of(name))
    assert profile.name == name and to_plain(profile) == shown, "every section and key is written out"
    assert profile.budget != Budget() and None not in to_plain(profile)["budget"].values()
    assert to_plain(Profile("a", "b")).keys() == shown.keys()


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_every_line_with_a_value_says_what_it_means(name: str) -> None:
    lines = [line for line in text_of(name).splitlines() if line and not line.startswith("#")]
    assert len(lines) > 25 and [line for line in lines if not LINE.match(line)] == []
    assert [line for line in text_of(name).splitlines() if len(line) > 125] == []


@pytest.mark.parametrize("name", sorted(DEVICES - MEASURED))
def test_what_was_not_measured_is_called_an_estimate_with_its_derivation_and_source(name: str) -> None:
    head, body = text_of(name).split("\nname:")
    bounds = [line for line in body.split("\nbudget:")[1].splitlines()[1:] if line]
    assert len(bounds) == 4 and all("# estimate" in line for line in bounds)
    assert "The budget is an estimate: nothing was measured" in head and "benchmarks/boards.py" in head
    for words in ("MACs", "K = ", "frame ms = ", "memory: ", "GB/s"):
        assert words in head, words
    assert re.search(r"\w+\.(com|org)\b", head), "a source"
    assert "estimated" in load_profile(name).description


@pytest.mark.parametrize("name", sorted(DEVICES - MEASURED))
def test_the_budget_follows_from_the_frame_time_in_its_head(name: str) -> None:
    frame_ms = float(re.findall(r"frame ms = \d+ \+ \d+ = (\d+)", text_of(name))[0])
    parts = [float(v) for v in re.findall(r"frame ms = (\d+) \+ (\d+) = ", text_of(name))[0]]
    budget = load_profile(name).budget
    assert budget.fps and budget.p95_ms and sum(parts) == pytest.approx(frame_ms, abs=1)
    assert budget.fps == pytest.approx(1000 / frame_ms / 1.5, rel=0.1)
    assert budget.p95_ms == pytest.approx(frame_ms * 1.35 * 1.5, rel=0.03)


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_the_stride_asks_for_what_the_budget_holds(name: str) -> None:
    profile = load_profile(name)
    assert profile.budget.fps and 10 / profile.build.stride <= profile.budget.fps, "a camera of 10 frames per second"


def test_the_measured_one_names_its_command() -> None:
    assert "The budget is measured: `edge-vad bench" in text_of("desktop_cpu")


def test_the_table_of_the_page_is_that_of_the_profiles() -> None:
    page = (ROOT / "docs/profiles.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE
    )
    assert {name for name, *_ in rows} == DEVICES
    for name, runs, stride, fps, p95, memory, kind in rows:
        profile = load_profile(name)
        inference, budget = profile.inference, profile.budget
        assert runs == f"{inference.backend}@{inference.device}, {inference.threads}" and int(stride) == profile.build.stride
        assert [float(fps), float(p95), float(memory)] == [budget.fps, budget.p95_ms, budget.memory_mb]
        assert kind == ("measured" if name in MEASURED else "estimate")
