"""What a generation's making needed and its life does not: given back before the workers are forked, who would inherit it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

from forkproxy.config.schema import forget_schema


def _malloc_trim() -> Callable[[int], int]:
    # glibc keeps freed memory below the last block in use; musl has no such call, and no such habit.
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda _pad: 0)


_trim = _malloc_trim()


def settle() -> None:
    """After the making of a generation, and before its first worker.

    What is alive now lives as long as the generation. Frozen, no collection in a worker touches (and copies) its pages. Garbage
    is not looked for: all that was made is in use, and to look at it takes a tenth of a second for 10,000 routes. Only the
    schema, which EDS files need here, goes, and is read again when it is wanted (some 12 ms): it is 2 MiB of every process else.
    """
    if forget_schema():
        gc.collect()
    _trim(0)
    gc.freeze()


def clear() -> None:
    """Before the making of a generation, when others have gone: what is left of them. Their objects refer to each other."""
    gc.unfreeze()
    gc.collect()
