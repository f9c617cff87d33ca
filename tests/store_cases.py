"""Stores in every state, what can be done to each, and what must hold whatever interrupts it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import small_bundle
from store_trace import read_tree

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.errors import BundleError, EdgeVadError, StoreError
from edge_vad.store import Store

Prepare = Callable[[Store, "Shelf"], object]
KNOWN_STATE = {"current", "previous", "candidate", "trial.json", "serial.json", "rollback.json", "lock"}


@dataclass(frozen=True)
class Shelf:
    """Bundles to install: a, b, c, d with the serials 1 to 4."""

    paths: Mapping[str, Path]
    ids: Mapping[str, str]

    @classmethod
    def fill(cls, folder: Path) -> Shelf:
        """Write them."""
        paths = {name: small_bundle.write(folder / f"{name}.evb", serial) for serial, name in enumerate("abcd", start=1)}
        return cls(paths, {name: read_bundle(path).id for name, path in paths.items()})


class State(NamedTuple):
    """What a store says of itself. attempts: None for a confirmed bundle; whole: the ids that can be loaded."""

    current: str | None
    previous: str | None
    attempts: int | None
    serial: int
    whole: frozenset[str]

    @classmethod
    def of(cls, store: Store) -> State:
        whole = frozenset(path.name for path in store.folder.glob("bundles/[0-9a-f]*") if is_whole(store, path))
        return cls(store.current, store.previous, store.attempts_made, store.serial, whole)

    @property
    def all_proved(self) -> list[str]:
        """The confirmed bundles that hold: the one that runs, or else the one that is returned to, comes first."""
        confirmed = (self.current if self.attempts is None else None, self.previous)
        return [found for found in confirmed if found is not None and found in self.whole]

    @property
    def proved(self) -> str | None:
        """What must never be lost."""
        return next(iter(self.all_proved), None)

    @property
    def runs(self) -> bool:
        """Whether something can be started."""
        return bool({self.current, self.previous} & self.whole)


_VERDICTS: dict[tuple[str, tuple[tuple[str, tuple[str, bytes]], ...]], bool] = {}


def is_whole(store: Store, path: Path) -> bool:
    """Whether a bundle can be loaded; the same content is looked at once only."""
    content = (path.name, tuple(sorted(read_tree(path).items())))
    if content not in _VERDICTS:
        try:
            _VERDICTS[content] = store.load(path.name).id == path.name
        except BundleError:
            _VERDICTS[content] = False
    return _VERDICTS[content]


@dataclass(frozen=True)
class Case:
    """prepare makes the store; operate is what is interrupted, and done again after it.

    keeps_proved: the confirmed bundle must still be linked afterwards; not so where it is given up on purpose.
    """

    name: str
    prepare: Prepare
    operate: Callable[[Store, Shelf], object]
    keeps_proved: bool = True

    @property
    def starts(self) -> bool:
        """Whether it is a start, which changes what it must and tells nobody."""
        return self.operate is start or getattr(self.operate, "__name__", "") == "start_there"


# States of a store


def put(*names: str) -> Callable[[Store, Shelf], None]:
    """Install, activate and confirm one after the other."""

    def prepare(store: Store, shelf: Shelf) -> None:
        for name in names:
            store.install(shelf.paths[name], allow_older=True)
            store.activate(shelf.ids[name], allow_older=True)
            store.confirm()

    return prepare


def on_trial(name: str, *confirmed: str, starts: int = 1) -> Callable[[Store, Shelf], None]:
    """One bundle that was started but not confirmed, after others that were."""

    def prepare(store: Store, shelf: Shelf) -> None:
        put(*confirmed)(store, shelf)
        store.install(shelf.paths[name], allow_older=True)
        store.activate(shelf.ids[name], allow_older=True)
        for _ in range(starts):
            store.start(opened)

    return prepare


def with_installed(prepare: Prepare, *names: str) -> Callable[[Store, Shelf], None]:
    """The same, and more bundles that do not run."""

    def more(store: Store, shelf: Shelf) -> None:
        prepare(store, shelf)
        for name in names:
            store.install(shelf.paths[name], allow_older=True)

    return more


def damaged(prepare: Prepare, name: str) -> Callable[[Store, Shelf], None]:
    """The same, with a bit turned over in one bundle."""

    def worse(store: Store, shelf: Shelf) -> None:
        prepare(store, shelf)
        damage(store, shelf.ids[name])

    return worse


def with_leftovers(prepare: Prepare) -> Callable[[Store, Shelf], None]:
    """The same, after installs that ended half-way and with search graphs of bundles that have gone."""

    def more(store: Store, shelf: Shelf) -> None:
        prepare(store, shelf)
        for name in (".new-0123456789abcdef-99999", f".old-{'0' * 64}"):
            (store.folder / "bundles" / name / "encoder").mkdir(parents=True)
            (store.folder / "bundles" / name / "encoder" / "encoder.onnx").write_bytes(b"half")
        (store.folder / "derived" / ("0" * 64)).mkdir()
        (store.folder / "derived" / ("0" * 64) / "spatial.safetensors").write_bytes(b"graph")

    return more


def damage(store: Store, bundle_id: str) -> None:
    """Turn a bit over in a member."""
    path = store.folder / "bundles" / bundle_id / "bank" / "spatial.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# What is done


def opened(bundle: Bundle) -> str:
    """An opening function that asks nothing more of a bundle; what it gives is the id."""
    return bundle.id


def install(name: str) -> Callable[[Store, Shelf], object]:
    return lambda store, shelf: store.install(shelf.paths[name], allow_older=True)


def activate(name: str) -> Callable[[Store, Shelf], object]:
    return lambda store, shelf: store.activate(shelf.ids[name], allow_older=True)


def start(store: Store, shelf: Shelf) -> str:
    return store.start(opened)


def start_where(name: str) -> Callable[[Store, Shelf], str]:
    """A start on a device where one bundle fails its self-test."""

    def start_there(store: Store, shelf: Shelf) -> str:
        def fails(bundle: Bundle) -> str:
            if bundle.id == shelf.ids[name]:
                raise StoreError("it computes something else here")
            return bundle.id

        return store.start(fails)

    return start_there


def confirm(store: Store, shelf: Shelf) -> None:
    store.confirm()


def rollback(store: Store, shelf: Shelf) -> None:
    """By hand. Whoever repeats it after a power cut may read that it was done already."""
    try:
        store.rollback()
    except StoreError as error:
        if "there is no previous" not in str(error):
            raise


def gc(store: Store, shelf: Shelf) -> None:
    store.collect_garbage()


EMPTY = put()
ONE, TWO = put("a"), put("a", "b")
CASES = [
    Case("the first install", EMPTY, install("a")),
    Case("an install beside one", ONE, install("b")),
    Case("an install beside two", TWO, install("c")),
    Case("an install during a trial", on_trial("c", "a", "b"), install("d")),
    Case("an install of what is installed", TWO, install("a")),
    Case("an install over a damaged current bundle", damaged(TWO, "b"), install("b")),
    Case("an install over a damaged previous bundle", damaged(TWO, "a"), install("a")),
    Case("an install over a damaged candidate", damaged(with_installed(TWO, "c"), "c"), install("c")),
    Case("the first activation", with_installed(EMPTY, "a"), activate("a")),
    Case("an activation beside one", with_installed(ONE, "b"), activate("b")),
    Case("an activation beside two", with_installed(TWO, "c"), activate("c")),
    Case("an activation of the previous one", TWO, activate("a")),
    Case("an activation during a trial", with_installed(on_trial("b", "a"), "c"), activate("c")),
    Case("an activation during a trial after two", with_installed(on_trial("c", "a", "b", starts=2), "d"), activate("d")),
    Case("an activation over a damaged current bundle", damaged(with_installed(TWO, "c"), "b"), activate("c")),
    Case("a start", TWO, start),
    Case("a start on trial", on_trial("b", "a", starts=0), start),
    Case("a start on trial after two", on_trial("c", "a", "b", starts=0), start),
    Case("a start on the first trial of all", on_trial("a", starts=0), start),
    Case("a start after the last attempt", on_trial("c", "a", "b", starts=3), start),
    Case("a start of what fails here", TWO, start_where("b"), keeps_proved=False),
    Case("a start of what fails here on trial", on_trial("b", "a"), start_where("b")),
    Case("a start of what is damaged", damaged(TWO, "b"), start),
    Case("a start of what is damaged on trial", damaged(on_trial("c", "a", "b"), "c"), start),
    Case("the first confirmation", on_trial("a"), confirm),
    Case("a confirmation", on_trial("b", "a"), confirm),
    Case("a confirmation after two", on_trial("c", "a", "b"), confirm),
    Case("a confirmation of an older one", on_trial("a", "c"), confirm),
    Case("a rollback", TWO, rollback, keeps_proved=False),
    Case("a rollback during a trial", on_trial("b", "a"), rollback),
    Case("a rollback during a trial after two", on_trial("c", "a", "b"), rollback),
    Case("a rollback from what is damaged", damaged(TWO, "b"), rollback),
    Case("a collection of nothing", TWO, gc),
    Case("a collection", with_installed(TWO, "c", "d"), gc),
    Case("a collection during a trial", with_installed(on_trial("c", "a", "b"), "d"), gc),
    Case("a collection of what was left half-way", with_leftovers(with_installed(TWO, "c", "d")), gc),
]


# What must hold


def check(folder: Path, before: State, after: State, case: Case, where: str, *, disturbed: bool = False) -> bool:
    """A store that was interrupted: it is before or after the operation, nothing proved is lost, and something starts.

    disturbed: a call failed; a bundle that could not be read then may have been given up for the other confirmed one.
    Returns whether this start rolled back.
    """
    store = Store(folder)
    now = State.of(store)
    given_up = disturbed and case.starts and now.current == before.previous
    assert now.current in (before.current, after.current) or given_up, where
    assert now.previous in (before.previous, after.previous, None), where
    assert before.serial <= now.serial <= after.serial, where
    confirms = after.current == before.current and after.attempts is None
    if now.current == before.current and before.attempts is not None and not confirms:
        assert now.attempts is not None and now.attempts >= before.attempts, f"{where}: the trial was forgotten"
    if now.current == after.current and after.attempts is not None:
        assert now.attempts is not None, f"{where}: what was not confirmed is not on trial"
    if case.keeps_proved and before.proved:
        kept = before.all_proved if disturbed else [before.proved]
        assert {*kept} & now.whole & {now.current, now.previous}, f"{where}: the confirmed bundle was lost"
    if before.runs:
        assert now.runs, where
        may_run = {before.current, before.previous, after.current, after.previous} & now.whole
        assert store.start(opened) in may_run, where
    elif now.runs:
        store.start(opened)
    else:
        stays_without_a_traceback(store)
    return store.current != now.current


def check_repeated(folder: Path, after: State, case: Case, shelf: Shelf, where: str, *, rolled_back: bool) -> None:
    """The operation, done again, gets to its end; and a collection leaves nothing but what belongs there.

    rolled_back: a start has returned to the previous bundle since, so that the end is another one.
    """
    store = Store(folder)
    case.operate(store, shelf)
    now = State.of(store)
    linked = {now.current, now.previous}
    if not rolled_back:
        assert now[:2] == after[:2] and now.serial == after.serial, where
        assert (now.attempts is None) == (after.attempts is None), where
        assert linked & after.whole == linked & now.whole, where
    assert now.runs or not after.runs, where
    store.collect_garbage()
    check_tidy(store, where)


def check_tidy(store: Store, where: str) -> None:
    """No left-overs."""
    if not store.folder.joinpath("state").is_dir():
        return
    bundles = {path.name for path in store.folder.joinpath("bundles").glob("*")}
    assert all(re.fullmatch("[0-9a-f]{64}", name) for name in bundles), (where, bundles)
    assert {path.name for path in store.folder.joinpath("derived").glob("*")} <= bundles, where
    assert {path.name for path in store.folder.joinpath("state").iterdir()} <= KNOWN_STATE, where


def stays_without_a_traceback(store: Store) -> None:
    """Nothing can run: one line says so."""
    try:
        store.start(opened)
    except StoreError as error:
        assert "install and activate one" in str(error) and "\n" not in str(error)
    else:
        raise AssertionError("something started that was not there")


def fails_cleanly(operate: Callable[[], object]) -> EdgeVadError | None:
    """The error of an operation: one of ours, on one line."""
    try:
        operate()
    except EdgeVadError as error:
        assert str(error) and "\n" not in str(error)
        return error
    return None
