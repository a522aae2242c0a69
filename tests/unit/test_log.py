"""One event, one line; and nothing below the level."""

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys

import pytest

from forkproxy import log
from tests.support import certificates
from tests.support.client_hello import hello_with_a_name_that_is_not_ascii


@pytest.fixture(autouse=True)
def fresh_log():
    yield
    log.configure()


@pytest.fixture
def written(tmp_path):
    """Configure a file log; returns its lines."""
    path = tmp_path / "log"

    def configure(**options):
        log.configure(path=str(path), **options)
        return lambda: path.read_text().splitlines()

    return configure


def test_text(written):
    lines = written()
    log.get_logger("web").info("it happened", number=3, words="two words", empty="")
    (line,) = lines()
    stamp, rest = line.split(" ", 1)
    assert stamp.endswith("Z")
    assert rest == f'info web[{os.getpid()}] it happened number=3 words="two words" empty=""'


def test_json(written):
    lines = written(format="json")
    log.get_logger("web").error("it happened", number=3, path=os)
    (line,) = lines()
    entry = json.loads(line)
    assert {
        "level": "error",
        "component": "web",
        "event": "it happened",
        "number": 3,
        "pid": os.getpid(),
    }.items() <= entry.items()


def test_nothing_can_fake_a_second_line(written):
    lines = written()
    log.get_logger("web").info("a\nb", field="c\r\nd\x1b[31m")
    (line,) = lines()
    assert line.endswith("a\\nb field=c\\r\\nd\\x1b[31m")


def test_levels(written):
    lines = written(level="warning", component_levels="noisy:error,chatty:debug")
    for component in ("other", "noisy", "chatty"):
        logger = log.get_logger(component)
        logger.debug("debug")
        logger.warning("warning")
        logger.error("error")
    assert [line.split()[1:3] for line in lines()] == [
        ["warning", f"other[{os.getpid()}]"],
        ["error", f"other[{os.getpid()}]"],
        ["error", f"noisy[{os.getpid()}]"],
        ["debug", f"chatty[{os.getpid()}]"],
        ["warning", f"chatty[{os.getpid()}]"],
        ["error", f"chatty[{os.getpid()}]"],
    ]


def test_levels_change_while_it_runs(written):
    lines = written(level="off")
    logger = log.get_logger("web")
    logger.critical("lost")
    log.set_level("info", "web")
    logger.info("one")
    assert log.level_of("web") == "info"
    assert log.levels()["web"] == "info"
    log.set_level("error")
    logger.info("lost")
    assert log.level_of("web") == "error"
    assert len(lines()) == 1


def test_an_exception_brings_its_traceback(written):
    lines = written()
    try:
        raise LookupError("here")
    except LookupError as error:
        log.get_logger("web").exception("went wrong", error, worker=3)
    assert lines()[0].endswith("went wrong worker=3")
    assert lines()[-1] == "  LookupError: here"
    assert all(line.startswith("  ") for line in lines()[1:])


def test_an_exception_is_one_line_of_json(written):
    lines = written(format="json")
    log.get_logger("web").exception("went wrong", LookupError("here"))
    (line,) = lines()
    assert "LookupError: here" in json.loads(line)["exception"]


class RaisesWhenItGoes:
    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error


def test_what_nobody_could_catch_is_an_event(written, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", log.report_unraisable)
    lines = written(format="json")
    made = RaisesWhenItGoes(LookupError("here"))
    del made
    made = RaisesWhenItGoes(KeyboardInterrupt())
    del made
    first, second = map(json.loads, lines())
    assert "LookupError: here" in first["exception"]
    assert "RaisesWhenItGoes" in first["object"]
    assert (second["level"], second["reason"]) == ("error", "KeyboardInterrupt")


def test_a_server_name_that_is_not_ascii_is_no_event(written, monkeypatch):
    # The module ssl asks for the name before it calls back, and writes to standard error what it cannot decode.
    monkeypatch.setattr(sys, "unraisablehook", log.report_unraisable)
    lines = written()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.directory() / "good.pem", certificates.directory() / "good-key.pem")
    asked = []
    context.sni_callback = lambda *given: asked.append(given)
    incoming = ssl.MemoryBIO()
    incoming.write(hello_with_a_name_that_is_not_ascii())
    shaking = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLError):
        shaking.do_handshake()
    assert asked == []
    assert lines() == []


