"""Filter, format and sink together."""

import pytest

from forkproxy.access_log.access_log import AccessLog
from forkproxy.access_log.filters import Compilers
from forkproxy.config.build.access_log import AccessLogConfig, AccessLogFilter
from forkproxy.config.problems import ConfigError
from forkproxy.router.metadata import compile_value
from tests.unit.access_log.fakes import WHERE, stream


class ListSink:
    def __init__(self):
        self.lines = []

    def write(self, line):
        self.lines.append(line)


def logged(text=None, json_format=None, log_filter=None, streams=(), omit=False, static=None):
    config = AccessLogConfig("/x", text, json_format, omit, False, log_filter, WHERE)
    sink = ListSink()
    log = AccessLog(
        config, sink, compilers=Compilers(lambda matcher, where: lambda of: True, compile_value), static=static
    )
    for of in streams:
        log.log(of)
    return sink.lines


def test_text_and_json():
    assert logged("%RESPONSE_CODE%\n", streams=[stream(), stream(status=404)]) == [b"200\n", b"404\n"]
    assert logged(None, {"c": "%RESPONSE_CODE%"}, streams=[stream()]) == [b'{"c":200}\n']
    assert logged(None, streams=[stream()])[0].startswith(b"[2026-11-22T15:33:09.597Z] ")
    assert logged("%REQ(nope)%", omit=True, streams=[stream()]) == [b""]


def test_a_filter_decides():
    errors = AccessLogFilter("status_code", op="GE", value=400)
    assert logged("%RESPONSE_CODE%\n", log_filter=errors, streams=[stream(), stream(status=404)]) == [b"404\n"]


def test_operators_of_the_place():
    text = "%ACCESS_LOG_TYPE% %LISTENER_NAME%"
    assert logged(text, static={"LISTENER_NAME": "main"}, streams=[stream()]) == [b"DownstreamEnd main"]
    assert logged(text, static={"LISTENER_NAME": "", "ACCESS_LOG_TYPE": "TcpConnectionEnd"}, streams=[stream()]) == [
        b"TcpConnectionEnd -"
    ]


def test_a_bad_format_is_found_when_the_log_is_made():
    with pytest.raises(ConfigError):
        logged("%NOPE%")
    with pytest.raises(ConfigError):
        logged(None, {"a": ["%NOPE%"]})
