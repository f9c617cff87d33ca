"""The store on a device: what runs, what takes over, what is refused."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bundle
import store_cases
from store_cases import Shelf, State, damage, opened
from store_trace import Trace, read_tree

from edge_vad import archive, tensorfile
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.errors import (
    BackendError,
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    BundleSignatureError,
    BundleTargetError,
    EdgeVadError,
    SelfTestError,
    StoreError,
)
from edge_vad.manifest import MANIFEST, SIGNATURE
from edge_vad.signature import SecretKey, generate
from edge_vad.store import Store
from edge_vad.trust import Trust


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf.fill(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a power cut does is tested elsewhere."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def put(store: Store, shelf: Shelf, *names: str) -> None:
    """Install, activate and confirm one after the other."""
    store_cases.put(*names)(store, shelf)


def on_trial(store: Store, shelf: Shelf, name: str, *confirmed: str, starts: int = 0) -> None:
    store_cases.on_trial(name, *confirmed, starts=starts)(store, shelf)


def state(store: Store) -> tuple[str | None, str | None, int | None, int]:
    """Current, previous, attempts, serial."""
    return State.of(store)[:4]


def fails(bundle: Bundle) -> str:
    raise BackendError("not on this device")


def dies(bundle: Bundle) -> str:
    """As a crash does: nobody gets to say anything."""
    raise KeyboardInterrupt


# Install


def test_an_install_makes_the_folder_and_changes_nothing_that_runs(store: Store, shelf: Shelf) -> None:
    assert store.install(shelf.paths["a"]) == shelf.ids["a"]
    assert state(store) == (None, None, None, 0)
    put(store, shelf, "a")
    before = state(store)
    store.install(shelf.paths["b"])
    assert state(store) == before
    assert [entry.states for entry in store.entries()] == [("current",), ("candidate",)]


def test_an_install_again_changes_no_byte(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a")
    store.install(shelf.paths["b"])
    times = {path: path.lstat().st_mtime_ns for path in store.folder.glob("bundles/**/*")}
    before = read_tree(store.folder)
    assert store.install(shelf.paths["b"], lambda path, bundle_id: pytest.fail("tested again")) == shelf.ids["b"]
    assert read_tree(store.folder) == before
    assert {path: path.lstat().st_mtime_ns for path in store.folder.glob("bundles/**/*")} == times


def test_what_is_installed_last_is_the_candidate_also_when_it_was_there(store: Store, shelf: Shelf) -> None:
    for name in "abca":
        store.install(shelf.paths[name])
    assert {entry.id for entry in store.entries() if "candidate" in entry.states} == {shelf.ids["a"]}


@pytest.mark.parametrize("how", ["changed", "cut off", "missing", "extra", "linked", "emptied"])
def test_an_install_repairs_what_is_damaged(how: str, store: Store, shelf: Shelf, tmp_path: Path) -> None:
    put(store, shelf, "a", "b")
    before = read_tree(store.folder)
    folder = store.folder / "bundles" / shelf.ids["b"]
    member = folder / "encoder" / "encoder.onnx"
    if how == "changed":
        damage(store, shelf.ids["b"])
    elif how == "cut off":
        member.write_bytes(member.read_bytes()[:-10])
    elif how == "missing":
        member.unlink()
    elif how == "extra":
        (folder / "extra.bin").write_bytes(b"?")
    elif how == "linked":
        shutil.move(member, tmp_path / "elsewhere.onnx")
        member.symlink_to(tmp_path / "elsewhere.onnx")
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    with pytest.raises(BundleError):
        store.load(shelf.ids["b"])
    store.install(shelf.paths["b"])
    assert store.load(shelf.ids["b"]).id == shelf.ids["b"] and store.start(opened) == shelf.ids["b"]
    assert read_tree(store.folder) == {**before, "state/candidate": before["state/candidate"]}


def test_a_damaged_bundle_is_not_installed(store: Store, shelf: Shelf, tmp_path: Path) -> None:
    put(store, shelf, "a")
    before = read_tree(store.folder)
    data = bytearray(shelf.paths["b"].read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.evb").write_bytes(data)
    with pytest.raises(BundleError):
        store.install(tmp_path / "damaged.evb")
    with pytest.raises(BundleFormatError, match="cannot be read: No such file"):
        store.install(tmp_path / "nowhere.evb")
    assert read_tree(store.folder) == before


def test_a_bundle_that_is_refused_makes_no_store(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        store.install(tmp_path / "nowhere.evb")
    assert not store.folder.exists()


def test_an_unpacked_bundle_can_be_installed(store: Store, shelf: Shelf, tmp_path: Path) -> None:
    store.install(shelf.paths["a"])
    other = Store(tmp_path / "other")
    assert other.install(store.folder / "bundles" / shelf.ids["a"]) == shelf.ids["a"]
    assert other.load(shelf.ids["a"]).members == store.load(shelf.ids["a"]).members


def test_the_self_test_sees_the_copy_before_it_has_its_name(store: Store, shelf: Shelf) -> None:
    seen = []

    def self_test(path: Path, bundle_id: str) -> None:
        assert read_bundle(path).id == bundle_id == shelf.ids["a"]
        assert not (store.folder / "bundles" / bundle_id).exists()
        seen.append(path)

    store.install(shelf.paths["a"], self_test)
    assert [path.parent for path in seen] == [store.folder / "bundles"] and not seen[0].exists()


def test_a_bundle_that_fails_its_self_test_is_not_installed(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a")
    before = read_tree(store.folder)

    def self_test(path: Path, bundle_id: str) -> None:
        raise SelfTestError("another decision")

    with pytest.raises(SelfTestError, match="another decision"):
        store.install(shelf.paths["b"], self_test)
    assert read_tree(store.folder) == before


def test_what_the_medium_gives_back_is_what_is_checked(store: Store, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that loses a bit while it is written to must not be found out by the first start."""

    def forget(path: Path) -> None:
        if path.name == "spatial.safetensors":
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)

    monkeypatch.setattr("edge_vad.store.forget_cached", forget)
    with pytest.raises(BundleIntegrityError, match="bank/spatial.safetensors does not match its hash"):
        store.install(shelf.paths["a"])
    assert list((store.folder / "bundles").iterdir()) == []


