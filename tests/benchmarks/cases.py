"""What the load is: one case per kind of work (PERFORMANCE: ping, log, headers, varied, routes, close, bodies, tcp, tls)."""

from __future__ import annotations

import dataclasses
import pathlib

# wrk counts; `done` prints what it counted as one JSON line. Nothing here runs per request.
DONE_LUA = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '@@{"requests":%d,"duration_us":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50_us":%d,"p99_us":%d}\\n',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""

# Every request has its own path, query and header values, so that no memo of whole heads can help.
VARIED_LUA = """
local count = 0
function request()
  count = count + 1
  return "GET /item/" .. count .. "?session=" .. (count * 7919) .. " HTTP/1.1\\r\\nHost: bench.example\\r\\n"
    .. "User-Agent: bench/" .. (count % 977) .. "\\r\\nAccept: */*\\r\\nX-Trace: " .. (count * 104729) .. "\\r\\n"
    .. "Cookie: id=" .. (count * 31) .. "; theme=" .. (count % 13) .. "\\r\\n\\r\\n"
end
"""

# Requests walk over all virtual hosts and routes; 7 and 3 are prime to their numbers, so that neighbours differ.
ROUTES_LUA = """
local count = 0
local heads = {}
for i = 0, %(virtual_hosts)d - 1 do
  heads[i] = {}
  for j = 0, %(routes)d - 1 do
    heads[i][j] = "GET /service" .. j .. "/item HTTP/1.1\\r\\nHost: host" .. i .. ".example\\r\\nAccept: */*\\r\\n\\r\\n"
  end
end
function request()
  count = count + 1
  return heads[(count * 7) %% %(virtual_hosts)d][(count * 3) %% %(routes)d]
end
"""

EXTRA_HEADERS = tuple(f"X-Bench-Header-{number}: value-{number}-{'v' * (number % 7)}" for number in range(15))


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of work. `virtual_hosts` × `routes` is the size of the route table (0: a single catch-all route)."""

    name: str
    path: str = "/ping"
    headers: tuple[str, ...] = ()
    lua: str = ""
    connections: int = 32
    access_log: bool = False
    tls: bool = False
    tcp: bool = False
    virtual_hosts: int = 0
    routes: int = 0
    body_bytes: int = 4

    def lua_text(self) -> str:
        """The script for wrk."""
        text = self.lua
        if self.virtual_hosts:
            text = text % {"virtual_hosts": self.virtual_hosts, "routes": self.routes}
        return text + DONE_LUA

    def write_lua(self, directory: pathlib.Path) -> pathlib.Path:
        """Write the script for wrk into `directory`."""
        path = directory / f"{self.name}.lua"
        path.write_text(self.lua_text())
        return path


KIB_64 = 64 * 1024
MIB = 1024 * 1024
CLOSE = ("Connection: close",)


def routes_case(name: str, total: int) -> Case:
    """`total` routes, 20 to a virtual host."""
    return Case(name, path="/service0/item", lua=ROUTES_LUA, virtual_hosts=max(1, total // 20), routes=20)


CASES = (
    Case("ping"),
    Case("log", access_log=True),
    Case("headers", headers=EXTRA_HEADERS),
    Case("varied", lua=VARIED_LUA),
    routes_case("routes", 2_000),
    routes_case("routes-20000", 20_000),
    Case("close", headers=CLOSE),
    Case("64KiB", path="/64k", body_bytes=KIB_64),
    Case("1MiB", path="/1m", body_bytes=MIB, connections=8),
    Case("tcp", path="/1m", body_bytes=MIB, connections=8, tcp=True),
    Case("tls", tls=True),
    Case("tls-close", tls=True, headers=CLOSE),
)
DEFAULT_CASES = tuple(case.name for case in CASES if case.name != "routes-20000")
