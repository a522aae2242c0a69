"""forkproxy.config.discovery: the file of an EDS cluster."""

import pytest

from forkproxy.config.discovery import Rejected, read_assignment
from forkproxy.config.problems import ConfigError

ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


def one(body, *, version="7", type_url=ASSIGNMENT, name="svc"):
    return f'version_info: "{version}"\nresources:\n- "@type": {type_url}\n  cluster_name: {name}\n{body}'.encode()


def endpoint(host="127.0.0.1", port=80):
    address = f"{{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}"
    return f"  endpoints:\n  - lb_endpoints:\n    - endpoint: {address}\n"


def read(text):
    return read_assignment(text, "eds.yaml", "svc")


def refusal(text):
    with pytest.raises(Rejected) as caught:
        read(text)
    return [problem.text("eds.yaml") for problem in caught.value.problems]


def test_endpoints_of_the_file():
    body = endpoint() + "      health_status: DRAINING\n      load_balancing_weight: 3\n    priority: 1\n"
    found = read(one(body))
    assert found.version == "7"
    [locality] = found.localities
    assert locality.priority == 1
    assert [(str(e.address), e.weight, e.health_status) for e in locality.endpoints] == [
        ("127.0.0.1:80", 3, "DRAINING")
    ]


def test_json():
    text = b'{"version_info": "1", "resources": [{"@type": "%s", "cluster_name": "svc"}]}' % ASSIGNMENT.encode()
    assert read(text).localities == ()


def test_a_resource_of_version_2_is_upgraded():
    found = read(one(endpoint(), type_url="type.googleapis.com/envoy.api.v2.ClusterLoadAssignment"))
    assert [str(e.address) for e in found.localities[0].endpoints] == ["127.0.0.1:80"]


def test_no_resource_changes_nothing():
    found = read(b'version_info: "12"\nresources: []')
    assert (found.version, found.localities) == ("12", None)


@pytest.mark.parametrize("text", [b"resources: [", b"", b"[]", b"\xff\xfe"])
def test_not_a_response_at_all(text):
    with pytest.raises(ConfigError):
        read(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"resourcesx: []", 'DiscoveryResponse has no field "resourcesx"'),
        (one(endpoint(), name="other"), "Unexpected EDS cluster (expecting svc): other"),
        (one("") + one("").partition(b"resources:\n")[2], "Unexpected EDS resource length: 2"),
        (
            b"resources: [{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: x}]",
            "Unable to unpack as envoy.config.endpoint.v3.ClusterLoadAssignment: envoy.config.cluster.v3.Cluster",
        ),
        (one(endpoint(port=99999)), "must be at most 65535"),
        (one(endpoint(host="name.example")), "malformed IP address: name.example"),
        (one("  policy: {drop_overloads: [{category: x}]}"), "is not implemented"),
    ],
)
def test_what_is_rejected_says_why_and_where(text, words):
    [problem] = refusal(text)
    assert problem.startswith("eds.yaml:")
    assert words in problem
