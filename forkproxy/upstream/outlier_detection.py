"""Outlier detection: endpoints that fail are ejected for a while. (Envoy: "Outlier detection".)

Judged over all workers together. What requests come to is counted in cells that all processes see (stats/shared.py): a failure
*in a row* in a common cell, in which of two additions in the same moment one may be lost; requests and successes of an interval
in a cell per worker. The worker that brings a row to its threshold says so to the supervisor; there a Detector decides (enforcing
percentages, how many may be ejected), looks at success rates at every interval, and takes endpoints back.

Results are Envoy's: a response counts with its status. A failure to reach the endpoint, a reset and a timeout are of *local
origin*: they count as 503 and 504, or apart from responses where the configuration splits the two.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any, Final

import orjson

from forkproxy.config.build.outlier_detection import OutlierDetectionConfig
from forkproxy.http.headers import Headers
from forkproxy.stats.groups import OutlierDetectionStats
from forkproxy.stats.shared import SharedCells
from forkproxy.upstream import health
from forkproxy.upstream.health_check.event_log import timestamp

if TYPE_CHECKING:
    from forkproxy.upstream.cluster import Cluster
    from forkproxy.upstream.endpoint import Endpoint

# Envoy's OutlierEjectionType.
CONSECUTIVE_5XX: Final = "CONSECUTIVE_5XX"
CONSECUTIVE_GATEWAY_FAILURE: Final = "CONSECUTIVE_GATEWAY_FAILURE"
CONSECUTIVE_LOCAL_ORIGIN_FAILURE: Final = "CONSECUTIVE_LOCAL_ORIGIN_FAILURE"
SUCCESS_RATE: Final = "SUCCESS_RATE"
SUCCESS_RATE_LOCAL_ORIGIN: Final = "SUCCESS_RATE_LOCAL_ORIGIN"
FAILURE_PERCENTAGE: Final = "FAILURE_PERCENTAGE"
FAILURE_PERCENTAGE_LOCAL_ORIGIN: Final = "FAILURE_PERCENTAGE_LOCAL_ORIGIN"

# What the type is called in the names of statistics.
_STAT_NAMES: Final = {
    CONSECUTIVE_5XX: "consecutive_5xx",
    CONSECUTIVE_GATEWAY_FAILURE: "consecutive_gateway_failure",
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE: "consecutive_local_origin_failure",
    SUCCESS_RATE: "success_rate",
    SUCCESS_RATE_LOCAL_ORIGIN: "local_origin_success_rate",
    FAILURE_PERCENTAGE: "failure_percentage",
    FAILURE_PERCENTAGE_LOCAL_ORIGIN: "local_origin_failure_percentage",
}
UNKNOWN: Final = -1.0
"""The success rate of an endpoint that had too few requests in the last interval."""

_IMMEDIATE_FAIL = b"x-envoy-immediate-health-check-fail"
_FAILED_ALREADY = health.FAILED_ACTIVE_HC | health.EXCLUDED_VIA_IMMEDIATE_HC_FAIL


class EndpointCells:
    """What all processes know of one endpoint's results; ``total`` and ``success`` only grow."""

    __slots__ = (
        *("consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure"),
        *("local_success", "local_total", "success", "total"),
    )

    def __init__(self, shared: SharedCells, prefix: str) -> None:
        self.consecutive_5xx = shared.common("outlier.5xx", prefix)
        self.consecutive_gateway_failure = shared.common("outlier.gateway", prefix)
        self.consecutive_local_origin_failure = shared.common("outlier.local", prefix)
        self.total = shared.number("outlier.total", prefix)
        self.success = shared.number("outlier.success", prefix)
        self.local_total = shared.number("outlier.local_total", prefix)
        self.local_success = shared.number("outlier.local_success", prefix)

    def end_rows(self) -> None:
        """The next failure is the first in a row."""
        self.consecutive_5xx.set(0)
        self.consecutive_gateway_failure.set(0)
        self.consecutive_local_origin_failure.set(0)


