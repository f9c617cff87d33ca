"""edge-vad events: what a unit has recorded."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal, get_args, overload

from edge_vad.commands.options import Parser
from edge_vad.errors import SourceError, did_you_mean
from edge_vad.eventlog import MAX_LINE_BYTES, NAME, unseal
from edge_vad.record import BOOT_ID, Record, Type

POLL_S = 0.3
AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
TYPES = get_args(Type)
HEADER = f"{'seq':>7}  {{zone:<19}}  {'camera':<12} {'what':<17} {'score':>6} {'lasted':>8}  details"

Wanted = Callable[[Record], bool]


def main(arguments: Sequence[str]) -> int:
    parser = Parser("events", "edge-vad events /var/lib/edge-vad --since 2h --type anomaly")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a unit's data folder (data: in device.yaml)")
    parser.add_argument(
        "--since",
        type=since,
        default=_all,
        metavar="WHEN",
        help="2h, 30m, 7d; 2026-11-22T10:00; or a seq: what comes after it",
    )
    parser.add_argument("--type", type=types, default=TYPES, metavar="TYPE,...", help=", ".join(TYPES))
    parser.add_argument("--camera", metavar="NAME", help="of one camera only")
    parser.add_argument("--follow", action="store_true", help="wait for new ones, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="the records as JSON lines, for programs")
    options = parser.parse_args(arguments)
    reader = Reader(log_folder(options.folder))
    shown = 0
    try:
        for record in _until_interrupted(reader) if options.follow else reader.records():
            if record.type not in options.type or options.camera not in (None, record.camera) or not options.since(record):
                continue
            if not shown and not options.json:
                print_line(HEADER.format(zone=f"time ({datetime.now().astimezone():%Z})"))
            print_line(record.line() if options.json else row(record))
            shown += 1
    finally:
        if reader.n_damaged:
            sys.stderr.write(f"edge-vad events: {reader.n_damaged} damaged lines were left out\n")
    if not shown and not options.json:
        sys.stderr.write(f"edge-vad events: none of {reader.n_records} records in {reader.folder} is meant\n")
    return 0


def _until_interrupted(reader: Reader) -> Iterator[Record]:
    """Records as they come. An interrupt ends it between two of them: raised anywhere, Python may drop it unseen, as where
    it closes a file that nobody needs any more."""
    asked: list[int] = []

    def interrupt(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt  # asked twice: now
        asked.append(number)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        for record in reader.records(follow=True):
            if asked:
                raise KeyboardInterrupt
            if record is not None:
                yield record
    finally:
        signal.signal(signal.SIGINT, before)


def log_folder(folder: Path) -> Path:
    """The folder with the log's files: this one, or ``events`` in it. Raises SourceError."""
    for path in (folder, folder / "events"):
        try:
            if any(NAME.fullmatch(entry.name) for entry in path.iterdir()):
                return path
        except OSError as error:
            if isinstance(error, PermissionError):
                raise SourceError(f"{path}: cannot be read: {error.strerror}; run as a user who may (sudo)") from error
    for path in (folder / "events", folder):
        if path.name == "events" and path.is_dir():  # of a unit that has not recorded anything yet
            return path
    raise SourceError(f"{folder}: no event log is there; name the data folder of a unit (data: in its device.yaml)")


