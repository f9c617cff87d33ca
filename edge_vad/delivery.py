"""What stands between records and sinks: no sink holds up detection, and no record is lost without being counted.

    write -> event log -> local sinks, in the caller's thread
                 `------> an Outbox for each remote sink: a thread of its own, reading the log behind a cursor

While the log cannot be written, records wait in memory for it and go to the remote sinks from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from edge_vad.errors import OutputError
from edge_vad.eventlog import EventLog, Position, read
from edge_vad.files import read_regular, write_atomically
from edge_vad.plugins import load
from edge_vad.record import Record
from edge_vad.sinks.base import Sink

log = logging.getLogger(__name__)

RING = 1000  # records that wait in memory, for each that waits
BATCH = 32  # records read from the log at a time
FLUSH_S = 0.1  # that a caller spends at most on records that waited
SYNC_S = 10.0  # records that are no alarms are on the medium after this
SAVE_S = 1.0  # between two writes of a cursor: how much is delivered twice after a crash
RETRY_S, RETRY_MAX_S = 1.0, 60.0
COMPLAIN_S = 60.0


class Complaints:
    """Logs what fails again and again once a minute."""

    def __init__(self) -> None:
        self._next = -COMPLAIN_S

    def say(self, text: str, *, trace: bool = False) -> None:
        """Log a warning, with the exception that is being handled if ``trace``; or nothing, so soon after the last one."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + COMPLAIN_S
            log.warning("%s", text, exc_info=trace)


class Waiting:
    """Records on their way into one place that may fail: in order, the newest RING of them."""

    def __init__(self, name: str, write: Callable[[Record], None]) -> None:
        self._name, self._write = name, write
        self._records: deque[Record] = deque()
        self._complaints = Complaints()
        self._gone = False
        self.n_delivered = self.n_lost = 0
        self.failing = ""

    @property
    def n_waiting(self) -> int:
        """Records that are not written yet."""
        return len(self._records)

    def put(self, record: Record) -> None:
        """Write it behind those that wait. A reader of standard output that is gone is told once, as BrokenPipeError."""
        if len(self._records) >= RING:
            self._records.popleft()
            self.n_lost += 1
        self._records.append(record)
        self.flush()

    def flush(self, seconds: float = FLUSH_S) -> None:
        """Write those that wait until one fails; for ``seconds`` at most, then the rest has its turn at the next call."""
        until = time.monotonic() + seconds
        while self._records and not self._gone:
            try:
                self._write(self._records[0])
            except BrokenPipeError:
                self._gone, self.failing = True, "nobody reads it any more"
                raise
            except OutputError as error:
                self.failing = str(error)
                self._complaints.say(f"{self.failing}; {self.n_waiting} records wait, {self.n_lost} are lost")
                return
            except Exception as error:  # it would fail for ever and hold up all others
                self.n_lost += 1
                self._complaints.say(f"{self._name}: a record is left out: {type(error).__name__}: {error}", trace=True)
            else:
                self.n_delivered += 1
                self.failing = ""
            self._records.popleft()
            if time.monotonic() > until:
                return
        if self._gone:
            self.n_lost += self.n_waiting
            self._records.clear()

    def status(self) -> dict[str, Any]:
        """Plain values; last_error is empty when the last attempt was good."""
        return _status(self.n_waiting, self.n_delivered, self.n_lost, self.failing)