# Activate, start, confirm


def test_activation_is_a_trial_that_confirm_ends(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a")
    store.install(shelf.paths["b"])
    store.activate(shelf.ids["b"])
    assert state(store) == (shelf.ids["b"], shelf.ids["a"], 0, 1)
    assert store.start(opened) == shelf.ids["b"]
    assert store.attempts_made == 1
    store.confirm(shelf.ids["b"])
    assert state(store) == (shelf.ids["b"], shelf.ids["a"], None, 2)
    assert store.start(opened) == shelf.ids["b"] and store.attempts_made is None


def test_activating_what_runs_changes_nothing(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a", starts=2)
    before = read_tree(store.folder)
    store.activate(shelf.ids["b"])
    assert read_tree(store.folder) == before


def test_what_is_not_installed_or_damaged_is_not_activated(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a")
    store.install(shelf.paths["b"])
    damage(store, shelf.ids["b"])
    before = read_tree(store.folder)
    with pytest.raises(BundleIntegrityError):
        store.activate(shelf.ids["b"])
    with pytest.raises(BundleFormatError, match="No such file"):
        store.activate(shelf.ids["c"])
    assert read_tree(store.folder) == before


def test_a_folder_with_another_bundle_in_it_is_not_that_bundle(store: Store, shelf: Shelf) -> None:
    for name in "ab":
        store.install(shelf.paths[name])
    bundles = store.folder / "bundles"
    shutil.rmtree(bundles / shelf.ids["a"])
    shutil.copytree(bundles / shelf.ids["b"], bundles / shelf.ids["a"])
    with pytest.raises(BundleFormatError, match="holds another bundle; install it again"):
        store.activate(shelf.ids["a"])
    store.install(shelf.paths["a"])
    store.activate(shelf.ids["a"])
    assert store.start(opened) == shelf.ids["a"]


def test_the_attempt_is_counted_before_anything_is_opened(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a")
    counted = []
    store.start(lambda bundle: counted.append(Store(store.folder).attempts_made))
    assert counted == [1]


def test_a_bundle_that_cannot_be_opened_is_given_up_at_once(
    store: Store, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    on_trial(store, shelf, "b", "a")
    assert store_cases.start_where("b")(store, shelf) == shelf.ids["a"]
    assert state(store) == (shelf.ids["a"], None, None, 1)
    assert store.last_rollback == {
        "from": shelf.ids["b"],
        "to": shelf.ids["a"],
        "reason": "it computes something else here",
    }
    assert [record.message for record in caplog.records] == [
        f"bundle {shelf.ids['b'][:12]} cannot run: it computes something else here",
        f"rolled back to bundle {shelf.ids['a'][:12]}",
    ]


def test_a_bundle_that_dies_three_times_is_given_up_at_the_fourth_start(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a")
    for attempt in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            store.start(dies)
        assert state(store) == (shelf.ids["b"], shelf.ids["a"], attempt, 1)
    assert store.start(opened) == shelf.ids["a"]
    assert state(store) == (shelf.ids["a"], None, None, 1)
    assert store.last_rollback["reason"] == "not confirmed after 3 starts"


@pytest.mark.parametrize("attempts", [1, 5])
def test_the_number_of_attempts_is_a_setting(attempts: int, shelf: Shelf, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", attempts=attempts)
    on_trial(store, shelf, "b", "a")
    assert [store.start(opened) for _ in range(attempts + 1)] == [shelf.ids["b"]] * attempts + [shelf.ids["a"]]


def test_a_bundle_without_a_previous_one_is_tried_at_every_start(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "a")
    assert [store.start(opened) for _ in range(6)] == [shelf.ids["a"]] * 6
    assert state(store) == (shelf.ids["a"], None, 3, 0)
    store.confirm()
    assert state(store) == (shelf.ids["a"], None, None, 1)


def test_a_confirmed_bundle_that_cannot_be_opened_any_more_gives_way(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    assert store_cases.start_where("b")(store, shelf) == shelf.ids["a"]
    assert state(store) == (shelf.ids["a"], None, None, 2)


def test_where_nothing_can_be_opened_the_current_one_stays(store: Store, shelf: Shelf) -> None:
    """What they lack may come back: a package, a device."""
    put(store, shelf, "a", "b")
    before = read_tree(store.folder)
    with pytest.raises(StoreError, match=r"no bundle can run; install .*not on this device.*; .*not on this device"):
        store.start(fails)
    assert read_tree(store.folder) == before
    assert store.start(opened) == shelf.ids["b"]


def test_confirming_another_bundle_than_the_current_one_does_nothing(store: Store, shelf: Shelf) -> None:
    """The process that confirms was started with what was current then."""
    on_trial(store, shelf, "b", "a", starts=1)
    before = read_tree(store.folder)
    store.confirm(shelf.ids["a"])
    assert read_tree(store.folder) == before
    store.confirm(shelf.ids["b"])
    assert store.attempts_made is None


def test_confirming_what_is_confirmed_writes_nothing(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a")
    with Trace(store.folder).recording() as trace:
        store.confirm()
        store.confirm(shelf.ids["a"])
    assert not trace.changes()


def test_the_successor_of_a_trial_keeps_the_last_confirmed_bundle(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a", starts=2)
    store.install(shelf.paths["c"])
    store.activate(shelf.ids["c"])
    assert state(store) == (shelf.ids["c"], shelf.ids["a"], 0, 1)
    store.rollback()
    assert state(store) == (shelf.ids["a"], None, None, 1)


def test_the_successor_of_a_first_trial_has_nothing_to_go_back_to(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "a", starts=1)
    store.install(shelf.paths["b"])
    store.activate(shelf.ids["b"])
    assert state(store) == (shelf.ids["b"], None, 0, 0)


def test_the_successor_of_a_damaged_bundle_keeps_the_one_that_holds(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    store.install(shelf.paths["c"])
    damage(store, shelf.ids["b"])
    store.activate(shelf.ids["c"])
    assert state(store) == (shelf.ids["c"], shelf.ids["a"], 0, 2)


def test_the_previous_bundle_can_be_activated(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    store.activate(shelf.ids["a"], allow_older=True)
    assert state(store) == (shelf.ids["a"], shelf.ids["b"], 0, 2)


# Rollback


def test_a_rollback_by_hand_works_once(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    assert store.rollback() == shelf.ids["a"]
    assert state(store) == (shelf.ids["a"], None, None, 2)
    assert store.last_rollback == {"from": shelf.ids["b"], "to": shelf.ids["a"], "reason": "by hand"}
    with pytest.raises(StoreError, match="there is no previous bundle to return to; see edge-vad store list"):
        store.rollback()
    assert store.start(opened) == shelf.ids["a"]


def test_a_rollback_ends_the_trial(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a", starts=2)
    store.rollback()
    store.activate(shelf.ids["b"])
    assert store.attempts_made == 0, "another trial has all its attempts"


def test_a_rollback_to_what_is_damaged_is_refused(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    damage(store, shelf.ids["a"])
    before = read_tree(store.folder)
    with pytest.raises(StoreError, match="the previous bundle cannot run, the current one stays: .*does not match"):
        store.rollback()
    assert read_tree(store.folder) == before and store.start(opened) == shelf.ids["b"]


def test_a_trial_is_not_given_up_for_what_is_damaged(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a", starts=3)
    damage(store, shelf.ids["a"])
    assert store.start(opened) == shelf.ids["b"] == store.current


def test_a_trial_is_not_given_up_for_what_cannot_be_opened(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a", starts=3)
    assert store_cases.start_where("a")(store, shelf) == shelf.ids["b"] == store.current
    assert store.start(opened) == shelf.ids["a"] == store.current


def test_a_failed_start_does_not_take_back_what_was_activated_meanwhile(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    store.install(shelf.paths["c"])

    def activated_meanwhile(bundle: Bundle) -> str:
        if bundle.id == shelf.ids["b"]:
            Store(store.folder).activate(shelf.ids["c"])
            raise BackendError("not on this device")
        return bundle.id

    store.start(activated_meanwhile)
    assert store.current == shelf.ids["c"]
    with pytest.raises(StoreError, match="another bundle was made the current one meanwhile; it stays"):
        store.rollback("of b", of=shelf.ids["b"])
    assert store.current == shelf.ids["c"]


# A state that is damaged


def corrupt_link(store: Store, name: str, how: str) -> None:
    path = store.folder / "state" / name
    path.unlink()
    if how == "dangling":
        path.symlink_to(f"../bundles/{'0' * 64}")
    elif how == "elsewhere":
        path.symlink_to("/etc/passwd")
    elif how == "a file":
        path.write_text("../bundles/x")
    elif how == "a folder":
        path.mkdir()
    elif how == "itself":
        path.symlink_to(name)


@pytest.mark.parametrize("how", ["missing", "dangling", "elsewhere", "a file", "a folder", "itself"])
def test_a_bad_current_link_means_the_previous_bundle(how: str, store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    corrupt_link(store, "current", how)
    assert store.start(opened) == shelf.ids["a"]
    assert store.start(opened) == shelf.ids["a"]
    if how != "a folder":  # which no rename replaces
        store.activate(shelf.ids["b"])
        assert state(store)[:2] == (shelf.ids["b"], shelf.ids["a"])
        assert store.start(opened) == shelf.ids["b"]


@pytest.mark.parametrize("how", ["missing", "dangling", "elsewhere", "a file", "a folder", "itself"])
def test_a_bad_previous_link_does_not_matter_until_it_is_needed(how: str, store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    corrupt_link(store, "previous", how)
    assert store.start(opened) == shelf.ids["b"]
    with pytest.raises(StoreError):
        store.rollback()
    assert store.start(opened) == shelf.ids["b"]


def test_an_empty_store_says_so_in_one_line(store: Store, shelf: Shelf) -> None:
    for _ in range(2):
        with pytest.raises(StoreError, match=r"no bundle can run; install and activate one \(it is empty\)") as caught:
            store.start(opened)
        assert "\n" not in str(caught.value)
        assert (store.entries(), state(store), store.last_rollback) == ([], (None, None, None, 0), {})
        store.confirm()
        assert store.collect_garbage() == []
        with pytest.raises(StoreError):
            store.rollback()
        with pytest.raises(EdgeVadError):
            store.activate("0" * 64)
        store.folder.mkdir(exist_ok=True)
    store.install(shelf.paths["a"])
    with pytest.raises(StoreError, match="it is empty"):
        store.start(opened)


def test_a_folder_without_a_store_says_how_one_is_made(store: Store) -> None:
    with pytest.raises(StoreError, match="there is no store; edge-vad store install makes one"):
        store.rollback()
    assert not store.folder.exists()


GARBAGE = [
    b"",
    b"\0" * 512,
    b"\xff\xfe",
    b"{",
    b"[]",
    b"3",
    b"null",
    b'"text"',
    b"[" * 60_000,
    b"9" * 60_000,
    b'{"attempts":' * 5_000,
    b"{}" + b" " * 70_000,
]
VALUES = ['"three"', "[1]", "{}", "null", "1e999", "NaN", "-1", "1.5", "true", "9" * 4000, "1" + "0" * 30]


@pytest.mark.parametrize("name", ["trial", "serial", "rollback"])
@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
def test_a_damaged_record_stops_nothing(content: bytes, name: str, store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    (store.folder / "state" / f"{name}.json").write_bytes(content)
    assert store.entries() and store.serial in (0, 2) and store.last_rollback == {}
    assert store.start(opened) == shelf.ids["b"]
    store.confirm()
    assert (store.serial, store.attempts_made) in ((2, None), (0, None))
    store.install(shelf.paths["c"])
    store.activate(shelf.ids["c"])
    assert store.start(opened) == shelf.ids["c"]
    store.confirm()
    assert state(store) == (shelf.ids["c"], shelf.ids["b"], None, 3)
    store.rollback()
    assert store.last_rollback["reason"] == "by hand"
    store.collect_garbage()


@pytest.mark.parametrize("value", VALUES)
def test_a_record_with_a_wrong_value_stops_nothing(value: str, store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a")
    folder = store.folder / "state"
    (folder / "trial.json").write_text(f'{{"{shelf.ids["b"]}":{value}}}')
    (folder / "serial.json").write_text(f'{{"serial":{value}}}')
    (folder / "rollback.json").write_text(f'{{"from":{value},"to":{value},"reason":{value}}}')
    assert store.entries() and store.serial >= 0 and isinstance(store.last_rollback, dict)
    assert store.start(opened) in (shelf.ids["b"], shelf.ids["a"])
    for change in (store.confirm, store.rollback, store.collect_garbage, lambda: store.install(shelf.paths["c"])):
        store_cases.fails_cleanly(change)
    assert store.start(opened)


def test_a_damaged_trial_record_does_not_confirm(store: Store, shelf: Shelf) -> None:
    """Else a bundle that takes the device down would do so for ever."""
    on_trial(store, shelf, "b", "a", starts=2)
    (store.folder / "state" / "trial.json").write_bytes(b"")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            store.start(dies)
    assert store.start(opened) == shelf.ids["a"]


@pytest.mark.parametrize("name", ["trial", "serial", "rollback"])
def test_a_record_that_is_no_file_is_a_clean_error_at_worst(name: str, store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a")
    path = store.folder / "state" / f"{name}.json"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert store.start(opened) in (shelf.ids["a"], shelf.ids["b"])
    for change in (store.confirm, lambda: store.install(shelf.paths["c"]), store.rollback, store.collect_garbage):
        store_cases.fails_cleanly(change)
    assert store.start(opened)


# Serials, devices, signatures


def test_an_older_serial_than_the_confirmed_one_is_refused(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "b")
    with pytest.raises(BundleTargetError, match=r"site: serial 1 is older than 2, .*--allow-older"):
        store.install(shelf.paths["a"])
    store.install(shelf.paths["a"], allow_older=True)
    with pytest.raises(BundleTargetError, match="serial 1 is older than 2"):
        store.activate(shelf.ids["a"])
    assert store.current == shelf.ids["b"]
    store.activate(shelf.ids["a"], allow_older=True)
    store.start(opened)
    store.confirm()
    assert state(store) == (shelf.ids["a"], shelf.ids["b"], None, 2), "the highest serial stays"


def test_the_serial_counts_from_the_confirmation_on(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "c", "a", starts=1)
    store.install(shelf.paths["b"])
    store.activate(shelf.ids["b"])
    assert store.current == shelf.ids["b"]


def test_the_same_serial_is_not_older(store: Store, shelf: Shelf, tmp_path: Path) -> None:
    put(store, shelf, "b")
    small_bundle.write_bundle(
        tmp_path / "again.evb", small_bundle.members(rows=2.0), {**small_bundle.DESCRIPTION, "serial": 2}
    )
    store.activate(store.install(tmp_path / "again.evb"))


def test_a_rollback_may_go_to_an_older_serial(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    assert (store.rollback(), store.serial) == (shelf.ids["a"], 2)
    assert store.start(opened) == shelf.ids["a"]


def test_a_bundle_for_another_device_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "gate.evb"
    description = {**small_bundle.DESCRIPTION, "compatible": "gate-camera"}
    bundle_id = small_bundle.write_bundle(path, small_bundle.members(), description).id
    door = Store(tmp_path / "door", Trust("off", compatible="door-camera"))
    with pytest.raises(BundleTargetError, match="made for 'gate-camera', this device is 'door-camera'"):
        door.install(path)
    gate = Store(tmp_path / "gate", Trust("off", compatible="gate-camera"))
    gate.activate(gate.install(path))
    assert gate.start(opened) == bundle_id
    with pytest.raises(StoreError, match="this device is 'door-camera'"):
        Store(gate.folder, Trust("off", compatible="door-camera")).start(opened)


def signed(path: Path, key: SecretKey) -> Path:
    """A copy of a bundle with a signature in it; the id stays."""
    members = dict(read_bundle(path).members)
    manifest = members.pop(MANIFEST)
    members.pop(SIGNATURE, None)
    copy = path.with_name(f"{path.stem}-{key.key_id.hex()}.evb")
    copy.write_bytes(archive.pack({MANIFEST: manifest, SIGNATURE: key.sign(manifest, "a test"), **members}))
    return copy


@pytest.fixture(scope="module")
def key() -> SecretKey:
    return generate()


@pytest.fixture(scope="module")
def other_key() -> SecretKey:
    return generate()


def test_a_device_that_requires_signatures_takes_nothing_else(
    shelf: Shelf, key: SecretKey, other_key: SecretKey, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store", Trust("required", (key.public,)))
    with pytest.raises(BundleSignatureError, match="not signed, and this device requires it"):
        store.install(shelf.paths["a"])
    with pytest.raises(BundleSignatureError, match="which is not trusted here"):
        store.install(signed(shelf.paths["a"], other_key))
    assert not store.folder.exists()
    store.activate(store.install(signed(shelf.paths["a"], key)))
    assert store.start(lambda bundle: bundle.signature) == f"signed by trusted key {key.public.label}"


def test_an_unsigned_bundle_does_not_start_once_signatures_are_required(
    shelf: Shelf, key: SecretKey, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store", Trust("if-present"))
    put(store, shelf, "a", "b")
    strict = Store(store.folder, Trust("required", (key.public,)))
    with pytest.raises(StoreError, match="not signed, and this device requires it"):
        strict.start(opened)
    assert store.start(opened) == shelf.ids["b"], "nothing was changed"


def test_a_signed_bundle_takes_the_place_of_the_unsigned_one(shelf: Shelf, key: SecretKey, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", Trust("if-present"))
    put(store, shelf, "a")
    strict = Store(store.folder, Trust("required", (key.public,)))
    assert strict.install(signed(shelf.paths["a"], key)) == shelf.ids["a"]
    assert strict.start(lambda bundle: (bundle.id, SIGNATURE in bundle.members)) == (shelf.ids["a"], True)
    assert state(strict) == (shelf.ids["a"], None, None, 1)


def test_a_key_that_is_taken_away_stops_what_only_it_signed(
    shelf: Shelf, key: SecretKey, other_key: SecretKey, tmp_path: Path
) -> None:
    both = Store(tmp_path / "store", Trust("required", (key.public, other_key.public)))
    for name, signer in (("a", other_key), ("b", key)):
        both.activate(both.install(signed(shelf.paths[name], signer)))
        both.confirm()
    assert both.start(opened) == shelf.ids["b"]
    without = Store(both.folder, Trust("required", (other_key.public,)))
    assert without.start(opened) == shelf.ids["a"], "the previous one is signed by a key that is still trusted"
    with pytest.raises(BundleSignatureError, match="not trusted here"):
        without.activate(shelf.ids["b"])
    errors = {entry.id: entry.error for entry in without.entries()}
    assert errors[shelf.ids["a"]] == "" and "not trusted here" in errors[shelf.ids["b"]]


# Lists


def test_the_list_begins_with_what_runs(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "c", starts=2)
    for name in "da":
        store.install(shelf.paths[name], allow_older=True)
    damage(store, shelf.ids["d"])
    entries = store.entries()
    assert [entry.id for entry in entries[:2]] == [shelf.ids["b"], shelf.ids["c"]]
    assert [entry.states for entry in entries[:2]] == [("current", "trial 2/3"), ("previous",)]
    assert {entry.id for entry in entries[2:]} == {shelf.ids["a"], shelf.ids["d"]}
    by_id = {entry.id: entry for entry in entries}
    whole = by_id[shelf.ids["a"]]
    assert (whole.name, whole.serial, whole.states, whole.error) == ("site", 1, ("candidate",), "")
    assert whole.n_bytes == sum(map(len, store.load(whole.id).members.values()))
    assert "does not match its hash" in by_id[shelf.ids["d"]].error and by_id[shelf.ids["d"]].serial == 0


def test_a_bundle_is_found_by_the_start_of_its_id(store: Store, shelf: Shelf) -> None:
    for name in "abcd":
        store.install(shelf.paths[name])
    assert store.find(shelf.ids["c"][:12]) == shelf.ids["c"]
    with pytest.raises(StoreError, match="no bundle with an id that begins with 'xyz'; see edge-vad store list"):
        store.find("xyz")
    with pytest.raises(StoreError, match="no bundle with an id that begins with ''"):
        store.find("")  # of a script whose variable is empty


def test_a_store_that_may_not_be_read_says_so(store: Store, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, shelf, "a")

    def denied(path: Path, *more: Any, **named: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(StoreError, match="cannot be read: Permission denied; run as a user who may"):
        store.entries()


# Garbage


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_garbage_is_what_is_neither_current_previous_nor_installed_last(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    store.install(shelf.paths["c"])
    store.install(shelf.paths["d"])
    assert store.collect_garbage() == [shelf.ids["c"]]
    assert names(store.folder / "bundles") == {shelf.ids[name] for name in "abd"}
    assert store.collect_garbage() == []


def test_left_overs_of_broken_installs_are_garbage(store: Store, shelf: Shelf, tmp_path: Path) -> None:
    store_cases.with_leftovers(store_cases.TWO)(store, shelf)
    bundles, state_folder, derived = (store.folder / name for name in ("bundles", "state", "derived"))
    (bundles / "notes.txt").write_text("?")
    (bundles / ("e" * 64)).symlink_to(tmp_path)
    os.mkfifo(bundles / "pipe")
    (state_folder / ".trial.json.77.new").write_text("{")
    (state_folder / ".current.new").symlink_to("nowhere")
    (derived / shelf.ids["a"]).mkdir()
    assert len(store.collect_garbage()) == 5
    assert names(bundles) == {shelf.ids["a"], shelf.ids["b"]}
    assert names(derived) == {shelf.ids["a"]}
    store_cases.check_tidy(store, "after the collection")
    assert tmp_path.is_dir() and any(tmp_path.iterdir()), "a link is not followed"


def test_an_install_at_work_is_not_garbage(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a")
    gone: list[list[str]] = []
    assert store.install(shelf.paths["b"], lambda path, bundle_id: gone.append(store.collect_garbage())) == shelf.ids["b"]
    assert gone == [[]]
    assert store.load(shelf.ids["b"])


def test_the_folder_of_an_install_is_garbage_as_soon_as_its_lock_is_gone(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a")
    staging = store.folder / "bundles" / ".new-0123456789abcdef-1"
    staging.mkdir()
    handle = os.open(staging, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert store.collect_garbage() == []
    os.close(handle)
    assert store.collect_garbage() == [staging.name] and not staging.exists()


def test_derived_files_can_be_deleted_at_any_time(store: Store, shelf: Shelf) -> None:
    put(store, shelf, "a", "b")
    shutil.rmtree(store.folder / "derived")
    store.collect_garbage()
    assert store.start(opened) == shelf.ids["b"]
    store.install(shelf.paths["c"])
    store.activate(shelf.ids["c"])
    assert store.start(opened) == shelf.ids["c"]


# Search graphs that the device makes


@pytest.fixture
def small_crossover(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bank is a large one."""
    monkeypatch.setattr("edge_vad.store.CROSSOVER_ROWS", 2)


def graph_of(store: Store, bundle_id: str) -> Path:
    return store.folder / "derived" / bundle_id / "spatial.safetensors"


Spoil = Callable[[Path], object]


def spoilt_arrays(path: Path) -> None:
    """The graph of this bank, by its own word, with other arrays."""
    arrays, said = tensorfile.load(path.read_bytes(), "graph")
    path.write_bytes(tensorfile.save({name: np.zeros_like(array) for name, array in arrays.items()}, said))


@pytest.mark.usefixtures("small_crossover")
class TestDerivedGraphs:
    def test_an_install_makes_the_graph_and_a_start_hands_it_over(self, store: Store, shelf: Shelf) -> None:
        put(store, shelf, "a")
        graph = graph_of(store, shelf.ids["a"]).read_bytes()
        assert store.start(lambda bundle: bundle.graph("spatial")) == graph
        assert read_bundle(store.folder / "bundles" / shelf.ids["a"]).graph("spatial") is None
        from edge_vad.banks.hnsw import HnswBank

        bundle = store.load(shelf.ids["a"])
        distances, _ = HnswBank.with_graph(bundle.rows("spatial"), graph).search(bundle.rows("spatial"))
        assert distances[:, 0] == pytest.approx([0, 0])

    def test_a_small_bank_gets_none(self, store: Store, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge_vad.store.CROSSOVER_ROWS", 3)
        put(store, shelf, "a")
        assert names(store.folder / "derived") == set()
        assert store.start(lambda bundle: bundle.graph("spatial")) is None

    @pytest.mark.parametrize(
        ("spoil", "warned"),
        [
            (lambda path: path.write_bytes(b"?"), "not a safetensors file"),
            (lambda path: path.write_bytes(tensorfile.save({}, {"bank": "0" * 64})), "the graph of another bank"),
            (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
            (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "Too many levels of symbolic links"),
            (lambda path: path.unlink(), ""),
        ],
        ids=["damaged", "foreign", "a folder", "a link", "deleted"],
    )
    def test_a_graph_that_is_not_the_banks_own_is_left_alone(
        self, spoil: Spoil, warned: str, store: Store, shelf: Shelf, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(store, shelf, "a")
        path = graph_of(store, shelf.ids["a"])
        spoil(path)
        caplog.clear()
        assert store.start(lambda bundle: (bundle.id, bundle.graph("spatial"))) == (shelf.ids["a"], None)
        assert [record.levelname for record in caplog.records] == ["WARNING"] * bool(warned)
        assert warned in caplog.text and (not warned or str(path) in caplog.text)

    @pytest.mark.parametrize("spoil", [lambda path: path.unlink(), spoilt_arrays, lambda path: path.write_bytes(b"?")])
    def test_an_install_again_makes_the_graph_again(self, spoil: Spoil, store: Store, shelf: Shelf) -> None:
        put(store, shelf, "a")
        path = graph_of(store, shelf.ids["a"])
        graph = path.read_bytes()
        path.with_name(".spatial.safetensors.77.new").write_bytes(b"half a graph")
        spoil(path)
        store.install(shelf.paths["a"])
        assert path.read_bytes() == graph and names(path.parent) == {path.name}

    def test_a_graph_that_holds_is_not_made_again(self, store: Store, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
        put(store, shelf, "a")
        monkeypatch.setattr("edge_vad.banks.hnsw.HnswBank.graph", lambda *_: pytest.fail("made again"))
        store.install(shelf.paths["a"])

    def test_a_graph_that_finds_too_little_is_not_kept(
        self, store: Store, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("edge_vad.banks.hnsw.RECALL", 1.1)
        put(store, shelf, "a")
        assert names(store.folder / "derived") == set() and "is searched exactly" in caplog.text
        assert store.start(lambda bundle: bundle.graph("spatial")) is None

    def test_without_the_package_the_bundle_is_installed_without_a_graph(
        self, store: Store, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setitem(sys.modules, "hnswlib", None)
        put(store, shelf, "a")
        assert "no search graph for spatial: the bank hnsw needs the package hnswlib" in caplog.text
        assert store.start(opened) == shelf.ids["a"]

    def test_a_place_that_cannot_be_written_costs_the_graph_only(
        self, store: Store, shelf: Shelf, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(store, shelf, "a")
        (store.folder / "derived" / shelf.ids["b"]).write_text("in the way")
        put(store, shelf, "b")
        assert "no search graph for spatial" in caplog.text and store.start(opened) == shelf.ids["b"]

    def test_graphs_of_bundles_that_have_gone_are_garbage(self, store: Store, shelf: Shelf) -> None:
        put(store, shelf, "a", "b", "c")
        store.collect_garbage()
        assert names(store.folder / "derived") == {shelf.ids["b"], shelf.ids["c"]}


def test_what_lies_in_state_is_what_the_documentation_says(store: Store, shelf: Shelf) -> None:
    on_trial(store, shelf, "b", "a", starts=2)
    folder = store.folder / "state"
    assert os.fspath((folder / "current").readlink()) == f"../bundles/{shelf.ids['b']}"
    assert json.loads((folder / "trial.json").read_text()) == {shelf.ids["b"]: 2}
    assert json.loads((folder / "serial.json").read_text()) == {"serial": 1}
    store.rollback("why")
    assert json.loads((folder / "rollback.json").read_text())["reason"] == "why"
    assert not (folder / "trial.json").exists()
