"""The page's HTTP server: one thread for each of few connections, each with a deadline, one request each."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import Any

from edge_vad.device import PageSettings
from edge_vad.errors import OutputError
from edge_vad.page.access import LOOPBACK, Access
from edge_vad.page.files import static_files
from edge_vad.page.request import Request
from edge_vad.page.state import State

log = logging.getLogger(__name__)
MAX_CONNECTIONS = 8
MAX_CLIPS = 3  # that are streamed at the same time: each holds a connection
FULL_WAIT_S = 0.2
HEAD_S = 5.0  # for a request to arrive
WARN_S = 60.0
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Server(ThreadingHTTPServer):
    """Listens from construction until `close`; whatever goes wrong in a request ends that request."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, settings: PageSettings, state: State) -> None:
        """Raises OutputError in one line when host and port cannot be listened on."""
        where = f"the status page cannot listen on {settings.host}:{settings.port}"
        if settings.host not in LOOPBACK and not settings.token:
            raise OutputError(f"{where}: beyond the loopback it needs a token")
        try:
            found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family = found[0][0]
            super().__init__(found[0][4][:2], Request)  # type: ignore[arg-type]
        except OSError as error:
            raise OutputError(f"{where}: {error.strerror or error}") from error
        self.state, self.static = state, static_files()
        self.port = int(self.server_address[1])
        self.access = Access(settings.host, self.port, settings.token)
        self.stopping = threading.Event()
        self.clips = threading.BoundedSemaphore(MAX_CLIPS)
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._deadlines: dict[socket.socket, float] = {}
        self._warned_s = -WARN_S
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{self.port}/"
        threading.Thread(target=self.serve_forever, args=(0.25,), name="status page", daemon=True).start()
        log.info("status page at %s", self.url)

    def server_bind(self) -> None:
        """Without HTTPServer's search for the host's full name, which may wait for a name server."""
        if self.address_family == socket.AF_INET6:
            with suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def close(self) -> None:
        """Stop listening and end every connection; takes a quarter of a second."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self._end(list(self._deadlines))

    # Connections

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection, or 503 where there are too many."""
        if not self._free.acquire(timeout=FULL_WAIT_S):
            with suppress(OSError):
                request.setblocking(False)
                request.send(_FULL)
                request.recv(2**16)  # closing on unread bytes would take the answer away
            self.shutdown_request(request)
            return
        self.give(request, HEAD_S)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def give(self, connection: socket.socket, seconds: float) -> None:
        """Let a connection live for so long from now."""
        self._deadlines[connection] = time.monotonic() + seconds

    def service_actions(self) -> None:
        """A few times a second: end the connections whose time is up, however slowly they still move."""
        now = time.monotonic()
        self._end([connection for connection, at in list(self._deadlines.items()) if at < now])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An error inside edge-vad; told once a minute, a client may repeat it several times a second."""
        if time.monotonic() - self._warned_s > WARN_S:
            self._warned_s = time.monotonic()
            log.warning("status page: an error inside edge-vad; please report it", exc_info=True)

    def _forget(self, connection: socket.socket) -> None:
        self._deadlines.pop(connection, None)
        self._free.release()

    def _end(self, connections: list[socket.socket]) -> None:
        for connection in connections:
            with suppress(OSError):  # it ended itself
                connection.shutdown(socket.SHUT_RDWR)
