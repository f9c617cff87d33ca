"""The golden self-test in a process of its own, with limits: a model that hangs, crashes or eats the memory stays there.

The parent calls `check_in_child`; the child is `main`, with the bundle, its id, and the profile on standard input.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from edge_vad.child import command
from edge_vad.errors import BundleIntegrityError, EdgeVadError, ProfileError, SelfTestError
from edge_vad.profile import Profile
from edge_vad.strict import from_plain, to_plain

EXIT_ERROR = 1
GPU_MB = 6144  # of the host's memory, for a GPU's libraries: 2,200 with PyTorch 2.11 and CUDA 13 on an H100
STARVED = ("bad_alloc", "Failed to allocate", "allocation fail")  # what runtimes say, in the place of a MemoryError


def check_in_child(bundle: Path, bundle_id: str, profile: Profile) -> None:
    """Open the bundle (a file or a folder) with the profile's backend in a limited child, golden frames and all.

    Raises SelfTestError when that fails, also by a crash, too much memory or too much time. bundle_id: what must lie there.
    """
    limits = profile.store
    try:
        child = subprocess.run(
            command("edge_vad.self_test", str(bundle), bundle_id),
            input=json.dumps(to_plain(profile)),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limits.self_test_s,
            check=False,
        )
    except OSError as error:
        raise SelfTestError(f"{bundle}: the self-test cannot be started: {error.strerror}; try again") from error
    except subprocess.TimeoutExpired as error:
        raise SelfTestError(f"{bundle}: the self-test took more than {limits.self_test_s:g} s and was ended") from error
    if child.returncode == 0:
        return
    lines = child.stderr.strip().splitlines()
    why = lines[-1] if lines else "without a word"
    if child.returncode == EXIT_ERROR and why.startswith(f"{SelfTestError.__name__}: "):
        raise SelfTestError(f"{bundle}: {why.partition(': ')[2]}")
    if child.returncode < 0:
        why = f"ended by {_signal_name(-child.returncode)}"
    raise SelfTestError(f"{bundle}: the self-test did not end well (store.self_test_mb={limits.self_test_mb}): {why}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


def main(arguments: list[str]) -> int:
    """The child: 0 when the bundle opens and its golden frames agree; else one line on standard error."""
    path, bundle_id = arguments
    profile = from_plain(Profile, json.load(sys.stdin), "profile", ProfileError)
    _limit(allowed_mb(profile))
    from edge_vad.bundle import read_bundle
    from edge_vad.detector import Detector

    try:
        bundle = read_bundle(path)
        if bundle.id != bundle_id:
            raise BundleIntegrityError("it was exchanged while it was checked")
        Detector.open(bundle, profile)
    except (EdgeVadError, MemoryError) as error:
        why = str(error)
        if isinstance(error, MemoryError) or any(word in why for word in STARVED):
            why = f"it needs more memory than store.self_test_mb={profile.store.self_test_mb} ({why or 'none is left'})"
        sys.stderr.write(f"{SelfTestError.__name__}: {why}\n")
        return EXIT_ERROR
    return 0


def allowed_mb(profile: Profile) -> int:
    """MiB of memory that the child may take."""
    return profile.store.self_test_mb + (0 if profile.inference.device == "cpu" else GPU_MB)


def _limit(megabytes: int) -> None:
    """Bound this process's memory, not its address space: runtimes reserve a lot of that and use little."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = megabytes * 2**20 if hard == resource.RLIM_INFINITY else min(megabytes * 2**20, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