class Outbox:
    """One remote sink in a thread of its own: every record at least once, in order.

    With an event log, what is pending survives a crash and is bounded by the log's quota; what the quota deletes before
    it was delivered is lost. Without one, or while it cannot be written, the newest RING records wait in memory.
    """

    def __init__(self, name: str, sink: Sink, event_log: EventLog | None = None) -> None:
        """name: safe as a part of a file name (`outbox_name`). The sink belongs to the outbox from here on."""
        self._name, self._sink, self._log = name, sink, event_log
        self._memory: deque[Record] = deque()
        self._early: deque[tuple[str, int]] = deque(maxlen=RING)  # delivered from memory, and perhaps in the log later
        self._changed = threading.Condition()
        self._news = self._closing = False
        self._until = 0.0
        self._complaints = Complaints()
        self._n_delivered = self._n_lost = 0
        self._failing = ""
        self._retry_s = RETRY_S
        self._position: Position = (0, 0)
        self._read_seq = 0
        self._save_at: float | None = None
        if event_log:
            self._load_cursor(event_log)
        self._thread = threading.Thread(target=self._run, name=f"outbox {name}", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """Deliver a record that is not in the log."""
        with self._changed:
            if len(self._memory) >= RING:
                self._memory.popleft()
                self._n_lost += 1
            self._memory.append(record)
            self._news = True
            self._changed.notify()

    def wake(self) -> None:
        """There is something new in the log."""
        with self._changed:
            while self._log and self._memory and self._memory[0].seq <= self._log.last_seq:
                self._memory.popleft()
            self._news = True
            self._changed.notify()

    def status(self) -> dict[str, Any]:
        """Plain values; last_error is empty when the last attempt was good, refused is what the receiver will never take."""
        in_log = self._log.last_seq - self._read_seq if self._log else 0
        plain = _status(len(self._memory) + max(0, in_log), self._n_delivered, self._n_lost, self._failing)
        refused = getattr(self._sink, "n_refused", None)
        return plain if refused is None else {**plain, "refused": refused}

    def stop(self, timeout: float) -> None:
        """Ask it to deliver what it can within ``timeout`` seconds and to end."""
        with self._changed:
            self._closing = True
            self._until = time.monotonic() + 0.6 * timeout  # the rest is for the sink's own farewell
            self._changed.notify()

    def join(self, timeout: float) -> None:
        """Wait for the end; a sink that hangs is left behind."""
        self._thread.join(max(0.0, timeout))

    def close(self, timeout: float = 3.0) -> None:
        """Deliver what it can and stop."""
        self.stop(timeout)
        self.join(timeout)

    # The thread

    def _run(self) -> None:
        while True:
            closing = self._closing  # before the attempt: whatever was accepted before it gets one
            try:
                while self._deliver_some():
                    pass
            except (OutputError, OSError) as error:
                self._failed(str(error))
                if closing:
                    break
                if self._save_at is not None and time.monotonic() >= self._save_at:
                    self._save_cursor()
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, self._retry_s * random.uniform(0.8, 1.2))
                self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
                continue
            if closing:
                break
            self._wait()
        if self._save_at is not None:
            self._save_cursor()
        try:
            self._sink.close()
        except Exception as error:
            log.warning("%s: cannot be closed: %s", self._name, error)

    def _wait(self) -> None:
        """Until there is news; meanwhile the cursor becomes due."""
        while True:
            with self._changed:
                now = time.monotonic()
                while not (self._news or self._closing) and (self._save_at is None or now < self._save_at):
                    self._changed.wait(None if self._save_at is None else self._save_at - now)
                    now = time.monotonic()
                if self._news or self._closing:
                    self._news = False
                    return
            self._save_cursor()

    def _deliver_some(self) -> bool:
        """Deliver the next few; whether there may be more. Raises what the sink raises."""
        if not self._log:
            return self._deliver_from_memory()
        seq, end = self._log.last_seq, self._log.end
        try:
            batch = [item for item in islice(read(self._log.folder, self._position), BATCH) if item[0] <= end]
        except OSError:
            if self._deliver_from_memory():
                return True
            raise
        for position, record in batch:
            if self._late():
                return False
            self._count_deleted(record)
            if _id(record) not in self._early:
                self._deliver(record)
            self._forget(record)
            self._advance(position, record.seq)
        if batch:
            return True
        self._position, self._read_seq = end, max(self._read_seq, seq)  # there was nothing but damage before it
        return self._deliver_from_memory(end)

    def _deliver_from_memory(self, end: Position | None = None) -> bool:
        """The oldest one in memory; but what came into the log behind ``end`` meanwhile has its turn first."""
        with self._changed:
            if not self._memory or self._late():
                return False
            if self._log and end and self._log.end != end:
                return True
            record = self._memory[0]
        self._deliver(record)
        self._early.append(_id(record))
        self._forget(record)
        return True

    def _forget(self, record: Record) -> None:
        """It was delivered; it may have been in memory, also when it came from the log."""
        with self._changed:
            if self._memory and _id(self._memory[0]) == _id(record):
                self._memory.popleft()

    def _late(self) -> bool:
        return self._closing and time.monotonic() > self._until

    def _deliver(self, record: Record) -> None:
        try:
            self._sink.write(record)
        except (OutputError, OSError):
            raise
        except Exception as error:  # it would fail for ever and hold up all others
            self._n_lost += 1
            self._failing = f"{type(error).__name__}: {error}"
            self._complaints.say(f"{self._name}: a record is left out: {self._failing}", trace=True)
            return
        if self._failing:
            log.info("%s: delivers again", self._name)
        self._n_delivered += 1
        self._failing, self._retry_s = "", RETRY_S

    def _failed(self, reason: str) -> None:
        self._failing = reason
        self._complaints.say(f"{reason}; {self.status()['pending']} records wait")

    # The cursor

    def _count_deleted(self, record: Record) -> None:
        """Numbers that are missing where a file is gone were deleted by the log's quota."""
        assert self._log
        missing = record.seq - self._read_seq - 1
        if missing > 0 and self._position[0] and not self._log.holds(self._position):
            self._n_lost += missing
            self._read_seq += missing  # counted once, however often this record is tried
            self._complaints.say(f"{self._name}: {missing} records were deleted from the full event log, undelivered")

    def _advance(self, position: Position, seq: int) -> None:
        self._position, self._read_seq = position, seq
        now = time.monotonic()
        if self._save_at is None:
            self._save_at = now + SAVE_S
        elif now >= self._save_at:
            self._save_cursor()

    def _cursor_path(self, folder: Path) -> Path:
        return folder / f"cursor-{self._name}.json"

    def _load_cursor(self, event_log: EventLog) -> None:
        """Go on behind what was acknowledged; a sink that is named for the first time gets what comes from now on."""
        path = self._cursor_path(event_log.folder)
        self._position, self._read_seq = event_log.end, event_log.last_seq
        try:
            plain = json.loads(read_regular(path, 1000))
            position, seq = (int(plain["file"]), int(plain["byte"])), int(plain["seq"])
        except FileNotFoundError:
            self._save_cursor()
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: cannot be read, all of the event log is delivered again: %s", path, error)
            position, seq = (0, 0), 0
        if position <= event_log.end:  # otherwise a power cut took what was delivered already
            self._position, self._read_seq = position, min(seq, event_log.last_seq)

    def _save_cursor(self) -> None:
        assert self._log
        number, byte = self._position
        plain = {"file": number, "byte": byte, "seq": self._read_seq}
        self._save_at = None
        try:
            write_atomically(self._cursor_path(self._log.folder), json.dumps(plain).encode())
        except (OutputError, OSError) as error:
            self._save_at = time.monotonic() + COMPLAIN_S
            self._complaints.say(f"{self._name}: more would be delivered twice after a crash: {error}")


