"""Overlays of a Raspberry Pi 5 in emulated arm64 systems: installed without a network, checked, and compared with x86-64.

    make test-arm64

Emulation shows that the parts fit together and what they compute, and nothing of how fast a board is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from units import OVERLAY, PATIENT, PROFILE, PYTHON, STORE, Footage, Unit, vad

HERE = Path(__file__).parent
N_FRAMES = 200
MAX_MB = 150
MAX_INSTALLED_MB = 220  # the release with its bytecode, without the interpreter
INSTALL_S = 300  # of processor time: what others do here does not count
# Of a score, where 1.0 is the threshold. Measured: 4e-6, and 0.0015 with two versions of ONNX Runtime (docs/testing.md).
TOLERANCE = 0.01
CLIP, SHORT = "/root/clip", "/root/short"
TRIES = """
import json, socket
def connects():
    try:
        socket.create_connection(("1.1.1.1", 443), 5)
    except OSError as error:
        return str(error)
    return "connected"
interfaces = [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
print(json.dumps({"interfaces": interfaces, "connecting": connects()}))
"""


@pytest.fixture(scope="module", params=("bookworm", "trixie"))
def unit(request: pytest.FixtureRequest, unit_of: Callable[[str], Unit], footage: Footage) -> Unit:
    made = unit_of(request.param)
    made.root.take(footage.clip, CLIP)
    made.root.take(footage.short, SHORT)
    return made


@pytest.fixture(scope="module")
def here(footage: Footage) -> dict[str, Any]:
    """What this machine's processor makes of the clip."""
    command = [sys.executable, str(HERE / "score_clip.py"), *map(str, (footage.bundle, footage.clip, N_FRAMES, PROFILE))]
    said: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return said


def test_the_overlay_is_small(unit: Unit) -> None:
    megabytes = unit.overlay.stat().st_size / 1e6
    print(f"\n{unit.overlay}: {megabytes:.1f} MB")
    assert megabytes <= MAX_MB


def test_the_unit_could_not_reach_a_network(unit: Unit) -> None:
    said = json.loads(unit.root.run("python3", "-c", TRIES))
    assert said == {"interfaces": ["lo"], "connecting": "[Errno 101] Network is unreachable"}


def test_it_installs_within_five_minutes(unit: Unit) -> None:
    print(f"\ninstall.sh: {unit.installed_s:.0f} s, {unit.cpu_s:.0f} s of a processor")
    assert unit.said.splitlines()[-1].endswith("is installed")
    assert unit.cpu_s <= INSTALL_S


def test_what_is_installed_is_small(unit: Unit) -> None:
    release = unit.root.folder / "opt/edge-vad/current"
    files = [path for path in release.resolve().rglob("*") if path.is_file() and not path.is_symlink()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(f"\n{release.resolve()}: {megabytes:.1f} MB installed")
    assert megabytes <= MAX_INSTALLED_MB


def test_a_second_installation_changes_nothing(unit: Unit) -> None:
    assert "nothing had to change" in unit.root.run("sh", f"{OVERLAY}/install.sh")


def test_its_inner_loops_are_compiled(unit: Unit) -> None:
    assert unit.root.run(PYTHON, "-c", "from edge_vad import kernels; print(kernels.LIBRARY is not None)") == "True\n"


@pytest.mark.parametrize("bank", ["exact", "hnsw"])
def test_the_bundle_works_there(unit: Unit, bank: str) -> None:
    options = ("--profile", PROFILE, "--set", PATIENT, "--set", f"inference.bank={bank}")
    said = unit.edge_vad("bundle", "check", f"{OVERLAY}/bundles/street.evb", *options)
    assert "works here: golden self-test passed with onnxruntime" in said


def test_scores_are_those_of_x86_64(unit: Unit, here: dict[str, Any]) -> None:
    unit.root.take(HERE / "score_clip.py", "/root/score_clip.py")
    bundle = f"{OVERLAY}/bundles/street.evb"
    there = json.loads(unit.root.run(PYTHON, "/root/score_clip.py", bundle, CLIP, str(N_FRAMES), PROFILE))
    scores, expected = np.array(there["scores"]), np.array(here["scores"])
    assert (there["machine"], here["machine"]) == ("aarch64", "x86_64")
    assert there["pixels"] == here["pixels"] and len(scores) == N_FRAMES
    assert [sorted(boxes) for boxes in there["regions"]] == [sorted(boxes) for boxes in here["regions"]]
    assert np.ptp(expected) > 1 and (expected >= 1).any() and (expected < 1).any()
    difference = np.abs(scores - expected)
    print(f"\nPython {there['python']}: scores differ by {difference.max():.2g} at most, {difference.mean():.2g} on average")
    assert difference.max() <= TOLERANCE


def test_a_clip_gives_the_same_events(unit: Unit, footage: Footage) -> None:
    there = events(unit.edge_vad("run", "--store", STORE, "--source", SHORT, "--profile", PROFILE))
    here = events(vad("run", "--bundle", footage.bundle, "--source", footage.short, "--profile", PROFILE))
    assert here and here[0]["kind"] == "start"
    for told, expected in zip(there, here, strict=True):
        for key in ("kind", "id", "start_frame", "end_frame"):
            assert told[key] == expected[key], key
        assert told["peak_score"] == pytest.approx(expected["peak_score"], abs=TOLERANCE)


def events(lines: str) -> list[dict[str, Any]]:
    """The anomalies among the records that edge-vad run prints."""
    return [record for record in map(json.loads, lines.splitlines()) if record["type"] == "anomaly"]
