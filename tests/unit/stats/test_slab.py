import os

from forkproxy.stats import slab as cells
from forkproxy.stats.slab import Slab


def test_a_slab_is_zero_and_whole_pages():
    slab = Slab.create(1)
    assert (len(slab) * 8) % os.sysconf("SC_PAGESIZE") == 0
    assert not any(slab.cells)
    slab.close()


def test_what_a_child_writes_the_parent_reads():
    slab = Slab.create(100)
    pid = os.fork()
    if not pid:
        slab.cells[cells.PID] = os.getpid()
        slab.cells[99] = -7
        os._exit(0)
    os.waitpid(pid, 0)
    assert slab.cells[cells.PID] == pid
    assert slab.cells[99] == -7
    slab.cells[cells.STATE] = cells.DRAINING
    assert repr(slab) == f"<Slab pid={pid} draining cells=512>"
    slab.close()


def test_an_unused_slab_takes_no_memory():
    slab = Slab.create(4 * 1024 * 1024)
    before = _shared_kib()
    slab.cells[cells.HEARTBEAT_NS] = 1
    assert _shared_kib() - before <= 8
    slab.close()


def _shared_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssShmem"))
