"""``local_reply_config``, compiled: one callable that rewrites an answer that is made here.

The first mapper whose filter passes puts in its body, adds its headers, which still see the code as it was, and then its code;
the format of the body, the mapper's or the one for all, sees what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from forkproxy.access_log.filters import Compilers, Test, compile_filter
from forkproxy.access_log.formatter import Format, compile_header_value, compile_json, compile_text
from forkproxy.config.build.core import HeaderMutations
from forkproxy.config.build.local_reply import BodyFormat, LocalReplyConfig, ResponseMapper
from forkproxy.http.headers import Headers
from forkproxy.http.headers import get as get_header
from forkproxy.http.stream import LocalReplyRewriter, Stream
from forkproxy.router.header_mutation import compile_response
from forkproxy.router.matcher import compile_header_matcher
from forkproxy.router.metadata import compile_value

_TEXT = b"text/plain"
_JSON = b"application/json"


class Body(NamedTuple):
    """A format and the content type of what it makes."""

    render: Format
    content_type: bytes


class Mapper(NamedTuple):
    """A ``ResponseMapper``; ``passes`` None: its filter is none, and it is never taken."""

    passes: Test | None
    status: int
    body: bytes | None
    format: Body | None
    add_headers: Callable[[Stream, Headers], None] | None


def compile_local_reply(config: LocalReplyConfig, static: Mapping[str, str]) -> LocalReplyRewriter | None:
    """What ``Stream.send_local_reply`` asks; None when nothing is to be rewritten. Raises ConfigError."""
    mappers = tuple(_compile_mapper(mapper, static) for mapper in config.mappers)
    default = _compile_if_given(config.body_format, static)
    if not mappers and default is None:
        return None

    def rewrite(stream: Stream, status: int, headers: Headers, body: bytes) -> tuple[int, bytes, bytes, bool]:
        stream.response_headers = headers
        made = default
        text, type_before = body, get_header(headers, b"content-type")
        for mapper in mappers:
            if mapper.passes is not None and mapper.passes(stream):
                if mapper.body is not None:
                    text = mapper.body
                if mapper.add_headers is not None:
                    mapper.add_headers(stream, headers)
                if mapper.status:
                    stream.status = status = mapper.status
                made = mapper.format or default
                break
        content_type = _TEXT
        if made is not None:
            stream.local_reply_body = text
            text = made.render(stream)
            stream.local_reply_body = b""
            content_type = made.content_type
        is_retyped = text != body and get_header(headers, b"content-type") == type_before
        return status, text, content_type, is_retyped

    return rewrite


_COMPILERS = Compilers(compile_header_matcher, compile_value)


def _compile_mapper(mapper: ResponseMapper, static: Mapping[str, str]) -> Mapper:
    return Mapper(
        compile_filter(mapper.filter, mapper.where, _COMPILERS, "NotSet") if mapper.filter is not None else None,
        mapper.status,
        mapper.body,
        _compile_if_given(mapper.body_format, static),
        compile_response([(HeaderMutations(response_add=mapper.headers), mapper.where)], compile_header_value),
    )


def _compile_if_given(config: BodyFormat | None, static: Mapping[str, str]) -> Body | None:
    return compile_body(config, static) if config is not None else None


def compile_body(config: BodyFormat, static: Mapping[str, str]) -> Body:
    """The format of a body; %LOCAL_REPLY_BODY% in it is ``stream.local_reply_body``. Raises ConfigError."""
    own = config.content_type.encode()
    sparse = config.omit_empty_values
    if config.json is not None:
        return Body(compile_json(config.json, config.where, omit_empty_values=sparse, static=static), own or _JSON)
    return Body(compile_text(config.text or "", config.where, omit_empty_values=sparse, static=static), own or _TEXT)
