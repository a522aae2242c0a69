"""Envoy's response flags: why a response is what it is, as bits of ``stream.response_flags``.

Short names are %RESPONSE_FLAGS%, long ones %RESPONSE_FLAGS_LONG% (Envoy: "Access logging", command operators).
"""

from __future__ import annotations

from typing import Final

LH: Final = 1 << 0
UH: Final = 1 << 1
UT: Final = 1 << 2
LR: Final = 1 << 3
UR: Final = 1 << 4
UF: Final = 1 << 5
UC: Final = 1 << 6
UO: Final = 1 << 7
NR: Final = 1 << 8
DI: Final = 1 << 9
FI: Final = 1 << 10
RL: Final = 1 << 11
UAEX: Final = 1 << 12
RLSE: Final = 1 << 13
DC: Final = 1 << 14
URX: Final = 1 << 15
SI: Final = 1 << 16
IH: Final = 1 << 17
DPE: Final = 1 << 18
UMSDR: Final = 1 << 19
RFCF: Final = 1 << 20
NFCF: Final = 1 << 21
DT: Final = 1 << 22
UPE: Final = 1 << 23
NC: Final = 1 << 24
OM: Final = 1 << 25
DF: Final = 1 << 26
DO: Final = 1 << 27
DR: Final = 1 << 28
UDO: Final = 1 << 29

SHORT: Final[dict[int, str]] = {
    LH: "LH",
    UH: "UH",
    UT: "UT",
    LR: "LR",
    UR: "UR",
    UF: "UF",
    UC: "UC",
    UO: "UO",
    NR: "NR",
    DI: "DI",
    FI: "FI",
    RL: "RL",
    UAEX: "UAEX",
    RLSE: "RLSE",
    DC: "DC",
    URX: "URX",
    SI: "SI",
    IH: "IH",
    DPE: "DPE",
    UMSDR: "UMSDR",
    RFCF: "RFCF",
    NFCF: "NFCF",
    DT: "DT",
    UPE: "UPE",
    NC: "NC",
    OM: "OM",
    DF: "DF",
    DO: "DO",
    DR: "DR",
    UDO: "UDO",
}

LONG: Final[dict[int, str]] = {
    LH: "FailedLocalHealthCheck",
    UH: "NoHealthyUpstream",
    UT: "UpstreamRequestTimeout",
    LR: "LocalReset",
    UR: "UpstreamRemoteReset",
    UF: "UpstreamConnectionFailure",
    UC: "UpstreamConnectionTermination",
    UO: "UpstreamOverflow",
    NR: "NoRouteFound",
    DI: "DelayInjected",
    FI: "FaultInjected",
    RL: "RateLimited",
    UAEX: "UnauthorizedExternalService",
    RLSE: "RateLimitServiceError",
    DC: "DownstreamConnectionTermination",
    URX: "UpstreamRetryLimitExceeded",
    SI: "StreamIdleTimeout",
    IH: "InvalidEnvoyRequestHeaders",
    DPE: "DownstreamProtocolError",
    UMSDR: "UpstreamMaxStreamDurationReached",
    RFCF: "ResponseFromCacheFilter",
    NFCF: "NoFilterConfigFound",
    DT: "DurationTimeout",
    UPE: "UpstreamProtocolError",
    NC: "NoClusterFound",
    OM: "OverloadManagerTerminated",
    DF: "DnsResolutionFailed",
    DO: "DropOverload",
    DR: "DownstreamRemoteReset",
    UDO: "UnconditionalDropOverload",
}


_BEFORE_FAILURE: Final = 1 << 30
NO_RETRY_LEFT: Final = URX | _BEFORE_FAILURE
"""URX, as the HTTP router raises it: before the flag of how the last attempt failed. Envoy names flags as they were raised."""
NO_RETRY_ALLOWED: Final = UO | _BEFORE_FAILURE
"""UO for want of room for a retry, likewise."""
_RAISED_EARLY: Final = {LH: 0, DI: 1, FI: 2, URX: 3, UO: 4}


def names(flags: int, table: dict[int, str] = SHORT) -> str:
    """``"UF,URX"`` for a set of bits, in Envoy's order; "" for none."""
    found = [bit for bit in table if flags & bit]
    if flags & _BEFORE_FAILURE:
        found.sort(key=lambda bit: _RAISED_EARLY.get(bit, len(_RAISED_EARLY)))
    return ",".join([table[bit] for bit in found])
