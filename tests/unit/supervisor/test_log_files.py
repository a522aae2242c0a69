"""Log files given to workers that are not root."""

import os
import tempfile
from pathlib import Path

import pytest

from forkproxy.supervisor.log_files import give, is_roots
from forkproxy.worker.after_fork import Identity

NOBODY = Identity(65534, 65534, (65534,))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def roots():
    """A directory below which everything is root's: /tmp is everybody's."""
    with tempfile.TemporaryDirectory(prefix="forkproxy-test-", dir="/run") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def owner(path):
    status = path.stat()
    return status.st_uid, status.st_gid


def test_a_file_is_made_and_given(roots):
    (roots / "there").write_text("kept\n")
    paths = [str(roots / "new"), str(roots / "there")]
    assert give(paths, NOBODY) == paths
    assert owner(roots / "new") == owner(roots / "there") == (65534, 65534)
    assert (roots / "new").stat().st_mode & 0o777 == 0o640
    assert (roots / "there").read_text() == "kept\n"
    assert give(paths, NOBODY) == []


def test_what_is_somebody_else_s_stays_his(roots):
    path = roots / "theirs"
    path.write_text("")
    os.chown(path, 1234, 1234)
    assert give([str(path)], NOBODY) == []
    assert owner(path) == (1234, 1234)


def test_a_directory_that_others_can_write_to_is_not_trusted(roots):
    (roots / "open").mkdir()
    (roots / "open").chmod(0o777)
    assert not is_roots(roots / "open")
    assert give([str(roots / "open" / "log")], NOBODY) == []
    assert not (roots / "open" / "log").exists()
    (roots / "open" / "inner").mkdir()
    assert not is_roots(roots / "open" / "inner")


def test_links_are_not_followed(roots):
    target = roots / "shadow"
    target.write_text("secret")
    (roots / "soft").symlink_to(target)
    os.link(target, roots / "hard")
    assert give([str(roots / "soft"), str(roots / "hard")], NOBODY) == []
    assert owner(target) == (0, 0)


def test_what_is_no_file(roots):
    os.mkfifo(roots / "pipe")
    assert give([str(roots / "pipe"), "/dev/null", str(roots), str(roots / "no" / "such")], NOBODY) == []
