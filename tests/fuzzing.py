"""Runs many small cases in processes of their own, each under a time and memory limit; a crash or a hang is an outcome.

A target is ``module:maker`` in this folder; ``maker(*arguments)`` returns the function that runs the case of a seed and
says how it ended. The worker is this file: python fuzzing.py RESULTS TARGET FIRST STEP END UNTIL ARGUMENT...
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SECONDS, FIRST = "FUZZ_SECONDS", "FUZZ_FIRST"  # environment: fuzz for that long, from that seed on, not a number of cases
LIMIT_S = 20  # of CPU time; the machine may have other work
LIMIT_WAITING_S = 300
LIMIT_MB = 2048
WORKERS = 2

Case = Callable[[int], tuple[str, str]]


@dataclass(frozen=True)
class Outcome:
    """How the case of a seed ended. kind: the case's own word, or crash, hang, escaped (an exception that has no name)."""

    seed: int
    kind: str
    detail: str


def run(target: str, arguments: Sequence[object], count: int, folder: Path) -> list[Outcome]:
    """The outcomes of ``count`` seeds, or of as many as FUZZ_SECONDS allows. folder: for what the workers write."""
    first, end, until = 0, count, 2.0**40
    if is_timed():
        first, end, until = int(os.environ.get(FIRST, "0")), 2**40, time.time() + float(os.environ[SECONDS])

    def work(worker: int) -> list[Outcome]:
        return _work(folder / f"outcomes-{worker}", target, arguments, range(first + worker, end, WORKERS), until)

    with ThreadPoolExecutor(WORKERS) as pool:
        found = [outcome for part in pool.map(work, range(WORKERS)) for outcome in part]
    print(f"\n{target}: {len(found)} cases:", ", ".join(f"{n} {kind}" for kind, n in counts(found).most_common()))
    return found


def is_timed() -> bool:
    """Whether the number of cases is what the time allowed."""
    return SECONDS in os.environ


def counts(outcomes: Sequence[Outcome]) -> Counter[str]:
    return Counter(outcome.kind for outcome in outcomes)


def of_kind(outcomes: Sequence[Outcome], *kinds: str) -> list[str]:
    """The outcomes of these kinds, one line each, for a message."""
    return [f"seed {o.seed}: {o.kind}: {o.detail}" for o in outcomes if o.kind in kinds]


def _work(results: Path, target: str, arguments: Sequence[object], seeds: range, until: float) -> list[Outcome]:
    """The outcomes of these seeds; a worker that dies is followed by another one behind the case that killed it."""
    found: list[Outcome] = []
    first = seeds.start
    while first < seeds.stop and time.time() < until:
        numbers = (first, seeds.step, seeds.stop, until)
        command = [sys.executable, __file__, str(results), target, *map(str, numbers), *map(str, arguments)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environment)
        lines = [json.loads(line) for line in results.read_text().splitlines()]
        started = [line["start"] for line in lines if "start" in line]
        found += [Outcome(line["seed"], line["kind"], line["detail"]) for line in lines if "kind" in line]
        if child.returncode == 0:
            return found
        if not started:
            raise RuntimeError(f"{target} does not start: {child.stderr[-2000:]}")
        kind = "hang" if -child.returncode in (signal.SIGALRM, signal.SIGPROF) else "crash"
        found.append(Outcome(started[-1], kind, f"exit {child.returncode}: {child.stderr.strip()[-300:]}"))
        first = started[-1] + seeds.step
    return found


def main(results: str, target: str, first: str, step: str, end: str, until: str, *arguments: str) -> None:
    """The worker."""
    module, _, maker = target.partition(":")
    with open(results, "w", buffering=1) as log:  # noqa: PTH123
        case: Case = getattr(importlib.import_module(module), maker)(*arguments)
        limit = LIMIT_MB * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("error")
        for seed in range(int(first), int(end), int(step)):
            if time.time() > float(until):
                break
            log.write(json.dumps({"start": seed}) + "\n")
            signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
            signal.alarm(LIMIT_WAITING_S)
            kind, detail = _guarded(case, seed)
            log.write(json.dumps({"seed": seed, "kind": kind, "detail": detail}) + "\n")


def _guarded(case: Case, seed: int) -> tuple[str, str]:
    try:
        return case(seed)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
        return "escaped", f"{type(error).__name__}: {str(error)[:200]} at {where}"


if __name__ == "__main__":
    main(*sys.argv[1:])
