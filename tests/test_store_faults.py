"""Every system call of the store fails once; disks fill up; processes are killed, or get in each other's way."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_bundle
import store_cases
from store_cases import CASES, Case, Shelf, State, check, check_repeated, check_tidy, fails_cleanly
from store_trace import Fail, Trace, fail_at, full_from, in_memory, read_only, read_tree, write_tree

from edge_vad.errors import StoreError
from edge_vad.store import Store

FAULTS: dict[str, int] = {}  # case -> calls that were made to fail
ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf.fill(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on what a disk keeps."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with in_memory(tmp_path) as folder:
        yield folder


def named(case: Case) -> str:
    return case.name.replace(" ", "-")


class Rehearsal:
    """A case, run once to its end: what lay there before, the states before and after, and every call."""

    def __init__(self, case: Case, shelf: Shelf, folder: Path) -> None:
        self.case, self.shelf, self._folder = case, shelf, folder
        store = Store(folder / "rehearsed")
        store.folder.mkdir()
        case.prepare(store, shelf)
        self.before, self.tree = State.of(store), read_tree(store.folder)
        with Trace(store.folder).recording() as trace:
            case.operate(store, shelf)
        self.calls, self.after = trace.calls, State.of(store)
        self._numbers = itertools.count()
        self._seen: set[tuple[object, ...]] = set()

    def disturbed(self, fail: Fail, where: str) -> None:
        """The case with failing calls: a clean error or success, and everything goes on when they work again."""
        case, store = self.case, Store(write_tree(self._folder / f"fault{next(self._numbers)}", self.tree))
        with Trace(store.folder, fail).recording() as trace:
            error = fails_cleanly(lambda: case.operate(store, self.shelf))
        assert not trace.open_handles, f"{where}: left open"
        left = (error is None, *sorted(read_tree(store.folder).items()))
        if left not in self._seen:
            self._seen.add(left)
            self._nothing_half_written(store, where)
            if error is None and not case.starts:
                assert store.current == self.after.current, f"{where}: it was not done, and nothing was said"
            rolled_back = check(store.folder, self.before, self.after, case, where, disturbed=True)
            otherwise = error is None and State.of(store).previous != self.after.previous  # done, with another one kept
            check_repeated(store.folder, self.after, case, self.shelf, where, rolled_back=rolled_back or otherwise)
        shutil.rmtree(store.folder)

    def _nothing_half_written(self, store: Store, where: str) -> None:
        """What has a bundle's name is a bundle, or was damaged before."""
        names = {path.name for path in store.folder.glob("bundles/[0-9a-f]*")}
        before = {path.removeprefix("bundles/") for path in self.tree if path.startswith("bundles/")}
        assert not names - before - State.of(store).whole, where


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_failing_call_is_a_clean_error_and_costs_nothing(case: Case, shelf: Shelf, folder: Path) -> None:
    rehearsal = Rehearsal(case, shelf, folder)
    FAULTS[case.name] = 0
    for position, kind in enumerate(rehearsal.calls):
        if kind in ("stat", "lstat", "fstat", "read") and position % 3:
            continue  # they are many, and alike
        number = ERRORS[position % len(ERRORS)]
        where = f"{case.name}: call {position}, {kind}, {errno.errorcode[number]}"
        rehearsal.disturbed(fail_at(position, number), where)
        FAULTS[case.name] += 1


def test_there_were_at_least_300_failing_calls() -> None:
    if len(FAULTS) < len(CASES):
        pytest.skip("only part of the cases ran")
    assert sum(FAULTS.values()) >= 300, FAULTS


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_disk_that_fills_up_anywhere_costs_nothing(case: Case, shelf: Shelf, folder: Path) -> None:
    rehearsal = Rehearsal(case, shelf, folder)
    for position, kind in enumerate(rehearsal.calls):
        if kind in ("create", "write", "mkdir", "symlink"):
            rehearsal.disturbed(full_from(position), f"{case.name}: full from call {position}, {kind}")


