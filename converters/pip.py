"""pip, as a program: it has no interface for others."""

from __future__ import annotations

import os
import subprocess
import sys

from edge_vad.errors import ProvisionError


def pip(verb: str, *arguments: str, **environment: str) -> None:
    """Run it. Raises ProvisionError with the first error that it names."""
    command = [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it ended without a word"]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1]).removeprefix("ERROR: ")
        raise ProvisionError(f"pip {verb}: {said}; is there a network? wheels that you have: --wheel FILE.whl")
