"""The engine plug point: what does the tasks of a build, here or elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge_vad.converters.tasks import Task

from edge_vad.errors import PluginError, did_you_mean
from edge_vad.plugins import load

BUILT_IN = ("local", "dask")
MAX_ATTEMPTS = 3  # workers that may die over one task

Moved = Callable[[Task, int], None]  # a task, and its frames that are done so far


class Engine(ABC):
    """Does tasks. A new engine is one new module of yours with one subclass: ``--engine package.module://LOCATION``.

    The constructor takes what stands behind ``://`` and the number of processes that was asked for (None: the engine's
    own choice). It raises EngineError when the engine cannot be reached.

    Required
    --------
    run(tasks, folder, moved)   does every task by `edge_vad.converters.tasks.perform`, and yields it when all its files
                                and, last, its receipt lie in ``folder``. Any order will do: names decide, not turns.

    Optional
    --------
    close()                     ends what it started.
    """

    @abstractmethod
    def __init__(self, location: str, jobs: int | None) -> None: ...

    @abstractmethod
    def run(self, tasks: Sequence[Task], folder: Path, moved: Moved) -> Iterator[Task]:
        """Yield tasks as they are finished; moved may be called on the way.

        Raises what a task raises (SourceError, OutputError), and EngineError when a task's workers died MAX_ATTEMPTS times.
        """

    def close(self) -> None:  # noqa: B027 - an engine may have nothing to end
        """End what the engine started."""


def open_engine(text: str, jobs: int | None = None) -> Engine:
    """The engine of ``NAME`` or ``NAME://LOCATION``; jobs: processes. Raises PluginError or EngineError."""
    name, _, location = text.partition("://")
    if name in BUILT_IN:
        return load("engines", f"edge_vad.converters.{name}_engine", Engine)(location, jobs)
    if "." not in name:
        raise PluginError(f"no engine named {name!r}{did_you_mean(name, BUILT_IN)}; or name your own module, dotted")
    return load("engines", name, Engine)(location, jobs)
