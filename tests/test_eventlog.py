"""No acknowledged record is ever lost: kill -9, full and read-only disks, damaged files, readers beside the writer."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_vad import eventlog
from edge_vad.errors import OutputError
from edge_vad.eventlog import EventLog, read, seal, unseal
from edge_vad.record import Record

N_KILLS = 200
HERE = Path(__file__).parent


def record(seq: int, type: Any = "anomaly", **data: Any) -> Record:
    return Record(seq, "boot", seq / 10, "2026-01-01T00:00:00.000Z", "gate", type, "start", data)


def seqs(folder: Path, start: eventlog.Position = (0, 0)) -> list[int]:
    return [found.seq for _, found in read(folder, start)]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("events-*.jsonl"))


def whole(folder: Path) -> bool:
    """Whether every line of every file is undamaged."""
    lines = [line for name in files(folder) for line in (folder / name).read_bytes().splitlines(keepends=True)]
    return all(line.endswith(b"\n") and unseal(line) for line in lines)


def test_what_is_appended_is_read_in_order_also_while_it_is_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "new" / "folder")
    position = log.end
    for seq in range(1, 6):
        log.append(record(seq, "load" if seq % 2 else "anomaly", score=seq / 2, regions=[{"box": [1, 2, 3, 4]}]))
        [(position, found)] = read(log.folder, position)
        assert (found, position) == (record(seq, found.type, score=seq / 2, regions=[{"box": [1, 2, 3, 4]}]), log.end)
    log.close()
    log.close()  # twice is once
    assert seqs(log.folder) == [1, 2, 3, 4, 5]


def test_a_line_is_json_with_the_checksum_last_and_any_change_is_found() -> None:
    line = seal(record(7, crc="mine", text='",\n"crc":"').line())
    plain = json.loads(line)
    assert plain["seq"] == 7 and line.endswith(b'"type": "anomaly","crc":"%s"}\n' % plain["crc"].encode())
    assert unseal(line) == record(7, crc="mine", text='",\n"crc":"')
    for at in range(len(line) - 1):
        for bit in (1, 32):
            assert unseal(line[:at] + bytes([line[at] ^ bit]) + line[at + 1 :]) is None


# Durability


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes at which a file was synced."""
    sizes: list[int] = []
    sync = os.fdatasync

    def fdatasync(handle: int) -> None:
        sync(handle)
        sizes.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return sizes


def test_alarms_are_synced_before_append_returns_others_by_sync(tmp_path: Path, synced: list[int]) -> None:
    log = EventLog(tmp_path)
    synced.clear()
    for seq, type in enumerate(("anomaly", "camera", "view"), 1):
        log.append(record(seq, type))
        assert synced[-1] == log.end[1] and len(synced) == seq
    for seq, type in enumerate(("load", "backend", "bundle", "storage", "unit"), 4):
        log.append(record(seq, type))
    assert len(synced) == 3
    log.sync()
    assert len(synced) == 4 and synced[-1] == log.end[1]
    log.append(record(9, "unit"))
    log.close()
    assert len(synced) == 5 and synced[-1] == log.end[1]


