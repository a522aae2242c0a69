"""The Proxy-Status header (RFC 9209): which error of its list a response stands for, by the response flags, as Envoy has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from forkproxy.http import response_flags as flags

if TYPE_CHECKING:
    from forkproxy.http.stream import Stream

_DESTINATION_NOT_FOUND = (b"destination_not_found", 500)
_DESTINATION_UNAVAILABLE = (b"destination_unavailable", 503)
_CONNECTION_REFUSED = (b"connection_refused", 502)
_CONNECTION_TERMINATED = (b"connection_terminated", 502)
_CONNECTION_TIMEOUT = (b"connection_timeout", 504)
_CONNECTION_LIMIT_REACHED = (b"connection_limit_reached", 503)
_DNS_ERROR = (b"dns_error", 502)
_HTTP_PROTOCOL_ERROR = (b"http_protocol_error", 502)
_HTTP_REQUEST_ERROR = (b"http_request_error", 0)
_HTTP_RESPONSE_TIMEOUT = (b"http_response_timeout", 504)
_PROXY_CONFIGURATION_ERROR = (b"proxy_configuration_error", 500)

ERRORS = (
    (flags.LH, _DESTINATION_UNAVAILABLE),
    (flags.UH, _DESTINATION_UNAVAILABLE),
    (flags.UT, _HTTP_RESPONSE_TIMEOUT),
    (flags.DT, _CONNECTION_TIMEOUT),
    (flags.LR, _CONNECTION_TIMEOUT),
    (flags.UR, _CONNECTION_TERMINATED),
    (flags.UF, _CONNECTION_REFUSED),
    (flags.UAEX, _CONNECTION_REFUSED),
    (flags.UC, _CONNECTION_TERMINATED),
    (flags.OM, _CONNECTION_LIMIT_REACHED),
    (flags.DO, _CONNECTION_LIMIT_REACHED),
    (flags.FI, _HTTP_REQUEST_ERROR),
    (flags.DC, _CONNECTION_TERMINATED),
    (flags.DR, _CONNECTION_TERMINATED),
    (flags.UO, _CONNECTION_LIMIT_REACHED),
    (flags.NR, _DESTINATION_NOT_FOUND),
    (flags.RL, _CONNECTION_LIMIT_REACHED),
    (flags.RLSE, _CONNECTION_LIMIT_REACHED),
    (flags.URX, _DESTINATION_UNAVAILABLE),
    (flags.SI, _HTTP_RESPONSE_TIMEOUT),
    (flags.IH, _HTTP_REQUEST_ERROR),
    (flags.UMSDR, _HTTP_RESPONSE_TIMEOUT),
    (flags.NFCF, _PROXY_CONFIGURATION_ERROR),
    (flags.UPE, _HTTP_PROTOCOL_ERROR),
    (flags.NC, _DESTINATION_UNAVAILABLE),
    (flags.DF, _DNS_ERROR),
)
"""Flag → error and the code recommended for it, 0 for none. The first flag that is raised decides."""


class ProxyStatus(NamedTuple):
    """What the header says: ``name`` is the proxy's, the others are parts of its details."""

    name: bytes
    details: bool = True
    connection_termination_details: bool = True
    response_flags: bool = True
    recommended_code: bool = False

    def value(self, stream: Stream) -> tuple[bytes, int] | None:
        """The header's value and the code to answer with, 0 for the one there is; None when nothing went wrong here."""
        raised = stream.response_flags
        for flag, (error, code) in ERRORS:
            if raised & flag:
                return self._text(stream, error), code if self.recommended_code else 0
        return None

    def _text(self, stream: Stream, error: bytes) -> bytes:
        text = self.name + b"; error=" + error
        if not self.details or not stream.details:
            return text
        parts = [stream.details]
        if self.connection_termination_details and stream.connection_termination_details:
            parts.append(stream.connection_termination_details)
        if self.response_flags:
            parts.append(flags.names(stream.response_flags))
        return text + b'; details="' + _escaped("; ".join(parts)) + b'"'


def _escaped(text: str) -> bytes:
    return text.replace("\\", "\\\\").replace('"', '\\"').encode()
