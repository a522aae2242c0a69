"""Resolution against a name server of the test's own on loopback; nothing here asks the machine's resolver."""

import gc
import os
import subprocess
import sys
import weakref

import dns.rcode
import pytest

from forkproxy.upstream.dns import (
    DnsResolver,
    ResolvConf,
    SystemFiles,
    Target,
    _back_off_s,
    candidate_names,
    parse_hosts,
    parse_resolv_conf,
)
from tests.support.live_loop import LiveLoop
from tests.support.name_server import NameServer


class World:
    """A loop, a name server, the system's files, and the resolver's messages."""

    def __init__(self, tmp_path):
        self.loop = LiveLoop()
        self.server = NameServer(self.loop)
        self.resolv_conf = tmp_path / "resolv.conf"
        self.hosts = tmp_path / "hosts"
        self.resolv_conf.write_text("")
        self.hosts.write_text("")
        self.said = []
        self.counted = []
        self.resolver = None

    def emit(self, message):
        (self.counted if message["op"] == "update" else self.said).append(message)

    def target(self, *hosts, cluster="c", type="STRICT_DNS", **fields):
        fields.setdefault("resolvers", (self.server.address,))
        fields.setdefault("family", "V4_ONLY")
        return Target(cluster, type, tuple(hosts), **fields)

    def resolve(self, *targets, **arguments):
        arguments.setdefault("timeout_s", 0.1)
        arguments.setdefault("attempts", 2)
        files = arguments.pop("files", None) or SystemFiles(str(self.resolv_conf), str(self.hosts))
        self.resolver = DnsResolver(self.loop, targets, self.emit, files=files, min_refresh_s=0.01, **arguments)
        self.resolver.start()
        return self

    def until(self, condition):
        self.loop.run_until(lambda: condition(self.said))
        return self

    def complete(self):
        return self.until(lambda said: any(message.get("complete") for message in said))

    def endpoints(self):
        return [message["endpoints"] for message in self.said if message["op"] == "endpoints"]

    def addresses(self):
        return [each["ip"] for each in self.endpoints()[-1]]

    def failures(self):
        return [message for message in self.said if message["op"] == "dns_failure"]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    if world.resolver:
        world.resolver.stop()
    world.server.close()
    world.loop.passes(1)
    world.loop.close()


