"""edge-vad status: what a unit wrote of itself, and what is told when it no longer writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import Outcome

from edge_vad.commands.status import duration
from edge_vad.status import Found, find_units, remove_status, status_path, write_status

Cli = Callable[..., Outcome]


def camera(**changed: Any) -> dict[str, Any]:
    """One camera as a unit tells it."""
    return {
        "state": "running",
        "reason": "",
        "source": "10.0.0.5/stream",
        "bundle": {"id": "aa3bd68a35c5", "name": "site", "serial": 2},
        "backend": "onnxruntime",
        "on_trial": False,
        "view": "clear",
        "degraded": False,
        "drift": {"spatial": 0.24, "speed": -0.1},
        "score": 0.4312,
        "fps": {"captured": 25.0, "scored": 12.5},
        "captured": 123456,
        "dropped": 3,
        "lost": 1,
        "scored": 61728,
        "skipped": 0,
        "events": 4,
        "latency_ms": {"p50": 22.1, "p95": 35.0, "p99": 61.2},
        "stage_ms": {"encoder": 8.1},
        **changed,
    }


def status(**changed: Any) -> dict[str, Any]:
    """The status of a unit that runs in this process, now."""
    now = time.monotonic()
    return {
        "unit": "gate",
        "state": "running",
        "pid": os.getpid(),
        "uptime_s": 7384.2,
        "updated_monotonic_s": now,
        "cameras": {"street": camera()},
        "media": {"street": {"clips": 4, "mb": 31.5, "last_error": ""}},
        "delivery": {"log": {"pending": 0, "delivered": 12, "lost": 0, "last_error": ""}},
        "device": {"temperature_c": 51.2, "throttled": [], "load": 0.5, "memory_mb": 103.0, "governor": "ondemand"},
        "recent": [
            {"camera": "", "type": "unit", "kind": "started", "monotonic_s": now - 7384},
            {"camera": "street", "type": "anomaly", "kind": "start", "id": 4, "peak_score": 1.37, "monotonic_s": now - 130},
        ],
        **changed,
    }


@pytest.fixture
def told(cli: Cli, tmp_path: Path) -> Callable[..., Outcome]:
    """Writes one status and asks for it."""

    def ask(plain: dict[str, Any], *more: str) -> Outcome:
        write_status(tmp_path / "gate.json", plain)
        return cli("status", "--runtime", tmp_path, *more)

    return ask


def test_all_is_running(told: Callable[..., Outcome]) -> None:
    said = told(status())
    assert (said.code, said.err) == (0, "")
    assert "!" not in said.out
    for words in (
        "gate: running, up 2.1 h",
        "view clear, score 0.43, 25 fps captured, 12.5 scored; 10.0.0.5/stream",
        "bundle site serial 2 (aa3bd68a35c5), onnxruntime; latency p50/p95/p99 22/35/61 ms",
        "123,456 captured, 61,728 scored, 3 dropped, 0 skipped, 4 events, lost 1 times",
        "log 0 pending, 12 delivered, 0 lost",
        "street 4 clips, 31.5 mb",
        "51.2 C, load 0.5, 103.0 MB used, governor ondemand, not throttled",
        "2 min ago  street anomaly start: id 4, peak_score 1.37",
    ):
        assert words in " ".join(said.out.split()) or words in said.out, words


def test_a_scene_that_drifted_is_told_and_one_that_did_not_takes_no_line(told: Callable[..., Outcome]) -> None:
    drifted = status(cameras={"street": camera(drift={"spatial": 0.24, "speed": -1.1})})
    assert "drift from normal footage, in its deviations: spatial +0.2, speed -1.1" in told(drifted).out
    assert "drift" not in told(status()).out


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cameras": {"street": camera(state="lost", reason="no pictures for 5 s")}}, "street is lost: no pictures for 5 s"),
        ({"cameras": {"street": camera(state="failed", reason="no backend")}}, "street is failed: no backend"),
        ({"cameras": {"street": camera(state="connecting")}}, "street is connecting"),
        ({"cameras": {"street": camera(degraded=True)}}, "street is degraded"),
        ({"cameras": {"street": camera(view="covered")}}, "street: the view is covered"),
        ({"cameras": {"street": camera(reason="pictures of 640x480")}}, "street is running: pictures of 640x480"),
        ({"delivery": {"mqtt": {"pending": 4, "last_error": "refused"}}}, "delivery: mqtt last_error refused"),
        ({"delivery": {"log": {"lost": 3}}}, "delivery: log lost 3"),
        ({"device": {"throttled": ["under-voltage", "throttled since boot"]}}, "the board reports under-voltage"),
    ],
)
def test_trouble_is_exit_code_3(changed: dict[str, Any], words: str, told: Callable[..., Outcome]) -> None:
    said = told(status(**changed))
    assert said.code == 3 and f"! {words}" in said.out
    [plain] = json.loads(told(status(**changed), "--json").out)
    assert any(words in trouble for trouble in plain["troubles"])


def test_what_was_only_before_is_no_trouble(told: Callable[..., Outcome]) -> None:
    said = told(status(device={"throttled": ["under-voltage since boot"]}))
    assert said.code == 0 and "under-voltage since boot" in said.out


def test_a_stale_file_says_why(told: Callable[..., Outcome]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    cases = {
        f"process {ended.pid} is gone": status(pid=ended.pid),
        f"process {os.getpid()} has not written it for 16 s": status(updated_monotonic_s=time.monotonic() - 16),
        "from before the last boot": status(updated_monotonic_s=time.monotonic() + 1000),
    }
    for words, plain in cases.items():
        said = told(plain)
        assert said.code == 3 and "gate: stale" in said.out and words in said.out
        assert "street     was running" in said.out


def test_no_unit_is_one_line_and_exit_code_1(cli: Cli, tmp_path: Path) -> None:
    for arguments in ([], ["gate"]):
        said = cli("status", *arguments, "--runtime", tmp_path)
        assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
        assert "runs here" in said.err and "edge-vad run" in said.err


def test_one_of_several_units(cli: Cli, tmp_path: Path) -> None:
    for name in ("gate", "yard"):
        write_status(tmp_path / f"{name}.json", status(unit=name))
    assert "yard: running" not in cli("status", "gate", "--runtime", tmp_path).out
    both = cli("status", "--runtime", tmp_path)
    assert both.code == 0 and "gate: running" in both.out and "yard: running" in both.out
    assert [unit["unit"] for unit in json.loads(cli("status", "--runtime", tmp_path, "--json").out)] == ["gate", "yard"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"pid": "x"}', '{"updated_monotonic_s": 1e999, "pid": 1}', "\0" * 2**21]
)
def test_a_damaged_file_is_told_not_raised(text: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_text(text)
    said = cli("status", "--runtime", tmp_path)
    assert said.code == 3 and said.err == "" and "gate: stale" in said.out


def test_wrong_values_are_told_not_raised(told: Callable[..., Outcome]) -> None:
    for plain in (
        status(cameras={"street": {}}),
        status(cameras={"street": None}),
        status(cameras=None, media=3, delivery=[], device="x", recent="y", uptime_s=None),
        status(cameras={"street": camera(fps={}, score=None, latency_ms={}, bundle=None)}),
        status(recent=[None, {}, {"monotonic_s": 1}]),
    ):
        said = told(plain)
        assert said.out.startswith("gate: running") and said.err == ""


def test_nothing_of_a_status_reaches_the_terminal_as_a_command(told: Callable[..., Outcome]) -> None:
    said = told(status(cameras={"street": camera(state="lost", reason="\x1b[2J\r\n gate: running")}))
    assert "\x1b" not in said.out and "\r" not in said.out and "\n gate" not in said.out


def test_it_fits_one_screen(told: Callable[..., Outcome]) -> None:
    many = [{"camera": "street", "type": "anomaly", "kind": "start", "monotonic_s": 1.0, "id": i} for i in range(50)]
    said = told(status(cameras={f"camera{i}": camera(source="x" * 300) for i in range(4)}, recent=many))
    assert len(said.out.splitlines()) <= 24 and max(map(len, said.out.splitlines())) <= 120


def test_durations() -> None:
    values = [0.2, 59, 61, 3599, 3600, 86400, 100 * 86400, None]
    assert [duration(v) for v in values] == ["0 s", "59 s", "1 min", "60 min", "1.0 h", "24.0 h", "100.0 d", "?"]


# The file


def test_a_unit_writes_where_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "file"
    closed.touch()
    made, session = tmp_path / "made", tmp_path / "session"
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    assert status_path(tmp_path / "run", "gate") == tmp_path / "run/gate.json"
    assert status_path(closed, "gate") == session / "edge-vad/gate.json"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(made))
    assert status_path(closed, "gate") == made / "gate.json"
    write_status(made / "gate.json", status())
    assert [unit.path for unit in find_units(name="gate") if unit.path.parent == made] == [made / "gate.json"]


def test_only_its_own_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    write_status(path, status(pid=1))
    remove_status(path)
    assert path.exists()
    write_status(path, status())
    remove_status(path)
    remove_status(path)
    assert not path.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write_status(tmp_path / "real", status())
    (tmp_path / "gate.json").symlink_to("real")
    assert Found.read(tmp_path / "gate.json").stale


def test_a_unit_tells_all_that_is_shown(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    from edge_vad.device import CameraSettings, Device
    from edge_vad.profile import load_profile
    from edge_vad.unit import Unit

    source = "synthetic:size=180x120"
    device = Device({"street": CameraSettings(source, str(tiny_bundle))}, "gate", runtime=str(tmp_path), sinks=())
    unit = Unit(device, load_profile("desktop_cpu"))
    try:
        write_status(tmp_path / "gate.json", unit.status())
        said = cli("status", "--runtime", tmp_path)
        [plain] = json.loads(cli("status", "--runtime", tmp_path, "--json").out)
    finally:
        unit._stop()
    assert said.code == 3 and "street is connecting" in said.out and "None" not in said.out.replace("None fps", "")
    assert set(camera()) <= set(plain["cameras"]["street"])
    assert {*status(), "file", "stale", "troubles"} == set(plain)