class Delivery:
    """Hands records to the event log, to local sinks and to the outboxes of remote ones. Any thread may call it."""

    def __init__(self, sinks: Sequence[str], event_log: EventLog | None = None) -> None:
        """sinks: NAME:LOCATION each. event_log: stays the caller's, who closes it after this. Raises OutputError."""
        self._lock = threading.Lock()
        self._event_log = event_log
        self._log = Waiting("the event log", event_log.append) if event_log else None
        self._synced_at = time.monotonic()
        self._unsynced = self._closed = False
        self._local: dict[str, tuple[Waiting, Sink]] = {}
        self._remote: dict[str, Outbox] = {}
        opened: list[tuple[str, Sink]] = []
        try:
            for what in sinks:
                kind, _, location = what.partition(":")
                sink = load("sinks", kind, Sink)(location)
                opened.append((_unlike(outbox_name(what), [name for name, _ in opened]), sink))
        except BaseException:
            for _, sink in opened:
                sink.close()
            raise
        for name, sink in opened:
            if sink.remote:
                self._remote[name] = Outbox(name, sink, event_log)
            else:
                self._local[name] = (Waiting(name, sink.write), sink)

    @property
    def log_failing(self) -> str:
        """Why the event log cannot be written at the moment; empty when it can, or when there is none."""
        return self._log.failing if self._log else ""

    @property
    def n_lost(self) -> int:
        """Records that are not in the event log because too many waited for it."""
        return self._log.n_lost if self._log else 0

    def write(self, record: Record) -> None:
        """Log it and deliver it. Never raises but BrokenPipeError, once, when nobody reads standard output any more."""
        with self._lock:
            if self._log:
                self._log.put(record)
                self._unsynced |= not record.alarm
            for outbox in self._remote.values():
                if not self._log or self._log.n_waiting:
                    outbox.put(record)
                outbox.wake()
            gone: BrokenPipeError | None = None
            for waiting, _ in self._local.values():
                try:
                    waiting.put(record)
                except BrokenPipeError as error:  # the others get it nevertheless
                    gone = error
        if gone:
            raise gone

    def tick(self) -> None:
        """Between records, every few seconds: what failed is tried again, what is not yet on the medium is synced."""
        with self._lock:
            if self._log:
                self._flush_log(FLUSH_S)
                if self._unsynced and time.monotonic() - self._synced_at > SYNC_S:
                    self._sync()
            for waiting, _ in self._local.values():
                waiting.flush()

    def status(self) -> dict[str, dict[str, Any]]:
        """For the log and each sink: pending, delivered, lost, last_error, as plain values."""
        named = {"log": self._log.status()} if self._log else {}
        named |= {name: waiting.status() for name, (waiting, _) in self._local.items()}
        return named | {name: outbox.status() for name, outbox in self._remote.items()}

    def close(self, timeout: float = 3.0) -> None:
        """Deliver what can be delivered within ``timeout`` seconds, sync the log, stop."""
        if self._closed:
            return
        self._closed = True
        until = time.monotonic() + timeout
        with self._lock:
            if self._log:
                self._flush_log(0.25 * timeout)
                self._sync()
            for outbox in self._remote.values():
                outbox.stop(until - time.monotonic())
            for waiting, sink in self._local.values():
                _close_local(waiting, sink)
        for outbox in self._remote.values():
            outbox.join(until - time.monotonic())

    def _flush_log(self, seconds: float) -> None:
        assert self._log is not None
        if self._log.n_waiting:
            self._log.flush(seconds)
            for outbox in self._remote.values():
                outbox.wake()

    def _sync(self) -> None:
        assert self._event_log
        self._synced_at = time.monotonic()
        try:
            self._event_log.sync()
            self._unsynced = False
        except OutputError as error:
            log.warning("%s", error)


