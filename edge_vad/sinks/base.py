"""The sink plug point: where records go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar

from edge_vad.record import Record


class Sink(ABC):
    """Takes records. A new sink is one new file in this folder (or any module of yours) with one subclass.

    The constructor takes what stands behind the colon (``jsonl:events.jsonl`` -> ``"events.jsonl"``). It checks the
    location and raises OutputError where it can never work; a remote sink does not connect yet.

    Required
    --------
    write(record)   deliver one record before returning; raises OutputError when that fails. It is called again with the
                    same record then, so a receiver may see one twice: ``seq`` tells.

    Optional
    --------
    remote          True where delivery can take long or fail for hours: it runs in a thread of its own, and what could
                    not be delivered is kept (`edge_vad.delivery`).
    close()         flush and release; a sink is a context manager that calls it.
    """

    remote: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, location: str) -> None: ...

    @abstractmethod
    def write(self, record: Record) -> None:
        """Deliver one record."""

    def close(self) -> None:  # noqa: B027 - many sinks hold nothing open
        """Flush and release what the sink holds."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
