"""When a file counts as changed; looks are made at times that the test says."""

import os
from types import SimpleNamespace

import pytest

from forkproxy.config.digest import UNREADABLE, digest_of
from forkproxy.supervisor import watcher as module
from forkproxy.supervisor.exits import ConfigurationRefused
from forkproxy.supervisor.watcher import INTERVAL_S, Watcher


class Looks:
    """A watcher and a clock that goes on by one interval per look."""

    def __init__(self, path, **options):
        self.watcher = Watcher(str(path), **options)
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


def test_what_never_stays_counts_only_for_who_has_patience_for_so_much(file, looks):
    for number in range(8):
        rename_over(file, str(number))
        assert looks() == [False]
    impatient = Looks(file, patience=2)
    impatient.watcher.note()
    found = []
    for number in range(6):
        rename_over(file, f"{number}.")
        found += impatient()
        if found[-1]:
            impatient.watcher.note()
    assert found == [False, True] * 3
    assert impatient(2) == [False, False]
    rename_over(file, "stays")
    assert impatient(2) == [False, True]


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


def test_a_directory_is_no_content(looks, file):
    file.unlink()
    file.mkdir()
    assert looks(3) == [False] * 3
    file.rmdir()
    file.write_text("two")
    assert looks(2) == [False, True]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_no_content(looks, file):
    file.write_text("two")
    file.chmod(0)
    assert looks(3) == [False] * 3
    file.chmod(0o600)
    assert looks(2) == [False, True]


class FakeLog:
    def __init__(self):
        self.warnings = []

    def warning(self, event, **values):
        self.warnings.append((event, values))


@pytest.fixture
def log(monkeypatch):
    fake = FakeLog()
    monkeypatch.setattr(module, "_log", fake)
    return fake


def test_what_somebody_has_open_for_writing_is_waited_for(looks, file, log):
    with open(file, "w") as writing:
        writing.write("half")
        writing.flush()
        if not module._is_open_for_writing(str(file)):
            pytest.skip("this file system has no leases")
        assert looks(4) == [False] * 4
        writing.write("whole")
    assert len(log.warnings) == 1
    assert looks(2) == [False, True]


def test_a_reader_is_not_waited_for(looks, file):
    file.write_text("two")
    with open(file):
        assert looks(2) == [False, True]


def loading(*files, content=None):
    """A ``load`` that reads ``files``; the first one's content may have been another when it was read."""
    digests = {str(file): digest_of(file.read_bytes()) if file.exists() else UNREADABLE for file in files}
    if content is not None:
        digests[str(files[0])] = digest_of(content)
    return lambda: SimpleNamespace(files=digests)


@pytest.fixture
def named(file):
    """Two files that the configuration names."""
    files = file.with_name("cert.pem"), file.with_name("key.pem")
    for each in files:
        each.write_text("one")
    return files


@pytest.mark.parametrize("write", WAYS)
def test_files_that_it_names_count_too(looks, file, named, write):
    looks.watcher.load(loading(file, *named))
    assert looks(2) == [False, False]
    write(named[1], "two")
    assert looks(2) == [False, True]
    looks.watcher.load(loading(file, *named))
    assert looks(2) == [False, False]


def test_all_of_them_are_waited_for(looks, file, named):
    looks.watcher.load(loading(file, *named))
    looks()
    named[0].write_text("two")
    assert looks() == [False]
    named[1].write_text("two")
    assert looks() == [False]
    assert looks() == [True]


def test_a_change_between_the_load_and_the_first_look(looks, file, named):
    load = loading(file, *named)
    named[0].write_text("two")
    looks.watcher.load(load)
    assert looks(2) == [False, True]


def test_files_that_it_names_no_more_do_not_count(looks, file, named):
    looks.watcher.load(loading(file, *named))
    looks.watcher.load(loading(file, named[0]))
    looks()
    named[1].write_text("two")
    assert looks(3) == [False] * 3


def test_one_that_goes_is_told_and_no_change(looks, file, named, log):
    looks.watcher.load(loading(file, *named))
    looks()
    named[0].unlink()
    assert looks(3) == [False] * 3
    assert [values for _, values in log.warnings] == [{"path": str(named[0])}]
    named[0].write_text("one")
    assert looks(3) == [False] * 3


def test_what_was_missing_at_the_load_counts_when_it_comes(looks, file, named):
    named[0].unlink()

    def refuse():
        raise ConfigurationRefused("no such file", files=loading(file, *named)().files)

    with pytest.raises(ConfigurationRefused):
        looks.watcher.load(refuse)
    assert looks(2) == [False, False]
    named[0].write_text("now")
    assert looks(2) == [False, True]


def test_a_content_that_nobody_has_seen_stay_is_refused_and_comes_again(looks, file):
    looks.watcher.load(loading(file))
    with pytest.raises(ConfigurationRefused, match="changed while it was loaded"):
        looks.watcher.load(loading(file, content=b"half"))
    assert looks(2) == [True, True]
    looks.watcher.load(loading(file))
    assert looks(2) == [False, False]


def test_the_first_load_takes_what_there_is(looks, file):
    assert looks.watcher.load(loading(file, content=b"half"))
    assert looks() == [True]
