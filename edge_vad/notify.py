"""What systemd is told: ready, alive, stopping. Source: sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """Talks to the service manager where there is one, and to nobody otherwise."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """The unit watches."""
        self._tell("READY=1")

    def alive(self, status: str) -> None:
        """There was progress: called where frames were scored, never from a timer."""
        self._tell(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The unit is on its way down."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.settimeout(1.0)  # one that does not listen must not hold up the frames
            manager.sendto(text.encode(), self._address)
