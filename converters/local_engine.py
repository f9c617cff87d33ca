"""The tasks of a build on this machine: in this process, or in several that may die."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_vad.converters.engine import MAX_ATTEMPTS, Engine, Moved
from edge_vad.converters.tasks import Task, perform

from edge_vad import errors
from edge_vad.child import command
from edge_vad.errors import EdgeVadError, EngineError

log = logging.getLogger(__name__)

MESSAGE_BYTES = 2**17
# Processes stand beside each other, so none has threads of its own.
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1")


class LocalEngine(Engine):
    """``jobs`` worker processes, by default one per core; with one job the tasks are done in this process."""

    def __init__(self, location: str = "", jobs: int | None = None) -> None:
        if location:
            raise EngineError(f"engine local: takes no address, not {location!r}; --jobs N says how many processes")
        self._jobs = jobs or len(os.sched_getaffinity(0))
        self._workers: list[_Worker] = []

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are at work."""
        return [worker.process.pid for worker in self._workers if worker.task]

    def run(self, tasks: Sequence[Task], folder: Path, moved: Moved) -> Iterator[Task]:
        if self._jobs > 1:
            yield from self._run_in_workers(deque(tasks), folder, moved)
            return
        for task in tasks:
            perform(task, folder, lambda n, task=task: moved(task, n))
            yield task

    def close(self) -> None:
        while self._workers:
            self._workers.pop().close()

    def _run_in_workers(self, waiting: deque[Task], folder: Path, moved: Moved) -> Iterator[Task]:
        deaths: Counter[str] = Counter()
        try:
            while waiting or any(worker.task for worker in self._workers):
                self._hand_out(waiting, folder)
                for worker in select.select(self._workers, (), ())[0]:
                    try:
                        message = worker.receive()
                    except ConnectionError:
                        self._bury(worker, deaths, waiting)
                        continue
                    if "frames" in message:
                        moved(worker.task, message["frames"])
                    elif "finished" in message:
                        yield worker.end()
                    else:
                        raise _error(message)
        finally:
            for worker in [w for w in self._workers if w.task]:  # after an error
                self._workers.remove(worker)
                worker.close()

    def _hand_out(self, waiting: deque[Task], folder: Path) -> None:
        """Give every idle worker a task, and start workers for those that are left."""
        for worker in [w for w in self._workers if not w.task][: len(waiting)]:
            worker.begin(waiting.popleft(), folder)
        while waiting and len(self._workers) < self._jobs:
            self._workers.append(_Worker())
            self._workers[-1].begin(waiting.popleft(), folder)

    def _bury(self, worker: _Worker, deaths: Counter[str], waiting: deque[Task]) -> None:
        """A worker is dead; another one gets its task."""
        task, how = worker.task, worker.how_it_ended()
        self._workers.remove(worker)
        worker.close()
        if task is None:
            return
        deaths[task.key] += 1
        if deaths[task.key] == MAX_ATTEMPTS:
            raise EngineError(
                f"{task.name}: {MAX_ATTEMPTS} processes died over it, the last one by {how}; "
                "if memory ran out, give --jobs a smaller number"
            )
        log.warning("%s: the process that worked on it died (%s); another one starts it again", task.name, how)
        waiting.appendleft(task)


class _Worker:
    """A child process that does one task after the other: see `edge_vad.converters.worker`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = command("edge_vad.converters.worker", str(theirs.fileno()))
            self.process = subprocess.Popen(
                arguments,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # results are the parent's to write
                env={**os.environ, **ONE_THREAD},
            )
        self._socket = ours
        self.task: Task | None = None

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def begin(self, task: Task, folder: Path) -> None:
        """Hand a task over; a worker that is dead is noticed when it is listened to."""
        self.task = task
        with contextlib.suppress(ConnectionError):
            self._socket.send(json.dumps({"task": task.to_json(), "folder": str(folder)}).encode())

    def receive(self) -> dict[str, Any]:
        """The next message; ConnectionError when the worker is dead."""
        data = self._socket.recv(MESSAGE_BYTES)
        if not data:
            raise ConnectionResetError
        return json.loads(data)

    def end(self) -> Task:
        """The task, which is finished."""
        task, self.task = self.task, None
        assert task is not None
        return task

    def close(self) -> None:
        """End the process; it has no say in it. What it was writing is not there."""
        self._socket.close()
        self.process.kill()
        self.process.wait()

    def how_it_ended(self) -> str:
        """The signal or exit code."""
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "silence"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _error(message: dict[str, Any]) -> EdgeVadError:
    """The error that a worker raised."""
    if message["trace"]:
        log.debug("%s", message["trace"])
    kind = getattr(errors, message["error"], None)
    return kind(message["message"]) if kind else EngineError(f"{message['error']}: {message['message']}")
