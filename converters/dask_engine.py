"""The tasks of a build on a Dask cluster: the footage is there, everything else travels.

A task's input files are shipped as values that Dask makes again when a worker is lost; what it leaves is fetched file by
file from the worker that did it, so that nobody ever holds more than a part of a clip.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_vad.converters.engine import MAX_ATTEMPTS, Engine, Moved
from edge_vad.converters.recipe import code_version
from edge_vad.converters.spill import read
from edge_vad.converters.tasks import Task, files_of, perform

from edge_vad.errors import EdgeVadError, EngineError
from edge_vad.files import write_atomically
from edge_vad.plugins import require

log = logging.getLogger(__name__)

CONNECT_S = 10
PATIENCE_S = 60.0  # without any worker
POLL_S = 0.05


class DaskEngine(Engine):
    """``dask://HOST:PORT``, the address of a scheduler; every worker has the same edge-vad and sees the same footage."""

    def __init__(self, location: str, jobs: int | None = None) -> None:
        if jobs is not None:
            raise EngineError("engine dask: the cluster decides how many workers there are; leave --jobs out")
        if not location:
            raise EngineError("engine dask: name the scheduler: --engine dask://HOST:PORT")
        self._dask = require("distributed", "edge-vad[dask]", "--engine dask")
        self._where = f"dask://{location}"
        self._session = uuid.uuid4().hex  # names what is ours on the cluster
        try:
            self._client = self._dask.Client(f"tcp://{location}", timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise EngineError(
                f"{self._where}: no Dask scheduler answers there ({error}); start one: dask scheduler"
            ) from error
        self._last_worker_s = time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the scheduler is gone
            # Dask does a lost task once more before it hears that nobody wants it any more.
            self._client.run(_tidy_up, self._session, on_error="ignore")
        self._client.close()

    def run(self, tasks: Sequence[Task], folder: Path, moved: Moved) -> Iterator[Task]:
        waiting = deque(tasks)
        users = Counter(name for task in tasks for name in task.inputs)
        shipped: dict[str, Any] = {}  # input -> its future
        busy: dict[Any, Task] = {}  # future -> its task
        losses: Counter[str] = Counter()
        try:
            while waiting or busy:
                n_most = self._capacity()
                while waiting and len(busy) < n_most:
                    task = waiting.popleft()
                    busy[self._submit(task, folder, shipped, losses[task.key])] = task
                for future in [future for future in busy if future.done()]:
                    task = busy.pop(future)
                    if self._fetch(future, task, folder):
                        _release(task, users, shipped)
                        yield task
                    else:
                        self._lose(task, losses)
                        waiting.appendleft(task)
                time.sleep(POLL_S)
        finally:
            if busy:  # after an error
                with contextlib.suppress(OSError):
                    self._client.cancel(list(busy), force=True)

    def _capacity(self) -> int:
        """Tasks that the cluster does at once; EngineError when it has had no worker for a while."""
        try:
            n_threads = sum(self._client.nthreads().values())
        except OSError as error:
            raise EngineError(
                f"{self._where}: the scheduler is gone ({error}); the same command goes on from here"
            ) from error
        now = time.monotonic()
        if n_threads:
            self._last_worker_s = now
        elif now - self._last_worker_s > PATIENCE_S:
            raise EngineError(f"{self._where}: no worker for {PATIENCE_S:g} s; start some: dask worker {self._where[7:]}")
        return n_threads

    def _submit(self, task: Task, folder: Path, shipped: dict[str, Any], attempt: int) -> Any:
        config = require("dask.config", "edge-vad[dask]", "--engine dask")
        with config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):  # the files are meant to be large
            for name in task.inputs:
                if name not in shipped:
                    data = read(folder / name)
                    shipped[name] = self._client.submit(_as_it_is, data, key=f"edge-vad-{self._session}-{name}")
            inputs = [shipped[name] for name in task.inputs]
            key = f"edge-vad-{self._session}-{task.kind}-{task.key}-{attempt}"
            return self._client.submit(_perform_there, task.to_json(), code_version(), self._session, *inputs, key=key)

    def _fetch(self, future: Any, task: Task, folder: Path) -> bool:
        """Store what a task left, its receipt last; whether the worker was still there."""
        try:
            address, there = future.result()
        except EdgeVadError:
            raise
        except self._dask.KilledWorker as error:
            raise EngineError(
                f"{task.name}: too many workers died over it; if memory ran out, start them with fewer threads each"
            ) from error
        except Exception as error:
            raise EngineError(f"{task.name}: {type(error).__name__}: {error}") from error
        try:
            receipt = self._call(_read_there, there, task.receipt, address=address)
            for name in files_of(json.loads(receipt)):
                write_atomically(folder / name, self._call(_read_there, there, name, address=address))
            write_atomically(folder / task.receipt, receipt)
            self._call(shutil.rmtree, there, address=address)
        except (OSError, LookupError) as error:
            log.debug("%s: %s", address, error)
            return False
        return True

    def _call(self, function: Any, *arguments: Any, address: str) -> Any:
        if address not in self._client.nthreads():  # or Dask would wait for it
            raise OSError(None, "the worker is gone")
        return self._client.run(function, *arguments, workers=[address])[address]

    def _lose(self, task: Task, losses: Counter[str]) -> None:
        losses[task.key] += 1
        if losses[task.key] == MAX_ATTEMPTS:
            raise EngineError(f"{task.name}: {MAX_ATTEMPTS} workers were lost with its features; look at their logs")
        log.warning("%s: the worker was lost with its features; another one starts it again", task.name)


def _release(task: Task, users: Counter[str], shipped: dict[str, Any]) -> None:
    """Let the cluster forget what no other task reads."""
    users.subtract(task.inputs)
    for name in task.inputs:
        if not users[name]:
            shipped.pop(name, None)


def _as_it_is(data: bytes) -> bytes:
    return data


def _perform_there(plain: str, code: str, session: str, *inputs: bytes) -> tuple[str, str]:
    """On a worker: do a task in a folder of its own; the worker's address and the folder."""
    if code != code_version():
        raise EngineError(
            "a worker has another version of edge-vad, numpy, OpenCV or ONNX Runtime than the machine that builds; "
            "install the same ones on all of them"
        )
    worker = require("distributed", "edge-vad[dask]", "--engine dask").get_worker()
    task = Task.from_json(plain)
    folder = Path(tempfile.mkdtemp(prefix=f"edge-vad-{session}-", dir=worker.local_directory))
    try:
        for name, data in zip(task.inputs, inputs, strict=True):
            (folder / name).write_bytes(data)
        perform(task, folder, lambda _: None)
        for name in task.inputs:
            (folder / name).unlink()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return worker.address, str(folder)


def _read_there(folder: str, name: str) -> bytes:
    return (Path(folder) / name).read_bytes()


def _tidy_up(session: str, dask_worker: Any) -> None:
    for folder in Path(dask_worker.local_directory).glob(f"edge-vad-{session}-*"):
        shutil.rmtree(folder, ignore_errors=True)
