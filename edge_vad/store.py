"""The bundles on a device: one runs, one is ready to take over, and every step between them survives a power cut.

    bundles/<id>/     unpacked bundles, never changed; <id> is the SHA-256 of the manifest
    state/current     link to the bundle that runs             state/previous   link to the one that ran before it
    state/candidate   link to the one installed last           state/trial.json id -> attempts, of unconfirmed ones
    state/serial.json highest serial that was confirmed        state/rollback.json what was given up last, and why
    derived/<id>/     search graphs that this device made; can be deleted at any time

Source: docs/store.md. Nothing outside the folder is written. All changes to ``state`` are made under a lock, each by
one atomic rename that is synced before the next, so what lies there is valid after every prefix of them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_vad import tensorfile
from edge_vad.banks.base import CROSSOVER_ROWS
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.errors import BundleError, BundleFormatError, BundleTargetError, EdgeVadError, StoreError
from edge_vad.files import (
    forget_cached,
    link_atomically,
    make_folder,
    read_regular,
    remove,
    sync_folder,
    write_atomically,
    write_new,
    writing,
)
from edge_vad.manifest import SIGNATURE, sha256
from edge_vad.trust import UNCHECKED, Trust

log = logging.getLogger(__name__)
T = TypeVar("T")
ID = re.compile(r"[0-9a-f]{64}")
LOCK_S = 30.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A bundle in the store. state: current, previous, candidate, trial n/m; error: why it cannot run."""

    id: str
    name: str
    serial: int
    n_bytes: int
    states: tuple[str, ...]
    error: str = ""


