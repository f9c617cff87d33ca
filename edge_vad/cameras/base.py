"""The camera plug point: what delivers frames, from a live device or from stored footage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import ClassVar

from edge_vad.types import Frame


class Camera(ABC):
    """A source of frames. A new camera is one new file in this folder (or any module of yours) with one subclass.

    The constructor takes what stands behind the colon of a source (``images:/clips/01`` -> ``"/clips/01"``) and the
    frame rate that the user stated, or None. It opens the source and raises `SourceError` when that fails.

    Required
    --------
    frames()    yields frames until the footage ends; a live camera never ends.
    fps         frames per second that timestamps are based on.

    Optional
    --------
    live        True where frames that are not taken in time are lost.
    n_frames    number of frames that will come, None when unknown or endless.
    close()     releases the device; a camera is a context manager that calls it.
    """

    live: ClassVar[bool] = False
    n_frames: int | None = None
    fps: float

    @abstractmethod
    def __init__(self, location: str, fps: float | None = None) -> None: ...

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield frames in order; every image of a stream has the same size, else `SourceError`."""

    def close(self) -> None:  # noqa: B027 - most stored footage holds nothing open
        """Release what the camera holds."""

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