def test_strict_dns_takes_every_address_of_every_name(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1", "10.0.0.2"])
    world.server.records[("b.test.", "A")] = (60, ["10.0.1.1"])
    world.resolve(world.target(("a.test", 80), ("b.test", 81))).complete()
    assert world.said[-1] == {
        "op": "endpoints",
        "cluster": "c",
        "complete": True,
        "ttl_s": 5,
        "endpoints": [
            {"host": "a.test", "ip": "10.0.0.1", "port": 80, "index": 0},
            {"host": "a.test", "ip": "10.0.0.2", "port": 80, "index": 0},
            {"host": "b.test", "ip": "10.0.1.1", "port": 81, "index": 1},
        ],
    }


def test_logical_dns_goes_by_the_order_of_the_addresses(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1", "10.0.0.2"])
    world.resolve(world.target(("a.test", 80), type="LOGICAL_DNS", refresh_s=0.01)).complete()
    assert world.addresses() == ["10.0.0.1", "10.0.0.2"]
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.2", "10.0.0.1"])
    world.until(lambda said: len(said) == 2)
    assert world.addresses() == ["10.0.0.2", "10.0.0.1"]


def test_addresses_need_no_name_server(world):
    world.resolve(world.target(("10.1.2.3", 80), ("::1", 81), family="AUTO")).complete()
    assert world.addresses() == ["10.1.2.3", "::1"]
    assert world.server.asked == []
    assert len(world.said) == 1


def test_a_cluster_without_endpoints_is_complete_at_once(world):
    world.resolve(world.target()).complete()
    assert world.addresses() == []


@pytest.mark.parametrize(
    ("family", "both", "only_4", "only_6"),
    [
        ("V4_ONLY", ["4"], ["4"], []),
        ("V6_ONLY", ["6"], [], ["6"]),
        ("AUTO", ["6"], ["4"], ["6"]),
        ("V4_PREFERRED", ["4"], ["4"], ["6"]),
        ("ALL", ["6", "4"], ["4"], ["6"]),
    ],
)
def test_families(world, family, both, only_4, only_6):
    records = world.server.records
    records[("both.test.", "A")] = records[("four.test.", "A")] = (60, ["10.0.0.4"])
    records[("both.test.", "AAAA")] = records[("six.test.", "AAAA")] = (60, ["fd00::6"])
    targets = [world.target((f"{name}.test", 1), cluster=name, family=family) for name in ("both", "four", "six")]
    world.resolve(*targets).until(lambda said: len(said) == 3)
    found = {each["cluster"]: [e["ip"][-1] for e in each["endpoints"]] for each in world.said}
    assert found == {"both": both, "four": only_4, "six": only_6}


def test_aliases_are_followed_and_the_smallest_ttl_counts(world):
    world.server.aliases["a.test."] = (7, "b.test.")
    world.server.records[("b.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80), respect_ttl=True)).complete()
    assert world.addresses() == ["10.0.0.1"]
    assert world.said[-1]["ttl_s"] == 7


def test_the_hosts_file_comes_first_and_is_read_again_when_it_changes(world):
    world.hosts.write_text("10.9.9.9 A.test other # comment\nfd00::9 a.test\nnonsense a.test\n")
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80), refresh_s=0.02)).complete()
    assert world.addresses() == ["10.9.9.9"]
    assert world.server.asked == []
    world.hosts.write_text("10.8.8.8 a.test\n")
    os.utime(world.hosts, ns=(1, 1))
    world.until(lambda said: world.addresses() == ["10.8.8.8"])
    world.hosts.unlink()
    world.until(lambda said: world.addresses() == ["10.0.0.1"])


@pytest.mark.parametrize(("family", "found"), [("V4_ONLY", "127.0.0.1"), ("AUTO", "::1")])
def test_localhost_is_never_asked_of_a_name_server(world, family, found):
    world.resolve(world.target(("LocalHost", 80), family=family)).complete()
    assert world.addresses() == [found]
    assert world.server.asked == []


def test_the_systems_resolver_with_its_search_list(world):
    ip, port = world.server.address
    world.server.records[("web.corp.test.", "A")] = (60, ["10.0.0.1"])
    files = SystemFiles(str(world.resolv_conf), str(world.hosts))
    files.resolv_conf = lambda: ResolvConf(((ip, port),), ("first.test", "corp.test"))  # port 53 is not the test's
    world.resolve(world.target(("web", 80), resolvers=()), files=files).complete()
    assert world.addresses() == ["10.0.0.1"]
    assert world.server.names() == [("web.first.test.", "A"), ("web.corp.test.", "A")]


def test_resolv_conf_is_read(world):
    world.resolv_conf.write_text("nameserver 192.0.2.53\nsearch corp.test\n")
    world.resolve()
    conf = world.resolver.conf(world.target(("a", 1), resolvers=()))
    assert conf == ResolvConf((("192.0.2.53", 53),), ("corp.test",), 1, 0.1, 2)
    own = world.resolver.conf(world.target(("a", 1)))
    assert (own.servers, own.search) == ((world.server.address,), ())


def test_a_name_that_does_not_exist_empties_a_strict_cluster(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80), refresh_s=0.02)).complete()
    del world.server.records[("a.test.", "A")]
    world.until(lambda said: world.addresses() == [])
    assert world.failures() == []


def test_a_name_that_does_not_exist_leaves_a_logical_cluster_its_address(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80), type="LOGICAL_DNS", refresh_s=0.01)).complete()
    del world.server.records[("a.test.", "A")]
    asked = len(world.server.asked)
    world.until(lambda said: len(world.server.asked) > asked + 3)
    assert world.endpoints() == [[{"host": "a.test", "ip": "10.0.0.1", "port": 80, "index": 0}]]


def test_a_failure_is_reported_and_the_last_addresses_stay(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80), refresh_s=0.01, failure_base_s=0.02, failure_max_s=0.02)).complete()
    world.server.rcodes["a.test."] = dns.rcode.SERVFAIL
    world.until(lambda said: len(world.failures()) == 2)
    assert len(world.endpoints()) == 1
    first, second = world.failures()
    ip, port = world.server.address
    assert first == {
        "op": "dns_failure",
        "cluster": "c",
        "host": "a.test",
        "reason": f"SERVFAIL ({ip}:{port})",
        "failures": 1,
        "retry_s": 0.02,
    }
    assert second["failures"] == 2
    del world.server.rcodes["a.test."]
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.2"])
    world.until(lambda said: world.addresses() == ["10.0.0.2"])


