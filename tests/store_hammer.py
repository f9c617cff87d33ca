"""Processes that work on one store and are killed, or work on it together. A program of its own, so that it may fork.

python -m store_hammer kill|crowd FOLDER
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import store_cases
from store_cases import Shelf, State

from edge_vad.errors import BundleError, EdgeVadError, StoreError
from edge_vad.store import Store

N_KILLS = 100
CROWD_S = 2.0


def child(work: Callable[[Callable[[Any], None]], None]) -> tuple[int, int]:
    """Run ``work`` in a forked process; returns its number and a pipe that carries what it tells, one JSON value a line."""
    reading, writing = os.pipe()
    number = os.fork()
    if number:
        os.close(writing)
        return number, reading
    os.close(reading)

    def tell(value: Any) -> None:
        os.write(writing, json.dumps(value).encode() + b"\n")  # one write of less than a page: whole or not at all

    try:
        work(tell)
    except BaseException:
        tell(["crash", traceback.format_exc()])
    os._exit(0)


def told(pipe: int, n_done: int | None = None) -> list[Any]:
    """What a process tells: until it has done ``n_done`` operations, or until it ends, which closes the pipe."""
    data = b""
    while (n_done is None or data.count(b'["done"') < n_done) and (part := os.read(pipe, 2**16)):
        data += part
    if n_done is None:
        os.close(pipe)
    return [json.loads(line) for line in data.splitlines()]


def do(store: Store, shelf: Shelf, what: str, name: str) -> None:
    """One operation; what is refused with reason is no failure."""
    operation = getattr(store_cases, what)
    try:
        (operation(name) if what in ("install", "activate") else operation)(store, shelf)
    except (StoreError, BundleError):
        if what not in ("activate", "rollback"):
            raise


def kill(folder: Path) -> dict[str, int]:
    """Kill a working process again and again; what it has told is done stays done."""
    draw = random.Random(5)
    shelf = Shelf.fill(folder)
    store = Store(folder / "store")
    store.folder.mkdir()
    store_cases.ONE(store, shelf)
    counted = {"kills": 0, "steps": 0, "in_flight": 0}
    for _ in range(N_KILLS):
        seed = draw.random()

        def work(tell: Callable[[Any], None], seed: float = seed) -> None:
            choose = random.Random(seed)
            mine = Store(store.folder)
            while True:
                what = choose.choices(["install", "activate", "start", "confirm", "rollback", "gc"], [5, 5, 2, 3, 2, 1])[0]
                name = choose.choice("abcd")
                tell(["begin", what, shelf.ids[name]])
                do(mine, shelf, what, name)
                tell(["done", mine.current, mine.previous, mine.serial])

        before = State.of(store)
        number, pipe = child(work)
        lines = told(pipe, draw.randrange(8))
        time.sleep(draw.uniform(0.0, 0.015))
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        lines += told(pipe)
        check_after_kill(store, before, lines)
        counted["kills"] += 1
        counted["steps"] += sum(line[0] == "done" for line in lines)
        counted["in_flight"] += bool(lines) and lines[-1][0] == "begin"
    store.collect_garbage()
    store_cases.check_tidy(store, "at the end")
    return counted


def check_after_kill(store: Store, before: State, lines: list[Any]) -> None:
    """The links and the serial are those that were told last, or those that the operation in flight leads to."""
    assert not [line for line in lines if line[0] == "crash"], lines[-1][1]
    current, previous, serial = before.current, before.previous, before.serial
    begun: tuple[str, str] | None = None
    for kind, *values in lines:
        if kind == "begin":
            begun = (values[0], values[1])
        else:
            (current, previous, serial), begun = values, None
    allowed = {current}
    if begun and begun[0] == "activate":
        allowed.add(begun[1])
    if begun and begun[0] in ("rollback", "start"):
        allowed.add(previous)
    now = State.of(store)
    assert now.current in allowed, (now, lines[-3:])
    assert now.serial >= serial, (now, lines[-3:])
    assert now.serial == serial or (begun and begun[0] == "confirm"), (now, lines[-3:])
    assert now.current in now.whole, (now, lines[-3:])
    assert store.start(store_cases.opened) in (now.current, now.previous)


def crowd(folder: Path) -> dict[str, int]:
    """Two processes change the store and a third one starts from it, at once; then it is whole."""
    shelf = Shelf.fill(folder)
    store = Store(folder / "store")  # which none of them has made yet
    until = time.monotonic() + CROWD_S

    def changing(seed: int) -> Callable[[Callable[[Any], None]], None]:
        def work(tell: Callable[[Any], None]) -> None:
            choose, mine, n_steps = random.Random(seed), Store(store.folder), 0
            do(mine, shelf, "install", "a")
            do(mine, shelf, "activate", "a")
            while time.monotonic() < until:
                what = choose.choices(["install", "activate", "confirm", "rollback", "gc"], [4, 3, 2, 1, 1])[0]
                do(mine, shelf, what, choose.choice("abcd"))
                n_steps += 1
            tell(["steps", n_steps])

        return work

    def starting(tell: Callable[[Any], None]) -> None:
        mine, n_starts = Store(store.folder), 0
        while not mine.current:
            time.sleep(0.01)
        while time.monotonic() < until:
            try:
                mine.start(store_cases.opened)
                n_starts += 1
            except EdgeVadError as error:
                # Both links were moved and both bundles deleted between two lines of it: three operations in a millisecond.
                if "no bundle can run" not in str(error):
                    raise
        tell(["starts", n_starts])

    children = [child(changing(1)), child(changing(2)), child(starting)]
    counted = {"steps": 0, "starts": 0}
    for number, pipe in children:
        for kind, value in told(pipe):
            assert kind != "crash", value
            counted[kind] += value
        os.waitpid(number, 0)
    now = State.of(store)
    assert now.current in now.whole and store.start(store_cases.opened)
    store.collect_garbage()
    store_cases.check_tidy(store, "after the crowd")
    return counted


if __name__ == "__main__":
    logging.disable()  # roll-backs are what this is about
    json.dump({"kill": kill, "crowd": crowd}[sys.argv[1]](Path(sys.argv[2])), sys.stdout)
