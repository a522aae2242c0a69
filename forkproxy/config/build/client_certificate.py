"""How a connection manager tells the next hop about the client's certificate: ``forward_client_cert_details`` and
``set_current_client_cert_details``."""

from __future__ import annotations

from forkproxy.config.values import frozen
from forkproxy.config.view import View

MODES = ("SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")


@frozen
class ForwardClientCertConfig:
    """``mode``: one of MODES. The rest: what an element says beyond By and Hash."""

    mode: str = "SANITIZE"
    cert: bool = False
    chain: bool = False
    subject: bool = False
    uri: bool = False
    dns: bool = False


def build_forward_client_cert(view: View) -> ForwardClientCertConfig:
    """What ``HttpConnectionManager`` says; ``forward_client_cert_matcher`` stays unread."""
    details = view.message("set_current_client_cert_details")
    mode = view.enum("forward_client_cert_details", supported=MODES)
    if details is None:
        return ForwardClientCertConfig(mode)
    return ForwardClientCertConfig(
        mode,
        cert=details.bool("cert"),
        chain=details.bool("chain"),
        subject=details.bool("subject"),
        uri=details.bool("uri"),
        dns=details.bool("dns"),
    )