def test_an_install_on_a_full_disk_leaves_nothing_behind(shelf: Shelf, folder: Path) -> None:
    store = Store(folder / "store")
    store.folder.mkdir()
    store_cases.TWO(store, shelf)
    before = read_tree(store.folder)
    for position in itertools.count():
        with Trace(store.folder, full_from(position)).recording() as trace:
            error = fails_cleanly(lambda: store.install(shelf.paths["c"]))
        if error is None:
            break
        assert "No space left" in str(error)
        if shelf.ids["c"] not in {path.name for path in (store.folder / "bundles").iterdir()}:
            assert read_tree(store.folder) == before
    assert position > 40 and trace.calls
    check_tidy(store, "at the end")


@pytest.mark.parametrize("prepare", [store_cases.ONE, store_cases.TWO], ids=["one", "two"])
def test_a_confirmed_bundle_starts_from_a_medium_that_cannot_be_written(
    prepare: store_cases.Prepare, shelf: Shelf, folder: Path
) -> None:
    store = Store(folder)
    prepare(store, shelf)
    before, current = read_tree(folder), store.current
    with Trace(folder, read_only).recording() as trace:
        assert store.start(store_cases.opened) == current
        store.confirm()
    assert read_tree(folder) == before and not trace.changes()


def test_a_trial_that_cannot_be_counted_is_not_made(shelf: Shelf, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(folder)
    store_cases.on_trial("b", "a")(store, shelf)
    with Trace(folder, read_only).recording():
        assert store.start(store_cases.opened) == shelf.ids["a"]
    assert "the attempt cannot be counted, so the previous bundle runs" in caplog.text
    assert (store.current, store.attempts_made) == (shelf.ids["b"], 1)
    assert store.start(store_cases.opened) == shelf.ids["b"]


def test_a_first_trial_runs_also_where_it_cannot_be_counted(shelf: Shelf, folder: Path) -> None:
    """There is nothing else to run: a device that detects is better than one that does not."""
    store = Store(folder)
    store_cases.on_trial("a", starts=0)(store, shelf)
    with Trace(folder, read_only).recording():
        assert store.start(store_cases.opened) == shelf.ids["a"]


@pytest.mark.parametrize("operation", ["install", "activate", "rollback", "gc"])
def test_changes_on_a_medium_that_cannot_be_written_say_so(
    operation: str, shelf: Shelf, folder: Path, tmp_path: Path
) -> None:
    store = Store(folder)
    store_cases.with_installed(store_cases.TWO, "c", "d")(store, shelf)
    new = small_bundle.write(tmp_path / "new.evb", 9)
    changes = {
        "install": lambda: store.install(new),
        "activate": lambda: store.activate(shelf.ids["c"]),
        "rollback": store.rollback,
        "gc": store.collect_garbage,
    }
    before = read_tree(folder)
    with Trace(folder, read_only).recording():
        error = fails_cleanly(changes[operation])
    assert error is not None and "Read-only file system" in str(error)
    assert read_tree(folder) == before


def test_a_store_in_use_says_so_after_a_while(
    shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, other = Store(folder), Store(folder)
    store_cases.on_trial("b", "a")(store, shelf)
    monkeypatch.setattr("edge_vad.store.LOCK_S", 0.05)
    with other._locked():
        for change in (store.collect_garbage, store.rollback, store.confirm, lambda: store.activate(shelf.ids["a"])):
            with pytest.raises(StoreError, match=r"in use by another process for 0\.05 s; try again"):
                change()
        assert store.start(store_cases.opened) == shelf.ids["a"], "the trial cannot be counted: the previous one runs"
        assert "in use by another process" in caplog.text
    assert store.start(store_cases.opened) == shelf.ids["b"]


def hammer(what: str, folder: Path) -> dict[str, int]:
    """Run `store_hammer` in a clean process, which may fork; returns what it counted."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "store_hammer", what, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def test_100_kills_lose_nothing_that_was_reported_as_done(folder: Path) -> None:
    counted = hammer("kill", folder)
    assert counted["kills"] == 100
    assert counted["steps"] >= 250 and counted["in_flight"] >= 50, f"the kills did not hit the work: {counted}"


def test_processes_at_once_do_not_get_in_each_others_way(folder: Path) -> None:
    counted = hammer("crowd", folder)
    assert counted["steps"] >= 20 and counted["starts"] >= 5, counted
