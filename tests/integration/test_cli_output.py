"""Where the output cannot be written."""

import subprocess
import sys

from tests.support.supervised import ROOT


def test_a_full_disk_is_told_in_one_line():
    script = 'exec "$0" -m forkproxy version >/dev/full'
    shell = ["/bin/sh", "-c", script, sys.executable]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (1, "cannot write: No space left on device\n")
