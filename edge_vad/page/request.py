"""One request of the status page: who asks, what for, and the answer. Paths come from a fixed table."""

from __future__ import annotations

import http.client
import json
import logging
import re
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from edge_vad.page.clips import pictures
from edge_vad.page.files import TYPES, open_media
from edge_vad.page.live import thumbnail

if TYPE_CHECKING:
    from edge_vad.page.server import Server

log = logging.getLogger(__name__)
MAX_HEAD_BYTES = 16384
SILENCE_S = 5.0  # of a client, in either direction
ANSWER_S, FILE_S = 30.0, 300.0
BLOCK_BYTES = 65536
LINGER_BYTES, LINGER_S = 2**20, 1.0
MAX_EVENTS, USUAL_EVENTS = 200, 50
MAX_SNAPSHOT_BYTES = 16 * 2**20
OPEN = ("/healthz", "/page.css", "/icon.svg")  # without the token: they tell nothing
WRONG = b'<p class="wrong" role="alert">That is not the token.</p>'
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Connection": "close",
}


class _Head:
    """Lines of a request's head, together no longer than MAX_HEAD_BYTES."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, MAX_HEAD_BYTES

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("head")
        return line

    def close(self) -> None:
        self._file.close()


class Request(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = SILENCE_S

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile)  # type: ignore[assignment]

    def handle(self) -> None:
        """One request; a client that goes away or sleeps is none of our errors."""
        self.command, self.path, self.request_version, self.requestline = "", "", "HTTP/1.1", ""
        try:
            try:
                self.raw_requestline = self.rfile.readline()
            except http.client.LineTooLong:
                self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
                return
            if self.raw_requestline and self.parse_request():
                self.server.give(self.connection, ANSWER_S)
                self._answer()
        except OSError as error:
            log.debug("status page: %s", error)

    # What may be asked

    def _answer(self) -> None:
        try:
            address = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(address.query, max_num_fields=8).items()}
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if self.command not in ("GET", "HEAD"):
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n", headers={"Allow": "GET, HEAD"})
        elif not self.server.access.host_allowed(self.headers.get("Host")):
            self._send(HTTPStatus.FORBIDDEN, b"this page is at localhost or 127.0.0.1 only\n")
        elif address.path == "/" and self.server.access.is_token(query.get("token", "")):
            self._send_static("/index.html", headers={"Set-Cookie": self.server.access.cookie()})
        elif address.path not in OPEN and not self._allowed():
            self._refuse(address.path, "token" in query)
        else:
            self._route(address.path, query)

    def _allowed(self) -> bool:
        return self.server.access.allowed(self.headers.get("Authorization"), self.headers.get("Cookie"))

    def _refuse(self, path: str, tried: bool) -> None:
        headers = {"WWW-Authenticate": 'Bearer realm="edge-vad"'}
        if path == "/":
            kind, form = self.server.static["/sign_in.html"]
            body = form.replace(b"<!-- wrong -->", WRONG) if tried else form
            self._send(HTTPStatus.UNAUTHORIZED, body, kind, headers)
        else:
            self._send(HTTPStatus.UNAUTHORIZED, b"the token is missing or wrong\n", headers=headers)

    def _route(self, path: str, query: dict[str, str]) -> None:
        if path == "/":
            self._send_static("/index.html")
        elif path in self.server.static:
            self._send_static(path)
        else:
            for pattern, method in _ROUTES:
                if match := pattern.fullmatch(path):
                    method(self, query, *match.groups())
                    return
            self._not_found()

    def _healthz(self, _: dict[str, str]) -> None:
        if self.server.state.well:
            self._send(HTTPStatus.OK, b"ok\n")
        else:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"not well\n")

    def _status(self, _: dict[str, str]) -> None:
        self._send_json(self.server.state.status_now())

    def _scores(self, query: dict[str, str]) -> None:
        scores = self.server.state.scores(query.get("camera", ""))
        if scores is None:
            self._not_found()
        else:
            self._send_json(scores)

    def _events(self, query: dict[str, str]) -> None:
        n = query.get("n", str(USUAL_EVENTS))
        if not re.fullmatch(r"[0-9]{1,3}", n) or not 1 <= int(n) <= MAX_EVENTS:
            self._send(HTTPStatus.BAD_REQUEST, f"n must lie in 1..{MAX_EVENTS}\n".encode())
        else:
            self._send_json(self.server.state.events(int(n)))

    def _live(self, query: dict[str, str], camera: str) -> None:
        live = self.server.state.cameras.get(camera)
        jpeg = live.picture(overlay=query.get("map") != "0") if live else None
        if jpeg is None:
            self._not_found()
        else:
            self._send(HTTPStatus.OK, jpeg, TYPES["jpg"])

    def _media(self, _: dict[str, str], camera: str, name: str) -> None:
        file = open_media(self.server.state.media_folder, camera, name)
        if file is None:
            self._not_found()
            return
        with file:
            size = file.seek(0, 2)
            file.seek(0)
            kind = name.rpartition(".")[2]
            attached = {"Content-Disposition": f'attachment; filename="{camera}_{name}"'} if kind == "avi" else {}
            self._start(HTTPStatus.OK, TYPES[kind], {"Content-Length": str(size), **attached})
            self.server.give(self.connection, FILE_S)
            while self.command == "GET" and size > 0 and (block := file.read(min(BLOCK_BYTES, size))):
                self.wfile.write(block)  # not more than was promised: a clip may still grow
                size -= len(block)

    def _thumbnail(self, _: dict[str, str], camera: str, name: str) -> None:
        file = open_media(self.server.state.media_folder, camera, name)
        small = None
        if file is not None:
            with file:
                small = thumbnail(file.read(MAX_SNAPSHOT_BYTES))
        if small is None:
            self._not_found()
        else:
            self._send(HTTPStatus.OK, small, TYPES["jpg"])

    def _clip(self, _: dict[str, str], camera: str, name: str) -> None:
        file = open_media(self.server.state.media_folder, camera, name)
        if file is None:
            self._not_found()
            return
        with file:
            if not self.server.clips.acquire(blocking=False):
                self._send(
                    HTTPStatus.SERVICE_UNAVAILABLE, b"too many clips are being watched\n", headers={"Retry-After": "5"}
                )
                return
            try:
                self._start(HTTPStatus.OK, "multipart/x-mixed-replace; boundary=picture", {})
                self.server.give(self.connection, FILE_S)
                if self.command == "GET":
                    self._stream(file)
            finally:
                self.server.clips.release()

    def _stream(self, file: Any) -> None:
        """The pictures of a clip at its own pace."""
        self.wfile.write(b"--picture\r\n")
        due_s = time.monotonic()
        for seconds, jpeg in pictures(file):
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            self.wfile.write(head + jpeg + b"\r\n--picture\r\n")  # a picture is shown when the next one begins
            due_s = max(due_s + seconds, time.monotonic() - 1)
            if self.server.stopping.wait(max(0.0, due_s - time.monotonic())):
                return

    # How it is answered

    def _send_json(self, value: Any) -> None:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        self._send(HTTPStatus.OK, text.encode(), "application/json")

    def _send_static(self, path: str, headers: dict[str, str] | None = None) -> None:
        kind, body = self.server.static[path]
        self._send(HTTPStatus.OK, body, kind, headers)

    def _not_found(self) -> None:
        self._send(HTTPStatus.NOT_FOUND, b"there is nothing here\n")

    def _send(
        self,
        status: HTTPStatus,
        body: bytes,
        kind: str = "text/plain; charset=utf-8",
        headers: dict[str, str] | None = None,
    ) -> None:
        self._start(status, kind, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)
        if status >= HTTPStatus.BAD_REQUEST:
            self._linger()

    def _start(self, status: HTTPStatus, kind: str, headers: dict[str, str]) -> None:
        self.request_version = self.protocol_version  # of the oldest kind, answers had no head
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers, **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def _linger(self) -> None:
        """Take what the client still sends: closing on unread bytes would take the answer away from it."""
        self.connection.shutdown(1)
        until, left = time.monotonic() + LINGER_S, LINGER_BYTES
        while left > 0 and (wait := until - time.monotonic()) > 0:
            self.connection.settimeout(wait)
            taken = len(self.connection.recv(BLOCK_BYTES))
            left -= taken or left

    # What the base class would do otherwise

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A request that was not understood."""
        status = HTTPStatus(code)
        self._send(status, f"{status.phrase}\n".encode())

    def version_string(self) -> str:
        return "edge-vad"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the request line may hold the token."""


_ROUTES = tuple(
    (re.compile(pattern), method)
    for pattern, method in (
        (r"/healthz", Request._healthz),
        (r"/api/status", Request._status),
        (r"/api/scores", Request._scores),
        (r"/api/events", Request._events),
        (r"/live/([a-z0-9_-]{1,32})\.jpg", Request._live),
        (r"/media/([a-z0-9_-]{1,32})/([A-Za-z0-9_.-]{1,128})", Request._media),
        (r"/thumb/([a-z0-9_-]{1,32})/([A-Za-z0-9_-]{1,96}\.jpg)", Request._thumbnail),
        (r"/clip/([a-z0-9_-]{1,32})/([A-Za-z0-9_-]{1,96}\.avi)", Request._clip),
    )
)