class Watch:
    """Makes the monitors of one cluster's endpoints. ``send`` reaches the supervisor, in a worker.

    ``config`` None: only what health checks want to know of responses is looked at.
    """

    __slots__ = ("cells", "cluster", "config", "is_checked", "send")

    def __init__(
        self, cluster: str, config: OutlierDetectionConfig | None, cells: Sequence[EndpointCells], *, is_checked: bool
    ) -> None:
        self.cluster = cluster
        self.config = config
        self.cells = cells
        self.is_checked = is_checked
        self.send: Callable[[dict[str, Any]], None] = lambda _message: None

    def monitor(self, endpoint: Endpoint, slot: int) -> Monitor:
        """What is told the results of requests to this endpoint."""
        if self.config is None:
            return Monitor(self, endpoint)
        if self.config.split_local_origin:
            return SplitMonitor(self, endpoint, self.config, self.cells[slot])
        return ResultMonitor(self, endpoint, self.config, self.cells[slot])


class Monitor:
    """The results of requests to an endpoint, where only its active health checks have an interest in them."""

    __slots__ = ("_endpoint", "_watch")

    def __init__(self, watch: Watch, endpoint: Endpoint) -> None:
        self._watch = watch
        self._endpoint = endpoint

    def on_response(self, status: int, headers: Headers) -> None:
        """The head of a response."""
        watch = self._watch
        if watch.is_checked:
            for name, _value in headers:
                if name == _IMMEDIATE_FAIL:
                    self._tell_immediate_failure(watch)

    def on_connected(self) -> None:
        """A TCP connection stands; what becomes of it nobody tells."""

    def on_reset(self, *, connected: bool) -> None:
        """No connection could be made, or it ended before the exchange did."""

    def on_timeout(self, *, connected: bool) -> None:
        """No response in time, or no connection."""

    def _tell_immediate_failure(self, watch: Watch) -> None:
        endpoint = self._endpoint
        if endpoint.health_flags & _FAILED_ALREADY != _FAILED_ALREADY:
            watch.send({"op": "immediate_fail", "cluster": watch.cluster, "address": endpoint.address})

    def _tell(self, kind: str) -> None:
        watch = self._watch
        watch.send({"op": "outlier", "cluster": watch.cluster, "address": self._endpoint.address, "kind": kind})


class ResultMonitor(Monitor):
    """Every failure counts like a response."""

    __slots__ = ("_cells", "_config")

    def __init__(self, watch: Watch, endpoint: Endpoint, config: OutlierDetectionConfig, cells: EndpointCells) -> None:
        super().__init__(watch, endpoint)
        self._config = config
        self._cells = cells

    def on_response(self, status: int, headers: Headers) -> None:
        """The head of a response."""
        self._count(status)
        super().on_response(status, headers)

    def on_connected(self) -> None:
        """As good as a response."""
        self._count(200)

    def on_reset(self, *, connected: bool) -> None:
        """As bad as a 503."""
        self._count(503)

    def on_timeout(self, *, connected: bool) -> None:
        """As bad as a 504."""
        self._count(504)

    def _count(self, status: int) -> None:
        cells = self._cells
        cells.total.add(1)
        if status < 500:
            cells.success.add(1)
            if cells.consecutive_5xx.get():
                cells.consecutive_5xx.set(0)
            if cells.consecutive_gateway_failure.get():
                cells.consecutive_gateway_failure.set(0)
            return
        config = self._config
        if 502 <= status <= 504:
            if cells.consecutive_gateway_failure.add(1) == config.consecutive_gateway_failure:
                self._tell(CONSECUTIVE_GATEWAY_FAILURE)
        elif cells.consecutive_gateway_failure.get():
            cells.consecutive_gateway_failure.set(0)
        if cells.consecutive_5xx.add(1) == config.consecutive_5xx:
            self._tell(CONSECUTIVE_5XX)


class SplitMonitor(ResultMonitor):
    """Responses count apart from failures to get one (``split_external_local_origin_errors``)."""

    __slots__ = ()

    def on_response(self, status: int, headers: Headers) -> None:
        """The head of a response; so there was a connection."""
        self._local_success()
        super().on_response(status, headers)

    def on_connected(self) -> None:
        """Locally a success."""
        self._local_success()

    def on_reset(self, *, connected: bool) -> None:
        """Locally a failure, if after a success."""
        if connected:
            self._local_success()
        self._local_failure()

    def on_timeout(self, *, connected: bool) -> None:
        """The same."""
        self.on_reset(connected=connected)

    def _local_success(self) -> None:
        cells = self._cells
        cells.local_total.add(1)
        cells.local_success.add(1)
        if cells.consecutive_local_origin_failure.get():
            cells.consecutive_local_origin_failure.set(0)

    def _local_failure(self) -> None:
        cells = self._cells
        cells.local_total.add(1)
        if cells.consecutive_local_origin_failure.add(1) == self._config.consecutive_local_origin_failure:
            self._tell(CONSECUTIVE_LOCAL_ORIGIN_FAILURE)


