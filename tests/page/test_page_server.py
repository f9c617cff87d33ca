"""The status page's server: who may see what, what a hostile client gets, and what the answers look like."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from feed import STAGE_MS, Camera, feed, record, status

from edge_vad.device import CameraSettings, Device, PageSettings, load_device
from edge_vad.errors import OutputError, ProfileError
from edge_vad.page import StatusPage, server
from edge_vad.page.clips import pictures
from edge_vad.page.files import open_media, static_files
from edge_vad.page.live import PICTURE_S, WINDOW_S, Live, draw
from edge_vad.page.state import State
from edge_vad.types import Frame, Region, Result

TOKEN = "a token of many letters"
GATE = Camera("gate", 7, ((400, 6, 1.7), (180, 4, 2.6), (3, 8, 1.9)))
YARD = Camera("yard", 3, ())


@contextlib.contextmanager
def opened(media: Path | None = None, **settings: Any) -> Iterator[StatusPage]:
    page = StatusPage(PageSettings(**{"enabled": True, "port": 0, **settings}), "north-gate", media)
    try:
        yield page
    finally:
        page.close()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "media"


@pytest.fixture(scope="module")
def page(media: Path) -> Iterator[StatusPage]:
    """A page without a token, fed with ten minutes."""
    with opened(media) as page:
        feed(page, [GATE, YARD], media)
        yield page


@pytest.fixture
def locked() -> Iterator[StatusPage]:
    """A page with a token."""
    with opened(token=TOKEN) as page:
        feed(page, [YARD], None)
        yield page


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def port_of(page: StatusPage | int) -> int:
    return page if isinstance(page, int) else int(page.url.rstrip("/").rpartition(":")[2])


def ask(page: StatusPage | int, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
    try:
        connection.request(method, path, body, headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def send(page: StatusPage, data: bytes) -> bytes:
    """What is answered to bytes that no library would send."""
    with socket.create_connection(("127.0.0.1", port_of(page)), 10) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# Off by default, and never open by accident


def test_it_is_off_and_on_the_loopback_unless_told_otherwise() -> None:
    device = Device({"gate": CameraSettings("synthetic:", bundle="site.evb")})
    assert not device.page.enabled and device.page.host == "127.0.0.1" and device.page.token == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "unit.local", ""])
def test_beyond_the_loopback_it_needs_a_long_token(host: str, tmp_path: Path) -> None:
    for token in ("", "short"):
        with pytest.raises(ValueError, match="token of at least 16"):
            PageSettings(enabled=True, host=host, token=token)
    config = tmp_path / "device.yaml"
    config.write_text(
        f"cameras: {{gate: {{source: 'synthetic:', bundle: site.evb}}}}\npage: {{enabled: true, host: '{host}'}}\n"
    )
    with pytest.raises(ProfileError, match="token"):
        load_device(config)
    with pytest.raises(OutputError, match="beyond the loopback it needs a token"):
        StatusPage(PageSettings(host=host, port=0), "unit", None)  # enabled by nobody, and built all the same


def test_with_a_token_it_may_listen_everywhere() -> None:
    with opened(host="0.0.0.0", token=TOKEN) as page:
        assert ask(page, "/").status == 401
        assert ask(page, "/", Host="unit.example", Authorization=f"Bearer {TOKEN}").status == 200


def test_a_port_in_use_and_a_foreign_host_are_errors_of_one_line(page: StatusPage) -> None:
    for settings in (
        PageSettings(True, port=port_of(page)),
        PageSettings(True, "192.0.2.1", 0, TOKEN),
        PageSettings(True, "no such host", 0, TOKEN),
    ):
        with pytest.raises(OutputError, match="the status page cannot listen on") as error:
            StatusPage(settings, "unit", None)
        assert "\n" not in str(error.value)


def test_importing_edge_vad_or_a_unit_loads_no_server() -> None:
    code = "import edge_vad.unit, sys; sys.exit(any(n in sys.modules for n in ('http.server', 'cv2', 'edge_vad.page')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_closing_frees_the_port_and_ends_every_connection() -> None:
    with opened() as page:
        port = port_of(page)
        with socket.create_connection(("127.0.0.1", port), 5) as idle:
            time.sleep(0.1)
            started = time.monotonic()
            page.close()
            assert idle.recv(1) == b"" and time.monotonic() - started < 1.5
        with opened(port=port) as again:
            assert ask(again, "/").status == 200


# Headers, methods, hosts


@pytest.mark.parametrize(
    "path",
    ["/", "/page.js", "/page.css", "/api/status", "/live/gate.jpg", "/media/gate/gate-0001.jpg", "/nothing", "/healthz"],
)
def test_every_answer_carries_the_security_headers(page: StatusPage, path: str) -> None:
    headers = ask(page, path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store" and headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Python" not in headers["Server"]


def test_the_page_holds_nothing_that_its_own_policy_forbids() -> None:
    for path, (kind, body) in static_files().items():
        text = body.decode()
        assert kind and not re.search(r"https?://(?!www\.w3\.org)", text), f"{path}: an address elsewhere"
        if path.endswith(".html"):
            assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", text), path


def test_only_get_and_head_are_answered(page: StatusPage) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        answer = ask(page, "/api/status", method)
        assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD"
    head = ask(page, "/api/status", "HEAD")
    assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) > 100


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil", "[::2]", ""]
)
def test_a_website_whose_name_leads_here_reads_nothing(page: StatusPage, host: str) -> None:
    assert ask(page, "/api/status", Host=host).status == 403
    assert ask(page, "/healthz", Host=host).status == 403


def test_the_loopback_by_its_names_and_through_a_tunnel(page: StatusPage) -> None:
    for host in ("127.0.0.1", "localhost", "LOCALHOST:9000", "[::1]:80"):
        assert ask(page, "/api/status", Host=host).status == 200
    assert send(page, b"GET /api/status HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403")


# The token


def test_without_the_token_there_is_a_form_and_nothing_else(locked: StatusPage) -> None:
    answer = ask(locked, "/")
    assert answer.status == 401 and b"<form" in answer.body and b"page.js" not in answer.body
    for path in (
        "/page.js",
        "/api/status",
        "/api/scores?camera=yard",
        "/api/events",
        "/live/yard.jpg",
        "/media/a/b.jpg",
        "/x",
    ):
        answer = ask(locked, path)
        assert answer.status == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer"), path
    assert ask(locked, "/healthz").status == 200 and ask(locked, "/page.css").status == 200


@pytest.mark.parametrize("wrong", ["", "a", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä" * 16])
def test_a_wrong_token_opens_nothing(locked: StatusPage, wrong: str) -> None:
    answer = ask(locked, f"/?token={quote(wrong)}")
    assert answer.status == 401 and answer.headers["Set-Cookie"] is None
    latin = wrong.encode("latin-1", "replace").decode("latin-1")
    assert ask(locked, "/api/status", Authorization=f"Bearer {latin}").status == 401
    assert ask(locked, "/api/status", Cookie=f"edge-vad-{port_of(locked)}={latin}; x").status == 401


def test_the_token_in_the_address_becomes_a_cookie(locked: StatusPage) -> None:
    answer = ask(locked, f"/?token={TOKEN.replace(' ', '+')}")
    assert answer.status == 200 and b"page.js" in answer.body
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    pair = cookie.split(";")[0]
    assert ask(locked, "/api/status", Cookie=f"other=1; {pair}").status == 200
    assert ask(locked, f"/api/status?token={TOKEN.replace(' ', '+')}").status == 401  # at the page itself only
    with opened(token=TOKEN + "!") as other:
        assert ask(other, "/api/status", Cookie=pair.replace(str(port_of(locked)), str(port_of(other)))).status == 401


def test_the_token_as_a_header_is_for_programs(locked: StatusPage) -> None:
    assert ask(locked, "/api/status", Authorization=f"Bearer {TOKEN}").status == 200
    assert ask(locked, "/api/status", Authorization=f"bearer  {TOKEN}").status == 200
    assert ask(locked, "/api/status", Authorization=f"Basic {TOKEN}").status == 401


def test_the_token_is_in_no_log(
    locked: StatusPage, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    ask(locked, "/?token=a+token+of+many+letters")
    said = capfd.readouterr()
    assert "token" not in caplog.text and "letters" not in said.out + said.err


# Paths


@pytest.fixture
def secrets(media: Path, page: StatusPage) -> Iterator[Path]:
    """Files that must not be read, beside the media and in them by links."""
    outside = media.parent / "secret.jpg"
    outside.write_bytes(b"secret")
    made = [
        outside,
        *(media / name for name in ("gate/link.jpg", "loop", "gate/pipe.jpg", "gate/notes.txt", "gate/notes.jpg")),
    ]
    made[1].symlink_to(outside)
    made[2].symlink_to(media.parent)
    os.mkfifo(made[3])
    made[4].write_bytes(b"secret")
    made[5].write_bytes(b"no picture")
    (media / "gate" / "folder.jpg").mkdir(exist_ok=True)
    yield outside
    for path in made:
        path.unlink()


@pytest.mark.parametrize(
    "path",
    [
        "/media/gate/../../secret.jpg",
        "/media/../secret.jpg",
        "/media/gate/..%2f..%2fsecret.jpg",
        "/media/%2e%2e/secret.jpg",
        "/media/gate/%2e%2e/%2e%2e/secret.jpg",
        "/media/gate/link.jpg",
        "/thumb/gate/link.jpg",
        "/thumb/gate/notes.jpg",
        "/thumb/gate/gate-0001.avi",
        "/media/loop/secret.jpg",
        "/media/gate/pipe.jpg",
        "/media/gate/folder.jpg",
        "/media/gate/notes.txt",
        "/media/gate/.hidden.jpg",
        "/media/gate/",
        "/media/gate",
        "/media//secret.jpg",
        "/media/gate/a\\..\\secret.jpg",
        "/media/gate/gate-0001.jpg%00",
        "/media/GATE/gate-0001.jpg",
        "/clip/gate/gate-0001.jpg",
        "/clip/gate/../gate/gate-0001.avi",
        "/../../etc/passwd",
        "//etc/passwd",
        "/page.js/../server.py",
        "/static/page.js",
        "/server.py",
        "/live/../gate.jpg",
        "/live/nobody.jpg",
        "/api",
        "/api/scores?camera=nobody",
        "/api/scores",
    ],
)
def test_no_path_leads_anywhere_else(page: StatusPage, secrets: Path, path: str) -> None:
    answer = send(page, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404") and b"secret" not in answer and b"root:" not in answer


def test_media_are_opened_by_name_only(media: Path, page: StatusPage) -> None:
    opened_file = open_media(media, "gate", "gate-0001.jpg")
    assert opened_file is not None
    opened_file.close()
    for camera, name in (
        ("..", "x.jpg"),
        ("gate", "../gate/gate-0001.jpg"),
        ("", "x.jpg"),
        ("gate", "x.png"),
        ("gate", "a.b.jpg"),
    ):
        assert open_media(media, camera, name) is None
    assert open_media(None, "gate", "gate-0001.jpg") is None and open_media(media / "absent", "gate", "a.jpg") is None


# Clients that misbehave


def test_a_request_that_is_too_big_is_refused(page: StatusPage) -> None:
    long = b"x" * 20_000
    assert send(page, b"GET /" + long + b" HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 414")
    assert send(page, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + long + b"\r\n\r\n").startswith(b"HTTP/1.1 431")
    many = b"".join(b"X-%d: 1\r\n" % i for i in range(500))
    assert send(page, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n").startswith(b"HTTP/1.1 431")
    assert ask(page, "/", "POST", b"x" * 200_000).status == 405


@pytest.mark.parametrize(
    ("request_line", "code"),
    [
        (b"GET", 400),
        (b"GET / HTTP/9", 400),
        (b"GET / HTTP/2.0", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET http://[ HTTP/1.1", 400),
        (b"GET /?" + b"&".join(b"a=1" for _ in range(50)) + b" HTTP/1.1", 400),
        (b"GET /api/events?n=0 HTTP/1.1", 400),
        (b"GET /api/events?n=201 HTTP/1.1", 400),
        (b"GET /api/events?n=1e2 HTTP/1.1", 400),
        ("GET /api/events?n=٣ HTTP/1.1".encode(), 400),
    ],
)
def test_a_request_that_is_none_is_an_error_of_its_own(page: StatusPage, request_line: bytes, code: int) -> None:
    answer = send(page, request_line + b"\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 {code} ".encode())
    assert ask(page, "/api/status").status == 200


def test_connections_are_few_and_a_silent_one_is_ended(page: StatusPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 1.0)
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(page)), 10))
            for _ in range(server.MAX_CONNECTIONS)
        ]
        time.sleep(0.3)
        assert ask(page, "/healthz").status == 503  # of the door, not of the unit
        for connection in silent:
            with contextlib.suppress(OSError):
                assert connection.recv(1) == b""
    assert ask(page, "/healthz").status == 200


def test_a_client_that_sends_letter_by_letter_is_ended(page: StatusPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 1.0)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port_of(page)), 10) as slow, contextlib.suppress(OSError):
        for letter in b"GET /api/status HTTP/1.1\r\n" * 20:
            slow.sendall(bytes([letter]))
            time.sleep(0.05)
    assert time.monotonic() - started < 3


def test_a_client_that_does_not_read_holds_up_nobody(page: StatusPage, media: Path) -> None:
    (media / "gate" / "large.avi").write_bytes(bytes(20_000_000))
    with socket.create_connection(("127.0.0.1", port_of(page)), 10) as deaf:
        deaf.sendall(b"GET /media/gate/large.avi HTTP/1.1\r\nHost: localhost\r\n\r\n")
        started = time.monotonic()
        assert ask(page, "/api/status").status == 200 and time.monotonic() - started < 1
    (media / "gate" / "large.avi").unlink()


def test_an_error_inside_a_request_ends_that_request_only(
    page: StatusPage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("inside")

    with monkeypatch.context() as patched:
        patched.setattr(State, "status_now", fail)
        for _ in range(3):
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                ask(page, "/api/status")
    assert ask(page, "/api/status").status == 200
    assert caplog.text.count("please report it") == 1


# Answers


def test_the_status_is_the_units_with_the_size_of_the_pictures(page: StatusPage) -> None:
    told = ask(page, "/api/status").json
    assert told["unit"] == "north-gate" and set(told["cameras"]) == {"gate", "yard"} and told["age_s"] >= 0
    assert told["cameras"]["gate"]["picture"] == [360, 240] and told["cameras"]["gate"]["stage_ms"] == STAGE_MS
    assert "source" not in told["cameras"]["gate"] and "recent" not in told  # what the page does not need stays here


def test_before_the_first_status_the_unit_is_starting() -> None:
    with opened() as page:
        told = ask(page, "/api/status").json
        assert told["state"] == "starting" and told["cameras"] == {} and told["age_s"] is None
        assert ask(page, "/api/events").json == {"events": [], "notices": []}
        assert ask(page, "/healthz").status == 503


def test_what_json_cannot_hold_is_null(locked: StatusPage) -> None:
    told = status([YARD])
    told["cameras"]["yard"].update(
        score=float("nan"), latency_ms={"p50": np.float32(1.5), "p99": float("inf")}, events=np.int64(3)
    )
    locked.status(told)
    found = ask(locked, "/api/status", Authorization=f"Bearer {TOKEN}").json["cameras"]["yard"]
    assert found["score"] is None and found["latency_ms"] == {"p50": 1.5, "p99": None} and found["events"] == 3


def test_health_follows_the_cameras_and_the_age_of_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as page:
        page.status(status([GATE, YARD]))
        assert (ask(page, "/healthz").status, ask(page, "/healthz").body) == (200, b"ok\n")
        page.status(status([GATE, YARD], yard="lost"))
        assert (ask(page, "/healthz").status, ask(page, "/healthz").body) == (503, b"not well\n")
        page.status(status([GATE, YARD], yard="ended"))
        assert ask(page, "/healthz").status == 200
        monkeypatch.setattr("edge_vad.page.state.STALE_S", 0.0)
        assert ask(page, "/healthz").status == 503  # the loop hangs


def test_the_scores_come_with_threshold_and_stretches(page: StatusPage) -> None:
    told = ask(page, "/api/scores?camera=gate").json
    assert told["threshold"] == 1.0 and told["window_s"] == WINDOW_S == 600
    assert len(told["t"]) == len(told["score"]) and 1150 <= len(told["t"]) <= 1201
    assert all(b - a == 0.5 for a, b in pairwise(told["t"]))
    assert max(told["score"]) == pytest.approx(2.6, abs=0.01) and told["now_s"] >= told["t"][-1]
    first, second, third = told["stretches"]
    assert first["end_s"] < second["start_s"] and third["end_s"] is None and second["peak_score"] == 2.6
    assert ask(page, "/api/scores?camera=yard").json["stretches"] == []


def test_an_events_start_and_end_are_one_event_with_its_files(page: StatusPage) -> None:
    told = ask(page, "/api/events?n=2").json
    running, over = told["events"]
    assert running["state"] == "running" and running["duration_s"] is None
    assert running["snapshot"] == "/media/gate/gate-0003.jpg" and running["clip"] is None  # not written yet
    assert over["state"] == "over" and over["duration_s"] == 8.0 and over["peak_score"] == 2.6 and over["camera"] == "gate"
    assert over["snapshot"] == "/media/gate/gate-0002.jpg" and over["clip"] == "/clip/gate/gate-0002.avi"
    assert told["notices"][0]["kind"] == "started"
    assert len(ask(page, "/api/events").json["events"]) == 3


def test_an_update_belongs_to_its_event() -> None:
    with opened() as page:
        start = {"id": 1, "start_s": 5.0, "end_s": None, "peak_score": 1.2, "snapshot": "gate/a.jpg"}
        page.record(record(1, 5.0, "gate", "anomaly", "start", start))
        page.record(record(2, 6.0, "gate", "anomaly", "update", {"id": 1, "start_s": 5.0, "end_s": None, "peak_score": 1.9}))
        [event] = ask(page, "/api/events").json["events"]
        assert event["state"] == "running" and event["peak_score"] == 1.9 and event["start_s"] == 5.0
        page.record(record(3, 7.0, "gate", "anomaly", "end", {"id": 1, "start_s": 5.0, "end_s": 7.0, "peak_score": 2.0}))
        page.record(record(4, 8.0, "gate", "anomaly", "start", {**start, "start_s": 8.0}))  # the same number again
        assert [event["state"] for event in ask(page, "/api/events").json["events"]] == ["running", "over"]


def test_a_file_that_is_not_there_any_more_has_no_address(tmp_path: Path) -> None:
    with opened(tmp_path) as page:
        files = {"snapshot": "gate/gone.jpg", "clip": "/etc/passwd"}
        page.record(record(1, 5.0, "gate", "anomaly", "start", {"id": 1, "start_s": 5.0, "peak_score": 1.2, **files}))
        [event] = ask(page, "/api/events").json["events"]
        assert event["snapshot"] is None and event["clip"] is None and event["download"] is None


def test_events_of_earlier_runs_are_remembered_and_not_drawn() -> None:
    start = {"id": 1, "start_s": 5.0, "peak_score": 1.2}
    with opened() as page:
        old = [
            record(1, 5.0, "yard", "anomaly", "start", start),
            record(2, 5.5, "gate", "anomaly", "start", {**start, "id": 1}),
        ]
        page.remember([*old, record(3, 9.0, "gate", "anomaly", "end", {**start, "end_s": 9.0})])
        page.record(record(4, 1.0, "yard", "anomaly", "start", start))
        page.record(record(5, 2.0, "yard", "anomaly", "end", {**start, "end_s": 6.0}))
        page.record(record(6, 2.0, "yard", "anomaly", "end", {**start, "id": 9, "end_s": 6.0}))  # nobody saw its start
        told = ask(page, "/api/events").json["events"]
        assert [(e["camera"], e["state"]) for e in told] == [
            ("yard", "over"),
            ("yard", "over"),
            ("gate", "over"),
            ("yard", "cut off"),
        ]
        page.see("yard", *seen(5.0, 0.1))
        assert len(ask(page, "/api/scores?camera=yard").json["stretches"]) == 2


def test_the_history_is_bounded() -> None:
    with opened() as page:
        for seq in range(1000):
            kind = "start" if seq % 2 else "end"
            page.record(record(seq, seq, "gate", "anomaly", kind, {"id": seq // 2, "start_s": 1.0, "end_s": 2.0}))
            page.record(record(seq, seq, "gate", "camera", "lost", {}))
        told = ask(page, "/api/events?n=200").json
        assert len(told["events"]) == 200 and len(told["notices"]) == 30


# Pictures and clips


def seen(at_s: float, score: float, size: tuple[int, int] = (180, 120)) -> tuple[Frame, Result]:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    found = (Region(20, 20, 80, 90, score=score),)
    picture = np.zeros((4, 6), np.float32)
    picture[1, 1] = score
    return Frame(image, image[..., 0], at_s, int(at_s * 10)), Result(int(at_s * 10), at_s, score, {}, found, picture, (), {})


def decoded(jpeg: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1].astype(int)


def test_the_picture_shows_map_and_boxes_in_red_and_can_do_without() -> None:
    frame, result = seen(1.0, 1.9)
    plain, drawn = decoded(draw(frame.image, None)), decoded(draw(frame.image, result))
    assert abs(plain - 90).max() < 8
    assert drawn[45, 45, 0] > 120 > drawn[45, 45, 1] and abs(drawn[110, 170] - 90).max() < 8
    usual = decoded(draw(frame.image, seen(1.0, 0.3)[1]))
    assert (usual[45, 45] < 100).all() and usual[20, 50].min() > 120  # a pale box, no tint


@pytest.mark.parametrize(("size", "shown"), [((1920, 1080), (640, 360)), ((1080, 1920), (360, 640)), ((64, 48), (64, 48))])
def test_pictures_are_scaled_to_640_at_most(size: tuple[int, int], shown: tuple[int, int]) -> None:
    frame, result = seen(1.0, 1.9, size)
    assert decoded(draw(frame.image, result)).shape[1::-1] == shown


def test_a_map_of_single_pixels_is_drawn_too() -> None:
    frame, _ = seen(1.0, 1.9, (1280, 720))
    fine = np.zeros((720, 1280), np.float32)
    fine[300:400, 600:700] = 2.0
    drawn = decoded(draw(frame.image, Result(1, 1.0, 2.0, {}, (), fine, (), {})))
    assert drawn[175, 325, 0] > 130 > drawn[175, 325, 1]


def test_pictures_are_drawn_at_most_five_times_a_second_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, bool]] = []

    def slow(image: Any, result: Any) -> bytes:
        drawn.append((time.monotonic(), result is not None))
        return b"jpeg"

    monkeypatch.setattr("edge_vad.page.live.draw", slow)
    live, end = Live(), time.monotonic() + 1.5
    assert live.picture(True) is None

    def look(overlay: bool) -> None:
        while time.monotonic() < end:
            assert live.picture(overlay) == b"jpeg"
            time.sleep(0.005)

    live.see(*seen(0.0, 0.2))
    clients = [threading.Thread(target=look, args=(i % 2 == 0,)) for i in range(6)]
    for client in clients:
        client.start()
    at_s = 0.0
    while time.monotonic() < end:
        at_s += 0.02
        live.see(*seen(at_s, 0.2))
        time.sleep(0.02)
    for client in clients:
        client.join()
    times = [at for at, _ in drawn]
    assert 4 <= len(drawn) <= 11 and {kind for _, kind in drawn} == {True, False}
    assert min(b - a for a, b in pairwise(times)) > 0.9 * PICTURE_S


def test_the_ring_keeps_the_highest_of_each_half_second() -> None:
    live = Live()
    for at_s, score in ((0.0, 0.1), (0.2, 0.7), (0.4, 0.3), (0.5, 0.2), (1.1, -0.5), (1.2, -0.9)):
        live.see(*seen(at_s, score))
    told = live.scores()
    assert (told["t"], told["score"]) == ([0.0, 0.5, 1.0], [0.7, 0.2, -0.5])
    live.see(*seen(0.1, 0.4))  # footage from the beginning
    assert live.scores()["t"] == [0.0]
    for half in range(3000):
        live.see(*seen(1 + half / 2, 0.1))
    assert len(live.scores()["t"]) <= 1201


def test_the_live_picture_is_a_jpeg(page: StatusPage) -> None:
    answer = ask(page, "/live/gate.jpg")
    assert answer.headers["Content-Type"] == "image/jpeg" and decoded(answer.body).shape == (240, 360, 3)
    assert (decoded(ask(page, "/live/gate.jpg?map=0").body) != decoded(answer.body)).any()


def test_a_snapshot_and_a_clip_can_be_fetched(page: StatusPage, media: Path) -> None:
    answer = ask(page, "/media/gate/gate-0001.jpg")
    assert answer.body == (media / "gate" / "gate-0001.jpg").read_bytes() and answer.headers["Content-Type"] == "image/jpeg"
    small = ask(page, "/thumb/gate/gate-0001.jpg")
    assert decoded(small.body).shape == (120, 180, 3) and len(small.body) < len(answer.body)
    clip = ask(page, "/media/gate/gate-0001.avi")
    assert clip.body == (media / "gate" / "gate-0001.avi").read_bytes()
    assert clip.headers["Content-Disposition"] == 'attachment; filename="gate_gate-0001.avi"'
    assert ask(page, "/media/gate/gate-0001.avi", "HEAD").body == b""


def test_a_clip_is_streamed_at_its_own_pace(page: StatusPage) -> None:
    started = time.monotonic()
    answer = ask(page, "/clip/gate/gate-0001.avi")
    assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=picture"
    parts = answer.body.split(b"--picture\r\n")[1:]
    assert 0.4 < time.monotonic() - started < 3 and len(parts) == 7 and parts[-1] == b""  # six pictures, ten a second
    for part in parts[:-1]:
        head, _, jpeg = part.partition(b"\r\n\r\n")
        assert b"image/jpeg" in head and decoded(jpeg).shape == (240, 360, 3)


def test_few_clips_are_streamed_at_the_same_time(page: StatusPage) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(server.MAX_CLIPS):
            watcher = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(page)), 10))
            watcher.sendall(b"GET /clip/gate/gate-0001.avi HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert watcher.recv(12) == b"HTTP/1.1 200"
        assert ask(page, "/clip/gate/gate-0001.avi").status == 503


def test_a_clip_cut_short_or_damaged_ends_early(media: Path, page: StatusPage, tmp_path: Path) -> None:
    whole = (media / "gate" / "gate-0001.avi").read_bytes()
    generator = np.random.default_rng(1)
    for cut in (0, 5, 11, 13, 200, len(whole) // 2, len(whole) - 1):
        assert len(frames_of(whole[:cut], tmp_path)) <= 6
    for _ in range(200):
        damaged = bytearray(whole)
        for at in generator.integers(0, 600, 3):
            damaged[at] = generator.integers(0, 256)
        assert all(
            1 / 60 <= seconds <= 5 and jpeg[:2] == b"\xff\xd8" for seconds, jpeg in frames_of(bytes(damaged), tmp_path)
        )
    assert frames_of(b"\0" * 10_000, tmp_path) == []


def frames_of(data: bytes, folder: Path) -> list[tuple[float, bytes]]:
    path = folder / "clip.avi"
    path.write_bytes(data)
    with path.open("rb") as file:
        return list(pictures(file))


# What it costs the detection loop


def test_seeing_costs_next_to_nothing_when_nobody_looks() -> None:
    with opened() as page:
        pairs = [seen(i / 10, 0.3, (1920, 1080)) for i in range(3)]
        page.see("gate", *pairs[0])
        n, start = 20_000, time.thread_time()
        for i in range(n):
            page.see("gate", *pairs[i % 3])
        assert 1000 * (time.thread_time() - start) / n < 0.05


# A whole unit


def until(ask_once: Callable[[], Any], good: Callable[[Any], Any], seconds: float = 60.0) -> Any:
    """The first good answer of a unit that is starting."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if good(found := ask_once()):
                return found
        assert time.monotonic() < end, "the unit has not started"
        time.sleep(0.1)