def test_a_full_file_is_synced_and_the_new_name_is_durable_before_anything_is_in_it(
    tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(tmp_path, quota_bytes=4000)
    synced.clear()
    for seq in range(1, 7):
        log.append(record(seq, "load"))
    assert files(tmp_path) == ["events-00000001.jsonl"] and not synced
    monkeypatch.setattr(eventlog, "sync_folder", fails(errno.EIO))
    with pytest.raises(OutputError, match="an event could not be written: Input/output error"):
        log.append(record(7, "load"))
    assert synced == [log.end[1]] and log.end[0] == 1
    monkeypatch.undo()
    log.append(record(7, "load"))
    assert log.end[0] == 2 and seqs(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    log.close()


def kill_runs(folder: str, n: str, out: str) -> None:
    """Runs in a process without threads: ``n`` children append to one log and are killed at a random moment."""
    eventlog.SEGMENT_BYTES = 2**18
    chance = random.Random(5)
    acknowledged: list[int] = []
    n_torn = n_kills = 0
    for _ in range(int(n)):
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            _append_for_ever(Path(folder), send, chance.randrange(2**32))
        os.close(send)
        time.sleep(chance.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        with os.fdopen(receive, "rb") as pipe:
            acknowledged += [int(line) for line in pipe.read().splitlines()]
        n_kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        n_torn += any(not path.read_bytes().endswith(b"\n") for path in Path(folder).glob("*.jsonl") if path.stat().st_size)
    Path(out).write_text(json.dumps({"acknowledged": acknowledged, "torn": n_torn, "kills": n_kills}))


def _append_for_ever(folder: Path, send: int, seed: int) -> None:
    chance = random.Random(seed)
    log = EventLog(folder, quota_bytes=2**40)
    seq = log.last_seq
    while True:
        seq += 1
        text = "x" * chance.choice((10, 300, 60000))  # large ones are written page by page: a kill tears them
        log.append(record(seq, chance.choice(("anomaly", "load", "load")), text=text))
        os.write(send, b"%d\n" % seq)


def test_200_kills_lose_no_acknowledged_record(tmp_path: Path) -> None:
    folder, out = tmp_path / "log", tmp_path / "acknowledged.json"
    code = "import sys; sys.path.insert(0, sys.argv[1]); from test_eventlog import kill_runs; kill_runs(*sys.argv[2:])"
    arguments = [str(HERE), str(folder), str(N_KILLS), str(out)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=120)
    told = json.loads(out.read_text())
    EventLog(folder, quota_bytes=2**40).close()
    found = seqs(folder)
    print(f"{len(told['acknowledged'])} acknowledged, {told['torn']} torn tails, {len(files(folder))} files")
    assert told["kills"] == N_KILLS and len(told["acknowledged"]) > N_KILLS
    assert told["acknowledged"] == sorted(set(told["acknowledged"]))
    assert found == list(range(1, found[-1] + 1))  # in order, each once
    assert set(told["acknowledged"]) <= set(found)
    assert len(found) - len(told["acknowledged"]) <= N_KILLS  # written, killed before it could say so
    assert whole(folder)


@pytest.mark.parametrize(
    "tail", [b"{", b'{"camera": "gate"', b"\0" * 5000, b"x" * 300_000], ids=["1", "17", "zeros", "300k"]
)
def test_a_torn_tail_is_cut_before_anything_is_appended(tmp_path: Path, tail: bytes) -> None:
    for kept in ([], [1, 2]):
        folder = tmp_path / str(len(kept))
        log = EventLog(folder)
        for seq in kept:
            log.append(record(seq))
        log.close()
        with (folder / files(folder)[0]).open("ab") as file:
            file.write(tail)
        assert seqs(folder) == kept
        log = EventLog(folder)
        assert log.last_seq == len(kept)
        log.append(record(len(kept) + 1))
        log.close()
        assert seqs(folder) == [*kept, len(kept) + 1] and whole(folder)


def test_a_line_cut_off_anywhere_is_repaired(tmp_path: Path) -> None:
    with_two = seal(record(1).line()) + seal(record(2).line())
    path = tmp_path / "events-00000001.jsonl"
    line = len(with_two) // 2
    for size in sorted({*range(0, 2 * line, 5), *(at + off for at in (0, line, 2 * line) for off in (-1, 0, 1))} - {-1}):
        path.write_bytes(with_two[:size])
        log = EventLog(tmp_path)
        log.append(record(log.last_seq + 1))
        log.close()
        n_whole = with_two[:size].count(b"\n")
        assert seqs(tmp_path) == list(range(1, n_whole + 2)) and whole(tmp_path)


# Errors of the medium


def fails(number: int, times: int = 10**9) -> Callable[..., Any]:
    left = [times]

    def failing(*_: Any) -> None:
        left[0] -= 1
        raise OSError(number, os.strerror(number))

    return failing


@pytest.mark.parametrize("written", [0, 1, 57, "all but one"])
def test_a_short_write_leaves_no_torn_line_and_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Any
) -> None:
    log = EventLog(tmp_path)
    log.append(record(1))
    write = os.write
    monkeypatch.setattr(
        os, "write", lambda h, data: write(h, data[: len(data) - 1 if written == "all but one" else written])
    )
    for _ in range(3):
        with pytest.raises(OutputError, match="an event could not be written: No space left on device"):
            log.append(record(2))
        assert seqs(tmp_path) == [1] and whole(tmp_path) and log.last_seq == 1
    monkeypatch.undo()
    log.append(record(2))
    log.close()
    assert seqs(tmp_path) == [1, 2] and whole(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("mended", [True, False], ids=["mended at once", "mended later"])
def test_a_failing_call_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str, mended: bool
) -> None:
    log = EventLog(tmp_path)
    log.append(record(1))
    monkeypatch.setattr(os, call, fails(number))
    if not mended:
        monkeypatch.setattr(os, "ftruncate", fails(number))
    for _ in range(2):
        with pytest.raises(OutputError, match=os.strerror(number)):
            log.append(record(2))
        assert [found.seq for at, found in read(tmp_path) if at <= log.end] == [1]
    monkeypatch.undo()
    log.append(record(2))
    log.append(record(3))
    log.close()
    assert seqs(tmp_path) == [1, 2, 3] and whole(tmp_path)


def test_a_log_that_ends_while_the_medium_fails_still_has_no_line_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(tmp_path)
    log.append(record(1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:9]))
    monkeypatch.setattr(os, "ftruncate", fails(errno.EROFS))
    with pytest.raises(OutputError):
        log.append(record(2))
    with pytest.raises(OutputError, match="cannot be closed: Read-only file system"):
        log.close()
    monkeypatch.undo()
    with EventLogOf(tmp_path) as log:
        assert log.last_seq == 1
        log.append(record(2))
    assert seqs(tmp_path) == [1, 2] and whole(tmp_path)


class EventLogOf:
    def __init__(self, folder: Path, **more: Any) -> None:
        self._log = EventLog(folder, **more)

    def __enter__(self) -> EventLog:
        return self._log

    def __exit__(self, *_: object) -> None:
        self._log.close()


def test_a_sync_that_fails_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EventLogOf(tmp_path) as log:
        with monkeypatch.context() as patched, pytest.raises(OutputError, match="cannot be synced: Input/output"):
            patched.setattr(os, "fdatasync", fails(errno.EIO))
            log.sync()
        log.append(record(1))
    assert seqs(tmp_path) == [1]


def test_a_folder_that_cannot_be_used_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/log: the event log cannot be opened"):
        EventLog(tmp_path / "file" / "log")


def test_a_second_writer_is_held_off_until_the_first_has_closed(tmp_path: Path) -> None:
    with EventLogOf(tmp_path), pytest.raises(OutputError, match="another process is writing it"):
        EventLog(tmp_path)
    EventLog(tmp_path).close()


# Reading


def test_damaged_lines_in_the_middle_are_left_out_and_the_others_come(tmp_path: Path) -> None:
    with EventLogOf(tmp_path) as log:
        for seq in range(1, 8):
            log.append(record(seq))
    path = tmp_path / "events-00000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"gate", b"gote")
    lines[2] = b"\xff\x00 no record\n"
    lines[4] = lines[4][:-20] + b"\n"
    lines[5] = b"{}\n" + b"y" * 400_000 + b"\n"
    path.write_bytes(b"".join(lines))
    assert seqs(tmp_path) == [1, 4, 7]
    with EventLogOf(tmp_path) as log:
        assert log.last_seq == 7
        log.append(record(8))
    assert seqs(tmp_path) == [1, 4, 7, 8]


def test_files_are_rotated_and_the_oldest_deleted_within_the_quota(tmp_path: Path) -> None:
    quota = 20_000
    with EventLogOf(tmp_path, quota_bytes=quota) as log:
        for seq in range(1, 1001):
            log.append(record(seq, "load"))
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= quota
        assert log.last_seq == 1000
    found = seqs(tmp_path)
    assert found == list(range(found[0], 1001))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > quota / 2
    with EventLogOf(tmp_path, quota_bytes=quota // 2):  # a smaller quota holds from the start
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= quota // 2
    assert seqs(tmp_path)[-1] == 1000


def test_a_file_that_cannot_be_deleted_does_not_stop_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EventLogOf(tmp_path, quota_bytes=2000) as log:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", fails(errno.EROFS))
            for seq in range(1, 51):
                log.append(record(seq))
        assert seqs(tmp_path) == list(range(1, 51))
        for seq in range(51, 61):
            log.append(record(seq))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000


def test_the_number_goes_on_after_a_new_start_also_behind_an_empty_or_damaged_file(tmp_path: Path) -> None:
    with EventLogOf(tmp_path, quota_bytes=8000) as log:
        for seq in range(1, 21):
            log.append(record(seq))
        number = log.end[0]
    (tmp_path / f"events-{number + 1:08d}.jsonl").write_bytes(b"")
    with EventLogOf(tmp_path, quota_bytes=8000) as log:
        assert log.last_seq == 20 and log.end == (number + 1, 0)
    (tmp_path / f"events-{number + 1:08d}.jsonl").write_bytes(b"damaged\n")
    (tmp_path / f"events-{number + 2:08d}.jsonl").write_bytes(b"torn")
    with EventLogOf(tmp_path, quota_bytes=8000) as log:
        assert log.last_seq == 20
        log.append(record(21))
    assert seqs(tmp_path)[-2:] == [20, 21]


def test_a_position_in_a_deleted_file_continues_with_the_oldest_one(tmp_path: Path) -> None:
    with EventLogOf(tmp_path, quota_bytes=4000) as log:
        log.append(record(1))
        position = log.end
        for seq in range(2, 101):
            log.append(record(seq))
        found = seqs(tmp_path, position)
        assert found == seqs(tmp_path) and found[0] > 2 and found[-1] == 100
        assert seqs(tmp_path, log.end) == [] and seqs(tmp_path, (log.end[0], 10**9)) == []
        assert seqs(tmp_path, (log.end[0] + 3, 0)) == []
    assert seqs(tmp_path / "nowhere") == []


def test_a_file_that_is_deleted_while_it_is_read_ends_nothing(tmp_path: Path) -> None:
    with EventLogOf(tmp_path, quota_bytes=4000) as log:
        for seq in range(1, 16):
            log.append(record(seq))
        reader = read(tmp_path)
        assert next(reader)[1].seq == 1
        for name in files(tmp_path)[:-1]:
            (tmp_path / name).unlink()
        rest = [found.seq for _, found in reader]
    assert rest == sorted(rest) and rest[-1] == 15


def test_a_position_within_a_line_goes_back_to_its_start(tmp_path: Path) -> None:
    with EventLogOf(tmp_path) as log:
        log.append(record(1, text="x" * 3000))
        behind = log.end[1]
        log.append(record(2))
    assert seqs(tmp_path, (1, behind)) == [2]
    for at in (0, 1, behind - 1):
        assert seqs(tmp_path, (1, at)) == [1, 2]
    assert seqs(tmp_path, (1, behind + 1)) == [2]


def test_a_line_that_is_too_long_loses_its_longest_values_and_says_so(tmp_path: Path) -> None:
    regions = [{"box": [1.0, 2.0, 3.0, 4.0], "score": 1.0}] * 3000
    many = {f"key{number:05d}": "x" * 20 for number in range(9000)}
    with EventLogOf(tmp_path) as log:
        log.append(record(1, regions=regions, peak_score=1.5, text="t" * 60000))
        log.append(record(2, **many))
        log.append(record(3, text="t" * 65000))
        log.append(record(4, **dict(list(many.items())[:3000]), crowd="t" * 65000))
        log.append(record(5))
    first, second, third, fourth, fifth = (found for _, found in read(tmp_path))
    assert dict(first.data) == {"peak_score": 1.5, "text": "t" * 60000, "left_out": ["regions"]}
    assert dict(second.data) == {"left_out": 9000}  # not even their names fit
    assert third == record(3, text="t" * 65000) and fifth == record(5)
    assert "crowd" in fourth.data["left_out"] and len(fourth.data) > 500
    lines = (tmp_path / files(tmp_path)[0]).read_bytes().splitlines(keepends=True)
    assert len(lines) == 5 and all(len(line) <= eventlog.MAX_LINE_BYTES for line in lines)
