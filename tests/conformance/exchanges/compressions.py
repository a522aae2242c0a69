"""The compressor and the decompressor: when they act, what they change, what they count. Bodies are compared unpacked."""

from __future__ import annotations

import gzip
import zlib

import brotli

from forkproxy.filters.http.zstd_compression import zstd
from tests.conformance.exchanges.filter_configurations import EXTENSION, OFF, ON, ROUTER_FILTER, UP, on
from tests.support.bootstrap import LOG_FIELDS, TYPE, Data, bootstrap, file_log, hcm, route, vhost
from tests.support.exchange import Exchange

LIBRARY = TYPE + "envoy.extensions.compression.gzip."
# How long a compressed body is depends on the library and on how it was cut into pieces.
LOG = file_log(json_format={name: text for name, text in LOG_FIELDS.items() if name not in ("rx", "tx")})
PER_ROUTE = {"@type": EXTENSION + "compressor.v3.CompressorPerRoute"}
TEXT = b"Lorem ipsum dolor sit amet. " * 20
PLAIN = b"content-type: text/plain\r\n"


def library(kind: str, **fields: object) -> Data:
    return {"name": "zip", "typed_config": {"@type": f"{LIBRARY}{kind}.v3.Gzip", **fields}}


def other(
    library_name: str, kind: str, name: str, response_direction_config: Data | None = None, **fields: object
) -> Data:
    """A filter with another library than gzip."""
    message = f"{TYPE}envoy.extensions.compression.{library_name}.{kind}.v3.{library_name.capitalize()}"
    config = {
        "@type": f"{EXTENSION}{kind}.v3.{kind.capitalize()}",
        f"{kind}_library": {"name": "zip", "typed_config": {"@type": message, **fields}},
    }
    if response_direction_config is not None:
        config["response_direction_config"] = response_direction_config
    return {"name": name, "typed_config": config}


def compressor(name: str, *, gzip_fields: Data | None = None, **fields: object) -> Data:
    config = {
        "@type": EXTENSION + "compressor.v3.Compressor",
        "compressor_library": library("compressor", **gzip_fields or {}),
    }
    return {"name": name, "typed_config": {**config, **fields}}


def decompressor(name: str, *, gzip_fields: Data | None = None, **fields: object) -> Data:
    config = {
        "@type": EXTENSION + "decompressor.v3.Decompressor",
        "decompressor_library": library("decompressor", **gzip_fields or {}),
    }
    return {"name": name, "typed_config": {**config, **fields}}


def flag(value: bool) -> Data:
    return {"default_value": value, "runtime_key": "a.key"}


HTTP_OPTIONS = TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
UP_WITH_TRAILERS = {
    **UP,
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": HTTP_OPTIONS,
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
        }
    },
}


BROTLI: Data = {
    "name": "of the route",
    "typed_config": {"@type": TYPE + "envoy.extensions.compression.brotli.compressor.v3.Brotli"},
}


def proxy(*filters: Data, up: Data = UP, **fields: object) -> Data:
    def per_route(prefix: str, **said: object) -> Data:
        return on("c", prefix, {**PER_ROUTE, **said})

    def response(**said: object) -> Data:
        return {"overrides": {"response_direction_config": said}}

    host = vhost(
        on("c", "/off", OFF),
        on("c", "/on", ON),
        per_route("/disabled", disabled=True),
        per_route("/enabled", **response()),
        per_route("/removed", **response(remove_accept_encoding_header=True)),
        per_route("/kept", **response(remove_accept_encoding_header=False)),
        per_route("/empty", overrides={}),
        per_route("/brotli", overrides={"compressor_library": BROTLI}),
        per_route("/brotli-on", overrides={**response()["overrides"], "compressor_library": BROTLI}),
        per_route("/best", overrides={"compressor_library": library("compressor", compression_level="BEST_SPEED")}),
        {
            "match": {"prefix": "/direct"},
            "direct_response": {"status": 200, "body": {"inline_string": "hello " * 20}},
        },
        route("/"),
    )
    return bootstrap(
        [hcm({"virtual_hosts": [host]}, http_filters=[*filters, ROUTER_FILTER], access_log=LOG, **fields)], [up]
    )


