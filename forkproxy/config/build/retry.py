"""``config.route.v3.RetryPolicy`` → RetryPolicy, for routes and virtual hosts."""

from __future__ import annotations

from dataclasses import field

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.core import HeaderMatcher, Where, build_header_matcher, build_where
from forkproxy.config.build.load_balancing import build_lb_metadata, criteria
from forkproxy.config.values import frozen
from forkproxy.config.view import View

Criteria = tuple[tuple[str, object], ...]

_OMIT_CANARIES = "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"
_OMIT_METADATA = "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"
_PREVIOUS_PRIORITIES = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_RETRY_ON = frozenset(
    (
        *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited"),
        *("retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers"),
        "http3-post-connect-failure",
    )
)
_RETRY_GRPC_ON = frozenset(("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"))


def parse_retry_on(text: str, *, grpc: bool) -> tuple[frozenset[str], bool]:
    """(the conditions of a list that Envoy knows, whether it knows them all): those of gRPC, or the others."""
    conditions = frozenset(condition for part in text.split(",") if (condition := part.strip()))
    known = conditions & (_RETRY_GRPC_ON if grpc else _RETRY_ON)
    return known, known == conditions


@frozen
class RetryPolicy:
    """``config.route.v3.RetryPolicy``. Intervals in whole milliseconds, as Envoy counts them; None is no timeout.

    ``retry_on``: the conditions that Envoy knows; it skips others, and so do we. ``reset_headers``: (name in lower case,
    "SECONDS" or "UNIX_TIMESTAMP") of ``rate_limited_retry_back_off``.
    """

    retry_on: frozenset[str] = frozenset()
    num_retries: int = 1
    per_try_timeout_s: float | None = None
    per_try_idle_timeout_s: float | None = None
    base_interval_ms: int = 25
    max_interval_ms: int = 250
    reset_headers: tuple[tuple[str, str], ...] = ()
    reset_max_interval_ms: int = 300_000
    retriable_status_codes: tuple[int, ...] = ()
    retriable_headers: tuple[HeaderMatcher, ...] = ()
    retriable_request_headers: tuple[HeaderMatcher, ...] = ()
    avoid_previous_hosts: bool = False
    omit_canaries: bool = False
    """Not to endpoints whose metadata says ``canary: true``."""
    omit_metadata: tuple[Criteria, ...] = ()
    """Not to endpoints that have all of one of these."""
    previous_priorities: int = 0
    """After every so many attempts, not to the priorities tried before; 0: priorities do not matter."""
    host_selection_max_attempts: int = 1
    where: Where = field(default_factory=Where)


def build_retry_policy(view: View | None, context: BuildContext) -> RetryPolicy | None:
    """``RetryPolicy``; ``retry_options_predicates`` are not had."""
    if view is None:
        return None
    base_ms, max_ms = _back_off(view, context)
    reset_headers, reset_max_ms = _rate_limited_back_off(view.message("rate_limited_retry_back_off"))
    predicates = [_build_predicate(predicate) for predicate in view.repeated("retry_host_predicate")]
    kinds = {kind for kind, _ in predicates}
    retry_on = view.str("retry_on")
    return RetryPolicy(
        retry_on=parse_retry_on(retry_on, grpc=False)[0] | parse_retry_on(retry_on, grpc=True)[0],
        num_retries=view.uint("num_retries", 1),
        per_try_timeout_s=view.duration_s("per_try_timeout") or None,
        per_try_idle_timeout_s=view.duration_s("per_try_idle_timeout") or None,
        base_interval_ms=base_ms,
        max_interval_ms=max_ms,
        reset_headers=reset_headers,
        reset_max_interval_ms=reset_max_ms,
        retriable_status_codes=view.uints("retriable_status_codes"),
        retriable_headers=context.each(view.repeated("retriable_headers"), build_header_matcher),
        retriable_request_headers=context.each(view.repeated("retriable_request_headers"), build_header_matcher),
        avoid_previous_hosts=_PREVIOUS_HOSTS in kinds,
        omit_canaries=_OMIT_CANARIES in kinds,
        omit_metadata=tuple(wanted for kind, wanted in predicates if kind == _OMIT_METADATA),
        previous_priorities=_retry_priority(view.message("retry_priority")),
        host_selection_max_attempts=view.int("host_selection_retry_max_attempts") or 1,
        where=build_where(view),
    )


def _build_predicate(view: View) -> tuple[str, Criteria]:
    """(its type, the metadata that it looks for)."""
    typed = view.any("typed_config")
    if typed is None:
        return "", ()  # validation has said so; its name stays unread
    view.ignore("name", why="the type says which predicate it is")
    if typed.type_name in (_PREVIOUS_HOSTS, _OMIT_CANARIES):
        return typed.type_name, ()
    if typed.type_name == _OMIT_METADATA:
        return typed.type_name, criteria(build_lb_metadata(typed.message("metadata_match")))
    typed.unsupported(f"the host predicate ({typed.type_name or 'without @type'}) is not implemented")
    return "", ()


def _retry_priority(view: View | None) -> int:
    typed = view.any("typed_config") if view is not None else None
    if view is None or typed is None:
        return 0
    view.ignore("name", why="the type says which it is")
    if typed.type_name == _PREVIOUS_PRIORITIES:
        return typed.int("update_frequency")
    typed.unsupported(f"the retry priority ({typed.type_name or 'without @type'}) is not implemented")
    return 0


def _back_off(view: View, context: BuildContext) -> tuple[int, int]:
    """(base, maximum) in milliseconds; below 1 they are 1 (Envoy)."""
    back_off = view.message("retry_back_off")
    if back_off is None:
        runtime = context.runtime_value("upstream.base_retry_backoff_ms")
        base_ms = max(int(runtime), 1) if isinstance(runtime, int | float) and not isinstance(runtime, bool) else 25
        return base_ms, base_ms * 10
    base_ms = _milliseconds(back_off.duration_s("base_interval", 0.025))
    longest_s = back_off.duration_s("max_interval")
    if longest_s is None:
        return base_ms, base_ms * 10
    max_ms = _milliseconds(longest_s)
    if max_ms < base_ms:
        # Envoy's words.
        back_off.report(
            "retry_policy.max_interval must greater than or equal to the base_interval", field="max_interval"
        )
    return base_ms, max_ms


def _rate_limited_back_off(view: View | None) -> tuple[tuple[tuple[str, str], ...], int]:
    if view is None:
        return (), 300_000
    headers = tuple((header.str("name").lower(), header.enum("format")) for header in view.repeated("reset_headers"))
    return headers, int(view.duration_s("max_interval", 300.0) * 1000)


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000 + 1e-6), 1)
