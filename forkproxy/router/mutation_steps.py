"""Mutations that are steps of their own, one after the other: of the header_mutation filter, and of early header mutation.

Query parameters come out sorted by name, those of one name together, and every one with its "=", as in Envoy. What was there is
spelled as it was: Envoy writes it decoded, spaces and all, which is no request any more.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from forkproxy.config.build.header_mutation import MutationStep, QueryMutation
from forkproxy.config.problems import ConfigError, Problem
from forkproxy.router.header_mutation import (
    JOINED_REQUEST_HEADERS,
    JOINED_RESPONSE_HEADERS,
    Apply,
    CompileFormat,
    Headers,
    compile_level,
)
from forkproxy.router.matcher import compile_string

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

_PSEUDO_OF_REQUEST = (b":authority", b":method", b":path", b":scheme")
_PSEUDO_OF_RESPONSE = (b":status",)


def compile_steps(
    steps: Sequence[MutationStep], compile_format: CompileFormat, *, of_request: bool, trailers: bool = False
) -> Apply | None:
    """One callable that changes the headers, or trailers, it is given; None when there is nothing to do. Raises ConfigError."""
    joined = JOINED_REQUEST_HEADERS if of_request else JOINED_RESPONSE_HEADERS
    pseudo = () if trailers else _PSEUDO_OF_REQUEST if of_request else _PSEUDO_OF_RESPONSE
    compiled: list[Apply] = []
    for step in steps:
        if step.remove_matching is not None:
            compiled.append(_removal(step, pseudo))
            continue
        added = (step.add,) if step.add is not None else ()
        removed = (step.remove,) if step.remove else ()
        apply = compile_level(added, removed, joined, compile_format, step.where)
        if apply is not None:
            compiled.append(apply)
    if not compiled:
        return None
    sees_response = not of_request and not trailers

    def change(stream: Stream, headers: Headers) -> None:
        if sees_response:
            stream.response_headers = headers  # %RESP(…)% sees what earlier steps wrote
        for apply in compiled:
            apply(stream, headers)

    return change


def _removal(step: MutationStep, pseudo: Sequence[bytes]) -> Apply:
    where, matcher = step.where, step.remove_matching
    assert matcher is not None
    matches = compile_string(matcher, where)
    for name in pseudo:
        if matches(name):
            what = f"remove_on_match that takes {name.decode()} away is not implemented"
            raise ConfigError.of([Problem("unsupported", where.path, where.line, where.column, what, "")])

    def apply(_stream: Stream, headers: Headers) -> None:
        headers[:] = [line for line in headers if not matches(line[0])]

    return apply


Parameters = list[tuple[bytes, bytes]]
"""Name, decoded, and the whole parameter as it is written; sorted by name."""


def compile_query(mutations: Sequence[QueryMutation], compile_format: CompileFormat) -> Apply | None:
    """One callable that changes the query of ``stream.path``; None when there is nothing to do. Raises ConfigError."""
    if not mutations:
        return None
    steps = [_query_step(mutation, compile_format) for mutation in mutations]

    def change(stream: Stream, _headers: Headers) -> None:
        raw, _, query = stream.path.partition(b"?")
        parameters = _parse(query)
        for step in steps:
            step(stream, parameters)
        text = b"&".join([written for _, written in parameters])
        stream.path = raw + b"?" + text if parameters else raw

    return change


def _parse(query: bytes) -> Parameters:
    parameters: Parameters = []
    if query:
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            parameters.append((urllib.parse.unquote_to_bytes(name), name + b"=" + value))
    parameters.sort(key=_name)
    return parameters


def _name(parameter: tuple[bytes, bytes]) -> bytes:
    return parameter[0]


def _query_step(mutation: QueryMutation, compile_format: CompileFormat) -> Callable[[Stream, Parameters], None]:
    name = mutation.key.encode()
    if mutation.value is None:

        def remove(_stream: Stream, parameters: Parameters) -> None:
            parameters[:] = [each for each in parameters if each[0] != name]

        return remove
    value = compile_format(mutation.value, mutation.where)
    written = urllib.parse.quote(name, safe="!$'()*,:;@/?[]").encode() + b"="
    action = mutation.action

    def add(stream: Stream, parameters: Parameters) -> None:
        is_there = any(each[0] == name for each in parameters)
        if (action == "ADD_IF_ABSENT" and is_there) or (action == "OVERWRITE_IF_EXISTS" and not is_there):
            return
        if is_there and action in ("OVERWRITE_IF_EXISTS", "OVERWRITE_IF_EXISTS_OR_ADD"):
            parameters[:] = [each for each in parameters if each[0] != name]
        parameters.append((name, written + urllib.parse.quote(value(stream), safe="").encode()))
        parameters.sort(key=_name)  # stable: what is new stands behind what has the same name

    return add
