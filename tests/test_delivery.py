"""Between records and sinks: nothing blocks, nothing is lost uncounted, order is kept."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edge_vad import delivery as module
from edge_vad.delivery import RING, Delivery, Outbox, outbox_name
from edge_vad.errors import OutputError
from edge_vad.eventlog import EventLog, read
from edge_vad.record import Record
from edge_vad.sinks import Sink
from edge_vad.sinks.jsonl import JsonLines


def record(seq: int, type: Any = "anomaly", **data: Any) -> Record:
    return Record(seq, "boot", seq / 10, "2026-01-01T00:00:00.000Z", "gate", type, "update", data)


class Memory(Sink):
    """Keeps what it gets; fails, blocks or breaks as the test says."""

    def __init__(self, location: str = "") -> None:
        self.seqs: list[int] = []
        self.attempts: list[float] = []
        self.fails: Callable[[], Exception | None] = lambda: None
        self.blocked = threading.Event()
        self.blocked.set()
        self.closed = 0
        if location == "wrong":
            raise OutputError("wrong")
        OPENED.append(self)

    def write(self, record: Record) -> None:
        self.attempts.append(time.monotonic())
        self.blocked.wait()
        if error := self.fails():
            raise error
        self.seqs.append(record.seq)

    def close(self) -> None:
        self.closed += 1


class Remote(Memory):
    remote = True


OPENED: list[Memory] = []


@pytest.fixture(autouse=True)
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known: dict[str, type[Sink]] = {"local": Memory, "remote": Remote, "jsonl": JsonLines}
    monkeypatch.setattr(module, "load", lambda _, name, __: known[name])
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    yield
    for sink in OPENED:
        sink.blocked.set()
    OPENED.clear()


def always(text: str = "the place is down") -> Callable[[], Exception | None]:
    return lambda: OutputError(text)


def never() -> None:
    return None


def until(holds: Callable[[], Any], seconds: float = 10) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def in_log(folder: Path) -> list[int]:
    return [found.seq for _, found in read(folder)]


def only(delivery: Delivery, kind: str) -> dict[str, Any]:
    [status] = [value for name, value in delivery.status().items() if name.startswith(kind)]
    return status


# Local sinks


def test_a_record_is_in_the_log_before_any_sink_gets_it(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    delivery = Delivery(["local:a", "local:b"], log)
    seen: list[list[int]] = []
    OPENED[0].fails = lambda: seen.append(in_log(tmp_path))  # type: ignore[func-returns-value, assignment]
    for seq in range(1, 4):
        delivery.write(record(seq))
        assert OPENED[0].seqs == OPENED[1].seqs == list(range(1, seq + 1))
    assert seen == [[1], [1, 2], [1, 2, 3]]
    plain = {"pending": 0, "delivered": 3, "lost": 0, "last_error": ""}
    assert delivery.status() == {"log": plain, "local_a": plain, "local_b": plain}
    delivery.close()
    delivery.close()
    assert [sink.closed for sink in OPENED] == [1, 1]
    log.append(record(4))  # the log stays its owner's
    log.close()


def test_a_local_sink_that_fails_gets_everything_later_in_order_and_is_logged_once(caplog: Any) -> None:
    delivery = Delivery(["local:a", "local:b"])
    OPENED[0].fails = always()
    for seq in range(1, 11):
        delivery.write(record(seq))
    delivery.tick()
    assert OPENED[1].seqs == list(range(1, 11)) and OPENED[0].seqs == []
    assert only(delivery, "local_a") == {"pending": 10, "delivered": 0, "lost": 0, "last_error": "the place is down"}
    assert [entry.getMessage() for entry in caplog.records] == ["the place is down; 1 records wait, 0 are lost"]
    OPENED[0].fails = never
    delivery.tick()
    assert OPENED[0].seqs == list(range(1, 11))
    assert only(delivery, "local_a") == {"pending": 0, "delivered": 10, "lost": 0, "last_error": ""}
    delivery.close()


def test_what_waits_for_a_local_sink_is_bounded_and_the_oldest_are_counted_as_lost() -> None:
    delivery = Delivery(["local:"])
    OPENED[0].fails = always()
    for seq in range(1, RING + 501):
        delivery.write(record(seq))
    assert only(delivery, "local")["pending"] == RING and only(delivery, "local")["lost"] == 500
    OPENED[0].fails = never
    until(lambda: (delivery.tick(), not only(delivery, "local")["pending"])[1])
    assert OPENED[0].seqs == list(range(501, RING + 501))
    delivery.close()


def test_what_waited_does_not_hold_up_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = Delivery(["local:"])
    OPENED[0].fails = always()
    for seq in range(1, 101):
        delivery.write(record(seq))
    OPENED[0].fails = lambda: time.sleep(0.01)  # type: ignore[assignment]
    start = time.monotonic()
    delivery.write(record(101))
    assert time.monotonic() - start < 0.3
    assert 5 <= len(OPENED[0].seqs) < 50
    until(lambda: (delivery.tick(), not only(delivery, "local")["pending"])[1])
    assert OPENED[0].seqs == list(range(1, 102))
    delivery.close()


def test_a_reader_of_standard_output_that_is_gone_is_told_once_and_the_others_go_on() -> None:
    delivery = Delivery(["local:a", "local:b"])
    OPENED[0].fails = BrokenPipeError
    with pytest.raises(BrokenPipeError):
        delivery.write(record(1))
    delivery.write(record(2))
    delivery.tick()
    assert OPENED[1].seqs == [1, 2] and len(OPENED[0].attempts) == 1
    assert only(delivery, "local_a") == {
        "pending": 0, "delivered": 0, "lost": 2, "last_error": "nobody reads it any more",
    }  # fmt: skip
    delivery.close()


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_mistake_in_a_sink_costs_that_record_only(kind: str, caplog: Any) -> None:
    delivery = Delivery([f"{kind}:"])
    [sink] = OPENED
    sink.fails = lambda: TypeError("a mistake") if len(sink.attempts) == 2 else None
    for seq in range(1, 5):
        delivery.write(record(seq))
    until(lambda: sink.seqs == [1, 3, 4])
    delivery.close()
    assert only(delivery, kind)["lost"] == 1 and only(delivery, kind)["delivered"] == 3
    assert "a record is left out: TypeError: a mistake" in caplog.text and "Traceback" in caplog.text


def test_a_sink_that_cannot_be_opened_closes_those_that_were() -> None:
    with pytest.raises(OutputError, match="wrong"):
        Delivery(["local:a", "remote:b", "local:wrong"])
    assert [sink.closed for sink in OPENED] == [1, 1]


def test_a_line_that_a_full_disk_cut_off_stays_a_line_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"torn": ')
    delivery = Delivery([f"jsonl:{path}"])
    delivery.write(record(1))
    left = [40, 0]
    write = os.write

    def short(handle: int, data: Any) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, bytes(data)[: left.pop(0)])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        delivery.write(record(2))
        delivery.write(record(3))
    delivery.tick()
    delivery.close()
    lines = path.read_text().splitlines()
    assert lines[0] == '{"torn": ' and len(lines[2]) == 40
    assert [json.loads(line)["seq"] for line in (lines[1], *lines[3:])] == [1, 2, 3]


# Remote sinks


def test_a_remote_sink_that_hangs_delays_nobody(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    delivery = Delivery(["remote:", "local:", "remote:other"], log)
    dead, local, other = OPENED
    dead.blocked.clear()
    slowest = 0.0
    for seq in range(1, 301):
        start = time.monotonic()
        delivery.write(record(seq, "load"))
        slowest = max(slowest, time.monotonic() - start)
    assert local.seqs == list(range(1, 301)) and slowest < 0.2
    until(lambda: other.seqs == local.seqs)
    assert dead.seqs == [] and delivery.status()["remote"]["pending"] == 300
    start = time.monotonic()
    delivery.close()
    assert time.monotonic() - start < 3.3 and other.closed and not dead.closed
    log.close()


def test_without_a_log_the_newest_wait_in_memory_and_the_rest_is_counted() -> None:
    delivery = Delivery(["remote:"])
    [sink] = OPENED
    sink.blocked.clear()
    delivery.write(record(1))
    until(lambda: sink.attempts)
    for seq in range(2, RING + 302):
        delivery.write(record(seq))
    status = only(delivery, "remote")
    assert status["pending"] == RING and status["lost"] == 301
    sink.blocked.set()
    until(lambda: sink.seqs and sink.seqs[-1] == RING + 301)
    delivery.close()
    status = only(delivery, "remote")
    assert sink.seqs == [1, *range(302, RING + 302)] and status["pending"] == 0 and status["delivered"] == RING + 1


@pytest.mark.parametrize("with_log", [True, False])
def test_retries_come_after_longer_and_longer_pauses_and_keep_the_order(
    with_log: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    monkeypatch.setattr(module, "RETRY_MAX_S", 0.2)
    log = EventLog(tmp_path) if with_log else None
    delivery = Delivery(["remote:"], log)
    [sink] = OPENED
    sink.fails = lambda: OutputError("down") if len(sink.attempts) <= 5 else None
    for seq in range(1, 31):
        delivery.write(record(seq))
    until(lambda: len(sink.seqs) == 30)
    assert sink.seqs == list(range(1, 31)) and len(sink.attempts) == 35
    pauses = [after - before for before, after in zip(sink.attempts[:5], sink.attempts[1:6], strict=True)]
    for pause, expected in zip(pauses, (0.05, 0.1, 0.2, 0.2, 0.2), strict=True):
        assert 0.8 * expected <= pause < 1.2 * expected + 0.15
    assert len([entry for entry in caplog.records if "records wait" in entry.getMessage()]) == 1
    assert only(delivery, "remote") == {"pending": 0, "delivered": 30, "lost": 0, "last_error": ""}
    delivery.close()
    if log:
        log.close()


def test_an_idle_outbox_sleeps(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    outboxes = [Outbox(f"o{n}", Remote(), log) for n in range(5)]
    log.append(record(1))
    for outbox in outboxes:
        outbox.wake()
    until(lambda: all(outbox.status()["delivered"] == 1 for outbox in outboxes))
    time.sleep(module.SAVE_S + 0.3)  # the cursors are saved once
    start = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - start < 0.02
    for outbox in outboxes:
        outbox.close()
    assert all(sink.closed == 1 for sink in OPENED) and not [t for t in threading.enumerate() if "outbox" in t.name]
    log.close()


def cursor(folder: Path) -> dict[str, int]:
    [path] = folder.glob("cursor-*.json")
    return dict(json.loads(path.read_text()))


def test_a_new_start_goes_on_behind_the_last_delivery(tmp_path: Path) -> None:
    with_log = EventLog(tmp_path)
    with_log.append(record(1))  # before the sink was named for the first time
    delivery = Delivery(["remote:user:pw@place"], with_log)
    for seq in range(2, 6):
        delivery.write(record(seq))
    until(lambda: OPENED[0].seqs == [2, 3, 4, 5])
    OPENED[0].fails = always()
    for seq in range(6, 9):
        delivery.write(record(seq))
    delivery.close()
    with_log.close()
    assert cursor(tmp_path)["seq"] == 5 and (tmp_path / "cursor-remote_place.json").exists()
    log = EventLog(tmp_path)
    delivery = Delivery(["remote:user:other@place"], log)
    until(lambda: OPENED[1].seqs == [6, 7, 8])
    delivery.write(record(9))
    delivery.close()
    assert OPENED[1].seqs == [6, 7, 8, 9] and cursor(tmp_path)["seq"] == 9
    log.close()


def test_a_cursor_is_saved_at_most_every_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[float] = []
    write = module.write_atomically

    def count(path: Path, data: bytes) -> None:
        saved.append(time.monotonic())
        write(path, data)

    monkeypatch.setattr(module, "write_atomically", count)
    monkeypatch.setattr(module, "SAVE_S", 0.3)
    log = EventLog(tmp_path)
    delivery = Delivery(["remote:"], log)
    for seq in range(1, 101):
        delivery.write(record(seq, "load"))
        time.sleep(0.01)
    until(lambda: cursor(tmp_path)["seq"] == 100)  # also when nothing follows
    pauses = [after - before for before, after in pairwise(saved)]
    assert 3 <= len(saved) <= 7 and min(pauses[1:]) >= 0.25
    delivery.close()
    log.close()


def test_what_the_quota_deletes_before_it_is_delivered_is_counted(tmp_path: Path) -> None:
    log = EventLog(tmp_path, quota_bytes=20_000)
    delivery = Delivery(["remote:"], log)
    [sink] = OPENED
    sink.fails = always()
    for seq in range(1, 501):
        delivery.write(record(seq, "load"))
    oldest = in_log(tmp_path)[0]
    assert oldest > 300
    sink.fails = never
    until(lambda: sink.seqs and sink.seqs[-1] == 500)
    status = only(delivery, "remote")
    assert sink.seqs == list(range(oldest, 501))
    assert status == {"pending": 0, "delivered": 501 - oldest, "lost": oldest - 1, "last_error": ""}
    delivery.close()
    log.close()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"file": 1}', b'{"file": "x", "byte": 0, "seq": 0}'])
def test_a_damaged_cursor_delivers_all_of_the_log_again(tmp_path: Path, content: bytes, caplog: Any) -> None:
    (tmp_path / "cursor-remote.json").write_bytes(content)
    log = EventLog(tmp_path)
    for seq in range(1, 6):
        log.append(record(seq))
    delivery = Delivery(["remote:"], log)
    until(lambda: OPENED[0].seqs == [1, 2, 3, 4, 5])
    delivery.close()
    assert only(delivery, "remote")["lost"] == 0 and "all of the event log is delivered again" in caplog.text
    log.close()


@pytest.mark.parametrize("ahead", [{"file": 1, "byte": 10**6, "seq": 40}, {"file": 7, "byte": 3, "seq": 9000}])
def test_a_cursor_behind_the_end_of_a_log_that_was_cut_begins_at_its_end(tmp_path: Path, ahead: dict[str, int]) -> None:
    (tmp_path / "cursor-remote.json").write_text(json.dumps(ahead))
    log = EventLog(tmp_path)
    log.append(record(1))
    delivery = Delivery(["remote:"], log)
    for seq in range(2, 5):
        delivery.write(record(seq))
    delivery.close()
    assert OPENED[0].seqs == [2, 3, 4]
    assert only(delivery, "remote") == {"pending": 0, "delivered": 3, "lost": 0, "last_error": ""}
    log.close()


def test_damage_in_the_log_holds_up_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for seq in range(1, 4):
        log.append(record(seq))
    log.close()
    path = tmp_path / "events-00000001.jsonl"
    path.write_bytes(path.read_bytes() + b"damage\n" * 100)
    (tmp_path / "cursor-remote.json").write_text('{"file": 1, "byte": 0, "seq": 0}')
    log = EventLog(tmp_path)
    delivery = Delivery(["remote:"], log)
    until(lambda: OPENED[0].seqs == [1, 2, 3])
    until(lambda: only(delivery, "remote")["pending"] == 0)
    delivery.write(record(4))
    until(lambda: OPENED[0].seqs == [1, 2, 3, 4])
    delivery.close()
    log.close()


def test_closing_delivers_what_it_can_and_no_more(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    delivery = Delivery(["remote:slow", "remote:down"], log)
    slow, down = OPENED
    slow.fails = lambda: time.sleep(0.05)  # type: ignore[assignment]
    down.fails = always()
    for seq in range(1, 201):
        delivery.write(record(seq, "load"))
    start = time.monotonic()
    delivery.close(1.0)
    assert time.monotonic() - start < 1.2
    assert 5 <= len(slow.seqs) < 30 and slow.closed == down.closed == 1
    cursors = {path.name: json.loads(path.read_text())["seq"] for path in tmp_path.glob("cursor-*")}
    assert cursors == {"cursor-remote_slow.json": slow.seqs[-1], "cursor-remote_down.json": 0}
    log.close()


# A log that cannot be written


class Disk:
    """Lets the writes of event logs fail as long as it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        write = os.write

        def guarded(handle: int, data: Any) -> int:
            if self.full and b'"crc"' in bytes(data):
                return write(handle, bytes(data)[: random.randrange(len(data))])
            return write(handle, data)

        monkeypatch.setattr(os, "write", guarded)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_while_the_disk_is_full_records_wait_and_reach_the_sinks_nevertheless(tmp_path: Path, disk: Disk) -> None:
    log = EventLog(tmp_path)
    delivery = Delivery(["local:", "remote:"], log)
    local, remote = OPENED
    delivery.write(record(1))
    disk.full = True
    for seq in range(2, 6):
        delivery.write(record(seq))
    assert "No space left on device" in delivery.log_failing
    delivery.write(record(6, "storage"))
    until(lambda: remote.seqs == [1, 2, 3, 4, 5, 6])
    assert local.seqs == remote.seqs and in_log(tmp_path) == [1]
    assert delivery.status()["log"]["pending"] == 5
    delivery.tick()
    assert delivery.log_failing
    disk.full = False
    delivery.tick()
    assert delivery.log_failing == "" and in_log(tmp_path) == [1, 2, 3, 4, 5, 6]
    delivery.write(record(7))
    delivery.close()
    assert local.seqs == remote.seqs == in_log(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    assert delivery.n_lost == 0 and only(delivery, "remote")["lost"] == 0
    log.close()


def test_more_than_the_ring_holds_is_counted_and_the_order_kept(tmp_path: Path, disk: Disk) -> None:
    log = EventLog(tmp_path)
    delivery = Delivery(["remote:"], log)
    disk.full = True
    OPENED[0].fails = always()
    for seq in range(1, RING + 201):
        delivery.write(record(seq))
    assert delivery.n_lost == 200
    disk.full = False
    until(lambda: (delivery.tick(), not delivery.status()["log"]["pending"])[1])
    assert in_log(tmp_path) == list(range(201, RING + 201))
    OPENED[0].fails = never
    until(lambda: len(OPENED[0].seqs) == RING)
    delivery.close()
    assert OPENED[0].seqs == list(range(201, RING + 201)) and only(delivery, "remote")["lost"] == 200
    log.close()


def test_a_log_that_can_never_be_written_ends_within_the_timeout(tmp_path: Path, disk: Disk) -> None:
    log = EventLog(tmp_path)
    delivery = Delivery(["remote:"], log)
    disk.full = True
    for seq in range(1, 11):
        delivery.write(record(seq))
    start = time.monotonic()
    delivery.close()
    assert time.monotonic() - start < 3.2 and OPENED[0].seqs == list(range(1, 11))
    log.close()


def test_a_record_that_is_no_json_is_left_out_and_counted(tmp_path: Path, caplog: Any) -> None:
    log = EventLog(tmp_path)
    delivery = Delivery([], log)
    for taken in (record(1), record(2, score=float("nan")), record(3)):
        delivery.write(taken)
    assert in_log(tmp_path) == [1, 3] and delivery.n_lost == 1 and "a record is left out: ValueError" in caplog.text
    delivery.close()
    log.close()


def test_records_that_are_no_alarms_are_synced_by_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path)
    delivery = Delivery([], log)
    synced: list[int] = []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda handle: (synced.append(handle), sync(handle))[1])
    delivery.write(record(1, "load"))
    delivery.tick()
    assert not synced
    monkeypatch.setattr(module, "SYNC_S", 0.0)
    delivery.tick()
    delivery.tick()
    assert len(synced) == 1
    delivery.close()
    log.close()