def test_a_first_failure_makes_the_cluster_complete_and_empty(world):
    world.server.rcodes["a.test."] = dns.rcode.REFUSED
    world.resolve(world.target(("a.test", 80))).complete()
    assert world.addresses() == []


def test_one_names_failure_does_not_hold_the_others_back(world):
    world.server.silent.add("slow.test.")
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("slow.test", 80), ("a.test", 80))).complete()
    first, last = (message for message in world.said if message["op"] == "endpoints")
    assert (first["complete"], last["complete"]) == (False, True)
    assert first["endpoints"] == last["endpoints"] == [{"host": "a.test", "ip": "10.0.0.1", "port": 80, "index": 1}]


def test_silence_is_asked_again_and_then_the_next_server(world):
    silent = NameServer(world.loop)
    silent.silent.add("a.test.")
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80), resolvers=(silent.address, world.server.address))).complete()
    assert world.addresses() == ["10.0.0.1"]
    assert len(silent.asked) == 1
    silent.close()


def test_a_server_that_never_answers_times_out_after_its_attempts(world):
    world.server.silent.add("a.test.")
    world.resolve(world.target(("a.test", 80)), attempts=3).until(lambda said: world.failures())
    assert len(world.server.asked) == 3
    assert world.failures()[0]["reason"].startswith("timed out")


def test_a_closed_port_is_found_at_once(world):
    dead = NameServer(world.loop)
    dead.close()
    world.resolve(world.target(("a.test", 80), resolvers=(dead.address,)), timeout_s=60)
    world.until(lambda said: world.failures())
    assert "Connection refused" in world.failures()[0]["reason"]


def test_a_truncated_answer_is_asked_again_over_tcp(world):
    world.server.truncated.add("a.test.")
    many = [f"10.0.{i // 250}.{i % 250}" for i in range(1000)]
    world.server.records[("a.test.", "A")] = (60, many)
    world.resolve(world.target(("a.test", 80)), timeout_s=5).complete()
    assert sorted(world.addresses()) == sorted(many)
    assert [how for how, _, _ in world.server.asked] == ["udp", "tcp"]


def test_tcp_only(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80), use_tcp=True)).complete()
    assert [how for how, _, _ in world.server.asked] == ["tcp"]


def test_answers_with_another_id_and_garbage_are_not_believed(world):
    world.server.forged_first.add("a.test.")
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80))).complete()
    assert world.addresses() == ["10.0.0.1"]


@pytest.mark.parametrize("name", ["a..test", "x" * 70, "é" * 80])
def test_what_is_no_host_name_is_a_failure_not_an_exception(world, name):
    world.resolve(world.target((name, 80))).until(lambda said: world.failures())
    assert "not a host name" in world.failures()[0]["reason"]


def test_unchanged_answers_are_not_told_again_whatever_their_order(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1", "10.0.0.2"])
    world.resolve(world.target(("a.test", 80), refresh_s=0.01)).complete()
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.2", "10.0.0.1"])
    asked = len(world.server.asked)
    world.until(lambda said: len(world.server.asked) > asked + 3)
    assert len(world.said) == 1


def test_the_ttl_decides_when_to_look_again_only_if_it_is_to_be_respected(world):
    world.server.records[("a.test.", "A")] = (30, ["10.0.0.1"])
    world.resolve(
        world.target(("a.test", 80), cluster="respects", respect_ttl=True, refresh_s=9.0),
        world.target(("a.test", 80), cluster="does not", refresh_s=9.0),
    ).until(lambda said: len(said) == 2)
    assert {each["cluster"]: each["ttl_s"] for each in world.said} == {"respects": 30, "does not": 9}
    world.server.records[("a.test.", "A")] = (0, ["10.0.0.2"])
    world.resolver.set_targets([world.target(("a.test", 80), cluster="zero", respect_ttl=True, refresh_s=9.0)])
    world.until(lambda said: said[-1]["cluster"] == "zero")
    assert world.said[-1]["ttl_s"] == 9


def test_a_reload_keeps_what_is_unchanged_and_stops_what_is_gone(world):
    for name in "abc":
        world.server.records[(f"{name}.test.", "A")] = (60, ["10.0.0.1"])
    kept = world.target(("a.test", 80), cluster="kept")
    gone = world.target(("b.test", 80), cluster="gone", refresh_s=0.01)
    world.resolve(kept, gone).until(lambda said: len(said) == 2)
    world.resolver.set_targets([kept, world.target(("c.test", 80), cluster="new")])
    before = len(world.server.names())
    world.until(lambda said: said[-1]["cluster"] == "new")
    world.loop.run_once(0.03)
    world.loop.run_once(0.03)
    assert world.server.names()[before:] == [("c.test.", "A")]


def test_after_stop_nothing_is_said(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80)))
    world.resolver.stop()
    world.loop.passes(5)
    assert world.said == []


