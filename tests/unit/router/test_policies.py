import pytest

from forkproxy.config.build.route_policies import MirrorPolicy
from forkproxy.router.policies import NO_POLICIES, Mirror


def mirror(**fields):
    policy = {
        "cluster": "copy",
        "cluster_header": "",
        "fraction": None,
        "append_suffix": True,
        "host": "",
        "mutations": (),
    }
    return Mirror(MirrorPolicy(**{**policy, **fields}), None, {"copy": "a cluster"}.get)


@pytest.mark.parametrize(
    ("authority", "said"),
    [
        (b"a.example", b"a.example-shadow"),
        (b"a.example:80", b"a.example-shadow:80"),
        (b"[::1]", b"[::1]-shadow"),
        (b"[::1]:80", b"[::1]-shadow:80"),
    ],
)
def test_the_host_of_a_copy(authority, said):
    assert mirror().host_for(authority) == said


def test_the_host_may_stay_or_be_another():
    assert mirror(append_suffix=False).host_for(b"a:80") == b"a:80"
    assert mirror(host="b").host_for(b"a:80") == b"b"


def test_the_cluster_is_looked_up_once_all_are_there():
    bound = mirror()
    assert bound.find_cluster(None) is None
    bound.bind()
    assert bound.find_cluster(None) == "a cluster"


def test_nothing_matters_without_policies():
    assert not NO_POLICIES.matter
    assert not NO_POLICIES.shape_exchange
