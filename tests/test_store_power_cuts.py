"""The power fails after every file operation of the store, on a disk that keeps no more than it must."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_cases
from store_cases import CASES, Case, Shelf, State, check, check_repeated
from store_trace import Disk, Trace, Tree, in_memory, read_tree, write_tree

from edge_vad.bundle import Bundle
from edge_vad.store import Store

CUTS: dict[str, int] = {}  # case -> points in its sequence of changes after which the power failed


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf.fill(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disk keeps is modelled; the real one need not be waited for."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with in_memory(tmp_path) as folder:
        yield folder


def named(case: Case) -> str:
    return case.name.replace(" ", "-")


class Rehearsal:
    """A case, run once to its end: the states before and after, what lay on the disk, and every change."""

    def __init__(self, case: Case, shelf: Shelf, folder: Path) -> None:
        self.case, self.shelf, self._folder = case, shelf, folder
        root = folder / "rehearsed"
        root.mkdir()
        store = Store(root)
        case.prepare(store, shelf)
        self.before = State.of(store)
        self.tree = read_tree(root)
        with Trace(root).recording() as trace:
            case.operate(store, shelf)
        self.ops = trace.ops
        self.after = State.of(store)
        self._numbers = itertools.count()

    def disks(self) -> Iterator[tuple[int, Disk]]:
        """The disk before the first change and after each one."""
        disk, n_changes = Disk(self.tree), 0
        yield 0, disk
        for op in self.ops:
            disk.apply(op)
            if op.kind not in ("open", "mark"):
                n_changes += 1
                yield n_changes, disk

    def made(self, tree: Tree) -> Path:
        """A fresh folder that holds it."""
        return write_tree(self._folder / f"cut{next(self._numbers)}", tree)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_power_cut_leaves_a_store_that_starts_and_goes_on(case: Case, shelf: Shelf, folder: Path) -> None:
    rehearsal = Rehearsal(case, shelf, folder)
    seen = set()
    for n_points, disk in rehearsal.disks():
        CUTS[case.name] = n_points
        for variant in Disk.VARIANTS:
            tree = disk.after_power_cut(variant, f"{case.name} {n_points}")
            if (state := tuple(sorted(tree.items()))) in seen:
                continue
            seen.add(state)
            root, where = rehearsal.made(tree), f"{case.name}, cut after change {n_points}, {variant}"
            rolled_back = check(root, rehearsal.before, rehearsal.after, case, where)
            check_repeated(root, rehearsal.after, case, shelf, where, rolled_back=rolled_back)
            shutil.rmtree(root)
    for variant in Disk.VARIANTS:  # it has returned: nothing of it may be lost any more
        root = rehearsal.made(disk.after_power_cut(variant, "end"))
        assert State.of(Store(root)) == rehearsal.after, f"{case.name}, cut after the end, {variant}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_what_is_repeated_after_a_kill_is_durable_when_it_returns(case: Case, shelf: Shelf, folder: Path) -> None:
    """A killed process leaves names that were not synced but are seen; who finds them done must not rely on them."""
    rehearsal = Rehearsal(case, shelf, folder)
    for n_points, disk in rehearsal.disks():
        root = rehearsal.made(disk.after_power_cut("survived"))
        with Trace(root).recording() as trace:
            case.operate(Store(root), shelf)
        shutil.rmtree(root)
        later = copy.deepcopy(disk)
        for op in trace.ops:
            later.apply(op)
        root, where = rehearsal.made(later.after_power_cut("lost")), f"{case.name}, killed after change {n_points}"
        now = State.of(Store(root))
        assert now[:2] == rehearsal.after[:2] or (case.starts and now[:2] == rehearsal.before[:2]), where
        assert now.serial == rehearsal.after.serial, where
        assert rehearsal.before.proved is None or not case.keeps_proved or rehearsal.before.proved in now.whole, where
        shutil.rmtree(root)


def test_there_were_at_least_500_cut_points() -> None:
    """Counted by the first test: changes of files in all cases, after each of which the power failed in every variant."""
    if len(CUTS) < len(CASES):
        pytest.skip("only part of the cases ran")
    assert sum(CUTS.values()) >= 500, CUTS


def test_an_attempt_is_durable_before_anything_is_opened(shelf: Shelf, folder: Path) -> None:
    """A bundle that takes the device down when it is opened must not do so for ever."""
    root = folder / "store"
    root.mkdir()
    store = Store(root)
    store_cases.on_trial("b", "a", starts=0)(store, shelf)
    for attempt in (1, 2, 3):
        disk = Disk(read_tree(root))
        with Trace(root).recording() as trace:

            def falls_over(bundle: Bundle, trace: Trace = trace) -> str:
                trace.mark("opened")
                raise RuntimeError("the power fails")

            with pytest.raises(RuntimeError):
                store.start(falls_over)
        for op in trace.ops[: [op.kind for op in trace.ops].index("mark")]:
            disk.apply(op)
        root = write_tree(folder / f"store{attempt}", disk.after_power_cut("lost"))
        store = Store(root)
        assert (store.current, store.attempts_made) == (shelf.ids["b"], attempt)
    assert store.start(store_cases.opened) == shelf.ids["a"] == store.current


def test_a_whole_life_survives_a_power_cut_anywhere(shelf: Shelf, folder: Path) -> None:
    """Install, activate, start, confirm of four releases in one sequence: a power cut costs at most the step it hits."""
    root = folder / "store"
    root.mkdir()
    disk = Disk(read_tree(root))
    confirmed: list[tuple[int, str]] = []
    with Trace(root).recording() as trace:
        store = Store(root)
        for name in "abcd":
            store.install(shelf.paths[name])
            store.activate(shelf.ids[name])
            store.start(store_cases.opened)
            store.confirm()
            confirmed.append((len(trace.ops), shelf.ids[name]))
            store.collect_garbage()
    for position, op in enumerate(trace.ops, start=1):
        disk.apply(op)
        done = [bundle_id for at, bundle_id in confirmed if at <= position]
        if not done or op.kind in ("open", "write"):
            continue
        for variant in ("lost", "some 1"):
            store = Store(write_tree(folder / f"cut{position}{variant}", disk.after_power_cut(variant, str(position))))
            assert store.serial >= len(done)
            assert done[-1] in (store.current, store.previous) and store.load(done[-1]).id == done[-1]
            assert store.start(store_cases.opened) in (store.current, store.previous)
            shutil.rmtree(store.folder)


AUDITED = """
import os, sys
from pathlib import Path
from store_cases import CASES, Shelf
from store_trace import Trace
from edge_vad.store import Store

