"""One event, one line; and nothing below the level."""

import json
import os

import pytest

from forkproxy import log


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
    assert log.get_logger("chatty").is_enabled("debug")
    assert not log.get_logger("noisy").is_enabled("warning")


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


def test_a_full_disk_stops_nobody():
    log.configure(path="/dev/full")
    log.get_logger("web").info("lost")


@pytest.mark.parametrize("text", ["x", ":info", "x:nope", "a:info,b"])
def test_wrong_component_levels(text):
    with pytest.raises(ValueError, match=r"COMPONENT:LEVEL|no log level"):
        log.parse_component_levels(text)


def test_level_names():
    assert log.rank("WARN") == log.rank("warning")
    with pytest.raises(ValueError, match="no log level"):
        log.rank("loud")
