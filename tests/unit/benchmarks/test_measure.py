"""How the benchmark counts; no timing is asserted."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.benchmarks import load, measure
from tests.benchmarks.cases import CASES, DEFAULT_CASES

BUSY = "import sys\ntotal = 0\nfor i in range(3_000_000): total += i\nprint(flush=True)\nsys.stdin.read()"
PARENT = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1]])"


def sample(cpu_us, rps=1000.0):
    return measure.Sample(cpu_us=cpu_us, rps=rps, p50_ms=1.0, p99_ms=2.0, requests=1, pss_kib=1024)


def test_cpu_time_includes_children():
    child = subprocess.Popen([sys.executable, "-c", PARENT, BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        child.stdout.readline()
        whole = measure.cpu_seconds(child.pid)
        fields = pathlib.Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        alone = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        assert 0 < measure.pss_kib(child.pid) <= measure.alone_kib(child.pid)
        child.stdin.close()
    assert whole > alone


def test_pages_of_files():
    smaps = """\
55d0-55e0 r-xp 00001000 fe:00 123                        /usr/bin/a program
Rss:                  40 kB
Anonymous:             4 kB
VmFlags: rd ex mr mw me sd
55e0-55f0 rw-p 00000000 00:00 0                          [heap]
Rss:                  99 kB
Anonymous:            99 kB
55f0-5600 rw-s 00000000 00:01 7                          /dev/zero (deleted)
Rss:                  50 kB
Anonymous:             0 kB
5600-5610 rw-p 00000000 00:00 0
Rss:                  10 kB
Anonymous:            10 kB
5610-5620 r--p 00002000 fe:00 123                        /usr/bin/a program
Rss:                   8 kB
Anonymous:             0 kB
"""
    assert measure.file_pages_kib(smaps) == {
        ("/usr/bin/a program", "00001000"): 36,
        ("/usr/bin/a program", "00002000"): 8,
    }


def test_summary_takes_medians():
    figures = measure.summary([sample(10.0), sample(30.0), sample(11.0)])
    assert (figures["cpu_us"], figures["cpu_us_min"], figures["cpu_us_max"]) == (11.0, 10.0, 30.0)


def test_cases_by_name():
    assert [case.name for case in load.chosen_cases("ping,routes-300")] == ["ping", "routes-300"]
    assert load.chosen_cases("routes-300")[0].virtual_hosts == 15
    with pytest.raises(SystemExit):
        load.chosen_cases("pong")
    assert set(DEFAULT_CASES) < {case.name for case in CASES}


def test_comparison_shows_how_ratios_moved(capsys):
    about = {"date": "then"}
    old = {"about": about, "cases": {"ping": {"forkproxy": {"ratio": 0.5}, "envoy": {"ratio": 1.0}}}}
    new = {"about": about, "cases": {"ping": {"forkproxy": {"ratio": 0.55}, "envoy": {"ratio": 1.0}}}}
    load.print_comparison(old, new)
    assert "0.500 →  0.550   +10.0%" in capsys.readouterr().out
