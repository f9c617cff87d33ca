"""What the C library keeps of freed memory, for work that frees and asks for the same arrays with every frame."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
KEPT_BYTES, LARGE_BYTES, N_ARENAS = 32 * 2**20, 16 * 2**20, 2


def tune_heap() -> None:
    """Keep up to 32 MB of freed memory, and two heaps for all threads; for a whole process, before its work begins.

    glibc gives memory back that is asked for again with the next frame, and the kernel clears every page of it anew: half
    of the time of small array arithmetic. Each thread has a heap of its own, which keeps the most it ever needed.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_TRIM_THRESHOLD, KEPT_BYTES), (M_MMAP_THRESHOLD, LARGE_BYTES), (M_ARENA_MAX, N_ARENAS)):
            mallopt(option, value)