def test_back_off_grows_to_its_maximum_with_jitter():
    target = Target("c", "STRICT_DNS", (), failure_base_s=1.0, failure_max_s=10.0)
    for failures, ceiling in ((1, 2.0), (3, 8.0), (4, 10.0), (1000, 10.0)):
        delays = [_back_off_s(target, failures) for _ in range(300)]
        assert all(1.0 <= delay <= ceiling for delay in delays)
        assert max(delays) > 0.8 * ceiling
    assert _back_off_s(Target("c", "STRICT_DNS", (), failure_base_s=5.0, failure_max_s=5.0), 9) == 5.0


def test_candidate_names():
    conf = ResolvConf(search=("x.test", "y.test"), ndots=2)
    assert candidate_names("a.b", conf) == ["a.b.x.test.", "a.b.y.test.", "a.b."]
    assert candidate_names("a.b.c", conf) == ["a.b.c.", "a.b.c.x.test.", "a.b.c.y.test."]
    assert candidate_names("a.", conf) == ["a."]


def test_parse_resolv_conf():
    text = """
    # comment
    nameserver 192.0.2.1 ; trailing
    nameserver nonsense
    nameserver 2001:db8::1
    nameserver 192.0.2.3
    nameserver 192.0.2.4
    domain old.test
    search a.test. b.test
    options ndots:99 timeout:0 attempts:3 rotate ndots:x
    """
    assert parse_resolv_conf(text) == ResolvConf(
        (("192.0.2.1", 53), ("2001:db8::1", 53), ("192.0.2.3", 53)), ("a.test", "b.test"), 15, 1, 3
    )
    assert parse_resolv_conf("\x00garbage\nnameserver") == ResolvConf()


def test_parse_hosts():
    assert parse_hosts("127.0.0.1 A b\n::1 a # c\n\nbad x\n") == {"a": ("127.0.0.1", "::1"), "b": ("127.0.0.1",)}


def test_missing_files_are_empty_ones(tmp_path):
    files = SystemFiles(str(tmp_path / "none"), str(tmp_path / "nothing"))
    assert files.resolv_conf() == ResolvConf()
    assert files.addresses("a") == ()


def test_importing_the_module_does_not_import_dnspython():
    code = "import sys, forkproxy.upstream.dns; print([m for m in sys.modules if m == 'dns' or m.startswith('dns.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def results(world):
    return [message["results"] for message in world.counted]


