"""edge-vad tune, as a user runs it: measured here, written, and the written profile runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import Outcome

from edge_vad.profile import load_profile

Cli = Callable[..., Outcome]
Tune = Callable[..., Outcome]
SLOW = """
import time
from edge_vad.backends.onnxruntime import OnnxRuntime

class Slow(OnnxRuntime):
    def run(self, inputs):
        time.sleep(0.05)
        return super().run(inputs)
"""
WRONG = """
import numpy as np
from edge_vad.backends.onnxruntime import OnnxRuntime

class Wrong(OnnxRuntime):
    def run(self, inputs):
        return {name: values * np.float32(1.5) for name, values in super().run(inputs).items()}
"""


@pytest.fixture
def tuned(cli: Cli, tiny_bundle: Path, footage: Path, tmp_path: Path) -> Tune:
    def run(*more: object) -> Outcome:
        few = ("--frames", 3, "--warm-up", 1, "--source", footage / "01", "--threads", 1, "--banks", "exact")
        return cli("tune", "--bundle", tiny_bundle, "--out", tmp_path / "tuned.yaml", *few, *more)

    return run


@pytest.fixture
def plugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """my_backends.slow and my_backends.wrong, importable here and in children."""
    (tmp_path / "my_backends").mkdir()
    (tmp_path / "my_backends/slow.py").write_text(SLOW)
    (tmp_path / "my_backends/wrong.py").write_text(WRONG)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


@pytest.mark.usefixtures("plugs")
def test_slow_and_wrong_backends_are_not_chosen_and_the_profile_runs(
    tuned: Tune, cli: Cli, tmp_path: Path, tiny_bundle: Path, footage: Path
) -> None:
    said = tuned(
        "--backends", "my_backends.slow,my_backends.wrong,onnxruntime", "--set", "inference.backend=my_backends.slow"
    )
    assert said.code == 0, said.err
    path = tmp_path / "tuned.yaml"
    profile = load_profile(str(path))
    assert profile.name == "tuned" and profile.inference.backend == "onnxruntime"
    assert (profile.inference.threads, profile.inference.bank) == (1, "exact")
    text = path.read_text()
    for words in (
        "not used: my_backends.wrong@cpu",
        "golden self-test",
        "my_backends.slow@cpu",
        "(measured; was my_backends.slow)",
    ):
        assert words in text, words
    for words in ("versions: python", "board: ", "onnxruntime ", "chosen: onnxruntime@cpu", "written: 20"):
        assert words in text, words
    assert re.search(r"fp32, serial 1 \([0-9a-f]{12}\)", text)
    assert "only fp32 was measured" in said.out and "edge-vad build --normal FOOTAGE --precision int8" in said.out
    assert f"edge-vad run --bundle {tiny_bundle} --profile {path}" in said.out
    uncommented = [line for line in text.splitlines() if line and not line.startswith("#") and " # " not in line]
    assert uncommented == []
    assert cli("profiles", "validate", path).code == 0
    ran = cli("run", "--bundle", tiny_bundle, "--profile", path, "--source", footage / "01")
    assert ran.code == 0, ran.err


def test_nothing_is_overwritten_without_force(tuned: Tune, tmp_path: Path) -> None:
    (tmp_path / "tuned.yaml").write_text("mine")
    said = tuned("--backends", "onnxruntime")
    assert said.code == 1 and "--force" in said.err and len(said.err.splitlines()) == 1
    assert (tmp_path / "tuned.yaml").read_text() == "mine"
    assert tuned("--backends", "onnxruntime", "--force").code == 0
    assert load_profile(str(tmp_path / "tuned.yaml")).name == "tuned"


def test_a_budget_that_nothing_fits_writes_nothing(tuned: Tune, tmp_path: Path) -> None:
    said = tuned("--backends", "onnxruntime", "--set", "budget.memory_mb=1")
    assert said.code == 1 and "over budget.memory_mb=1" in said.err.splitlines()[-1]
    assert not (tmp_path / "tuned.yaml").exists()


@pytest.mark.usefixtures("plugs")
def test_a_device_that_is_too_slow_gets_a_larger_stride(tuned: Tune, tmp_path: Path) -> None:
    said = tuned("--backends", "my_backends.slow", "--set", "budget.fps=40", "--set", "build.stride=2")
    assert said.code == 0, said.err
    stride = load_profile(str(tmp_path / "tuned.yaml")).build.stride
    assert stride >= 4 and "edge-vad tune: warning: stride: " in said.err, "0.05 s for a picture: less than 20 fps of the 40"
    assert (
        f"stride: {stride}" in (tmp_path / "tuned.yaml").read_text()
        and "(measured; was 2)" in (tmp_path / "tuned.yaml").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--bundle", "x.evb", "--out", "a.txt"), 2, "a profile is a .yaml file"),
        (("--bundle", "x.evb"), 2, "--out"),
        (("--bundle", "x.evb", "--out", "none/a.yaml"), 1, "none"),
        (("--bundle", "x.evb", "--out", "a.yaml"), 1, "x.evb"),
    ],
)
def test_wrong_use_and_missing_files_are_one_line(
    arguments: tuple[str, ...], code: int, words: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("tune", *arguments)
    assert said.code == code and words in said.err and len(said.err.splitlines()) == 1
