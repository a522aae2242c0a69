"""What a direct response makes anew for each request: a Location where its status asks for one, a body by a format."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkproxy.config.build.core import Where
from forkproxy.config.build.local_reply import BodyFormat
from forkproxy.config.build.route import DirectResponseAction, RedirectAction, RouteMatch
from forkproxy.router.header_mutation import Apply, Format, Headers, replace
from forkproxy.router.rewrite import compile_redirect

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

Compose = Callable[["Stream"], tuple[bytes, Headers]]
"""The body, and the headers that come before the route's own."""
CompileBody = Callable[[BodyFormat], tuple[Format, bytes]]
"""From a format to what renders it, and the content type of that; the type empty for plain text."""


def compile_direct(
    action: DirectResponseAction,
    match: RouteMatch,
    where: Where,
    finalize: Apply | None,
    compile_body: CompileBody | None,
) -> tuple[Compose | None, Apply | None]:
    """The first is None for an answer that is always the same; the second is ``finalize``, the route's additions, and what
    comes after them.
    """
    has_location = action.status == 201 or 300 <= action.status < 400
    redirect = compile_redirect(RedirectAction(), match, where) if has_location else None
    if action.body_format is None or compile_body is None:
        if redirect is None:
            return None, finalize
        locate, constant = redirect, action.body
        return lambda stream: (constant, [(b"location", locate(stream)[1])]), finalize
    render, content_type = compile_body(action.body_format)
    body = action.body

    def compose(stream: Stream) -> tuple[bytes, Headers]:
        stream.local_reply_body = body
        return render(stream), [(b"location", redirect(stream)[1])] if redirect is not None else []

    def finalize_typed(stream: Stream, headers: Headers) -> None:
        if finalize is not None:
            finalize(stream, headers)
        replace(headers, b"content-type", content_type)

    return compose, finalize_typed if content_type else finalize
