"""local_reply_config: which mapper is taken and what it does. What comes of it on the wire is played beside Envoy."""

from forkproxy.config.build.http_connection_manager import build, type_url
from forkproxy.config.build.local_reply import build_local_reply
from forkproxy.config.build.route import RouteEntry, RouteMatch
from forkproxy.filters.local_replies import compile_local_reply
from tests.support.playbook import play, route
from tests.unit.config.build.building import built

GET = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"


def config(text):
    outcome = built(build_local_reply, type_url.replace("HttpConnectionManager", "LocalReplyConfig"), text)
    assert not outcome.unread
    return outcome.value


def answered(text, request=GET, status=403, body=b"no"):
    """What a direct response becomes."""
    p = play(routes=[route(direct=(status, body))], local_reply=config(text))
    p.downstream(request)
    return p.down.read()


def code(op, value):
    return f"{{status_code_filter: {{comparison: {{op: {op}, value: {{default_value: {value}, runtime_key: k}}}}}}}}"


def test_the_first_mapper_that_passes_is_the_only_one():
    added = "headers_to_add: [{header: {key: x-which, value: %s}}]"
    mappers = [
        f"{{filter: {code('GE', 500)}, {added % 'high'}}}",
        f"{{filter: {code('EQ', 403)}, status_code: 418, {added % 'first'}}}",
        f"{{filter: {code('GE', 400)}, {added % 'second'}}}",
    ]
    said = answered(f"{{mappers: [{', '.join(mappers)}]}}")
    assert said.startswith(b"HTTP/1.1 418 ")
    assert b"x-which: first\r\n" in said
    assert said.count(b"x-which") == 1


def test_a_format_sees_the_new_body_and_the_new_code():
    form = "{text_format_source: {inline_string: '%LOCAL_REPLY_BODY% %RESPONSE_CODE%'}, content_type: text/x}"
    mapper = (
        f"{{filter: {code('EQ', 403)}, status_code: 599, body: {{inline_string: new}}, body_format_override: {form}}}"
    )
    said = answered(f"{{mappers: [{mapper}]}}")
    assert b"content-length: 7\r\ncontent-type: text/x\r\n" in said
    assert said.endswith(b"new 599")


def test_the_format_for_all_is_for_those_without_a_mapper():
    said = answered("{body_format: {json_format: {said: '%LOCAL_REPLY_BODY%'}}}")
    assert b"content-type: application/json\r\n" in said
    assert said.endswith(b'{"said":"no"}\n')


def test_204_and_304_have_no_body():
    for status in (204, 304):
        said = answered(f"{{mappers: [{{filter: {code('EQ', 403)}, status_code: {status}}}]}}")
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert said.endswith(b"\r\n\r\n")


def test_a_grpc_message_has_no_line_end():
    request = GET.replace(b"\r\n\r\n", b"\r\ncontent-type: application/grpc\r\n\r\n")
    said = answered("{body_format: {json_format: {said: '%LOCAL_REPLY_BODY%'}}}", request)
    assert b'grpc-message: {"said":"no"}\r\n' in said


def test_nothing_to_do_is_nothing():
    assert compile_local_reply(config("{}"), {}) is None


def test_a_local_reply_carries_the_routes_headers_before_its_own():
    added = (
        built(
            build,
            type_url,
            "{stat_prefix: s, route_config: {virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /},"
            " route: {cluster: up}, response_headers_to_add: [{header: {key: x-route, value: '%RESPONSE_CODE%'}}]}]}]}}",
        )
        .value.route_table.virtual_hosts[0]
        .routes[0]
    )
    entry = RouteEntry("/", RouteMatch("prefix", "/"), route().action, added.headers, route().where, {})
    p = play(routes=[entry], cluster={"localities": ()})
    p.downstream(GET)
    assert p.down.read().startswith(b"HTTP/1.1 503 Service Unavailable\r\nx-route: 0\r\ncontent-length: 19\r\n")
