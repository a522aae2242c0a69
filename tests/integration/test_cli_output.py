"""Where the output cannot be written."""

import subprocess
import sys

from tests.integration.test_cli import forkproxy
from tests.support.supervised import ROOT


def test_a_full_disk_is_told_in_one_line():
    script = 'exec "$0" -m forkproxy version >/dev/full'
    shell = ["/bin/sh", "-c", script, sys.executable]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (1, "cannot write: No space left on device\n")


def test_what_the_terminal_has_no_letter_for_is_escaped(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("node: { id: [\u03b1] }\n")
    done = forkproxy("check", path, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (1, "")
    assert "node: { id: [\\u03b1] }" in done.stdout
