"""Every firmware example says how it is run, stays short, and runs on the generated scene."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import Outcome

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "firmware_examples").glob("**/*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_starts_with_its_command_and_stays_short(example: Path) -> None:
    lines = example.read_text(encoding="utf-8").splitlines()
    assert str(example.relative_to(ROOT)) in lines[0]
    assert len(lines) < 60


def test_the_alarm_command_runs_once_an_event(cli: Callable[..., Outcome], street: Path, street_bundle: Path) -> None:
    clip = street / "testing" / "frames" / "01"
    example = ROOT / "firmware_examples" / "alarm_command.py"
    echo = [sys.executable, "-c", "import sys; print('ALARM', *sys.argv[1:])"]
    said = subprocess.run(
        [sys.executable, str(example), str(street_bundle), str(clip), *echo], capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 0, said.stderr
    events = cli("run", "--bundle", street_bundle, "--source", clip).out
    assert said.stdout.count("ALARM") == events.count('"kind": "start"') > 0