seen, outside, root = [], [], None
CHANGES = {"os.mkdir": 0, "os.rename": 0, "os.remove": 0, "os.rmdir": 0, "os.symlink": 1, "os.truncate": 0, "os.link": 1,
    "os.chmod": 0, "os.utime": 0, "shutil.rmtree": 0, "open": 0}

def hook(event, arguments):
    if root is None or event not in CHANGES or isinstance(arguments[CHANGES[event]], int):
        return
    path = os.fsdecode(arguments[CHANGES[event]])
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
        return
    (seen if path == str(root) or path.startswith(f"{root}/") else outside).append((event, path))

sys.addaudithook(hook)
folder = Path(sys.argv[1])
shelf = Shelf.fill(folder)
for number, case in enumerate(CASES):
    store = Store(folder / str(number))
    store.folder.mkdir()
    case.prepare(store, shelf)
    seen.clear()
    root = store.folder
    with Trace(root).recording() as trace:
        case.operate(store, shelf)
    root = None
    assert not outside, outside
    recorded = [op for op in trace.ops if op.kind in ("mkdir", "rename", "unlink", "rmdir", "symlink")]
    assert len([event for event, _ in seen if event != "open"]) == len(recorded), (case.name, seen, recorded)
    written = {op.path for op in trace.ops if op.kind == "create"}
    assert {path for event, path in seen if event == "open"} - {f"{root}/state/lock"} >= {
        str(store.folder / path) for path in written}, case.name
    opened = {str(Path(path).relative_to(store.folder)) for event, path in seen if event == "open"}
    assert opened <= written | {"state/lock"}, (case.name, opened, written)
print(len(CASES))
"""


def test_nothing_outside_the_folder_is_written_and_the_trace_misses_nothing(folder: Path) -> None:
    """The root file system of a device may be read-only. The interpreter's own audit of file operations is the witness."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", AUDITED, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) == len(CASES)