# -- in the supervisor


class _Interval:
    """How many requests of one origin there were between two looks at cells that only grow, and which share was good."""

    __slots__ = ("_seen", "rate")

    def __init__(self) -> None:
        self._seen = (0, 0)
        self.rate = UNKNOWN
        """In percent, for /clusters and events."""

    def take(self, total: int, success: int) -> tuple[float, int] | None:
        """(success rate in percent, requests) since the last look; None without any, or when a worker took its cells with it."""
        before, self._seen = self._seen, (total, success)
        requests, good = total - before[0], success - before[1]
        if requests <= 0 or good < 0:
            return None
        return min(good, requests) * 100.0 / requests, requests


class Record:
    """What the detector knows of one endpoint. Times are ``loop.now`` seconds; None: never."""

    __slots__ = (
        *("back_off", "cells", "ejected_at", "external", "is_ejected", "jitter_s", "local", "num_ejections"),
        "unejected_at",
    )

    def __init__(self, cells: EndpointCells) -> None:
        self.cells = cells
        self.is_ejected = False
        self.num_ejections = 0
        self.ejected_at: float | None = None
        self.unejected_at: float | None = None
        self.back_off = 0
        self.jitter_s = 0.0
        self.external = _Interval()
        self.local = _Interval()
        self._look()

    def _look(self) -> None:
        # What stands in the cells is from before this detector.
        self.external.take(self.cells.total.total(), self.cells.success.total())
        self.local.take(self.cells.local_total.total(), self.cells.local_success.total())


class Averages:
    """What /clusters shows of a cluster: the mean success rate of the last interval, and the threshold made of it."""

    __slots__ = ("mean", "threshold")

    def __init__(self) -> None:
        self.mean = self.threshold = UNKNOWN


