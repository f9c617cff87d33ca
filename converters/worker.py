"""A worker process of the local engine: does the tasks that come over a socket, one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from edge_vad.converters.local_engine import MESSAGE_BYTES
from edge_vad.converters.tasks import Task, perform

from edge_vad.errors import EdgeVadError
from edge_vad.progress import REFRESH_S

MAX_TEXT = 10_000  # characters of an error or a traceback: a message has its limits


def main(arguments: list[str]) -> int:
    """The child: it ends when its parent ends, whatever it is doing then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    channel = socket.socket(fileno=int(arguments[0]))
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, orders), daemon=True).start()
    while True:
        order = orders.get()
        answer = _answer(order, channel)
        with contextlib.suppress(ConnectionError):  # the parent is gone, and so is this process at once
            channel.send(json.dumps(answer).encode())


def _listen(channel: socket.socket, orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    try:
        while data := channel.recv(MESSAGE_BYTES):
            orders.put(json.loads(data))
    finally:
        os._exit(0)  # the parent is gone, perhaps killed: nobody waits for what is being done


def _answer(order: dict[str, Any], channel: socket.socket) -> dict[str, Any]:
    task = Task.from_json(order["task"])
    try:
        perform(task, Path(order["folder"]), _Teller(channel))
    except EdgeVadError as error:
        return {"error": type(error).__name__, "message": str(error)[:MAX_TEXT], "trace": ""}
    except Exception as error:
        said = f"{task.name}: {type(error).__name__}: {error}"
        return {"error": "EngineError", "message": said[:MAX_TEXT], "trace": traceback.format_exc()[-MAX_TEXT:]}
    return {"finished": True}


class _Teller:
    """Tells the parent how many frames are done, as often as a person would look."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._told = time.monotonic()

    def __call__(self, n_frames: int) -> None:
        now = time.monotonic()
        if now - self._told >= REFRESH_S:
            self._told = now
            self._channel.send(json.dumps({"frames": n_frames}).encode())
