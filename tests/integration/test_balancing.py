"""Load balancing by several workers: each by itself, and yet as one."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support import bootstrap, leaks
from tests.support.forkproxy import Forkproxy
from tests.support.many_endpoints import ManyEndpoints, ask, get
from tests.support.proxy import free_ports


class TwoWorkers(Forkproxy):
    """forkproxy with two."""

    def command(self):
        command = super().command()
        command[command.index("--concurrency") + 1] = "2"
        return command


@pytest.fixture
def port():
    with leaks.shared():
        servers = ManyEndpoints(4)
        ports = dict(zip(("main", "admin"), free_ports(2), strict=True))
        assignment = {"endpoints": [{"lb_endpoints": [servers.endpoint(number) for number in range(1, 5)]}]}
        clusters = [
            bootstrap.cluster(policy, lb_policy=policy, load_assignment={"cluster_name": policy, **assignment})
            for policy in ("ROUND_ROBIN", "MAGLEV")
        ]
        by_key = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
        routes = [bootstrap.route("/hashed/", "MAGLEV", action=by_key), bootstrap.route("/", "ROUND_ROBIN")]
        config = bootstrap.bootstrap([bootstrap.hcm({"virtual_hosts": [bootstrap.vhost(*routes)]})], clusters)
        proxy = TwoWorkers(bootstrap.render(config, ports), admin_port=ports["admin"])
        proxy.start()
    yield ports["main"]
    proxy.close()
    servers.close()


def test_two_workers(port):
    keys = [f"{number}" for number in range(8)]
    requests = [get("/hashed/", x_key=key) for key in keys]
    answers = [ask(port, requests) for _ in range(12)]  # each over a connection of its own, so of either worker
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0])) > 1
    counted = Counter(name for _ in range(8) for name in ask(port, [get("/")] * 20))
    assert max(counted.values()) - min(counted.values()) <= 8
