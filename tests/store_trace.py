"""File operations of a piece of code, recorded and made to fail; and a model of what a disk keeps of them."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import pathlib
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Tree = dict[str, tuple[str, bytes]]  # relative path -> ("dir" | "file" | "link", content or target)
Fail = Callable[[int, str], int | None]  # number and kind of a call -> errno, or None where it goes through

BY_PATH = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "stat", "lstat", "readlink", "listdir", "scandir")
BY_HANDLE = ("read", "write", "fsync", "fstat", "posix_fadvise")
FILLING = ("create", "write", "mkdir", "symlink")  # what a full disk refuses
CHANGING = (*FILLING, "rename", "replace", "unlink", "remove", "rmdir", "fsync")
LSTAT = os.lstat  # not counted


class Op(NamedTuple):
    """A change. handle: number of the open file, for write and fsync; other: the new name, or the target of a link."""

    kind: str
    path: str = ""
    other: str = ""
    data: bytes = b""
    handle: int = 0


@dataclass
class Trace:
    """Changes below ``root`` in their order, and the kind of every call, also of those that only read."""

    root: Path
    fail: Fail | None = None
    ops: list[Op] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    open_handles: dict[int, int] = field(default_factory=dict)  # of the process -> of `Op`
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def mark(self, what: str) -> None:
        """Note that something else happened between two changes."""
        self.ops.append(Op("mark", what))

    def changes(self) -> list[Op]:
        """The operations after each of which the power may fail."""
        return [op for op in self.ops if op.kind not in ("mark", "open")]

    def inside(self, path: Any) -> str | None:
        """The path relative to the root; None for one that is not below it."""
        if isinstance(path, int):
            return None
        name = os.fsdecode(path)
        root = str(self.root)
        return name[len(root) + 1 :] or "." if name == root or name.startswith(root + "/") else None

    def call(self, kind: str, where: object) -> None:
        """Count a call, and let it fail where that is wanted."""
        self.calls.append(kind)
        number = self.fail(len(self.calls) - 1, kind) if self.fail else None
        if number is not None:
            raise OSError(number, os.strerror(number), str(where))

    def opened(self, handle: int, path: str, created: bool) -> None:
        """A file or folder was opened."""
        self.open_handles[handle] = number = next(self._numbers)
        self.ops.append(Op("create" if created else "open", path, handle=number))

    @contextmanager
    def recording(self) -> Iterator[Trace]:
        """Watch what this process does below the root; nothing is synced really, that only takes time."""
        with pytest.MonkeyPatch.context() as patch:
            for name in (*BY_PATH, *BY_HANDLE, "open", "close", "symlink"):
                wrapped = getattr(self, f"_{name}", None)
                real = getattr(os, name)
                kind = "by_path" if name in BY_PATH else "by_handle" if name in BY_HANDLE else name
                wrapper = wrapped(real) if wrapped else getattr(self, f"_{kind}")(name, real)
                patch.setattr(os, name, wrapper)
                accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 calls its own references
                if accessor is not None and hasattr(accessor, name) and name != "open":
                    patch.setattr(accessor, name, staticmethod(wrapper))
            patch.setattr(fcntl, "flock", self._by_handle("flock", fcntl.flock))
            yield self

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def wrapper(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            name = self.inside(path)
            if name is None:
                return real(path, flags, mode, **more)
            creates = bool(flags & os.O_CREAT) and not _exists(path)
            assert not flags & (os.O_TRUNC | os.O_APPEND), "not modelled"
            self.call("create" if creates else "open", path)
            handle = real(path, flags, mode, **more)
            self.opened(handle, name, creates)
            return handle

        return wrapper

    def _close(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def wrapper(handle: int) -> None:
            self.open_handles.pop(handle, None)
            real(handle)

        return wrapper

    def _symlink(self, real: Callable[..., None]) -> Callable[..., None]:
        def wrapper(target: Any, path: Any, *more: Any, **named: Any) -> None:
            self.call("symlink", path)
            real(target, path, *more, **named)
            self.ops.append(Op("symlink", self._must(path), os.fsdecode(target)))

        return wrapper

    def _by_path(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(path: Any = ".", *more: Any, **named: Any) -> Any:
            name = self.inside(path)
            if name is None:
                return real(path, *more, **named)
            self.call(kind, path)
            result = real(path, *more, **named)
            if kind in CHANGING:
                other = self._must(more[0]) if kind in ("rename", "replace") else ""
                self.ops.append(Op(kind.replace("replace", "rename").replace("remove", "unlink"), name, other))
            return result

        return wrapper

    def _by_handle(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(handle: int, *more: Any) -> Any:
            number = self.open_handles.get(handle)
            if number is None:
                return real(handle, *more)
            self.call(kind, f"handle {handle}")
            result = None if kind == "fsync" else real(handle, *more)
            if kind == "write":
                self.ops.append(Op("write", data=bytes(more[0][:result]), handle=number))
            elif kind == "fsync":
                self.ops.append(Op("fsync", handle=number))
            return result

        return wrapper

    def _must(self, path: Any) -> str:
        name = self.inside(path)
        assert name is not None, f"{path} is outside of {self.root}"
        return name


@dataclass(eq=False)
class Node:
    """A file, a link or a folder. data, names: as a running system sees it; kept, kept_names: what is surely on the disk.

    pending: changes of names that no fsync of the folder has made durable: (name that goes, name that comes, node).
    """

    kind: str
    data: bytes = b""
    kept: bytes | None = None
    names: dict[str, Node] = field(default_factory=dict)
    kept_names: dict[str, Node] = field(default_factory=dict)
    pending: list[tuple[str, str, Node]] = field(default_factory=list)


class Disk:
    """A file system below one folder that keeps no more than it must: content after fsync of the file, names after fsync
    of their folder. Changes of names in one folder are atomic, and may survive in any selection.
    """

    VARIANTS = ("lost", "survived", "empty", "half", "some 1", "some 2", "some 3")

    def __init__(self, tree: Tree) -> None:
        """All of ``tree`` is durable."""
        self.root = Node("dir")
        self._handles: dict[int, Node] = {}
        for path, (kind, data) in sorted(tree.items()):
            parent, name = self._parent(path)
            parent.names[name] = parent.kept_names[name] = Node(kind, data, data)

    def apply(self, op: Op) -> None:
        """One step further."""
        if op.kind in ("write", "fsync"):
            node = self._handles[op.handle]
            if op.kind == "write":
                node.data += op.data
            elif node.kind == "dir":
                node.kept_names = dict(node.names)
                node.pending.clear()
            else:
                node.kept = node.data
        elif op.kind == "open":
            self._handles[op.handle] = self._find(op.path)
        elif op.kind != "mark":
            self._rename(op)

    def _rename(self, op: Op) -> None:
        parent, name = self._parent(op.path)
        comes = ""
        if op.kind == "rename":
            node = parent.names.pop(name)
            other_parent, comes = self._parent(op.other)
            assert other_parent is parent, "a rename between folders is not modelled"
        elif op.kind in ("unlink", "rmdir"):
            node = parent.names.pop(name)
        else:
            kind = {"create": "file", "mkdir": "dir", "symlink": "link"}[op.kind]
            node = Node(kind, op.other.encode(), op.other.encode() if kind == "link" else None)
            name, comes = "", name
            if op.kind == "create":
                self._handles[op.handle] = node
        if comes:
            parent.names[comes] = node
        parent.pending.append((name, comes, node))

    def after_power_cut(self, variant: str, seed: str = "") -> Tree:
        """What lies there when the power comes back."""
        tree: Tree = {}
        self._collect(self.root, "", variant, random.Random(f"{variant} {seed}"), tree)
        return tree

    def _collect(self, folder: Node, at: str, variant: str, draw: random.Random, tree: Tree) -> None:
        names = folder.names
        if variant == "lost":
            names = folder.kept_names
        elif variant.startswith("some"):
            names = dict(folder.kept_names)
            for goes, comes, node in folder.pending:
                if draw.random() < 0.5:
                    continue
                if names.get(goes) is node:
                    del names[goes]
                if comes:
                    names[comes] = node
        for name, node in names.items():
            tree[at + name] = (node.kind, self._content(node, variant, draw))
            if node.kind == "dir":
                self._collect(node, f"{at}{name}/", variant, draw, tree)

    @staticmethod
    def _content(node: Node, variant: str, draw: random.Random) -> bytes:
        kept = node.kept or b""
        choices = {"lost": kept, "empty": kept, "survived": node.data, "half": node.data[: len(node.data) // 2]}
        if node.kept == node.data:
            return node.data
        return choices[variant] if variant in choices else draw.choice(list(choices.values()))

    def _find(self, path: str) -> Node:
        node = self.root
        for part in () if path == "." else path.split("/"):
            node = node.names[part]
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self._find(folder or "."), name


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder without a medium behind it, where there is one: thousands of stores are made and thrown away."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else otherwise
    with tempfile.TemporaryDirectory(dir=place, prefix="edge-vad-") as folder:
        yield Path(folder)


def _exists(path: Any) -> bool:
    try:
        LSTAT(path)
    except FileNotFoundError:
        return False
    return True


def read_tree(root: Path) -> Tree:
    """What lies below a folder."""
    tree: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink():
                tree[str(path.relative_to(root))] = ("link", os.fsencode(path.readlink()))
            elif path.is_dir():
                tree[str(path.relative_to(root))] = ("dir", b"")
            else:
                tree[str(path.relative_to(root))] = ("file", path.read_bytes())
    return tree


def write_tree(root: Path, tree: Tree) -> Path:
    """Make a folder of it."""
    root.mkdir(parents=True)
    for path, (kind, data) in sorted(tree.items()):
        if kind == "dir":
            (root / path).mkdir()
        elif kind == "link":
            (root / path).symlink_to(data.decode())
        else:
            (root / path).write_bytes(data)
    return root


def fail_at(position: int, number: int) -> Fail:
    """The call at that position fails, once."""
    return lambda at, kind: number if at == position else None


def full_from(position: int) -> Fail:
    """The disk is full from that call on."""
    return lambda at, kind: errno.ENOSPC if at >= position and kind in FILLING else None


def read_only(at: int, kind: str) -> int | None:
    """The disk was mounted read-only."""
    return errno.EROFS if kind in CHANGING and kind != "fsync" else None
