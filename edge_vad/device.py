"""What one unit does: its cameras, bundles, sinks and files, from one YAML file, strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from edge_vad.errors import ProfileError
from edge_vad.profile import parse_yaml
from edge_vad.strict import from_plain

CAMERA_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """One camera. source: as for ``edge-vad run --source``; either a bundle's file, or the store that holds it.

    fps: of stored footage, or wanted of a live camera.
    """

    source: str
    bundle: str | None = None
    store: str | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if (self.bundle is None) == (self.store is None):
            raise ValueError("give either a bundle or a store")


@dataclass(frozen=True, slots=True)
class MediaSettings:
    """Pictures of events. snapshots, clips: what is kept. pre_s, post_s: seconds of a clip before and after the event.

    fps: of clips, at most; width: of clips in pixels, at most. quota_mb: of all of them; the oldest are deleted first.
    min_free_mb: free space on the medium that is never touched.
    """

    snapshots: bool = True
    clips: bool = True
    pre_s: float = 5.0
    post_s: float = 5.0
    max_s: float = 60.0
    fps: float = 10.0
    width: int = 640
    quota_mb: int = 512
    min_free_mb: int = 128

    def __post_init__(self) -> None:
        if min(self.pre_s, self.post_s) < 0 or self.fps <= 0 or self.max_s <= 0 or self.width < 32:
            raise ValueError("pre_s and post_s must not be negative, fps and max_s must be positive, width at least 32")
        if self.quota_mb < 1 or self.min_free_mb < 0:
            raise ValueError("quota_mb must be at least 1, min_free_mb not negative")


@dataclass(frozen=True, slots=True)
class PageSettings:
    """The status page. host: who may reach it; anything but the loopback needs a token of at least 16 characters."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""

    def __post_init__(self) -> None:
        if self.enabled and self.host not in ("127.0.0.1", "::1", "localhost") and len(self.token) < 16:
            raise ValueError("beyond the loopback the status page needs a token of at least 16 characters")
        if not 0 <= self.port < 65536:
            raise ValueError("port must lie in 0..65535")


@dataclass(frozen=True, slots=True)
class Device:
    """One unit. profile: the board it runs on. data: folder of event log and media; none are kept without it.

    runtime: folder of the status file, in memory rather than on an SD card. log_quota_mb: of the event log.
    sinks: where records go beside the log, as for ``--sink``.
    """

    cameras: dict[str, CameraSettings]
    name: str = "edge-vad"
    profile: str = "desktop_cpu"
    set: tuple[str, ...] = ()
    data: str | None = None
    runtime: str = "/run/edge-vad"
    log_quota_mb: int = 64
    sinks: tuple[str, ...] = ("jsonl:-",)
    media: MediaSettings = field(default_factory=MediaSettings)
    page: PageSettings = field(default_factory=PageSettings)

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ValueError("there is no camera")
        for name in (self.name, *self.cameras):
            if not CAMERA_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name: lower-case letters, digits, - and _, at most 32")
        if self.log_quota_mb < 1:
            raise ValueError("log_quota_mb must be at least 1")


def load_device(path: Path) -> Device:
    """The unit that a YAML file describes. Raises ProfileError in one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: the configuration cannot be read: {error}") from error
    return from_plain(Device, parse_yaml(text, str(path)), str(path), ProfileError)