def test_reopen_follows_a_moved_file(tmp_path, written):
    lines = written()
    logger = log.get_logger("web")
    logger.info("one")
    os.rename(tmp_path / "log", tmp_path / "log.1")
    logger.info("two")
    log.reopen()
    logger.info("three")
    assert len((tmp_path / "log.1").read_text().splitlines()) == 2
    assert len(lines()) == 1


@pytest.fixture
def losses():
    counted = []
    log.count_losses(lambda: counted.append(1))
    yield counted
    log.count_losses(lambda: None)


def test_a_full_disk_stops_nobody_and_is_told_when_there_is_room(tmp_path, losses):
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    log.configure(path=str(path))
    logger = log.get_logger("web")
    for number in range(3):
        logger.info("lost", number=number)
    assert len(losses) == 3
    path.unlink()
    log.reopen()
    logger.info("here")
    logger.info("again")
    told, *lines = path.read_text().splitlines()
    assert "warning log[" in told
    assert 'lines of this log were lost lines=3 reason="No space left on device" hint="the disk was full' in told
    assert [line.split("] ")[1] for line in lines] == ["here", "again"]
    assert len(losses) == 3


def test_what_is_lost_while_a_loss_is_told_is_not_forgotten(tmp_path, losses):
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    log.configure(path=str(path))
    for _ in range(5):
        log.get_logger("web").info("lost")
    path.unlink()
    log.reopen()
    log.get_logger("web").info("here")
    assert "lost lines=5 " in path.read_text()
    assert len(losses) == 5


def test_a_line_that_was_cut_does_not_run_into_the_next(tmp_path, written, monkeypatch, losses):
    lines = written()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:40]))
    log.get_logger("web").info("a line of more than forty characters")
    monkeypatch.undo()
    log.get_logger("web").info("next")
    cut, told, following = lines()
    assert len(cut) == 40
    assert "lines=1" in told
    assert following.endswith("next")
    assert len(losses) == 1


@pytest.fixture
def standard_error():
    """Puts another descriptor in the place of standard error."""
    kept = os.dup(2)

    def replace(fd):
        os.dup2(fd, 2)
        os.close(fd)
        log.configure()

    yield replace
    os.dup2(kept, 2)
    os.close(kept)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_standard_error_that_nobody_reads_stops_nobody(kind, standard_error, losses):
    reading, writing = os.pipe() if kind == "pipe" else [sock.detach() for sock in socket.socketpair()]
    os.set_blocking(reading, False)
    standard_error(writing)
    logger = log.get_logger("web")
    while not losses:
        logger.info("x" * 900)
    logger.info("x" * 900)
    assert os.get_blocking(2)
    logger.info("x" * 900)
    written = read_all(reading)
    logger.info("the reader is back")
    written += read_all(reading)
    log.configure()
    os.close(reading)
    lines = written.splitlines()
    assert len(lines) > 10
    assert lines[-1].endswith("the reader is back")
    assert ' reason="Resource temporarily unavailable" hint="whoever reads this log is too slow' in written
    assert sum(int(count) for count in re.findall(r"were lost lines=(\d+) ", written)) == len(losses)


def read_all(fd):
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(fd, 1 << 20):
            data += piece
    return data.decode()


def test_a_pipe_whose_reader_is_gone(standard_error, losses):
    reading, writing = os.pipe()
    standard_error(writing)
    os.close(reading)
    log.get_logger("web").info("lost")
    assert len(losses) == 1


@pytest.mark.parametrize("text", ["x", ":info", "x:nope", "a:info,b"])
def test_wrong_component_levels(text):
    with pytest.raises(ValueError, match=r"COMPONENT:LEVEL|no log level"):
        log.parse_component_levels(text)


def test_level_names():
    assert log.rank("WARN") == log.rank("warning")
    with pytest.raises(ValueError, match="no log level"):
        log.rank("loud")


def test_a_line_costs_neither_rich_nor_asyncio():
    code = """
import sys
from forkproxy import log
log.configure()
log.get_logger("web").info("written")
print(*[name for name in ("asyncio", "rich", "pygments") if name in sys.modules])
import asyncio, structlog
print(structlog.stdlib.asyncio.get_running_loop is asyncio.get_running_loop)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["", "True"]
    assert done.stderr.endswith("written\n")
