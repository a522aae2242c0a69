"""x-forwarded-client-cert: what the next hop is told about the client's certificate."""

from __future__ import annotations

from tests.support.bootstrap import TYPE, Data, bootstrap, cluster, file_log, hcm, port, route, vhost
from tests.support.exchange import Exchange

EVERYTHING = {"subject": True, "cert": True, "chain": True, "dns": True, "uri": True}
LISTENERS: dict[str, Data] = {
    "main": {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": EVERYTHING},
    "set": {"forward_client_cert_details": "SANITIZE_SET"},
    "append": {
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
        "use_remote_address": True,
    },
    "forward": {"forward_client_cert_details": "FORWARD_ONLY", "set_current_client_cert_details": EVERYTHING},
    "always": {"forward_client_cert_details": "ALWAYS_FORWARD_ONLY"},
    "sanitize": {"set_current_client_cert_details": EVERYTHING},
}
RAW = ("append", "always")
"""Of these also without TLS, as raw_NAME."""


def chain(details: Data, *, tls: bool) -> Data:
    """A filter chain."""
    log = file_log({"code": "%RESPONSE_CODE%", "header": "%REQ(X-FORWARDED-CLIENT-CERT)%"})
    made: Data = {"filters": [hcm({"virtual_hosts": [vhost(route("/"))]}, access_log=log, **details)]}
    if tls:
        files = {
            "certificate_chain": {"filename": "@CERTIFICATES@/uris.pem"},
            "private_key": {"filename": "@CERTIFICATES@/uris-key.pem"},
        }
        made["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_certificates": [files],
                    "validation_context": {"trusted_ca": {"filename": "@CERTIFICATES@/ca.pem"}},
                },
            },
        }
    return made


def configuration() -> Data:
    """A listener for every way."""
    chains = {name: chain(details, tls=True) for name, details in LISTENERS.items()}
    chains.update({f"raw_{name}": chain(LISTENERS[name], tls=False) for name in RAW})
    data = bootstrap([], [cluster("up", "up")])
    data["static_resources"]["listeners"] = [
        {"name": name, "address": port(name), "filter_chains": [made]} for name, made in chains.items()
    ]
    return data


CONFIGURATIONS = {"client_certificates": configuration()}
SENT = b"x-forwarded-client-cert: By=a;Hash=b\r\n"
TWICE = SENT + b"x-forwarded-client-cert: By=c\r\n"


def by(listener: str, certificate: str, lines: bytes = b"", again: bool = False) -> Exchange:
    """A request of who shows this certificate, or two."""
    request = b"GET / HTTP/1.1\r\nhost: h.example\r\n" + lines + b"\r\n"
    count = 1 + again
    name = f"client certificate, {listener}: {certificate or 'none'}" + (
        f", {lines.count(SENT[:20])} sent" if lines else ""
    )
    return Exchange(
        name + ", twice" * again,
        (request,) * count,
        config="client_certificates",
        listener=listener,
        responses=count,
        log_lines=count,
        tls_name="" if listener.startswith("raw") else "good.example",
        tls_certificate=certificate,
    )


EXCHANGES = [
    by("main", "client"),
    by("main", "bare", TWICE),
    by("main", "", SENT),
    by("set", "client", SENT),
    by("append", "client", again=True),
    by("append", "client", SENT),
    by("append", "client", TWICE),
    by("append", "bare"),
    by("append", "", TWICE),
    by("forward", "client"),
    by("forward", "client", TWICE),
    by("forward", "", SENT),
    by("always", "", TWICE),
    by("always", "client"),
    by("sanitize", "client", SENT),
    by("raw_append", "", SENT),
    by("raw_always", "", TWICE),
]
