"""A slab: the shared memory through which one process tells the supervisor its figures.

An anonymous shared mapping of 64-bit cells, made by the supervisor before it forks the one process that will write to
it. One writer, any number of readers, no locks: an aligned 8-byte store is seen whole or not at all, and figures of one
moment need not agree with each other to the unit. The first cells say how the process is; the registry places all
statistics behind them (counters.py). Untouched pages cost nothing, so a slab may be large.
"""

from __future__ import annotations

import mmap

# Header cells. The writer owns them all; times are time.monotonic_ns() of this boot.
HEARTBEAT_NS = 0
PID = 1
GENERATION = 2
STATE = 3
CONNECTIONS = 4
ACCEPTED = 5
REQUESTS = 6
FLUSHED_NS = 7
HEADER_CELLS = 32

# Values of the STATE cell.
STARTING = 0
READY = 1
DRAINING = 2
STOPPED = 3
STATE_NAMES = {STARTING: "starting", READY: "ready", DRAINING: "draining", STOPPED: "stopped"}


class Slab:
    """Shared cells: ``cells[i]`` is a signed 64-bit number, ``memory`` all of them as bytes for struct.pack_into."""

    __slots__ = ("cells", "memory")

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.cells: memoryview = memoryview(memory).cast("q")

    @classmethod
    def create(cls, cells: int) -> Slab:
        """Map ``cells`` zeroed cells, rounded up to whole pages (``Registry.cells`` says how many are needed now)."""
        size = max(cells, HEADER_CELLS) * 8
        return cls(mmap.mmap(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE))

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        return f"<Slab pid={self.cells[PID]} {STATE_NAMES.get(self.cells[STATE], '?')} cells={len(self.cells)}>"

    def close(self) -> None:
        """Give the memory back. The other process's mapping stays valid until it ends."""
        self.cells.release()
        self.memory.close()
