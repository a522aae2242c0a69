"""Lines: text, JSON, header values. The JSON of whole structures is what Envoy 1.40 wrote."""

import json

import pytest

from forkproxy.access_log import formatter
from forkproxy.access_log.formatter import (
    DEFAULT_FORMAT,
    compile_header_value,
    compile_json,
    compile_text,
    json_string,
    json_value,
)
from tests.unit.access_log.fakes import WHERE, local_reply, stream, unparsed


def test_the_default_line():
    line = compile_text(DEFAULT_FORMAT, WHERE)
    assert line(stream()) == (
        b'[2026-11-22T15:33:09.597Z] "POST /up/x?a=b%20c&c=12345&q="\'\\ HTTP/1.1" 200 - 0 235 2 1 "-" "curl/8 "q" \\" '
        b'"-" "h.example" "127.0.0.1:42177"\n'
    )
    assert line(unparsed(bytes_sent=11)) == (b'[2026-11-22T15:33:09.597Z] "- - -" 400 - 0 11 0 - "-" "-" "-" "-" "-"\n')
    rewritten = stream(path=b"/new", request_headers=[(b"x-envoy-original-path", b"/old")])
    assert b'"POST /old HTTP/1.1"' in line(rewritten)


def test_a_line_without_operators_and_percent_signs():
    assert compile_text("", WHERE)(stream()) == b""
    assert compile_text("100%%\n", WHERE)(stream()) == b"100%\n"
    assert (
        compile_text("%d %s {x} %%PROTOCOL%%".replace("%d %s", "%%d %%s"), WHERE)(stream()) == b"%d %s {x} %PROTOCOL%"
    )
    assert compile_text("%%%PROTOCOL%%%%RESPONSE_CODE%%%", WHERE)(stream()) == b"%HTTP/1.1%200%"


def test_text_is_code_for_nobody():
    """What stands in the configuration never becomes source."""
    text = "'\"\\ \n {__import__('os')} %REQ(x'\"\\);import os)% ABSENT NOTHING é\udcff"
    assert compile_text(text, WHERE)(stream()) == text.replace("%REQ(x'\"\\);import os)%", "-").encode(
        "utf-8", "surrogateescape"
    )
    name = 'ABSENT" or NOTHING'
    line = compile_text(f"%REQ({name})%", WHERE)
    assert line(stream(request_headers=[(name.lower().encode(), b"found")])) == b"found"


def test_omit_empty_values_in_text():
    line = compile_text(
        "%REQ(empty)%|%REQ(nope):0%|%RESPONSE_FLAGS%|%ENVIRONMENT(NOPE_X)%|%UPSTREAM_HOST%|%RESPONSE_TX_DURATION%",
        WHERE,
        omit_empty_values=True,
    )
    assert line(local_reply()) == b"||-|-||"


def test_a_length_does_not_cut_the_dash():
    assert compile_text("%REQ(nope):0%|%REQ(dup):0%", WHERE)(stream()) == b"-|"


def test_the_first_of_several_header_lines_is_taken():
    assert (
        compile_text("%REQ(a)%%RESP(a)%", WHERE)(
            stream(request_headers=[(b"a", b"1"), (b"a", b"2")], response_headers=[(b"a", b"3"), (b"a", b"4")])
        )
        == b"13"
    )


STRUCTURE = {
    "b": "%RESPONSE_CODE%",
    "a": "x%RESPONSE_CODE%y",
    "Z": "%REQ(nope)%",
    "n": {
        "y": "%PROTOCOL%",
        "x": ["%DURATION%", 1, True, None, "s", "%REQ(nope)%", 1.5, {"k": "%REQ(nope)%"}],
    },
    "m": "[%REQ(nope)%][%REQ(a)%]",
    "num": 12,
    "f": 1.0,
    "big": 1e20,
    "t": "%REQ(a):2%",
    "pct": "100%%",
    "empty": "",
    "e": {},
    "l": [],
    "req": "%REQ(a)%",
    "rt": "%REQ(nope)%%REQ(nope)%",
    "pathq": "%REQ(:path)%",
    "sl": 'a/b</script>é\u0001\t"\\',
    "bc": "%BYTES_SENT%%BYTES_RECEIVED%",
    "flags": "%RESPONSE_FLAGS%",
}


