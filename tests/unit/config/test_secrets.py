"""What is secret in a file is in no message about it."""

import pytest

from forkproxy.config.load import load
from forkproxy.config.problems import render_all
from forkproxy.config.secrets import masked

HEAD = """
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: 1 } }
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - certificate_chain: { inline_string: shown }
"""


@pytest.mark.parametrize(
    "text",
    [
        "private_key: { inline_bytes: SECRET! }",
        "password: { inline_string: 5423SECRET, inline_string: 5423SECRET }",
        "password: { inline_string: 542354235423 }",
        'private_key: { inline_string: "SECRET" }\n              wrong: 5',
        "private_key:\n                inline_bytes: SECRET!",
        '{"private_key": {"inline_string": "SECRET"}, "wrong": 5}',
        "private_key: { wrong: 1, inline_string: SECRET }",
        f"private_key: {{ inline_string: |\n{'SECRET12' * 8}\n }}",
    ],
)
def test_no_message_shows_it(text):
    result = load(f"{HEAD}              {text}\n", "file.yaml")
    shown = render_all(result.problems, "file.yaml", result.lines)
    assert result.problems
    assert "SECRET" not in shown
    assert "5423" not in shown
    assert "SECRET" not in str(result.as_json())
    assert "5423" not in str(result.as_json())


def test_other_fields_are_shown():
    result = load(f"{HEAD}              password: {{ inline_string: x }}\n".replace("shown", "5"), "file.yaml")
    shown = render_all(result.problems, "file.yaml", result.lines)
    assert "must be a string, not 5" in shown
    assert "inline_string: 5 }" in shown


def test_lines_that_could_be_of_a_key():
    assert masked("", "  " + "Ab1/" * 16) == "  [redacted]"
    path = "  filename: /a/path/of/more/than/forty/characters/without/a/dot"
    assert masked("", path) == path
    assert masked("", "  inline_string: short") == "  inline_string: short"
    assert masked("a.private_key", "  inline_string: short") == "  inline_string: [redacted]"
