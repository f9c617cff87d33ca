"""The camera plug point: what delivers frames, from a live device or from stored footage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import ClassVar

from edge_vad.types import Frame


class Camera(ABC):
    """A source of frames. A new camera is one new file in this folder (or any module of yours) with one subclass.

    The constructor takes what stands behind the colon of a source (``images:/clips/01`` -> ``"/clips/01"``), the frame
    rate that the user stated, or None, and the (width, height) that the bundle wants, or None: a live device is asked for
    both, stored footage is what it is. It opens the source and raises `SourceError` when that fails.

    Required
    --------
    frames()    yields frames until the footage ends; a live camera never ends.
    fps         frames per second that timestamps are based on.

    Optional
    --------
    live        True where frames that are not taken in time are lost. Such a camera runs in a process of its own
                (`edge_vad.capture`); its time stamps are those of ``time.monotonic()`` at the exposure, and the end of
                its frames means that the device is gone.
    is_live(location)   the same, where it depends on the location.
    n_frames    number of frames that will come, None when unknown or endless.
    close()     releases the device; a camera is a context manager that calls it.
    """

    live: ClassVar[bool] = False
    n_frames: int | None = None
    fps: float

    @abstractmethod
    def __init__(self, location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None: ...

    @classmethod
    def is_live(cls, location: str) -> bool:
        """Whether the camera at that location is a live device; it is not opened."""
        return cls.live

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield frames in order; every image of a stream has the same size, else `SourceError`."""

    def close(self) -> None:  # noqa: B027 - most stored footage holds nothing open
        """Release what the camera holds."""

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
