"""What a worker keeps of the memory that it has freed."""

import ctypes
import subprocess
import sys

import pytest

from forkproxy.worker.heap import KEPT_BYTES

PROGRAM = """
import ctypes, sys
from forkproxy.worker.heap import keep_freed

libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
if "kept" in sys.argv:
    assert keep_freed()
buffers = [bytes(81920) for _ in range(40)]
end = libc.sbrk(0)
buffers.clear()
print(end - libc.sbrk(0))
"""


def given_back(*arguments):
    """Bytes that the kernel got back when 3 MiB of buffers were freed."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has mallopt")
def test_buffers_of_bodies_stay_in_the_heap():
    assert KEPT_BYTES > 40 * 81920
    assert given_back("kept") == 0
    assert given_back() > 1024 * 1024
