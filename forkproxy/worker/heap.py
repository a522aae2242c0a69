"""How the C library keeps what a worker has freed.

By glibc's own rule the end of the heap goes back to the kernel when 128 KiB of it are free. A worker that passes on bodies frees
and takes buffers of 64 KiB and more all the time: every second answer of that size cost a ``brk``, and each eight page faults.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1  # <malloc.h>
_M_MMAP_THRESHOLD = -3
KEPT_BYTES = 4 * 1024 * 1024
"""Free memory at the end of the heap that a worker keeps for its next buffers."""
LARGE_BYTES = 1024 * 1024
"""From this size on a buffer is a mapping of its own, and goes back when it is freed."""


def keep_freed() -> bool:
    """Keep some of what is freed. False: this C library has no such choice (musl), or refuses."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES))
