"""Names are resolved by a process of their own, before the first worker, and kept over its death and over reloads."""

import http.client
import json
import os
import re
import signal
import threading

import pytest
import yaml

from tests.support import bootstrap as b
from tests.support.forkproxy import Forkproxy
from tests.support.live_loop import LiveLoop
from tests.support.name_server import NameServer
from tests.support.proxy import free_ports, process_name
from tests.support.supervised import is_alive, until

ANSWER = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "resolved"}}}


def config(ports, host="localhost"):
    """A listener before a second one of the same program, which is found by name."""
    cluster = b.cluster("up", "answers", type="STRICT_DNS", dns_lookup_family="V4_ONLY")
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["address"] = host
    cluster["dns_resolvers"] = [b.port("no_name_server")]
    hcm = b.hcm({"virtual_hosts": [b.vhost(b.route("/"))]}, access_log=[])
    answers = b.hcm({"virtual_hosts": [b.vhost(ANSWER)]}, access_log=[])
    listener = {"name": "answers", "address": b.port("answers"), "filter_chains": [{"filters": [answers]}]}
    return b.render(b.bootstrap([hcm], [cluster], more_listeners=[listener]), ports)


@pytest.fixture
def ports():
    return dict(zip(("main", "admin", "answers", "no_name_server"), free_ports(4), strict=True))


@pytest.fixture
def proxy(ports):
    running = Forkproxy(config(ports), admin_port=ports["admin"])
    running.start()
    yield running
    running.close()


def get(ports):
    connection = http.client.HTTPConnection("127.0.0.1", ports["main"], timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def resolver(proxy):
    """The resolver's pid, None while there is none."""
    return next((pid for pid in proxy.pids()[1:] if process_name(pid) == "forkproxy:dns"), None)


def reload(proxy):
    os.kill(proxy.pids()[0], signal.SIGHUP)


def generation(proxy):
    return b'"generation": 2' in proxy.admin("/workers")[1]


def test_the_first_request_finds_a_resolved_cluster(proxy, ports):
    assert get(ports) == (200, b"resolved")
    clusters = proxy.admin("/clusters")[1].decode()
    assert f"up::127.0.0.1:{ports['answers']}::hostname::localhost" in clusters
    assert f"up::127.0.0.1:{ports['answers']}::cx_total::1" in clusters


def test_a_dead_resolver_is_replaced_and_addresses_stay(proxy, ports):
    first = resolver(proxy)
    os.kill(first, signal.SIGKILL)
    assert get(ports) == (200, b"resolved")
    until(lambda: resolver(proxy) not in (None, first))
    assert get(ports) == (200, b"resolved")


def test_a_reload_brings_a_resolver_of_its_own(proxy, ports):
    first = resolver(proxy)
    reload(proxy)
    until(lambda: generation(proxy))
    until(lambda: not is_alive(first))
    until(lambda: resolver(proxy) not in (None, first))
    assert get(ports) == (200, b"resolved")


def test_a_reload_without_names_ends_the_resolver(proxy, ports):
    first = resolver(proxy)
    text = config(ports, host="127.0.0.1").replace("STRICT_DNS", "STATIC")
    proxy.config_path.write_text(text)
    reload(proxy)
    until(lambda: generation(proxy))
    until(lambda: not is_alive(first))
    assert resolver(proxy) is None
    assert get(ports) == (200, b"resolved")


def test_the_resolver_follows_the_supervisor(proxy):
    pids = proxy.pids()
    os.kill(pids[0], signal.SIGKILL)
    proxy.process.wait()
    until(lambda: not any(is_alive(pid) for pid in pids))


def test_a_name_that_is_not_there_holds_up_nobody_for_ever(ports):
    # Nobody answers there: start-up goes on, and requests fail.
    proxy = Forkproxy(config(ports, host="name.invalid"), admin_port=ports["admin"])
    proxy.start()
    try:
        assert get(ports)[0] == 503
    finally:
        proxy.close()


@pytest.fixture
def names():
    """A name server in a thread of the test's own."""
    loop = LiveLoop()
    server = NameServer(loop)
    done = threading.Event()

    def serve():
        while not done.is_set():
            loop.run_once(0.02)

    thread = threading.Thread(target=serve)
    thread.start()
    yield server
    done.set()
    thread.join()
    server.close()
    loop.close()
    assert loop.errors == []


def endpoints(proxy):
    """{address: rq_total} as /clusters tells it in text and as JSON; the two pages may lie on either side of a change."""
    return until(lambda: agreed(proxy))[0]


def agreed(proxy):
    text = proxy.admin("/clusters")[1].decode()
    found = {ip: int(count) for ip, count in re.findall(r"^up::([\d.]+):\d+::rq_total::(\d+)$", text, re.MULTILINE)}
    (cluster,) = [
        c for c in json.loads(proxy.admin("/clusters?format=json")[1])["cluster_statuses"] if c["name"] == "up"
    ]
    as_json = {}
    for host in cluster.get("host_statuses", ()):
        counters = {entry["name"]: int(entry.get("value", 0)) for entry in host["stats"]}
        as_json[host["address"]["socket_address"]["address"]] = counters["rq_total"]
    return [found] if as_json == found else None


def test_figures_follow_the_addresses(ports, names):
    names.records["up.test.", "A"] = (1, ["127.0.0.1"])
    data = yaml.safe_load(config(ports, host="up.test"))
    (up,) = data["static_resources"]["clusters"]
    up["dns_resolvers"][0]["socket_address"]["port_value"] = names.address[1]
    up["respect_dns_ttl"] = True
    answers = data["static_resources"]["listeners"][1]
    answers["address"]["socket_address"]["address"] = "0.0.0.0"
    proxy = Forkproxy(yaml.safe_dump(data), admin_port=ports["admin"])
    proxy.start()
    try:
        for _ in range(3):
            assert get(ports) == (200, b"resolved")
        assert endpoints(proxy) == {"127.0.0.1": 3}
        names.records["up.test.", "A"] = (1, ["127.0.0.2", "127.0.0.3"])
        until(lambda: set(endpoints(proxy)) == {"127.0.0.2", "127.0.0.3"})
        # Nothing of the address that has gone is theirs.
        assert sum(endpoints(proxy).values()) == 0
        for _ in range(4):
            get(ports)
        assert endpoints(proxy) == {"127.0.0.2": 2, "127.0.0.3": 2}
        # Over a reload, in another order and with a third, each keeps its own.
        names.records["up.test.", "A"] = (1, ["127.0.0.4", "127.0.0.3", "127.0.0.2"])
        reload(proxy)
        until(lambda: generation(proxy))
        until(lambda: len(endpoints(proxy)) == 3)
        assert endpoints(proxy) == {"127.0.0.2": 2, "127.0.0.3": 2, "127.0.0.4": 0}
    finally:
        proxy.close()