def test_what_is_counted_of_resolutions(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve(world.target(("a.test", 80), refresh_s=0.02)).until(lambda _said: len(world.counted) == 2)
    assert results(world) == [["attempt", "success"], ["attempt", "success", "no_rebuild"]]
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.2"])
    world.until(lambda _said: results(world)[-1] == ["attempt", "success"])


@pytest.mark.parametrize(
    ("type", "expected"),
    [("STRICT_DNS", ["attempt", "success", "no_rebuild"]), ("LOGICAL_DNS", ["attempt", "failure"])],
)
def test_a_name_that_does_not_exist_is_a_failure_for_logical_dns_only(world, type, expected):
    world.resolve(world.target(("a.test", 80), type=type)).complete()
    assert results(world) == [expected]


def test_a_server_that_refuses_is_a_failure(world):
    world.server.rcodes["a.test."] = dns.rcode.SERVFAIL
    world.resolve(world.target(("a.test", 80)), attempts=1).complete()
    assert results(world) == [["attempt", "failure"]]


def test_jitter_puts_the_next_look_off(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    looks = set()
    for number in range(8):
        world.said.clear()
        world.resolve(world.target(("a.test", 80), cluster=str(number), refresh_s=100.0, jitter_s=1000.0)).complete()
        looks.add(world.said[-1]["ttl_s"])
    assert min(looks) >= 100
    assert max(looks) > 100
    assert len(looks) > 1


# -- hosts of a DNS cache


def host(world, name="a.test", **fields):
    return world.target((name, 80), cluster=f"cache\0{name}:80", type="HOST", **fields)


def test_a_host_is_told_after_every_resolution_with_all_addresses(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1", "10.0.0.2"])
    world.resolve()
    world.resolver.add(host(world, refresh_s=0.02))
    world.until(lambda said: len(said) == 2)
    assert world.said[0] == {
        "op": "host",
        "host": "cache\0a.test:80",
        "addresses": ["10.0.0.1", "10.0.0.2"],
        "results": ["success"],
        "reason": "",
    }
    assert world.said[1]["results"] == ["success", "no_rebuild"]


def test_a_host_that_is_removed_is_asked_no_more(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve()
    world.resolver.add(host(world, refresh_s=0.01))
    world.until(lambda said: len(said) == 1)
    world.resolver.remove("cache\0a.test:80")
    world.resolver.add(host(world, "b.test"))
    world.until(lambda said: said[-1]["host"] == "cache\0b.test:80")
    asked = world.server.asked.count(("udp", "a.test.", "A"))
    world.resolver.add(host(world, "c.test"))
    world.until(lambda said: said[-1]["host"] == "cache\0c.test:80")
    assert world.server.asked.count(("udp", "a.test.", "A")) == asked


def test_a_host_that_is_removed_is_let_go_at_once(world):
    """Not when it would have been asked again: that may be a day."""
    world.server.records[("a.test.", "A")] = (86400, ["10.0.0.1"])
    world.resolve()
    world.resolver.add(host(world, respect_ttl=True, query_timeout_s=60.0))
    world.until(lambda said: len(said) == 1)
    (removed,) = (weakref.ref(each) for each in world.resolver._clusters.values())
    world.resolver.remove("cache\0a.test:80")
    gc.collect()
    assert removed() is None


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({}, "cares_norecords:Domain_name_not_found"),
        ({("a.test.", "AAAA"): (60, ["fd00::1"])}, "cares_norecords:DNS_server_returned_answer_with_no_data"),
    ],
)
def test_a_host_without_addresses_has_a_reason(world, records, reason):
    world.server.records.update(records)
    world.resolve()
    world.resolver.add(host(world))
    world.until(lambda said: len(said) == 1)
    assert (world.said[0]["addresses"], world.said[0]["reason"]) == ([], reason)


@pytest.mark.parametrize("name", ["[::1", "user@a.test", "a.test:x", "a.test%00", "fe80::1%lo", "é.test", "a..test"])
def test_name_servers_are_not_asked_for_what_is_no_name(world, name):
    world.resolve()
    world.resolver.add(host(world, name))
    world.until(lambda said: len(said) == 1)
    assert (world.said[0]["addresses"], world.said[0]["reason"]) == ([], "cares_failure:Misformatted_domain_name")
    assert world.server.asked == []


@pytest.mark.parametrize(
    ("rcode", "reason"),
    [
        (dns.rcode.SERVFAIL, "cares_failure:DNS server returned general failure"),
        (dns.rcode.REFUSED, "cares_failure:DNS server refused query"),
    ],
)
def test_a_server_that_refuses_a_host_is_a_reason(world, rcode, reason):
    world.server.rcodes["a.test."] = rcode
    world.resolve()
    world.resolver.add(host(world))
    world.until(lambda said: len(said) == 1)
    assert world.said[0]["reason"] == reason


def test_the_query_timeout_ends_a_resolution(world):
    world.server.silent.add("a.test.")
    world.resolve(timeout_s=60.0)
    world.resolver.add(host(world, query_timeout_s=0.02))
    world.until(lambda said: len(said) == 1)
    assert (world.said[0]["results"], world.said[0]["reason"]) == (["failure", "timeout"], "resolve_timeout")


def test_a_host_keeps_its_addresses_when_a_later_resolution_fails(world):
    world.server.records[("a.test.", "A")] = (60, ["10.0.0.1"])
    world.resolve()
    world.resolver.add(host(world, refresh_s=0.01, failure_base_s=0.01, failure_max_s=0.01))
    world.until(lambda said: len(said) == 1)
    world.server.records.clear()
    world.until(lambda said: said[-1]["results"] == ["failure"])
    assert world.said[-1]["addresses"] == ["10.0.0.1"]