REQUESTS = {"request_direction_config": {"common_config": {"enabled": flag(True), "min_content_length": 10}}}
STATUS = {"status_header_enabled": True, "disable_on_etag_header": True, "uncompressible_response_codes": [206]}
CONFIGURATIONS = {
    "compressing": proxy(compressor("c")),
    "compressing_types": proxy(
        compressor(
            "c",
            gzip_fields={"memory_level": 9, "window_bits": 15, "compression_level": "BEST_SPEED"},
            response_direction_config={
                "common_config": {"min_content_length": 100, "content_type": ["Text/HTML", "application/x-own"]},
                "disable_on_etag_header": True,
                "remove_accept_encoding_header": True,
                "uncompressible_response_codes": [206, 404],
            },
        )
    ),
    "compressing_status": proxy(
        compressor("c", response_direction_config=STATUS),
        other("brotli", "compressor", "d", STATUS),
    ),
    "compressing_deprecated": proxy(
        compressor(
            "c",
            content_length=100,
            content_type=["text/html"],
            disable_on_etag_header=True,
            remove_accept_encoding_header=True,
        )
    ),
    "compressing_disabled": proxy(
        compressor("c", response_direction_config={"common_config": {"enabled": flag(False)}})
    ),
    "compressing_requests": proxy(compressor("c", **REQUESTS)),
    "compressing_twice": proxy(
        compressor("c", response_direction_config={"common_config": {"content_type": ["text/html"]}}),
        compressor("d", choose_first=True),
    ),
    "decompressing": proxy(decompressor("c")),
    "decompressing_quietly": proxy(
        decompressor(
            "c",
            gzip_fields={"window_bits": 15, "max_inflate_ratio": 2, "chunk_size": 4096},
            request_direction_config={
                "common_config": {"enabled": flag(False)},
                "advertise_accept_encoding": False,
            },
            response_direction_config={"common_config": {"ignore_no_transform_header": True}},
        )
    ),
    "decompressing_requests_only": proxy(
        decompressor("c", response_direction_config={"common_config": {"enabled": flag(False)}})
    ),
    "compressing_trailers": proxy(
        compressor("c", **REQUESTS), up=UP_WITH_TRAILERS, http_protocol_options={"enable_trailers": True}
    ),
    "decompressing_trailers": proxy(
        decompressor("c"), up=UP_WITH_TRAILERS, http_protocol_options={"enable_trailers": True}
    ),
    "compressing_brotli": proxy(
        other(
            "brotli", "compressor", "c", quality=5, encoder_mode="TEXT", window_bits=16, input_block_bits=16, chunk_size=4096
        )
    ),
    "compressing_zstd": proxy(
        other("zstd", "compressor", "c", compression_level=5, enable_checksum=True, strategy="LAZY", chunk_size=4096)
    ),
    "compressing_any": proxy(
        compressor("c"), other("brotli", "compressor", "d"), other("zstd", "compressor", "e")
    ),
    "decompressing_brotli": proxy(
        other("brotli", "decompressor", "c", disable_ring_buffer_reallocation=True, chunk_size=4096)
    ),
    "decompressing_zstd": proxy(other("zstd", "decompressor", "c", chunk_size=4096)),
    "both_ways": proxy(compressor("c"), decompressor("d")),
}  # fmt: skip


def answer(
    body: bytes = TEXT, lines: bytes = PLAIN, *, status: bytes = b"200 OK", chunked: bool = False
) -> tuple[bytes]:
    if chunked:
        half = len(body) // 2
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (body[:half], body[half:]))
        return (
            b"HTTP/1.1 " + status + b"\r\n" + lines + b"transfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n",
        )
    return (b"HTTP/1.1 " + status + b"\r\n" + lines + b"content-length: %d\r\n\r\n" % len(body) + body,)


def get(
    config: str, name: str, answered: tuple[bytes, ...], accepts: bytes | None = b"gzip", path: bytes = b"/",
    *, method: bytes = b"GET", lines: bytes = b"", **more: object,
) -> Exchange:  # fmt: skip
    if accepts is not None:
        lines += b"accept-encoding: " + accepts + b"\r\n"
    head = method + b" " + path + b" HTTP/1.1\r\nhost: h\r\n" + lines + b"\r\n"
    return Exchange(f"{config}: {name}", (head,), (answered,), config=config, **more)  # type: ignore[arg-type]


def post(config: str, name: str, body: bytes, lines: bytes = PLAIN, *, chunked: bool = False) -> Exchange:
    if chunked:
        sent = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        sent = b"content-length: %d\r\n\r\n%b" % (len(body), body)
    return Exchange(f"{config}: {name}", (b"POST / HTTP/1.1\r\nhost: h\r\n" + lines + sent,), config=config)


