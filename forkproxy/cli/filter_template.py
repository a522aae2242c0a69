"""The files that ``forkproxy filters new NAME`` writes."""

from __future__ import annotations

import keyword


def is_module_name(name: str) -> bool:
    """Whether a module can have this name."""
    return name.isidentifier() and name.isascii() and not keyword.iskeyword(name)


def class_name(name: str) -> str:
    """``"api_key"`` → ``"ApiKey"``."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_")) or "Filter"


def files(name: str) -> dict[str, str]:
    """Text by path. The module lies beside the configuration, where forkproxy finds it without an installation."""
    texts = {
        f"{name}.py": _MODULE,
        f"test_{name}.py": _TEST,
        f"{name}.yaml": _CONFIGURATION,
        "pyproject.toml": _PROJECT,
    }
    replacements = {"@NAME@": name, "@CLASS@": class_name(name), "@DASHED@": name.replace("_", "-")}
    for path, text in texts.items():
        for mark, word in replacements.items():
            text = text.replace(mark, word)
        texts[path] = text
    return texts


_MODULE = '''\
"""@CLASS@, an HTTP filter for forkproxy: requests without a header are answered here, responses get one more."""

from __future__ import annotations

from forkproxy.http.filter import STOP_ITERATION, HttpFilter
from forkproxy.http.headers import get


class @CLASS@(HttpFilter):
    """Configured with `header`, the header that a request must have (default: none), and `say`, what responses carry."""

    def __init__(self, header, say, refused):
        self.header = header
        self.say = say
        self.refused = refused

    @classmethod
    def from_config(cls, config, context):
        # In the supervisor, at start and at every reload. Whatever is raised here refuses the configuration.
        refused = context.registry.counter("@NAME@.refused")
        return cls(config.get("header", "").lower().encode(), config.get("say", "hello").encode(), refused)

    def decode_headers(self, stream, headers, end_stream):
        # Towards the upstream. Never block here: one worker serves all its connections with one thread.
        if self.header and get(headers, self.header) is None:
            self.refused.value += 1
            stream.send_local_reply(403, b"a header is missing\\n", details="@NAME@_refused")
            return STOP_ITERATION
        return None

    def encode_headers(self, stream, headers, end_stream):
        # Towards the downstream.
        headers.append((b"x-@DASHED@", self.say))
'''

_TEST = '''\
"""Against the real program: an upstream is not needed, the route answers by itself."""

import http.client
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """The port of a forkproxy that runs @NAME@.yaml, on ports of the kernel's choice."""
    directory = tmp_path_factory.mktemp("forkproxy")
    config = directory / "@NAME@.yaml"
    text = (HERE / "@NAME@.yaml").read_text()
    config.write_text(text.replace("port_value: 10000", "port_value: 0").replace("port_value: 9901", "port_value: 0"))
    command = [sys.executable, "-m", "forkproxy"]
    pid_file = ["--pid-file", str(directory / "forkproxy.pid")]
    log = ["--log-path", str(directory / "log"), "--concurrency", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([*command, "start", "-c", str(config), *pid_file, *log], check=True, env=environment)
    status = subprocess.run([*command, "status", *pid_file], check=True, capture_output=True, text=True).stdout
    yield int(status.partition("127.0.0.1:")[2].split()[0])
    subprocess.run([*command, "stop", "--now", *pid_file], check=True)


def get(port, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/", headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_a_request_with_the_header_passes(port):
    response = get(port, **{"x-key": "any"})
    assert response.status == 200
    assert response.headers["x-@DASHED@"] == "hello"


def test_a_request_without_it_is_refused(port):
    assert get(port).status == 403
'''

_CONFIGURATION = """\
# forkproxy run -c @NAME@.yaml, then:
#   curl -i http://127.0.0.1:10000/                     403
#   curl -i -H 'x-key: any' http://127.0.0.1:10000/     200, with x-@DASHED@
#   curl 'http://127.0.0.1:9901/stats?filter=@NAME@'
admin:
  address: { socket_address: { address: 127.0.0.1, port_value: 9901 } }
static_resources:
  listeners:
  - name: ingress
    address: { socket_address: { address: 127.0.0.1, port_value: 10000 } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: { prefix: "/" }
                direct_response: { status: 200, body: { inline_string: "it passes\\n" } }
          http_filters:
          - name: @NAME@:@CLASS@
            typed_config:
              "@type": type.googleapis.com/google.protobuf.Struct
              value: { header: x-key, say: hello }
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"""

_PROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "forkproxy-@DASHED@"
version = "0.1.0"
dependencies = ["forkproxy"]

# Installed, the filter is in `forkproxy filters list`, and every configuration can name it.
[project.entry-points."forkproxy.filters"]
@NAME@ = "@NAME@:@CLASS@"

[tool.setuptools]
py-modules = ["@NAME@"]
"""