def test_json_as_envoy_writes_it():
    line = compile_json(STRUCTURE, WHERE)(stream(status=400, request_headers=[], end=50.0, bytes_sent=11, path=b""))
    assert line.decode() == (
        '{"Z":null,"a":"x400y","b":400,"bc":"110","big":1e+20,"e":{},"empty":"","f":1,"flags":"-","l":[],"m":"[-][-]",'
        '"n":{"x":[0,1,true,null,"s",null,1.5,{"k":null}],"y":"HTTP/1.1"},"num":12,"pathq":null,"pct":"100%","req":null,'
        '"rt":"--","sl":"a/b</script>é\\u0001\\t\\"\\\\","t":null}\n'
    )


def test_json_without_empty_values():
    render = compile_json(STRUCTURE, WHERE, omit_empty_values=True)
    assert render(stream(status=400, request_headers=[], end=50.0, bytes_sent=11, path=b"")).decode() == (
        '{"a":"x400y","b":400,"bc":"110","big":1e+20,"empty":"","f":1,"flags":"-","m":"[][]",'
        '"n":{"x":[0,1,true,"s",1.5],"y":"HTTP/1.1"},"num":12,"pct":"100%","rt":"",'
        '"sl":"a/b</script>é\\u0001\\t\\"\\\\"}\n'
    )
    assert json.loads(render(stream(request_headers=[(b"a", b"hello")])))["t"] == "he"
    assert compile_json({"a": "%REQ(nope)%"}, WHERE, omit_empty_values=True)(stream()) == b"{}\n"
    metadata = compile_json(
        {"a": "%DYNAMIC_METADATA(n:k)%", "d": "%RESPONSE_TX_DURATION%"}, WHERE, omit_empty_values=True
    )
    assert metadata(local_reply(dynamic_metadata={"n": {"k": [1]}})) == b'{"a":[1]}\n'


def test_json_of_nothing():
    assert compile_json({}, WHERE)(stream()) == b"{}\n"


@pytest.mark.parametrize("without_orjson", [False, True])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (b"", '""'),
        (b"plain /<>", '"plain /<>"'),
        (b'a"b\\c\td\x01', '"a\\"b\\\\c\\td\\u0001"'),
        ("é€".encode(), '"é€"'),
        # One byte that is not UTF-8, and all bytes are taken for themselves.
        (b"a\x80\xff\xc3\xa9b", '"a\\u0080\\u00ff\\u00c3\\u00a9b"'),
    ],
)
def test_json_strings(monkeypatch, without_orjson, value, expected):
    if without_orjson:
        monkeypatch.setattr(formatter, "_dump_text", formatter._dump_text_slow)
    assert json_string(value).decode() == expected


@pytest.mark.parametrize("without_orjson", [False, True])
def test_json_values(monkeypatch, without_orjson):
    if without_orjson:
        monkeypatch.setattr(formatter, "_orjson", None)
    value = {"b": [1, 2.0, 2.5, None, True, "é"], "a": {"y": 1, "x": 2}}
    assert json_value(value).decode() == '{"a":{"x":2,"y":1},"b":[1,2,2.5,null,true,"é"]}'
    assert json_value(1 << 70) == b"1180591620717411303424"
    assert json_value(float("nan")) == b"null"


def test_header_values():
    assert compile_header_value("a%REQ(nope)%b%RESPONSE_CODE%", WHERE)(stream()) == b"ab200"
    assert (
        compile_header_value('%DYNAMIC_METADATA(["a","b"])%', WHERE)(stream(dynamic_metadata={"a": {"b": "v"}})) == b"v"
    )
    assert compile_header_value("%DYNAMIC_METADATA([x])%", WHERE)(stream()) == b""
    of = stream(dynamic_metadata={"a": {"b": "v\r\nset-cookie: x\0"}})
    assert compile_header_value("%DYNAMIC_METADATA(a:b)%", WHERE)(of) == b"v  set-cookie: x "
