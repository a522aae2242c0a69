"""When a file counts as changed; looks are made at times that the test says."""

import os

import pytest

from forkproxy.supervisor.watcher import INTERVAL_S, Watcher


class Looks:
    """A watcher and a clock that goes on by one interval per look."""

    def __init__(self, path):
        self.watcher = Watcher(str(path))
        self.now = 100.0

    def __call__(self, count=1):
        found = []
        for _ in range(count):
            self.now += INTERVAL_S
            found.append(self.watcher.has_changed(self.now))
        return found


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "forkproxy.yaml"
    path.write_text("one")
    return path


@pytest.fixture
def looks(file):
    looks = Looks(file)
    looks.watcher.note()
    return looks


def write_in_place(file, text):
    file.write_text(text)


def rename_over(file, text):
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


def remove_and_make(file, text):
    file.unlink()
    file.write_text(text)


WAYS = [write_in_place, rename_over, remove_and_make]


def test_nothing_happens(looks):
    assert looks(3) == [False] * 3


@pytest.mark.parametrize("write", WAYS)
def test_a_change_counts_when_it_has_stayed_for_a_look(looks, file, write):
    write(file, "two")
    assert looks(2) == [False, True]


@pytest.mark.parametrize("write", WAYS)
def test_the_same_content_is_no_change(looks, file, write):
    write(file, "one")
    assert looks(3) == [False] * 3


def test_same_size_and_time_written_in_place(looks, file):
    before = file.stat()
    file.write_text("eno")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert looks(2) == [False, True]


def test_looks_between_the_intervals_are_none(looks, file):
    looks()
    file.write_text("two")
    assert not looks.watcher.has_changed(looks.now)
    assert looks.watcher.next_look == looks.now + INTERVAL_S
    assert looks(2) == [False, True]


def test_what_is_noted_is_no_change_any_more(looks, file):
    file.write_text("two")
    assert looks(3) == [False, True, True]
    looks.watcher.note()
    assert looks(2) == [False, False]
    file.write_text("one")
    assert looks(2) == [False, True]


def test_what_is_still_being_written_is_waited_for(looks, file):
    for text in ("t", "tw", "two"):
        file.write_text(text)
        assert looks() == [False]
    assert looks() == [True]


def test_back_to_the_noted_content_in_time(looks, file):
    file.write_text("two")
    assert looks() == [False]
    file.write_text("one")
    assert looks(2) == [False, False]


def test_a_symbolic_link_anywhere_on_the_path_is_swapped(tmp_path):
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "forkproxy.yaml").write_text(version)
    (tmp_path / "data").symlink_to("1")
    looks = Looks(tmp_path / "data" / "forkproxy.yaml")
    looks.watcher.note()
    (tmp_path / "fresh").symlink_to("2")
    (tmp_path / "fresh").replace(tmp_path / "data")
    assert looks(2) == [False, True]


def test_a_file_that_is_gone_is_no_change(looks, file):
    file.unlink()
    assert looks(3) == [False] * 3
    file.write_text("one")
    assert looks(3) == [False] * 3
    file.unlink()
    assert looks() == [False]
    file.write_text("two")
    assert looks(2) == [False, True]


def test_a_pipe_is_not_waited_for(looks, file):
    file.unlink()
    os.mkfifo(file)
    assert looks(2) == [False, False]