class Reader:
    """Reads a log from its first record on, also while it is written and its oldest files go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n_records = self.n_damaged = 0
        self._number = self._at = 0

    @overload
    def records(self) -> Iterator[Record]: ...
    @overload
    def records(self, follow: Literal[True]) -> Iterator[Record | None]: ...
    def records(self, follow: bool = False) -> Iterator[Record | None]:
        """Every record in order; follow: wait for those to come, without an end; None where there was none for a while."""
        while True:
            for number, path in self._files():
                for line in self._lines(number, path, follow):
                    record = unseal(line)
                    self.n_records += record is not None
                    self.n_damaged += record is None
                    if record is not None:
                        yield record
            if not follow:
                return
            sys.stdout.flush()
            time.sleep(POLL_S)
            yield None

    def _files(self) -> list[tuple[int, Path]]:
        """Those that were not read to their end; all but the newest are complete."""
        found = [(int(match[1]), path) for path in self.folder.glob("*.jsonl") if (match := NAME.fullmatch(path.name))]
        return sorted(entry for entry in found if entry[0] >= self._number)

    def _lines(self, number: int, path: Path, follow: bool) -> Iterator[bytes]:
        """Whole lines from where reading ended; a last one without its end is being written, or torn.

        One who follows may act on a record at once: it is brought to the medium before it is told. Otherwise a power cut
        could take it back, and give its number to another one.
        """
        if number > self._number:
            self._number, self._at = number, 0
        try:
            with path.open("rb") as file:
                end = file.seek(0, 2)
                if follow and end > self._at:
                    os.fdatasync(file.fileno())
                self._at = min(self._at, end)  # a torn tail was cut off
                file.seek(self._at)
                while line := file.readline(2 * MAX_LINE_BYTES):
                    if self._at + len(line) > end or (not line.endswith(b"\n") and len(line) < 2 * MAX_LINE_BYTES):
                        return
                    self._at += len(line)
                    yield line
        except FileNotFoundError:
            return  # its turn to be deleted came
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error


def row(record: Record) -> str:
    """A record for people."""
    data = record.data
    score = data.get("peak_score")
    seconds = _seconds(data)
    lasted = "" if seconds is None else f"{seconds:.1f} s"
    told = f"{_local(record.time):<19}  {record.camera or '-':<12} {f'{record.type} {record.kind}':<17}"
    shown = f"{score:.2f}" if isinstance(score, (int, float)) else ""
    return f"{record.seq:>7}  {told} {shown:>6} {lasted:>8}  {_details(data)}".rstrip()


def since(text: str) -> Wanted:
    """Which records are new enough."""
    if text.isdigit():
        return lambda record: record.seq > int(text)
    if ago := AGO.fullmatch(text):
        return _after_age(float(ago[1]) * UNIT_S[ago[2]])
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise ArgumentTypeError(f"{text!r} is neither an age (2h), a time (2026-11-22T10:00) nor a seq (120)") from error
    return lambda record: _parse(record.time) >= moment


def types(text: str) -> tuple[str, ...]:
    """Names of record types, by commas."""
    found = tuple(text.split(","))
    for name in found:
        if name not in TYPES:
            raise ArgumentTypeError(f"no type {name!r}{did_you_mean(name, TYPES)}")
    return found


def print_line(text: str) -> None:
    """One line, without anything that a terminal would obey."""
    sys.stdout.write("".join(c if c.isprintable() else "?" for c in text) + "\n")


def _all(_: Record) -> bool:
    return True


def _after_age(age_s: float) -> Wanted:
    """Within one boot by the monotonic clock: the wall clock of a small board may have stepped since."""
    moment, now_s = datetime.now(timezone.utc) - timedelta(seconds=age_s), time.monotonic()
    try:
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return lambda record: now_s - record.monotonic_s <= age_s if record.boot == boot else _parse(record.time) >= moment


def _parse(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    except ValueError:
        return datetime.fromtimestamp(0, timezone.utc)


def _local(text: str) -> str:
    return f"{_parse(text).astimezone():%Y-%m-%d %H:%M:%S}"


def _seconds(data: Mapping[str, Any]) -> float | None:
    """How long an event or a gap lasted."""
    start, end, gap = data.get("start_s"), data.get("end_s"), data.get("gap_s")
    if isinstance(start, (int, float)) and isinstance(end, (int, float)):
        return end - start
    return float(gap) if isinstance(gap, (int, float)) else None


def _details(data: Mapping[str, Any]) -> str:
    """The id and the files of an event, and whatever else a record says; boxes and components stay in the JSON."""
    hidden = ("start_s", "end_s", "gap_s", "start_frame", "end_frame", "peak_frame", "peak_score", "regions", "components")
    shown = {key: value for key, value in data.items() if key not in hidden and isinstance(value, (str, int, float, list))}
    told = sorted(shown, key=lambda key: (key != "id", key))
    return ", ".join(f"{key} {_plain(shown[key])}" for key in told if shown[key] not in ("", []))


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
