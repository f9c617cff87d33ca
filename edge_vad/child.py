"""Modules of edge-vad as child processes."""

from __future__ import annotations

import sys


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main(arguments)`` of a module in a child, never with code from the present folder.

    ``python -m`` would put that folder first on the path: a ``json.py`` on somebody's SD card would run.
    """
    start = f"import sys; sys.path[:] = [p for p in sys.path if p]; from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", start, *arguments]