def outbox_name(sink: str) -> str:
    """A sink's name for people and file names: without user, password, query and fragment; of a URL the host only.

    The path of a URL may be a secret too: it becomes eight digits of its hash.
    """
    kind, _, location = sink.partition(":")
    bare = location.rpartition("@")[2].rpartition("://")[2]
    shown = re.split("[?#]", bare)[0]
    if "://" in location:
        host, _, path = bare.partition("#")[0].partition("/")
        shown = f"{host.partition('?')[0]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    return re.sub(r"[^A-Za-z0-9.-]+", "_", f"{kind}_{shown}").strip("_.")[:80]


def _id(record: Record) -> tuple[str, int]:
    return record.boot, record.seq


def _unlike(name: str, taken: Sequence[str]) -> str:
    """The name, numbered where another sink has it already."""
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(other for other in numbered if other not in taken)


def _close_local(waiting: Waiting, sink: Sink) -> None:
    with contextlib.suppress(BrokenPipeError):
        waiting.flush()
    try:
        sink.close()
    except Exception as error:
        log.warning("a sink cannot be closed: %s", error)


def _status(pending: int, delivered: int, lost: int, last_error: str) -> dict[str, Any]:
    return {"pending": pending, "delivered": delivered, "lost": lost, "last_error": last_error}
