"""The webhook sink against a server that is down, slow, refuses or redirects."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge_vad.delivery import Delivery
from edge_vad.errors import OutputError
from edge_vad.record import Record
from edge_vad.sinks import webhook as module
from edge_vad.sinks.webhook import Webhook


def record(seq: int = 1) -> Record:
    return Record(seq, "boot", seq / 10, "2026-01-01T00:00:00.000Z", "gate", "anomaly", "start", {"score": 1.5})


class Receiver:
    """A web server that answers as it is told and keeps what it got."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.wait_s = 0.0
        self.location = ""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers.items()), body))
                time.sleep(outer.wait_s)
                if outer.status:
                    self.send_response(outer.status)
                    if outer.location:
                        self.send_header("Location", outer.location)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def seqs(self) -> list[int]:
        return [json.loads(body)["seq"] for _, _, body in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_record_is_posted_as_json_with_an_id(receiver: Receiver, status: int) -> None:
    receiver.status = status
    with Webhook(f"{receiver.url}?key=a%20b") as sink:
        sink.write(record(7))
    [(path, headers, body)] = receiver.requests
    assert path == "/hook?key=a%20b" and Record.parse(json.loads(body)) == record(7)
    assert headers["Content-Type"] == "application/json" and headers["X-Edge-Vad-Id"] == "boot/7"
    assert "X-Edge-Vad-Signature" not in headers and "Authorization" not in headers
    assert sink.n_refused == 0


def test_a_record_is_signed_with_the_secret(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "k\u00e4se")
    for fragment in ("secret=$HOOK_SECRET", "secret=k%C3%A4se"):
        Webhook(f"{receiver.url}#{fragment}").write(record())
        path, headers, body = receiver.requests[-1]
        expected = hmac.new("k\u00e4se".encode(), body, hashlib.sha256).hexdigest()
        assert path == "/hook" and headers["X-Edge-Vad-Signature"] == f"sha256={expected}"


def test_user_and_password_become_basic_authorization(receiver: Receiver) -> None:
    Webhook(receiver.url.replace("//", "//user:p%40ss@")).write(record())
    [(_, headers, _)] = receiver.requests
    assert headers["Authorization"] == "Basic dXNlcjpwQHNz" and headers["Host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
def test_what_is_refused_for_good_is_counted_and_not_repeated(
    receiver: Receiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = status
    with Webhook(receiver.url) as sink:
        for seq in range(5):
            sink.write(record(seq))
    assert sink.n_refused == 5 and len(receiver.requests) == 5
    [told] = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert told == f"webhook http://127.0.0.1:{receiver.port}: refuses records with {status}; 1 so far"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 599])
def test_what_may_work_later_is_an_output_error(receiver: Receiver, status: int) -> None:
    receiver.status = status
    sink = Webhook(f"{receiver.url}/path-secret?key=secret")
    with pytest.raises(OutputError, match=f"^webhook http://127.0.0.1:{receiver.port}: answers {status}$"):
        sink.write(record())
    receiver.status = 200
    sink.write(record())
    assert receiver.seqs == [1, 1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    other = Receiver()
    try:
        for target in (other.url, receiver.url + "/else"):
            receiver.status, receiver.location = status, target
            with pytest.raises(OutputError, match=f"answers {status}; redirects are not followed"):
                Webhook(receiver.url).write(record())
        assert not other.requests and len(receiver.requests) == 2
    finally:
        other.close()


def test_a_server_that_is_down_slow_or_no_web_server_is_an_output_error(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match="cannot be reached: Connection refused"):
        Webhook(f"http://u:secret@127.0.0.1:{free_port()}/").write(record())
    receiver.wait_s = 1.0
    with monkeypatch.context() as patched, pytest.raises(OutputError, match="no answer: TimeoutError"):
        patched.setattr(module, "TIMEOUT_S", 0.2)
        Webhook(receiver.url).write(record())
    receiver.wait_s, receiver.status = 0.0, 0
    with pytest.raises(OutputError, match="no answer: (RemoteDisconnected|ConnectionResetError)"):
        Webhook(receiver.url).write(record())
    with pytest.raises(OutputError, match="cannot be reached: .*SSL"):
        Webhook(receiver.url.replace("http:", "https:")).write(record())


@pytest.mark.parametrize(
    "location",
    [
        "",
        "example.org/x",
        "ftp://example.org",
        "file:///etc/passwd",
        "http://",
        "http://h:port/",
        "http://h/a b",
        "http://h/\n",
    ],
)
def test_locations_that_are_no_web_address_are_refused(location: str) -> None:
    with pytest.raises(OutputError, match="webhook: expected http"):
        Webhook(location)


def test_the_secret_must_be_there() -> None:
    with pytest.raises(OutputError, match="the variable NO_SUCH for its secret is not set"):
        Webhook("https://example.org/x#secret=$NO_SUCH")
    for fragment in ("secret=", "sekret=abc"):
        with pytest.raises(OutputError, match=r"only secret=\$VARIABLE is known") as error:
            Webhook(f"https://example.org/x#{fragment}")
        assert "abc" not in str(error.value)


def test_a_server_that_comes_back_gets_everything_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_vad.delivery.RETRY_S", 0.05)
    port = free_port()
    delivery = Delivery([f"webhook:http://127.0.0.1:{port}/hook"])
    for seq in range(1, 31):
        delivery.write(record(seq))
    [status] = delivery.status().values()
    assert status["pending"] == 30 and status["refused"] == 0
    receiver = Receiver(port)
    try:
        give_up = time.monotonic() + 15
        while len(receiver.seqs) < 30 and time.monotonic() < give_up:
            time.sleep(0.02)
        receiver.status = 404
        delivery.write(record(31))
        delivery.close()
        assert receiver.seqs == list(range(1, 32))
        [status] = delivery.status().values()
        assert status == {"pending": 0, "delivered": 31, "lost": 0, "last_error": "", "refused": 1}
    finally:
        receiver.close()
