"""Attempts that run beside each other (``hedge_policy.hedge_on_per_try_timeout``).

When the time of an attempt is over it goes on, and another one starts beside it, whatever ``retry_on`` says. The first answer
that asks for no retry is the client's, and the others are given up; one that does counts only when nothing better may come.
A second attempt starts only when the request is complete, for the time of an attempt begins then.
"""

from __future__ import annotations

from typing import Any

from forkproxy.filters.http.router import FAILURES, UpstreamRequest, last_too_long, time_out
from forkproxy.filters.http.router_policies import PolicyExchange, PolicyRequest
from forkproxy.http import response_flags as flags
from forkproxy.http.headers import Headers
from forkproxy.router.retry import LIMIT_EXCEEDED, LOCAL_RESET, NO, TOO_MANY, YES, milliseconds
from forkproxy.router.table import Route
from forkproxy.upstream.endpoint import Endpoint
from forkproxy.upstream.http_pool import RESET_NO_POOL


class HedgedExchange(PolicyExchange):
    """All attempts of one request. It stands on ``stream.upstream`` until one of them has the answer."""

    __slots__ = ("attempts",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.attempts: list[HedgedRequest] = []
        """Those that may still answer."""

    def begin(self, endpoint: Endpoint) -> None:
        """Start an attempt on ``endpoint``."""
        stream = self.stream
        stream.endpoint = endpoint
        attempt = self.router.kind_of(HedgedRequest)(self, endpoint, self._end_stream, self._kept)
        self.attempts.append(attempt)
        stream.upstream = self
        pool = endpoint.pool.high() if stream.route.is_high else endpoint.pool
        pool.acquire(attempt)

    def is_waiting(self) -> bool:
        """Whether another attempt may still answer, or is about to start."""
        return bool(self.attempts) or self._timer is not None

    def drop(self, attempt: HedgedRequest) -> None:
        """It answers no more."""
        if attempt in self.attempts:
            self.attempts.remove(attempt)

    def choose(self, attempt: HedgedRequest) -> None:
        """The client gets the answer of ``attempt``: all others are given up."""
        stream = self.stream
        stream.upstream = attempt
        stream.endpoint = attempt.endpoint
        if attempt._client is not None:
            stream.upstream_connection = attempt._client.connection
        self._stop()
        for other in self._take():
            if other is not attempt:
                other.abandon()

    def on_soft_timeout(self, attempt: HedgedRequest) -> None:
        """The time of an attempt is over: another one beside it, if there may be one."""
        endpoint = attempt.endpoint
        if endpoint.monitor is not None:
            endpoint.monitor.on_timeout(connected=attempt._client is not None)
        attempt.has_told_timeout = True
        stream = self.stream
        if stream.response_started or self.state is None:
            return
        decision = self.state.after_soft_timeout()
        if decision == YES:
            attempt.is_retried = True
            self.timed_out = True
            self.note_attempt(endpoint)
            self._timer = self.router.loop.call_later(self.state.back_off_s(), self._again)
        else:
            raise_flag(self, decision)

    # -- on ``stream.upstream``

    def send_data(self, data: bytes, end_stream: bool, trailers: Headers | None) -> None:
        """A piece of the request's body."""
        if self.attempts:
            self.attempts[-1].send_data(data, end_stream, trailers)
        else:
            super().send_data(data, end_stream, trailers)

    def request_ended(self, timeout_s: float | None) -> None:
        """The request is complete."""
        if self.attempts:
            self.attempts[-1].request_ended(timeout_s)
        else:
            super().request_ended(timeout_s)

    def reset(self) -> None:
        """UpstreamHandle: the downstream side is over."""
        self._stop()
        self.give_up()
        for attempt in self._take():
            attempt.abandon()

    def on_response_timeout(self) -> None:
        """UpstreamHandle: the route's timeout has passed."""
        if not self.attempts:
            super().on_response_timeout()
            return
        stream = self.stream
        self._stop()
        for attempt in self._take():
            self.cluster.stats.upstream_rq_timeout += 1
            attempt.endpoint.stats.rq_timeout += 1
            attempt.endpoint.stats.rq_error += 1
            if attempt.endpoint.monitor is not None and not attempt.has_told_timeout:
                attempt.endpoint.monitor.on_timeout(connected=attempt._client is not None)
            if stream.tally is not None:
                stream.tally.timeout()
            self.router.charge(stream, self.cluster, attempt.endpoint, stream.route.timeout_status)
            attempt.abandon()
        self.give_up()
        stream.upstream = None
        time_out(stream, "response_timeout")

    def _pick(self) -> Endpoint | None:
        endpoint = super()._pick()
        if endpoint is None:
            for attempt in self._take():
                attempt.abandon()
        return endpoint

    def _expected_ms(self, route: Route) -> int:
        # A hedged attempt may take all the time there is.
        whole_ms = milliseconds(route.timeout_s)
        if not whole_ms:
            return milliseconds(self.policy.per_try_timeout_s)
        left_ms = whole_ms - (int((self.router.loop.now - self.ended_at) * 1000) if self.ended_at else 0)
        return max(left_ms, 1)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take(self) -> list[HedgedRequest]:
        attempts, self.attempts = self.attempts, []
        return attempts


def raise_flag(exchange: PolicyExchange, decision: int) -> None:
    """Why there is no further attempt."""
    if decision == LIMIT_EXCEEDED:
        exchange.stream.response_flags |= flags.NO_RETRY_LEFT
    elif decision == TOO_MANY:
        exchange.stream.response_flags |= flags.NO_RETRY_ALLOWED


class HedgedRequest(PolicyRequest):
    """One attempt, perhaps beside others."""

    __slots__ = ("has_told_timeout", "is_retried")
    _exchange: HedgedExchange

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.is_retried = False
        """Another attempt has been started for it."""
        self.has_told_timeout = False

    def abandon(self) -> None:
        """Its answer is of no use any more."""
        self._stop_timers()
        UpstreamRequest.reset(self)

    # -- the response

    def decode_interim(self, status: int, headers: Headers) -> None:
        """ClientSink: the client has had something of this attempt, so it is the one."""
        self._exchange.choose(self)
        super().decode_interim(status, headers)

    def decode_headers(self, status: int, headers: Headers, end_stream: bool) -> None:
        """ClientSink: the response's head."""
        exchange = self._exchange
        if self.stream.upstream is self:
            super().decode_headers(status, headers, end_stream)  # chosen already
            return
        if self._try_timer is not None:
            self._try_timer.cancel()
            self._try_timer = None
        if self._is_unwanted(status, headers, end_stream):
            return
        exchange.choose(self)
        exchange.give_up()
        self._accept(status, headers, end_stream)

    def _is_unwanted(self, status: int, headers: Headers, end_stream: bool) -> bool:
        """True when the answer is not for the client: another attempt follows, or one that runs may do better."""
        exchange = self._exchange
        state = exchange.state
        if state is None:
            return False
        if self.is_retried:
            is_bad = state.would_retry(status, headers)
        else:
            decision = state.after_headers(status, headers, self.router.loop.wall())
            if decision == YES:
                self._withdraw(end_stream)
                exchange.follow(self, YES)
                self.router.charge_retried(self.stream, self.cluster, status)
                if self.endpoint.monitor is not None:
                    self.endpoint.monitor.on_response(status, headers)
                return True
            raise_flag(exchange, decision)
            is_bad = decision != NO
        exchange.drop(self)
        if not (is_bad and exchange.is_waiting()):
            exchange.attempts.append(self)
            return False
        self.endpoint.stats.rq_error += 1
        if self.endpoint.monitor is not None:
            self.endpoint.monitor.on_response(status, headers)
        self._withdraw(end_stream)
        return True

    def _withdraw(self, response_ended: bool) -> None:
        self._exchange.drop(self)
        self._leave(response_ended)

    # -- failures

    def on_reset(self, reason: str, transport_failure_reason: str) -> None:
        """PoolRequest: this attempt failed."""
        exchange = self._exchange
        stream = self.stream
        if stream.upstream is self or reason is RESET_NO_POOL:
            exchange.choose(self)
            super().on_reset(reason, transport_failure_reason)
            return
        if self not in exchange.attempts:
            return
        self._stop_timers()
        exchange.drop(self)
        if exchange.state is not None and not self.is_retried:
            decision = exchange.state.after_reset(reason)
            if decision == YES:
                self._let_go()
                self._tell_monitor(reason)
                exchange.follow(self, YES)
                stream.upstream_transport_failure_reason = transport_failure_reason
                return
            raise_flag(exchange, decision)
        if exchange.is_waiting():
            self._let_go()
            self._tell_monitor(reason)
            self.endpoint.stats.rq_error += 1
            self.router.charge(stream, self.cluster, self.endpoint, FAILURES[reason][1])
            return
        exchange.give_up()
        stream.upstream = self
        UpstreamRequest.on_reset(self, reason, transport_failure_reason)

    def on_too_long(self) -> None:
        """PoolRequest: the time of one exchange is over."""
        exchange = self._exchange
        self._stop_timers()
        self._let_go()
        exchange.drop(self)
        state = exchange.state
        if state is None or self.is_retried or not exchange.follow(self, state.after_reset(LOCAL_RESET)):
            exchange.reset()
            last_too_long(self.stream)

    def _on_try_timeout(self) -> None:
        self._try_timer = None
        self._exchange.on_soft_timeout(self)

    def _on_idle_timeout(self) -> None:
        self._idle_timer = None
        self._exchange.on_soft_timeout(self)
