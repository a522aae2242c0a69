"""`forkproxy route` as a person uses it: which listener, chain, host, route and cluster, and why not the others."""

import json

import pytest
from click.testing import CliRunner

from forkproxy.cli import main
from tests.integration.test_cli import forkproxy

CONFIG = """\
static_resources:
  listeners:
  - name: edge
    address: { socket_address: { address: 0.0.0.0, port_value: 10000 } }
    filter_chains:
    - name: inside
      filter_chain_match: { source_prefix_ranges: [{ address_prefix: 10.0.0.0, prefix_len: 8 }] }
      filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: inside
          weighted_clusters: { clusters: [{ name: web, weight: 3 }, { name: canary, weight: 1 }] }
    - name: rest
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config: &hcm
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          use_remote_address: true
          merge_slashes: true
          normalize_path: true
          strip_matching_host_port: true
          upgrade_configs:
          - upgrade_type: websocket
            filters:
            - name: envoy.filters.http.buffer
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
                max_request_bytes: 1
            - name: envoy.filters.http.router
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          path_with_escaped_slashes_action: REJECT_REQUEST
          route_config:
            name: r
            validate_clusters: false
            virtual_hosts:
            - name: api
              domains: ["api.example.com", "*.api.example.com"]
              retry_policy: { retry_on: "5xx,reset", num_retries: 2, per_try_timeout: 1s }
              routes:
              - match: { connect_matcher: {} }
                route: { cluster: web, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }] }
              - match: { path: /Health }
                direct_response: { status: 200, body: { inline_string: "fine" } }
              - name: dev
                match: { prefix: /v1, headers: [{ name: x-env, string_match: { exact: dev } }] }
                route: { cluster: canary }
              - match: { prefix: /v1/search, query_parameters: [{ name: q, string_match: { prefix: "a" } }] }
                redirect: { host_redirect: search.example.com, path_redirect: "/s", response_code: FOUND }
              - match: { safe_regex: { regex: "/v1/user" } }
                route: { cluster: gone }
              - match: { prefix: /v1/users/, runtime_fraction: { default_value: { numerator: 5 }, runtime_key: k } }
                route: { cluster: canary }
              - name: users
                match: { prefix: /v1 }
                route:
                  prefix_rewrite: /
                  host_rewrite_literal: users.internal
                  weighted_clusters: { clusters: [{ name: web, weight: 70 }, { name: canary, weight: 30 }] }
              - match: { prefix: /v1/users/ }
                route: { cluster: web }
              - match: { prefix: /by }
                route:
                  cluster_header: x-cluster
                  max_stream_duration: { max_stream_duration: 9s }
                  request_mirror_policies:
                  - cluster: canary
                    runtime_fraction: { default_value: { numerator: 10 } }
                  internal_redirect_policy: {}
                  hedge_policy: { hedge_on_per_try_timeout: true }
            - name: secure
              domains: ["secure.example.com"]
              require_tls: ALL
              routes: [{ match: { prefix: / }, route: { cluster: web } }]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: web
    load_assignment:
      cluster_name: web
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 8000 } } } }] }]
  - name: canary
    type: STRICT_DNS
    load_assignment:
      cluster_name: canary
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: canary.local, port_value: 8000 } } } }] }]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("route") / "envoy.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def ask(config):
    """Run the command in this process: its exit code, and all it says with single spaces."""

    def run(*arguments):
        done = CliRunner().invoke(main, ["route", "-c", str(config), *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, " ".join(done.output.split())

    return run


@pytest.fixture
def ask_json(config):
    """The same with --json: the answer of the one listener."""

    def run(*arguments):
        done = CliRunner().invoke(main, ["route", "-c", str(config), "--json", *arguments])
        answer = json.loads(done.output)
        assert done.exit_code == (0 if answer["taken"] else 1)
        (listener,) = answer["listeners"]
        return listener

    return run


def line_of(text):
    return next(number for number, line in enumerate(CONFIG.splitlines(), 1) if text in line)


def test_the_whole_way_of_a_request(config):
    done = forkproxy("route", "-c", config, "GET", "http://api.example.com/v1//items?q=b", "--random", "99")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout  # no terminal, no colour
    said = " ".join(done.stdout.split())
    for part in (
        "no listener has port 80, the one of http: all are asked",
        f"listener edge, 0.0.0.0:10000 {config}:3 filter chain 2 of 2 rest: takes every connection",
        "path /v1//items?q=b → /v1/items?q=b",
        'virtual host api, by its domain "api.example.com"',
        f'route 7 of 9 users: prefix "/v1" {config}:{line_of("name: users")}',
        "cluster 70% (weight 70 of 100) web: STATIC, ROUND_ROBIN to 127.0.0.1:8000",
        "cluster 30% (weight 30 of 100) canary: STRICT_DNS, ROUND_ROBIN to canary.local:8000 ← taken",
        "path /v1/items?q=b → //items?q=b",
        "host api.example.com → users.internal",
        "timeout 15 s, 2 retries on 5xx, reset, 1 s per try",
        'routes not taken 3 dev header x-env is "dev", but there is no x-env',
        "1 inside source_prefix_ranges 10.0.0.0/8: it goes from 127.0.0.1",
    ):
        assert part in said, part


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("api.example.com/health",), 1, ["none of 9 matches: 404", "it differs in upper and lower case"]),
        (("api.example.com/Health",), 0, ['answer 200, "fine"']),
        (("x.api.example.com/v1/search?q=ab",), 0, ["redirect 302 to http://search.example.com/s?q=ab", "comes later"]),
        (("other.example.org/",), 1, ["none has a domain for this host: 404"]),
        (("/by", "-H", "host: api.example.com:123"), 1, ["hint without its port", "strip_any_host_port"]),
        (("api.example.com:10000/by",), 0, ["host api.example.com:10000 → api.example.com"]),
        (("api.example.com/by", "-H", "x-cluster: web"), 0, [
            "web (the header x-cluster): STATIC", "9 s at most for the stream, hedged", "mirrored to canary, 10%",
            "redirects of the upstream may be followed"]),
        (("api.example.com/by", "-H", "X-Cluster: wub"), 0, ['"wub" (the header x-cluster), which does not exist: 503']),
        (("api.example.com/by",), 0, ["none (the header x-cluster): 503"]),
        (("api.example.com/v1/user",), 0, ['"gone", which does not exist: 503']),
        (("secure.example.com/",), 0, ["require_tls: plain text", "redirect 301 to https://secure.example.com/"]),
        (("api.example.com/a%2fb",), 1, ["answers 400 itself: path_normalization_failed"]),
        (("api.example.com:99/a",), 1, ["listens on port 10000, not on 99", "no listener takes it"]),
        (("https://api.example.com/",), 1, ["takes plain text, and the URL says https"]),
        (("api.example.com/", "--source", "10.1.2.3"), 0, ["1 of 2 inside", "tcp_proxy inside", "75% (weight 3 of 4) web"]),
        (("api.example.com/v1/x", "-H", "x-envoy-internal: true", "-H", "x-forwarded-proto: https"), 0, [
            "x-forwarded-proto https → http", "removed x-envoy-internal"]),
        (("/v1/x", "-H", "host: api.example.com"), 0, ["route 7 of 9 users"]),
        (("/v1/x",), 1, ["none has a domain for this host"]),
        (("api.example.com/by", "-H", "connection: upgrade", "-H", "upgrade: nonsense"), 1, [
            "answers 403 itself: upgrade_failed (upgrade_configs", "route 9 of 9"]),
        (("api.example.com/by", "-H", "x-cluster: web", "-H", "connection: upgrade", "-H", "upgrade: websocket"), 0,
         ["route 9 of 9", "filters buffer, router"]),
        (("api.example.com/é /v1",), 1, ["GET api.example.com/%C3%A9%20/v1"]),
    ],
)  # fmt: skip
def test_answers(ask, arguments, code, parts):
    done, said = ask("GET", *arguments)
    assert done == code, said
    for part in parts:
        assert part in said, (part, said)


def test_a_url_alone_is_got(ask):
    code, said = ask("api.example.com/Health")
    assert code == 0
    assert said.startswith("GET api.example.com/Health ")


def test_what_may_happen_without_a_number(ask_json):
    outcomes = ask_json("GET", "api.example.com/v1/users/7")["outcomes"]
    found = [(each["route"]["number"], each["action"]["cluster"]["name"], each["share"]) for each in outcomes]
    assert found == [(5, "canary", 0.05), (6, "web", pytest.approx(0.665)), (6, "canary", pytest.approx(0.285))]
    assert not any(each["chosen"] for each in outcomes)


@pytest.mark.parametrize(("number", "chosen"), [("4", 0), ("5", 1), ("69", 1), ("70", 2), ("104", 0)])
def test_a_number_chooses(ask_json, number, chosen):
    outcomes = ask_json("GET", "api.example.com/v1/users/7", "--random", number)["outcomes"]
    assert [each["chosen"] for each in outcomes] == [place == chosen for place in range(3)]


@pytest.mark.parametrize(("number", "chosen"), [("0", "web"), ("2", "web"), ("3", "canary"), ("6", "web")])
def test_a_number_chooses_among_the_clusters_of_tcp_proxy(ask_json, number, chosen):
    clusters = ask_json("GET", "/", "--source", "10.1.2.3", "--random", number)["tcp_proxy"]["clusters"]
    assert [each["cluster"]["name"] for each in clusters if each["chosen"]] == [chosen]


def test_a_connect(ask):
    code, said = ask("CONNECT", "api.example.com:443", "--listener", "edge")
    assert code == 1  # its port is not the listener's, and stays
    code, said = ask("CONNECT", "api.example.com:10000")
    assert code == 0
    assert "route 1 of 9: a CONNECT" in said
    assert "a CONNECT has no path (connect_matcher matches it)" in ask("CONNECT", "api.example.com:10000", "--all")[1]


def test_all_of_them(ask_json):
    near = ask_json("GET", "api.example.com/v1/users/7")
    every = ask_json("GET", "api.example.com/v1/users/7", "--all")
    assert near["routes_left_out"] + len(near["routes_not_taken"]) == len(every["routes_not_taken"]) == 7
    assert every["routes_left_out"] == 0
    first = every["routes_not_taken"][0]
    assert first["place"]["line"] == line_of("connect_matcher")
    assert first["why"] == [{"wants": "a CONNECT", "got": "the method is GET", "hint": ""}]
    second = every["routes_not_taken"][1]
    assert second["why"] == [{"wants": 'path "/Health"', "got": 'the path is "/v1/users/7"', "hint": ""}]
    assert [each["name"] for each in every["virtual_hosts_not_taken"]] == ["secure"]


def test_a_file_that_is_refused(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("static_resources: { listeners: [{ name: x }] }\n")
    done = forkproxy("route", "-c", path, "GET", "/")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"{path}:1:")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("GET", "ftp://x/"), "neither an http:// nor an https:// URL"),
        (("GET", "http:///x"), "has no host"),
        (("GET", "x:y/"), '"y" is no port'),
        (("G T", "/"), "is no method"),
        (("GET", "/", "-H", "nonsense"), "is no header"),
        (("GET", "/", "-H", "a: b\nc: d"), "control character"),
        (("GET", "/", "--source", "home"), "does not appear to be an IPv4 or IPv6 address"),
        (("GET", "/", "--listener", "nope"), "there are: edge"),
        (("GET", "/", "--random", "-1"), "--random"),
        (("GET",), "Missing argument"),
        ((), "Missing argument"),
    ],
)
def test_wrong_usage(ask, arguments, why):
    code, said = ask(*arguments)
    assert code == 2
    assert why in said
