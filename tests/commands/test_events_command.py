"""edge-vad events: the log as a table, as JSON lines, and as it grows."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tiny import Outcome

from edge_vad.commands.events import Reader, since
from edge_vad.eventlog import EventLog
from edge_vad.record import Record, Recorder

Cli = Callable[..., Outcome]
ANOMALY = {"id": 1, "start_s": 12.5, "end_s": None, "peak_score": 1.374, "components": {"spatial": 1.0}, "regions": []}


def fill(folder: Path, n_more: int = 0) -> list[Record]:
    """A log of one record of several kinds, and more."""
    recorder = Recorder()
    records = [
        recorder.record("", "unit", "started", {"cameras": ["street"]}),
        recorder.record("street", "anomaly", "start", {**ANOMALY, "snapshot": "media/street/1.jpg"}),
        recorder.record("street", "anomaly", "end", {**ANOMALY, "end_s": 15.75, "clip": "media/street/1.mp4"}),
        recorder.record("yard", "camera", "lost", {"reason": "no pictures for 5 s"}),
        recorder.record("yard", "camera", "back", {"gap_s": 7.31}),
    ]
    records += [recorder.record("yard", "load", "normal") for _ in range(n_more)]
    log = EventLog(folder)
    for record in records:
        log.append(record)
    log.close()
    return records


def test_the_table(cli: Cli, tmp_path: Path) -> None:
    records = fill(tmp_path / "events")
    said = cli("events", tmp_path)
    header, *rows = said.out.splitlines()
    assert (said.code, said.err, len(rows)) == (0, "", 5)
    assert header.split()[:2] == ["seq", "time"]
    moment = datetime.fromisoformat(records[0].time.replace("Z", "+00:00")).astimezone()
    assert f"{moment:%Y-%m-%d %H:%M:%S}" in rows[0]
    assert rows[1].split()[3:] == ["street", "anomaly", "start", "1.37", "id", "1,", "snapshot", "media/street/1.jpg"]
    assert rows[2].split()[3:] == ["street", "anomaly", "end", "1.37", "3.2", "s", "id", "1,", "clip", "media/street/1.mp4"]
    assert rows[3].split()[3:] == ["yard", "camera", "lost", "reason", "no", "pictures", "for", "5", "s"]
    assert rows[4].split()[3:] == ["yard", "camera", "back", "7.3", "s"]
    assert cli("events", tmp_path / "events").out == said.out


def test_json_lines_are_the_records(cli: Cli, tmp_path: Path) -> None:
    records = fill(tmp_path / "events")
    said = cli("events", tmp_path, "--json")
    assert [Record.parse(json.loads(line)) for line in said.out.splitlines()] == records


@pytest.mark.parametrize(
    ("arguments", "seqs"),
    [
        (["--type", "anomaly"], [2, 3]),
        (["--type", "camera,unit"], [1, 4, 5]),
        (["--camera", "yard"], [4, 5]),
        (["--camera", "yard", "--type", "anomaly"], []),
        (["--since", "3"], [4, 5]),
        (["--since", "1h"], [1, 2, 3, 4, 5]),
        (["--since", "2100-01-01"], []),
        (["--since", "2020-01-01T10:00Z"], [1, 2, 3, 4, 5]),
    ],
)
def test_what_is_asked_for(arguments: list[str], seqs: list[int], cli: Cli, tmp_path: Path) -> None:
    fill(tmp_path / "events")
    said = cli("events", tmp_path, "--json", *arguments)
    assert [json.loads(line)["seq"] for line in said.out.splitlines()] == seqs
    table = cli("events", tmp_path, *arguments)
    assert table.code == 0 and bool(table.err) is not bool(seqs)


def test_ages_hold_when_the_wall_clock_steps() -> None:
    recorder = Recorder()
    record = recorder.record("", "unit", "started")
    wrong = dataclasses.replace(record, time="1970-01-01T00:00:07.000Z")
    assert since("10m")(wrong)  # of this boot: the monotonic clock knows
    assert not since("10m")(dataclasses.replace(wrong, monotonic_s=record.monotonic_s - 601))
    other = dataclasses.replace(record, boot="another", monotonic_s=1.0)
    assert since("10m")(other)
    before = (datetime.now(timezone.utc) - timedelta(minutes=11)).isoformat().replace("+00:00", "Z")
    assert not since("10m")(dataclasses.replace(other, time=before))
    assert not since("10m")(dataclasses.replace(other, time="no time"))


def test_times_without_a_zone_are_those_of_this_place(monkeypatch: pytest.MonkeyPatch) -> None:
    record = dataclasses.replace(Recorder().record("", "unit", "started"), time="2026-11-22T09:30:00.000Z")
    monkeypatch.setenv("TZ", "Europe/Berlin")  # one hour ahead
    time.tzset()
    try:
        assert since("2026-11-22T10:30")(record) and not since("2026-11-22T10:31")(record)
        assert since("2026-11-22T09:30Z")(record) and not since("2026-11-22T09:30:01+00:00")(record)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--since", "yesterday"], ("'yesterday'", "2h", "2026-11-22T10:00")),
        (["--since", "-5"], ("--since",)),
        (["--type", "anomly"], ("'anomly'", "did you mean 'anomaly'")),
    ],
)
def test_wrong_usage(arguments: list[str], words: tuple[str, ...], cli: Cli, tmp_path: Path) -> None:
    fill(tmp_path / "events")
    said = cli("events", tmp_path, *arguments)
    assert said.code == 2 and said.out == "" and all(word in said.err for word in words), said


def test_a_folder_without_a_log(cli: Cli, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        said = cli("events", folder)
        assert said.code == 1 and said.err.count("\n") == 1
        assert str(folder) in said.err and "data:" in said.err
    (tmp_path / "events").mkdir()  # of a unit that has not recorded anything
    for folder in (tmp_path, tmp_path / "events"):
        assert cli("events", folder).code == 0


def test_damaged_lines_are_counted(cli: Cli, tmp_path: Path) -> None:
    fill(tmp_path / "events", 3)
    [path] = (tmp_path / "events").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"street", b"stroet")
    lines[5] = b"\xff\xfe\n"
    path.write_bytes(b"".join(lines) + b'{"torn')
    said = cli("events", tmp_path, "--json")
    assert said.code == 0 and "2 damaged lines" in said.err
    assert [json.loads(line)["seq"] for line in said.out.splitlines()] == [1, 3, 4, 5, 7, 8]


def test_an_endless_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    records = fill(folder)
    [path] = folder.iterdir()
    path.write_bytes(b"x" * 10**6 + b"\n" + path.read_bytes())
    reader = Reader(folder)
    assert list(reader.records()) == records and reader.n_damaged == 8


def test_text_of_a_record_does_not_reach_the_terminal_as_a_command(cli: Cli, tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append(Recorder().record("yard", "camera", "lost", {"reason": "\x1b[2J\nx"}))
    log.close()
    said = cli("events", tmp_path)
    assert "\x1b" not in said.out and len(said.out.splitlines()) == 2


def test_what_a_follower_tells_is_on_the_medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path)
    recorder = Recorder()
    log.append(recorder.record("yard", "load", "normal"))
    synced: list[int] = []

    def sync(handle: int) -> None:
        synced.append(os.fstat(handle).st_size)
        if len(synced) == 1:  # while it syncs the next one is written, and not on the medium yet
            log.append(recorder.record("yard", "load", "degraded"))

    monkeypatch.setattr("edge_vad.commands.events.os.fdatasync", sync)
    monkeypatch.setattr("edge_vad.commands.events.POLL_S", 0.0)
    told = (None if record is None else record.seq for record in Reader(tmp_path).records(follow=True))
    assert (next(told), len(synced)) == (1, 1)
    assert next(told) is None, "the second record came after the sync: its turn is the next one"
    assert next(told) == 2
    assert synced == [synced[0], log.end[1]]
    assert [record.seq for record in Reader(tmp_path).records()] == [1, 2]
    assert len(synced) == 2, "one who only looks syncs nothing"
    monkeypatch.undo()
    log.close()


def test_it_follows_the_log_over_new_files(tmp_path: Path) -> None:
    recorder = Recorder()
    log = EventLog(tmp_path / "events", quota_bytes=64 * 1024)  # files of 16 KiB
    command = [sys.executable, "-m", "edge_vad", "events", str(tmp_path), "--follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        try:
            for i in range(150):
                log.append(recorder.record("street", "view", "frozen", {"padding": "x" * 100}))
                if i % 30 == 0:
                    assert json.loads(child.stdout.readline())["seq"] == i + 1  # what is written is shown
                    rest = 29
                else:
                    rest -= 1
                if rest == 0:
                    seqs = [json.loads(child.stdout.readline())["seq"] for _ in range(29)]
                    assert seqs == list(range(i - 27, i + 2))
            assert len(list((tmp_path / "events").iterdir())) > 1
            child.send_signal(signal.SIGINT)
            assert child.wait(30) == 130
            assert child.stderr.read().strip() == ""
        finally:
            child.kill()
            log.close()


def test_whoever_stops_reading_ends_it(tmp_path: Path) -> None:
    fill(tmp_path / "events", 2000)
    command = f"{sys.executable} -m edge_vad events {tmp_path} | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("\n") == 1


def test_files_that_go_while_they_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    fill(folder)
    reader = Reader(folder)
    reading = reader.records()
    next(reading)
    shutil.copy(folder / "events-00000001.jsonl", folder / "events-00000002.jsonl")
    (folder / "events-00000001.jsonl").unlink()
    assert [record.seq for record in reading] == [2, 3, 4, 5]  # the open one is read to its end
