"""The sink plug point: where events go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

from edge_vad.types import Event


class Sink(ABC):
    """Takes events. A new sink is one new file in this folder (or any module of yours) with one subclass.

    The constructor takes what stands behind the colon (``jsonl:events.jsonl`` -> ``"events.jsonl"``).

    Required
    --------
    write(event)   deliver one event before returning; raises OutputError when that fails.

    Optional
    --------
    close()        flush and release; a sink is a context manager that calls it.
    """

    @abstractmethod
    def __init__(self, location: str) -> None: ...

    @abstractmethod
    def write(self, event: Event) -> None:
        """Deliver one event."""

    def close(self) -> None:  # noqa: B027 - many sinks hold nothing open
        """Flush and release what the sink holds."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