ACCEPTED = (
    *(
        b"gzip",
        b"GZIP",
        b"gzip;q=1",
        b"gzip;q=0",
        b"gzip;q=0.0",
        b"gzip;q=0.001",
        b"gzip;q=x",
        b"gzip;x=0",
        b"gzip ; q = 0",
    ),
    *(b"deflate", b"identity", b"*", b"*;q=0", b"gzip;q=0, *", b"deflate, *", b"identity, gzip", b"gzip, identity"),
    *(
        b"identity;q=0.5, gzip;q=0.4",
        b"identity;q=0.4, gzip;q=0.5",
        b"br, gzip;q=0.1",
        b"",
        b",",
        b"gzip;q=2",
        b"*, gzip;q=0.5",
    ),
    *(b"gzip;Q=0", b"gzip;q=-1", b"x-gzip"),
)
ETAG, WEAK = b'etag: "abc"\r\n', b'etag: W/"abc"\r\n'
HEADS = {
    "no content-type": b"",
    "another content-type": b"content-type: image/png\r\n",
    "a content-type with parameters": b"content-type: TEXT/HTML ; charset=utf-8\r\n",
    "an etag": PLAIN + ETAG,
    "a weak etag": PLAIN + WEAK,
    "a short etag": PLAIN + b"etag: ab\r\n",
    "no-transform": PLAIN + b"cache-control: public, No-Transform\r\n",
    "cache-control": PLAIN + b"cache-control: public\r\n",
    "compressed already": PLAIN + b"content-encoding: br\r\n",
    "identity": PLAIN + b"content-encoding: identity\r\n",
    "vary": PLAIN + b"vary: origin\r\n",
    "vary, twice": PLAIN + b"vary: origin\r\nvary: x\r\n",
    "vary by it already": PLAIN + b"vary: accept-encoding, origin\r\n",
    "vary *": PLAIN + b"vary: *\r\n",
    "its own order": b"date: x\r\nx-a: 1\r\n" + PLAIN + b"x-b: 2\r\n",
}
EXCHANGES = [
    *(get("compressing", f"accepts {each.decode() or 'nothing'}", answer(), each) for each in ACCEPTED),
    *(get("compressing", name, answer(lines=lines)) for name, lines in HEADS.items()),
    get("compressing", "no accept-encoding", answer(), None),
    get(
        "compressing",
        "two accept-encodings",
        answer(),
        b"br",
        lines=b"accept-encoding: gzip\r\n",
        compare=("downstream", "log", "stats"),
    ),
    get("compressing", "too small", answer(b"x" * 29)),
    get("compressing", "too small, not accepted", answer(b"x" * 29), b"br"),
    get("compressing", "just large enough", answer(b"x" * 30)),
    get("compressing", "empty", answer(b"")),
    get("compressing", "chunks", answer(chunked=True)),
    get("compressing", "chunks, small", answer(b"abcd", chunked=True)),
    get("compressing", "404", answer(status=b"404 Not Found")),
    get(
        "compressing",
        "HEAD",
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 500\r\n\r\n",),
        method=b"HEAD",
    ),
    get(
        "compressing", "304", (b"HTTP/1.1 304 Not Modified\r\ncontent-type: text/plain\r\ncontent-length: 500\r\n\r\n",)
    ),
    get("compressing", "206", answer(status=b"206 Partial Content")),
    get("compressing", "large", answer(bytes(range(32, 127)) * 3000)),
    get("compressing", "direct response", answer(), path=b"/direct"),
    get("compressing", "no upstream body", (b"HTTP/1.1 204 No Content\r\n\r\n",)),
    *(
        get(
            config,
            f"route {path.decode()}, accepts {accepts}",
            answer(lines=b"content-type: text/html\r\n"),
            accepts,
            path,
        )
        for config in ("compressing", "compressing_types", "compressing_disabled")
        for path in (b"/off", b"/on", b"/disabled", b"/enabled", b"/removed", b"/kept", b"/empty")
        for accepts in (b"gzip", b"br")
    ),
    *(
        get(config, name, answered)
        for config in ("compressing_types", "compressing_deprecated")
        for name, answered in {
            "text/plain": answer(),
            "text/html": answer(lines=b"content-type: text/html\r\n"),
            "own": answer(lines=b"content-type: Application/X-Own\r\n"),
            "an etag": answer(lines=b"content-type: text/html\r\n" + ETAG),
            "too small": answer(b"x" * 99, b"content-type: text/html\r\n"),
            "206": answer(lines=b"content-type: text/html\r\n", status=b"206 Partial Content"),
        }.items()
    ),
    get("compressing_disabled", "disabled", answer()),
    get("compressing_twice", "html", answer(lines=b"content-type: text/html\r\n")),
    get("compressing_twice", "text", answer()),
    get("compressing_twice", "equal", answer(lines=b"content-type: text/html\r\n"), b"identity, gzip"),
    get("compressing_twice", "none", answer(), b"br"),
    get("compressing_twice", "both anyhow", answer(), b"*"),
    post("compressing_requests", "a request", TEXT),
    post("compressing_requests", "in chunks", TEXT, chunked=True),
    post("compressing_requests", "too small", b"x" * 9),
    post("compressing_requests", "another content-type", TEXT, b"content-type: image/png\r\n"),
    post("compressing_requests", "no content-type", TEXT, b""),
    post("compressing_requests", "compressed already", TEXT, PLAIN + b"content-encoding: br\r\n"),
    post("compressing_requests", "empty", b""),
    get("compressing_requests", "a response", answer()),
    *(
        get("decompressing", f"advertised beside {each}", answer(), each)
        for each in (None, b"br", b"gzip", b"br, gzip;q=0.5", b"gzip;q=0, br", b"GZIP", b"", b"br,, deflate")
    ),
]
ZIPPED = gzip.compress(TEXT, mtime=0)
WIDE = zlib.compressobj(9, zlib.DEFLATED, 31)
WIDE_ZIPPED = WIDE.compress(TEXT) + WIDE.flush()
NARROW = zlib.compressobj(9, zlib.DEFLATED, 28)
NARROW_ZIPPED = NARROW.compress(TEXT) + NARROW.flush()
BOMB = zlib.compressobj(9, zlib.DEFLATED, 28)
BOMB_ZIPPED = BOMB.compress(b"\0" * 1_000_000) + BOMB.flush()
CODED = {
    "gzip": b"content-encoding: gzip\r\n",
    "another case": b"content-encoding: GZip\r\n",
    "first of two": b"content-encoding: gzip, br\r\n",
    "second of two": b"content-encoding: br, gzip\r\n",
    "two lines": b"content-encoding: gzip\r\ncontent-encoding: br\r\n",
    "not said": b"",
    "no-transform": b"content-encoding: gzip\r\ncache-control: no-transform\r\n",
}
EXCHANGES += [
    *(
        get(config, f"response, {name}", answer(NARROW_ZIPPED, PLAIN + lines), None)
        for config in ("decompressing", "decompressing_quietly", "decompressing_requests_only")
        for name, lines in CODED.items()
        if name != "two lines" or config == "decompressing"  # Envoy joins them, also where it does not decompress
    ),
    *(
        post(config, f"request, {name}", NARROW_ZIPPED, PLAIN + lines)
        for config in ("decompressing", "decompressing_quietly", "decompressing_requests_only")
        for name, lines in CODED.items()
        if name != "two lines" or config == "decompressing"
    ),
    get("decompressing", "chunks", answer(NARROW_ZIPPED, CODED["gzip"], chunked=True), None),
    get("decompressing", "a window that is too large", answer(WIDE_ZIPPED, CODED["gzip"]), None),
    get("decompressing_quietly", "a large window", answer(WIDE_ZIPPED, CODED["gzip"]), None),
    get("decompressing", "garbage", answer(b"this is no gzip at all", CODED["gzip"]), None),
    get("decompressing", "garbage in the end", answer(NARROW_ZIPPED[:-8] + b"\0" * 8, CODED["gzip"]), None),
    get("decompressing", "cut off", answer(NARROW_ZIPPED[:-10], CODED["gzip"]), None),
    get("decompressing", "more behind it", answer(NARROW_ZIPPED + b"more", CODED["gzip"]), None),
    get("decompressing", "two members", answer(NARROW_ZIPPED * 2, CODED["gzip"]), None),
    get("decompressing", "a bomb", answer(BOMB_ZIPPED, CODED["gzip"]), None),
    get("decompressing_quietly", "too much", answer(BOMB_ZIPPED, CODED["gzip"]), None),
    get("decompressing", "empty", answer(b"", CODED["gzip"]), None),
    get(
        "decompressing",
        "HEAD",
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\n",),
        None,
        method=b"HEAD",
    ),
    get("both_ways", "a compressed response", answer(NARROW_ZIPPED, PLAIN + CODED["gzip"])),
    get("both_ways", "a plain response", answer()),
]
TRAILERS = b"0\r\nx-trailer: 1\r\n\r\n"
EXCHANGES += [
    *(
        get(config, f"response with trailers, {name}", (head + b"%x\r\n" % len(body) + body + b"\r\n" + TRAILERS,))
        for config, body, coded in (
            ("compressing_trailers", TEXT, b""),
            ("decompressing_trailers", NARROW_ZIPPED, CODED["gzip"]),
            ("decompressing", NARROW_ZIPPED, CODED["gzip"]),
        )
        for name, lines in {"taken": PLAIN + coded, "left": b"content-type: image/png\r\n"}.items()
        for head in (b"HTTP/1.1 200 OK\r\n" + lines + b"transfer-encoding: chunked\r\n\r\n",)
    ),
    *(
        Exchange(
            f"{config}: request with trailers",
            (head + b"%x\r\n" % len(body) + body + b"\r\n" + TRAILERS,),
            config=config,
        )
        for config, body, coded in (
            ("compressing_trailers", TEXT, b""),
            ("decompressing_trailers", NARROW_ZIPPED, CODED["gzip"]),
            ("decompressing", NARROW_ZIPPED, CODED["gzip"]),
        )
        for head in (b"POST / HTTP/1.1\r\nhost: h\r\n" + PLAIN + coded + b"transfer-encoding: chunked\r\n\r\n",)
    ),
    get("decompressing_trailers", "response without trailers", answer(NARROW_ZIPPED, CODED["gzip"])),
    post("decompressing_trailers", "request without trailers", NARROW_ZIPPED, CODED["gzip"]),
    get("compressing_trailers", "response without trailers", answer()),
]
PACKED = {b"br": (b"brotli", brotli.compress(TEXT)), b"zstd": (b"zstd", zstd.compress(TEXT))}
for ENCODING, (LIBRARY_NAME, BODY) in PACKED.items():
    CODING = b"content-encoding: " + ENCODING + b"\r\n"
    for CONFIG in (f"compressing_{LIBRARY_NAME.decode()}",):
        EXCHANGES += [
            get(CONFIG, "accepted", answer(), ENCODING),
            get(CONFIG, "not accepted", answer(), b"gzip"),
            get(CONFIG, "chunks", answer(chunked=True), ENCODING),
            get(CONFIG, "large", answer(bytes(range(32, 127)) * 3000), ENCODING),
        ]
    for CONFIG in (f"decompressing_{LIBRARY_NAME.decode()}",):
        EXCHANGES += [
            get(CONFIG, "response", answer(BODY, CODING), None),
            get(CONFIG, "chunks", answer(BODY, CODING, chunked=True), None),
            # Envoy's brotli counts the error again with every piece that follows, and the end is one.
            get(
                CONFIG,
                "garbage",
                answer(b"this is nothing of that kind", CODING),
                None,
                compare=("downstream", "upstream", "log"),
            ),
            get(CONFIG, "cut off", answer(BODY[:-4], CODING), None),
            get(CONFIG, "gzip", answer(NARROW_ZIPPED, CODED["gzip"]), None),
            post(CONFIG, "request", BODY, PLAIN + CODING),
        ]