def test_a_log_that_cannot_be_read_is_told_and_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path)

    def unreadable(*_: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(module, "read", unreadable)
        delivery = Delivery(["remote:"], log)
        delivery.write(record(1))
        until(lambda: "Input/output error" in only(delivery, "remote")["last_error"])
    until(lambda: OPENED[0].seqs == [1])
    delivery.close()
    log.close()


@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_of_failures_loses_nothing_and_keeps_the_log_in_order(tmp_path: Path, disk: Disk, seed: int) -> None:
    chance = random.Random(seed)
    log = EventLog(tmp_path, quota_bytes=10**6)
    delivery = Delivery(["local:", "remote:a", "remote:b"], log)
    for sink in OPENED:
        sink.fails = lambda: OutputError("down") if chance.random() < 0.1 else None
    for seq in range(1, 801):
        disk.full = (seq // 50) % 2 == 1 and chance.random() < 0.9
        delivery.write(record(seq, chance.choice(("load", "anomaly"))))
        if chance.random() < 0.05:
            delivery.tick()
            time.sleep(0.002)
    disk.full = False
    for sink in OPENED:
        sink.fails = never
    until(lambda: (delivery.tick(), all(not status["pending"] for status in delivery.status().values()))[1], 30)
    delivery.close()
    assert in_log(tmp_path) == OPENED[0].seqs == list(range(1, 801))
    for sink in OPENED[1:]:
        assert sink.seqs == list(range(1, 801))  # without a crash even once, not only at least once
    assert all(not status["lost"] for status in delivery.status().values())
    log.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_real_full_disk_that_is_freed_again(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        log = EventLog(place / "log", quota_bytes=64 * 1024)
        (place / "filling").write_bytes(b"x" * 80_000)
        delivery = Delivery(["remote:", "local:"], log)
        for seq in range(1, 301):
            delivery.write(record(seq))
        assert "No space left" in delivery.log_failing
        (place / "filling").unlink()
        delivery.tick()
        assert delivery.log_failing == ""
        for seq in range(301, 311):
            delivery.write(record(seq))
        delivery.close()
        log.close()
        found = in_log(place / "log")
        assert found == list(range(found[0], 311)) and delivery.n_lost == 0
        assert all(sink.seqs == list(range(1, 311)) for sink in OPENED)
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    ("sink", "name"),
    [
        ("mqtt:host", "mqtt_host"),
        ("mqtt:user:p@ss#w?rd@host:1883/site/north?unit=x", "mqtt_host_1883_site_north"),
        ("mqtts:user:$PASSWORD@host/site", "mqtts_host_site"),
        ("webhook:https://host/services/T0/secret#secret=$S", "webhook_host-3d2f8a31"),
        ("webhook:https://user:pw@host:8443/services/T0/secret", "webhook_host_8443-3d2f8a31"),
        ("jsonl:-", "jsonl_-"),
        ("my.plugins:../../etc/x", "my.plugins_.._.._etc_x"),
    ],
)
def test_names_hold_no_secret_and_are_safe_in_a_path(sink: str, name: str) -> None:
    found = outbox_name(sink)
    assert found.rpartition("-")[0] == name.rpartition("-")[0] if "webhook" in sink else found == name
    assert not any(secret in found for secret in ("ss#w", "ss_w", "PASSWORD", "secret", "pw", "user"))
    assert "/" not in found and not found.startswith(".")


def test_names_of_two_places_differ() -> None:
    hooks = ["webhook:https://host/a", "webhook:https://host/b", "webhook:https://host/a?x"]
    assert len({outbox_name(hook) for hook in hooks}) == 3
    delivery = Delivery(["remote:a", "remote:a", "local:a", "remote:a"])
    assert set(delivery.status()) == {"remote_a", "remote_a-2", "local_a", "remote_a-3"}
    delivery.close()
