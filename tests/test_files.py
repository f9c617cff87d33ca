"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_vad.errors import OutputError
from edge_vad.files import (
    check_writable,
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


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced, by name, in order."""
    names: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: names.append(Path(f"/proc/self/fd/{handle}").readlink().name))
    return names


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def n_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def full(*_: object) -> int:
    raise OSError(28, "No space left on device")


# Writing


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 3_000_000])
def test_a_file_is_written_with_all_its_bytes(data: bytes, tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == data and names(tmp_path) == ["a"]


def test_content_is_synced_before_its_name_and_the_name_after_it(tmp_path: Path, synced: list[str]) -> None:
    write_atomically(tmp_path / "a", b"x")
    assert synced == [f".a.{os.getpid()}.new", tmp_path.name]


def test_a_reader_keeps_the_old_file_while_it_is_replaced(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"old")
    with (tmp_path / "a").open("rb") as reader:
        write_atomically(tmp_path / "a", b"new")
        assert reader.read() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_the_mode_is_the_one_that_is_asked_for_from_the_first_moment(tmp_path: Path) -> None:
    """A secret key must not be readable by others for a moment either."""
    write_atomically(tmp_path / "key", b"secret", 0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_write_that_takes_less_than_it_is_given_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data[:1000])))
    write_atomically(tmp_path / "a", bytes(range(256)) * 20)
    assert (tmp_path / "a").read_bytes() == bytes(range(256)) * 20


@pytest.mark.parametrize("name", ["write", "fsync", "rename"])
def test_a_failing_call_leaves_the_old_file_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "a", b"old")
    before = n_open()
    if name == "rename":
        monkeypatch.setattr(Path, "rename", full)
    else:
        monkeypatch.setattr(os, name, full)
    with pytest.raises(OutputError, match="a: cannot be written: No space left on device; choose another place or free"):
        write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old" and n_open() == before


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == []


@pytest.mark.parametrize("left", ["file", "folder", "link"])
def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(left: str, tmp_path: Path) -> None:
    """Process numbers repeat: on a device that boots the same way every time, nearly always."""
    beside = tmp_path / f".a.{os.getpid()}.new"
    if left == "file":
        beside.write_bytes(b"half")
    elif left == "folder":
        (beside / "in it").mkdir(parents=True)
    else:
        beside.symlink_to(tmp_path / "elsewhere")
    write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"new"


def test_a_folder_in_the_way_or_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "no" / "a"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_atomically(path, b"x")
    assert names(tmp_path) == ["folder"]


def test_a_new_file_is_never_written_over_another_one(tmp_path: Path) -> None:
    write_new(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"second")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "link", b"through it")
    assert (tmp_path / "a").read_bytes() == b"first" and not (tmp_path / "target").exists()


def test_only_errors_of_the_system_become_output_errors() -> None:
    with pytest.raises(OutputError, match="the thing: cannot be written: Input/output error"), writing(Path("the thing")):
        raise OSError(5, "Input/output error")
    with pytest.raises(ValueError), writing(Path("the thing")):
        raise ValueError


# Links and folders


def test_a_link_is_swapped_in_one_step(tmp_path: Path, synced: list[str]) -> None:
    link_atomically(tmp_path / "current", "one")
    (tmp_path / ".current.new").symlink_to("left by a power cut")
    link_atomically(tmp_path / "current", "two")
    assert os.fspath((tmp_path / "current").readlink()) == "two" and names(tmp_path) == ["current"]
    assert synced == [tmp_path.name] * 2


def test_a_folder_is_made_with_its_parents_each_synced(tmp_path: Path, synced: list[str]) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir() and synced == [tmp_path.name, "a", "b"]
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path.name, "a", "b"]


def test_a_folder_that_another_process_makes_first_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    seen = iter([False, True, True])
    monkeypatch.setattr(Path, "is_dir", lambda path: next(seen))
    make_folder(tmp_path / "a")
    assert os.path.isdir(tmp_path / "a")  # noqa: PTH112 - Path.is_dir lies here


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(OSError):
            make_folder(path)


def test_only_a_folder_can_be_synced_as_one(tmp_path: Path) -> None:
    before = n_open()
    sync_folder(tmp_path)
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "a")
    assert n_open() == before


def test_removing_follows_no_link_and_minds_nothing_that_is_gone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"x")
    doomed = tmp_path / "doomed"
    (doomed / "inner" / "deep").mkdir(parents=True)
    (doomed / "inner" / "file").write_bytes(b"x")
    (doomed / "link").symlink_to(kept)
    os.mkfifo(doomed / "pipe")
    remove(doomed)
    remove(doomed)
    (tmp_path / "link").symlink_to(kept)
    remove(tmp_path / "link")
    remove(tmp_path / "nowhere" / "deep")
    assert names(tmp_path) == ["kept"] and names(kept) == ["file"]


def test_removing_what_another_process_removes_too_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    for name in "abc":
        (doomed / name).write_bytes(b"")
    real = Path.unlink

    def raced(path: Path, missing_ok: bool = False) -> None:
        real(path)
        if path.name == "a":
            real(doomed / "b")

    monkeypatch.setattr(Path, "unlink", raced)
    remove(doomed)
    assert names(tmp_path) == []


# Reading


def test_a_regular_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError) as caught:
        read_regular(path, 4)
    assert caught.value.strerror == "5 bytes; at most 4 are read"
    path.write_bytes(b"")
    assert read_regular(path, 0) == b""


def test_a_link_is_read_only_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(OSError):
        read_regular(tmp_path / "link", 100)
    assert read_regular(tmp_path / "link", 100, follow=True) == b"12345"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        os.mkfifo,
        make_socket,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("/dev/tty"),
    ],
    ids=["folder", "pipe", "socket", "endless device", "terminal"],
)
@pytest.mark.parametrize("follow", [False, True])
def test_nothing_but_a_file_is_read_and_nothing_blocks(make: Callable[[Path], object], follow: bool, tmp_path: Path) -> None:
    before = n_open()
    make(tmp_path / "a")
    with pytest.raises(OSError):
        read_regular(tmp_path / "a", 100, follow=follow)
    assert n_open() == before


def test_a_file_that_is_read_in_pieces_or_shrinks_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "a", os.read
    path.write_bytes(b"0123456789")
    monkeypatch.setattr(os, "read", lambda handle, size: real(handle, min(size, 3)))
    assert read_regular(path, 100) == b"0123456789"

    def shrinking(handle: int, size: int) -> bytes:
        part = real(handle, min(size, 3))
        os.truncate(path, 4)
        return part

    monkeypatch.setattr(os, "read", shrinking)
    assert read_regular(path, 100) == b"0123"


def test_forgetting_what_is_cached_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a", b"x" * 10_000)
    before = n_open()
    forget_cached(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x" * 10_000 and n_open() == before
    monkeypatch.delattr(os, "posix_fadvise")
    forget_cached(tmp_path / "nowhere")  # not on every system


# Before the work


def test_a_place_is_tried_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "site.evb")
    assert names(tmp_path) == []
    with pytest.raises(OutputError, match="the folder .*no does not exist; create it first"):
        check_writable(tmp_path / "no" / "site.evb")
    with pytest.raises(OutputError, match="is a folder; name a file such as"):
        check_writable(tmp_path)
    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(OutputError, match="cannot be written: No space left"):
        check_writable(tmp_path / "site.evb")