class Detector:
    """Decides for one cluster; lives in the supervisor. ``set_ejected(address, ejected)`` puts a decision into force.

    ``now`` and ``wall`` are clocks. ``log`` takes an event log line.
    """

    def __init__(
        self,
        cluster: Cluster,
        config: OutlierDetectionConfig,
        cells: Sequence[EndpointCells],
        stats: OutlierDetectionStats,
        *,
        set_ejected: Callable[[str, bool], None],
        now: Callable[[], float],
        wall: Callable[[], float],
        log: Callable[[bytes], None] | None = None,
    ) -> None:
        self.config = config
        self.stats = stats
        self.records: dict[str, Record] = {}
        """By ``Endpoint.address``."""
        self.external = Averages()
        self.local = Averages()
        self._cluster = cluster
        self._cells = cells
        self._set_ejected = set_ejected
        self._now = now
        self._wall = wall
        self._log = log
        self.look_for_members()

    def __repr__(self) -> str:
        return f"<Detector {self._cluster.name} {len(self.records)} endpoints, {self.stats.ejections_active} ejected>"

    def adopt(self, before: Detector) -> None:
        """Go on where the detector of the same cluster left off in the generation before."""
        for address, record in self.records.items():
            known = before.records.get(address)
            if known is not None:
                self.records[address] = known
                known.cells = record.cells
        self._count_active()

    def look_for_members(self) -> None:
        """The cluster's endpoints may be others than before."""
        slots = self._cluster.endpoint_slots()
        listed = {endpoint.address: slot for endpoint, slot in slots}
        for address in self.records.keys() - listed.keys():
            del self.records[address]
        for address, slot in listed.items():
            if address not in self.records:
                cells = self._cells[slot]
                cells.end_rows()
                self.records[address] = Record(cells)
        for endpoint, _slot in slots:
            record = self.records[endpoint.address]
            if endpoint.health_flags & health.FAILED_OUTLIER_CHECK and not record.is_ejected:
                # A LOGICAL_DNS endpoint that has moved, say: whoever is ejected must be taken back one day.
                record.is_ejected = True
                record.num_ejections = record.back_off = 1
                record.ejected_at = self._now()
        self._count_active()

    def _count_active(self) -> None:
        self.stats.ejections_active = sum(1 for record in self.records.values() if record.is_ejected)

    # -- what is found out

    def on_consecutive(self, address: str, kind: str) -> None:
        """A worker saw too many failures in a row."""
        record = self.records.get(address)
        if record is None or record.is_ejected:
            return
        self._detect(address, record, kind)
        cells = record.cells
        if kind == CONSECUTIVE_5XX:
            self.stats.ejections_consecutive_5xx += 1
            cells.consecutive_5xx.set(0)
        elif kind == CONSECUTIVE_GATEWAY_FAILURE:
            cells.consecutive_gateway_failure.set(0)
        else:
            cells.consecutive_local_origin_failure.set(0)

    def on_passed(self, address: str) -> None:
        """The endpoint is well, say its active health checks."""
        record = self.records.get(address)
        if record is not None and record.is_ejected and self.config.active_check_unejects:
            self._uneject(address, record)

    def on_interval(self) -> None:
        """The interval is over: take back whose time is up, judge by success rates, forgive."""
        self.look_for_members()
        now = self._now()
        for address, record in self.records.items():
            if record.is_ejected and self._ejection_s(record) <= now - (record.ejected_at or 0.0):
                self._uneject(address, record)
        self._judge_rates(external=True)
        self._judge_rates(external=False)
        for record in self.records.values():
            since = record.unejected_at
            if (
                not record.is_ejected
                and since is not None
                and now - since >= self.config.interval_s
                and record.back_off
            ):
                record.back_off -= 1

    def _ejection_s(self, record: Record) -> float:
        config = self.config
        return min(config.base_ejection_time_s * record.back_off, config.max_ejection_time_s) + record.jitter_s

    def _judge_rates(self, *, external: bool) -> None:
        config = self.config
        averages = self.external if external else self.local
        averages.mean = averages.threshold = UNKNOWN
        found: list[tuple[str, Record, float, int]] = []
        for address, record in self.records.items():
            cells = record.cells
            interval = record.external if external else record.local
            interval.rate = UNKNOWN
            if external:
                taken = interval.take(cells.total.total(), cells.success.total())
            else:
                taken = interval.take(cells.local_total.total(), cells.local_success.total())
            if taken is not None and not record.is_ejected:
                found.append((address, record, *taken))
        fewest = min(config.success_rate_minimum_endpoints, config.failure_percentage_minimum_endpoints)
        if len(self.records) < fewest:
            return
        lowest_volume = min(config.success_rate_request_volume, config.failure_percentage_request_volume)
        for _address, record, rate, volume in found:
            if volume >= lowest_volume:
                (record.external if external else record.local).rate = rate
        self._judge_success_rates(found, averages, external=external)
        self._judge_failure_percentages(found, external=external)

    def _judge_success_rates(
        self, found: list[tuple[str, Record, float, int]], averages: Averages, *, external: bool
    ) -> None:
        config = self.config
        judged = [each for each in found if each[3] >= config.success_rate_request_volume]
        if not judged or len(judged) < config.success_rate_minimum_endpoints:
            return
        mean = sum(rate for _, _, rate, _ in judged) / len(judged)
        deviation = sqrt(sum((rate - mean) ** 2 for _, _, rate, _ in judged) / len(judged))
        averages.mean = mean
        averages.threshold = mean - deviation * config.success_rate_stdev_factor / 1000
        for address, record, rate, _volume in judged:
            if rate < averages.threshold:
                self.stats.ejections_success_rate += 1
                self._detect(address, record, SUCCESS_RATE if external else SUCCESS_RATE_LOCAL_ORIGIN)

    def _judge_failure_percentages(self, found: list[tuple[str, Record, float, int]], *, external: bool) -> None:
        config = self.config
        judged = [each for each in found if each[3] >= config.failure_percentage_request_volume]
        if not judged or len(judged) < config.failure_percentage_minimum_endpoints:
            return
        kind = FAILURE_PERCENTAGE if external else FAILURE_PERCENTAGE_LOCAL_ORIGIN
        for address, record, rate, _volume in judged:
            if 100.0 - rate >= config.failure_percentage_threshold:
                self._detect(address, record, kind)

    # -- decisions

    def _detect(self, address: str, record: Record, kind: str) -> None:
        stats, config = self.stats, self.config
        name = _STAT_NAMES[kind]
        _increment(stats, f"ejections_detected_{name}")
        share = 100.0 * (stats.ejections_active + 1) / len(self.records)
        allowed = share <= config.max_ejection_percent
        if not allowed and not (config.always_eject_one_endpoint and not stats.ejections_active):
            stats.ejections_overflow += 1
            return
        if kind in (CONSECUTIVE_5XX, SUCCESS_RATE):
            stats.ejections_total += 1
        enforced = random.random() * 100 < self._enforcing(kind)
        # By its success rate and its failure percentage an endpoint may be found out twice in one interval.
        if enforced and not record.is_ejected:
            self._eject(address, record, name)
        self._write_ejection(address, record, kind, enforced)

    def _enforcing(self, kind: str) -> int:
        config = self.config
        return {
            CONSECUTIVE_5XX: config.enforcing_consecutive_5xx,
            CONSECUTIVE_GATEWAY_FAILURE: config.enforcing_consecutive_gateway_failure,
            CONSECUTIVE_LOCAL_ORIGIN_FAILURE: config.enforcing_consecutive_local_origin_failure,
            SUCCESS_RATE: config.enforcing_success_rate,
            SUCCESS_RATE_LOCAL_ORIGIN: config.enforcing_local_origin_success_rate,
            FAILURE_PERCENTAGE: config.enforcing_failure_percentage,
            FAILURE_PERCENTAGE_LOCAL_ORIGIN: config.enforcing_failure_percentage_local_origin,
        }[kind]

    def _eject(self, address: str, record: Record, name: str) -> None:
        stats, config = self.stats, self.config
        stats.ejections_active += 1
        stats.ejections_enforced_total += 1
        _increment(stats, f"ejections_enforced_{name}")
        record.is_ejected = True
        record.num_ejections += 1
        record.ejected_at = self._now()
        record.jitter_s = random.random() * config.max_ejection_time_jitter_s
        if record.back_off * config.base_ejection_time_s < config.max_ejection_time_s + config.base_ejection_time_s:
            record.back_off += 1
        self._set_ejected(address, True)

    def _uneject(self, address: str, record: Record) -> None:
        self.stats.ejections_active -= 1
        record.is_ejected = False
        record.unejected_at = self._now()
        record.cells.end_rows()
        self._set_ejected(address, False)
        if self._log is not None:
            # The type and "enforced" mean nothing here; Envoy writes the zero of each.
            event = self._event(address, record, CONSECUTIVE_5XX, "UNEJECT", record.ejected_at)
            self._log(_line({**event, "enforced": False}))

    # -- the event log: data.cluster.v3.OutlierDetectionEvent

    def _write_ejection(self, address: str, record: Record, kind: str, enforced: bool) -> None:
        if self._log is None:
            return
        event = {**self._event(address, record, kind, "EJECT", record.unejected_at), "enforced": enforced}
        if kind in (SUCCESS_RATE, SUCCESS_RATE_LOCAL_ORIGIN):
            external = kind == SUCCESS_RATE
            averages = self.external if external else self.local
            event["eject_success_rate_event"] = {
                "host_success_rate": int((record.external if external else record.local).rate),
                "cluster_average_success_rate": int(averages.mean),
                "cluster_success_rate_ejection_threshold": int(averages.threshold),
            }
        elif kind in (FAILURE_PERCENTAGE, FAILURE_PERCENTAGE_LOCAL_ORIGIN):
            interval = record.external if kind == FAILURE_PERCENTAGE else record.local
            event["eject_failure_percentage_event"] = {"host_success_rate": int(interval.rate)}
        else:
            event["eject_consecutive_event"] = {}
        self._log(_line(event))

    def _event(self, address: str, record: Record, kind: str, action: str, last: float | None) -> dict[str, Any]:
        event: dict[str, Any] = {"type": kind, "timestamp": timestamp(self._wall())}
        if last is not None:
            event["secs_since_last_action"] = str(int(self._now() - last))
        event["cluster_name"] = self._cluster.name
        event["upstream_url"] = address
        event["action"] = action
        event["num_ejections"] = record.num_ejections
        return event


def _increment(stats: OutlierDetectionStats, name: str) -> None:
    setattr(stats, name, getattr(stats, name) + 1)


def _line(event: dict[str, Any]) -> bytes:
    return orjson.dumps(event) + b"\n"