def test_a_running_unit_shows_itself(tiny_bundle: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "device.yaml"
    config.write_text(
        f"name: north-gate\nruntime: {tmp_path}\ndata: {tmp_path / 'data'}\nsinks: []\n"
        f"cameras: {{gate: {{source: 'synthetic:seed=3,size=180x120', bundle: {tiny_bundle}}}}}\n"
        f"media: {{snapshots: false, clips: false}}\npage: {{enabled: true, port: {port}}}\n"
    )
    command = [sys.executable, "-m", "edge_vad", "run", "--config", str(config)]
    unit = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        told = until(lambda: ask(port, "/api/status").json, lambda told: told["state"] == "running" and told["cameras"])
        assert told["unit"] == "north-gate" and told["cameras"]["gate"]["picture"] == [180, 120]
        scores = until(lambda: ask(port, "/api/scores?camera=gate").json, lambda told: len(told["t"]) > 3)
        assert 0 <= scores["now_s"] - scores["t"][-1] < 5
        assert decoded(ask(port, "/live/gate.jpg").body).shape == (120, 180, 3)
        assert ask(port, "/api/events").json["notices"][-1]["kind"] == "started" and ask(port, "/healthz").status == 200
        started = time.monotonic()
        unit.terminate()
        _, said = unit.communicate(timeout=15)
        assert unit.returncode == 0 and time.monotonic() - started < 5, said
    finally:
        unit.kill()
        unit.communicate()