class Store:
    """The store in one folder.

    install -> activate -> (the runtime) start -> confirm, and rollback whenever one of them does not hold.
    """

    def __init__(self, folder: Path, trust: Trust = UNCHECKED, attempts: int = 3) -> None:
        """trust: whose bundles are installed and run; attempts: starts before an unconfirmed bundle is given up."""
        self.folder = folder
        self._trust = trust
        self._attempts = attempts
        self._bundles, self._state, self._derived = (folder / name for name in ("bundles", "state", "derived"))

    # What is there

    @property
    def current(self) -> str | None:
        """Id of the bundle that runs."""
        return self._links_seen()[0]

    @property
    def previous(self) -> str | None:
        """Id of the bundle that `rollback` returns to."""
        return self._links_seen()[1]

    @property
    def attempts_made(self) -> int | None:
        """Starts of the current bundle while it is on trial; None when it is confirmed."""
        return _attempts(self.current, self._record_seen("trial"))

    def find(self, prefix: str) -> str:
        """The one installed id that begins with ``prefix``. Raises StoreError."""
        found = [name for name in self._installed() if prefix and name.startswith(prefix)]
        if len(found) != 1:
            problem = "no bundle" if not found else f"{len(found)} bundles"
            raise StoreError(f"{self.folder}: {problem} with an id that begins with {prefix!r}; see edge-vad store list")
        return found[0]

    def entries(self) -> list[Entry]:
        """Every installed bundle, the current one first, then the previous one."""
        order = {self.current: 0, self.previous: 1}
        return [self._entry(name) for name in sorted(self._installed(), key=lambda i: (order.get(i, 2), i))]

    def load(self, bundle_id: str) -> Bundle:
        """An installed bundle, verified again, with the search graphs that this device made for it. Raises BundleError."""
        bundle = read_bundle(self._bundles / bundle_id, self._trust)
        if bundle.id != bundle_id:
            raise BundleFormatError(f"{self._bundles / bundle_id}: holds another bundle; install it again")
        return Bundle(bundle.manifest, bundle.members, bundle.signature, self._graphs(bundle))

    def load_current(self) -> Bundle:
        """The bundle that runs, without starting it. Raises StoreError when there is none, or BundleError."""
        if self.current is None:
            raise StoreError(f"{self.folder}: no bundle runs; install and activate one")
        return self.load(self.current)

    # Changes

    def install(self, path: Path, self_test: Callable[[Path, str], None] | None = None, *, allow_older: bool = False) -> str:
        """Bring a bundle into the store without any effect on what runs; returns its id.

        Verified, copied, read again from the medium, self-tested there (self_test: called with folder and id), and only
        then given its name. Installing what is installed changes nothing. Raises BundleError, OutputError or StoreError.
        """
        bundle = read_bundle(path, self._trust)
        with writing(self.folder):
            self._check_serial(bundle, allow_older)
            for folder in (self.folder, self._bundles, self._state, self._derived):
                make_folder(folder)
            with self._locked():
                self._settle()
                installed = self._is_whole(bundle.id)
                if installed:
                    self._propose(bundle.id)
            if installed:
                self._renew_signature(bundle)
                self._derive(bundle)
            else:
                self._copy(bundle, self._bundles / f".new-{bundle.id[:16]}-{os.getpid()}", self_test)
        return bundle.id

    def activate(self, bundle_id: str, *, allow_older: bool = False) -> None:
        """Make an installed bundle the current one, on trial until it is confirmed. Raises BundleError or StoreError."""
        with writing(self.folder), self._locked():
            self._check_serial(self.load(bundle_id), allow_older)
            self._settle()
            (current, previous), trial = self._links(), self._record("trial") or {}
            if bundle_id == current:
                return
            still = {current: trial[current]} if current in trial else {}  # it stays on trial until the last step
            write_atomically(self._state / "trial.json", _json({**still, bundle_id: 0}))
            # What never proved itself is not what to go back to; nor is what cannot be read, where there is another one.
            if current is not None and not still and (previous is None or self._is_whole(current)):
                link_atomically(self._state / "previous", f"../bundles/{current}")
            link_atomically(self._state / "current", f"../bundles/{bundle_id}")

    def start(self, open_bundle: Callable[[Bundle], T]) -> T:
        """What ``open_bundle`` makes of the current bundle; of the previous one where the current one cannot run.

        Attempts on trial are counted before anything is loaded. The current bundle is given up when the previous one
        has been opened, not before. Raises StoreError when neither can run.
        """
        order, failed = self._to_try()
        for bundle_id in order:
            try:
                opened = open_bundle(self.load(bundle_id))
            except EdgeVadError as error:
                log.error("bundle %s cannot run: %s", bundle_id[:12], error)
                failed.setdefault(bundle_id, str(error))
                continue
            current = self.current
            if current in failed and current != bundle_id:
                self._give_up(current, failed[current])
            return opened
        why = "; ".join(f"{bundle_id[:12]}: {reason}" for bundle_id, reason in failed.items()) or "it is empty"
        raise StoreError(f"{self.folder}: no bundle can run; install and activate one ({why})")

    def confirm(self, bundle_id: str | None = None) -> None:
        """The current bundle has proved itself: end its trial, and let no older one be installed from now on.

        bundle_id: the one that did; nothing happens when another one was made current since.
        """
        if self.attempts_made is None:
            return
        with writing(self.folder), self._locked():
            current = self._links()[0]
            on_trial = _attempts(current, self._record("trial")) is not None
            if current is None or not on_trial or bundle_id not in (None, current):
                return
            serial = max(self.load(current).manifest.serial, _serial(self._record("serial")))
            write_atomically(self._state / "serial.json", _json({"serial": serial}))
            self._end_trial()

    def rollback(self, reason: str = "by hand", *, of: str | None = None) -> str:
        """Return to the previous bundle; returns its id. Raises StoreError where there is none that can run.

        of: the bundle to return from; another one that was made current since stays.
        """
        with writing(self.folder), self._locked():
            self._settle()
            current, previous = self._links()
            if of not in (None, current):
                raise StoreError(f"{self.folder}: another bundle was made the current one meanwhile; it stays")
            if previous is None:
                raise StoreError(f"{self.folder}: there is no previous bundle to return to; see edge-vad store list")
            try:
                self.load(previous)
            except BundleError as error:
                raise StoreError(f"the previous bundle cannot run, the current one stays: {error}") from error
            link_atomically(self._state / "current", f"../bundles/{previous}")
            self._end_trial()
            write_atomically(self._state / "rollback.json", _json({"from": current, "to": previous, "reason": reason}))
        return previous

    def collect_garbage(self) -> list[str]:
        """Delete what is neither current, previous nor installed last, and what broken installs left; returns names."""
        gone: list[str] = []
        with ExitStack() as steps:
            steps.enter_context(writing(self.folder))
            if not self._state.is_dir():
                return gone
            steps.enter_context(self._locked())
            kept = {self._link(name) for name in ("current", "previous", "candidate")}
            for path in _inside(self._bundles):
                if path.name in kept or not _is_left_alone(path):
                    continue
                doomed = path
                if ID.fullmatch(path.name):  # in one step: half a bundle never has a bundle's name
                    doomed = path.with_name(f".old-{path.name}")
                    path.rename(doomed)
                    sync_folder(self._bundles)
                remove(doomed)
                gone.append(path.name)
            for path in (*_inside(self._derived), *_inside(self._state)):
                if path.name.startswith(".") or (path.parent == self._derived and path.name not in kept):
                    remove(path)
        return gone

    @property
    def serial(self) -> int:
        """The highest serial that was confirmed here."""
        return _serial(self._record_seen("serial"))

    @property
    def last_rollback(self) -> dict[str, Any]:
        """from, to, reason of the last rollback; empty when there was none."""
        return self._record_seen("rollback") or {}

    # Steps

    def _copy(self, bundle: Bundle, staging: Path, self_test: Callable[[Path, str], None] | None) -> None:
        with ExitStack() as leaving:
            with self._locked():  # or collect_garbage could come between the folder and its lock
                remove(staging)
                staging.mkdir()
                leaving.callback(remove, staging)
                lease = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                leaving.callback(os.close, lease)
                fcntl.flock(lease, fcntl.LOCK_EX)  # tells collect_garbage that somebody is at work here
            _unpack(bundle, staging)
            again = read_bundle(staging, self._trust)
            if again.id != bundle.id:
                raise BundleFormatError(f"{staging}: the medium does not keep what is written; replace it")
            if self_test:
                self_test(staging, bundle.id)
            self._derive(bundle)
            with self._locked():
                self._publish(staging, bundle.id)

    def _publish(self, staging: Path, bundle_id: str) -> None:
        """Give a complete bundle its name; a damaged one of that name makes room."""
        if not self._is_whole(bundle_id):
            final, damaged = self._bundles / bundle_id, self._bundles / f".old-{bundle_id}"
            remove(damaged)
            if final.exists():
                final.rename(damaged)
            staging.rename(final)
            sync_folder(self._bundles)
            remove(damaged)
        self._propose(bundle_id)

    def _propose(self, bundle_id: str) -> None:
        link_atomically(self._state / "candidate", f"../bundles/{bundle_id}")

    def _renew_signature(self, bundle: Bundle) -> None:
        """A bundle that was signed again, by a key that stays: the same content, so the same id."""
        installed = self._bundles / bundle.id / SIGNATURE
        signature = bundle.members.get(SIGNATURE)
        beside = self._bundles / f".new-{bundle.id[:16]}-{os.getpid()}"
        with self._locked():
            if signature is None or (installed.exists() and read_regular(installed, 2**16) == signature):
                return
            remove(beside)
            write_new(beside, signature)
            beside.rename(installed)
            sync_folder(installed.parent)

    def _derive(self, bundle: Bundle) -> None:
        """Make the search graphs that a large bank comes without; what fails costs speed, not detection."""
        wanted = [n for n, b in bundle.manifest.banks.items() if b.rows >= CROSSOVER_ROWS and bundle.graph(n) is None]
        if not wanted:
            return
        from edge_vad.banks.hnsw import HnswBank, search_graph

        folder, made = self._derived / bundle.id, self._graphs(bundle)
        for name in wanted:
            try:
                rows = bundle.rows(name)
                with suppress(BundleFormatError):
                    if name in made and HnswBank.with_graph(rows, made[name]):
                        continue
                log.info("making the search graph of %s, %d rows", name, len(rows))
                graph = search_graph(rows, {"bank": _bank_hash(bundle, name)}, name)
                if graph is None:
                    continue
                with writing(folder):
                    make_folder(folder)
                    for left in folder.glob(".*"):  # by an install that was cut off
                        remove(left)
                write_atomically(folder / f"{name}.safetensors", graph)
            except EdgeVadError as error:
                log.warning("no search graph for %s: %s", name, error)

    def _graphs(self, bundle: Bundle) -> dict[str, bytes]:
        """The graphs under ``derived`` that belong to the bundle's banks."""
        found = {}
        for name in bundle.bank_names:
            path = self._derived / bundle.id / f"{name}.safetensors"
            try:
                graph = read_regular(path, 2**30)
                if tensorfile.metadata(graph, name).get("bank") != _bank_hash(bundle, name):
                    raise BundleFormatError(f"{name}: the graph of another bank")
                found[name] = graph
            except FileNotFoundError:
                continue
            except (OSError, BundleFormatError) as error:
                log.warning("%s: %s; searching without it, until the bundle is installed again", path, error)
        return found

    def _to_try(self) -> tuple[list[str], dict[str, str]]:
        """The ids to start, in order, and why one of them comes last. Counts an attempt on trial.

        One that cannot be counted is not made, as long as there is another bundle.
        """
        failed: dict[str, str] = {}
        try:
            attempts = self._count_attempt()
        except EdgeVadError as error:
            log.error("the attempt cannot be counted, so the previous bundle runs: %s", error)
            order = (self.previous, self.current)
        else:
            order = (self.current, self.previous)
            if attempts is not None and attempts > self._attempts and order[0] is not None:
                failed[order[0]] = f"not confirmed after {attempts - 1} starts"
                log.error("bundle %s cannot run: %s", order[0][:12], failed[order[0]])
                order = order[::-1]
        return [bundle_id for bundle_id in order if bundle_id is not None], failed

    def _count_attempt(self) -> int | None:
        """The number of this start of a bundle on trial, counted durably where it is still to be made; None for others."""
        if self.attempts_made is None:
            return None  # a confirmed bundle starts from a medium that cannot be written
        with writing(self._state), self._locked():
            current = self._links()[0]
            attempts = _attempts(current, self._record("trial"))
            if current is None or attempts is None:
                return None
            if attempts < self._attempts:
                write_atomically(self._state / "trial.json", _json({current: attempts + 1}))
            return attempts + 1

    def _give_up(self, bundle_id: str, reason: str) -> None:
        """Return to the previous bundle durably, where that can be done; it runs in any case."""
        try:
            log.error("rolled back to bundle %s", self.rollback(reason, of=bundle_id)[:12])
        except EdgeVadError as error:
            log.error("the rollback is not recorded: %s", error)

    def _settle(self) -> None:
        """Make durable what is there: names that a killed process left are seen before they are on the medium."""
        for folder in (self.folder, self._bundles, self._state):
            sync_folder(folder)

    def _end_trial(self) -> None:
        remove(self._state / "trial.json")
        sync_folder(self._state)

    def _check_serial(self, bundle: Bundle, allow_older: bool) -> None:
        confirmed = _serial(self._record("serial"))
        if bundle.manifest.serial < confirmed and not allow_older:
            raise BundleTargetError(
                f"{bundle.manifest.name}: serial {bundle.manifest.serial} is older than {confirmed}, which ran here; "
                "build it with a higher --serial, or insist with --allow-older"
            )

    def _is_whole(self, bundle_id: str) -> bool:
        try:
            return read_bundle(self._bundles / bundle_id, self._trust).id == bundle_id
        except BundleError:
            return False

    def _installed(self) -> list[str]:
        try:
            return sorted(path.name for path in self._bundles.iterdir() if ID.fullmatch(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self._bundles}: cannot be read: {error.strerror}; run as a user who may") from error

    def _entry(self, bundle_id: str) -> Entry:
        attempts = self.attempts_made
        linked = {"current": self.current, "previous": self.previous, "candidate": self._link("candidate")}
        states = [name for name, linked_id in linked.items() if linked_id == bundle_id]
        if bundle_id == self.current and attempts is not None:
            states.append(f"trial {attempts}/{self._attempts}")
        try:
            bundle = self.load(bundle_id)
        except BundleError as error:
            return Entry(bundle_id, "?", 0, 0, tuple(states), str(error))
        size = sum(len(data) for data in bundle.members.values())
        return Entry(bundle_id, bundle.manifest.name, bundle.manifest.serial, size, tuple(states))

    # Two ways to read ``state``: a change must not take for absent what it cannot read (it would delete the bundle that
    # runs); a start and a listing make the best of it.

    def _link(self, name: str) -> str | None:
        """The id that a link names; None where there is none, or it names no bundle. Raises OSError."""
        try:
            target = (self._state / name).readlink().name
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # not a link
                return None
            raise
        return target if ID.fullmatch(target) else None

    def _links(self) -> tuple[str | None, str | None]:
        """Ids of the current and the previous bundle. Raises OSError."""
        current, previous = self._link("current"), self._link("previous")
        return current, None if previous == current else previous

    def _links_seen(self) -> tuple[str | None, str | None]:
        """The same; None also for what cannot be read."""
        found: list[str | None] = []
        for name in ("current", "previous"):
            try:
                found.append(self._link(name))
            except OSError:
                found.append(None)
        return found[0], None if found[0] == found[1] else found[1]

    def _record(self, name: str) -> dict[str, Any] | None:
        """A JSON object under ``state``; empty when there is none, None when it is damaged. Raises OSError."""
        try:
            value = json.loads(read_regular(self._state / f"{name}.json", 2**16))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            return None
        except OSError as error:
            if error.errno is None:  # not a file, or too long for a record
                return None
            raise
        return value if isinstance(value, dict) else None

    def _record_seen(self, name: str) -> dict[str, Any] | None:
        """The same; None also when it cannot be read."""
        try:
            return self._record(name)
        except OSError:
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Changes of one process at a time; the lock dies with its process."""
        try:
            handle = os.open(self._state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError as error:
            raise StoreError(f"{self.folder}: there is no store; edge-vad store install makes one") from error
        try:
            deadline = time.monotonic() + LOCK_S
            while not _try_lock(handle):
                if time.monotonic() > deadline:
                    raise StoreError(f"{self.folder}: in use by another process for {LOCK_S:g} s; try again")
                time.sleep(0.02)
            yield
        finally:
            os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_left_alone(path: Path) -> bool:
    """Whether no install is at work in a folder."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return True  # a file, a link, or gone meanwhile
    try:
        return _try_lock(handle)
    finally:
        os.close(handle)


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _unpack(bundle: Bundle, folder: Path) -> None:
    """Write the members of a bundle as files, synced with all their folders, and out of the kernel's cache."""
    inner = sorted({folder / name.split("/")[0] for name in bundle.members if "/" in name})
    for path in inner:
        path.mkdir()
    for name, data in bundle.members.items():
        write_new(folder / name, data)
    for path in (*inner, folder):
        sync_folder(path)
    for name in bundle.members:
        forget_cached(folder / name)


def _bank_hash(bundle: Bundle, bank: str) -> str:
    return sha256(bundle.members[bundle.manifest.banks[bank].file])


def _attempts(current: str | None, trial: dict[str, Any] | None) -> int | None:
    """Starts of the current bundle while it is on trial; None when it is confirmed.

    A damaged record begins another trial: what may never have proved itself must not be started for ever.
    """
    if current is None or (trial is not None and current not in trial):
        return None
    return _count((trial or {}).get(current))


def _serial(record: dict[str, Any] | None) -> int:
    return _count((record or {}).get("serial"))


def _count(value: object) -> int:
    """A number of a record; 0 for what is none."""
    return value if type(value) is int and value >= 0 else 0


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\n"