EXCHANGES += [
    get("compressing_any", f"accepts {accepts.decode()}", answer(), accepts)
    for accepts in (
        b"br, gzip, zstd",
        b"zstd, br;q=0.9",
        b"br;q=0, *",
        b"gzip;q=0.5, br;q=0.5, zstd;q=0.4",
        b"deflate",
        b"*",
    )
]
EXCHANGES += [
    get(
        "decompressing_zstd",
        name,
        answer(PACKED[b"zstd"][1] + behind, b"content-encoding: zstd\r\n"),
        None,
    )
    for name, behind in (("more behind it", b"more"), ("two frames", PACKED[b"zstd"][1]))
]
IMAGE = b"content-type: image/png\r\n"
EXCHANGES += [
    get("compressing_status", f"{name}, accepts {accepts}", answered, accepts)
    for name, answered in {
        "fine": answer(),
        "chunks": answer(chunked=True),
        "too small": answer(b"x"),
        "another type": answer(lines=IMAGE + ETAG),
        "an etag": answer(lines=PLAIN + ETAG, status=b"206 Partial Content"),
        "another code": answer(status=b"206 Partial Content"),
        "no-transform": answer(lines=HEADS["no-transform"] + ETAG),
        "compressed already": answer(lines=HEADS["compressed already"], status=b"206 Partial Content"),
        "its own": answer(lines=PLAIN + b"x-envoy-compression-status: mine\r\nvary: a\r\n"),
        "a weak etag": answer(lines=WEAK),
    }.items()
    for accepts in (b"gzip", b"br", None)
]
EXCHANGES.append(get("compressing_status", "switched off", answer(), path=b"/disabled"))
EXCHANGES.append(
    get(
        "compressing_status",
        "HEAD",
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n",),
        method=b"HEAD",
    )
)
EXCHANGES += [
    get(config, f"{path} accepts {accepts.decode()}", answer(), accepts, b"/" + path.encode())
    for config in ("compressing", "compressing_disabled", "compressing_status")
    for path in ("brotli", "brotli-on", "best")
    for accepts in (b"gzip", b"br", b"gzip, br", b"*")
]
