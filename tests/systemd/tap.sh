#!/bin/bash
# What the scripts beside this one begin with: TAP lines, waiting, and questions to systemd about forkproxy.service.
# tests/integration/test_systemd_lab.py puts this and one of them together and boots a machine for it.
# shellcheck disable=SC2034,SC2086 # the variables are for the script that follows, and single words
set -u
export LC_ALL=C
UNIT=forkproxy.service
CONFIG=/etc/forkproxy/forkproxy.yaml
DROP_INS=/etc/systemd/system/$UNIT.d
COUNT=0 BAD=0
# In an emulated machine everything takes a dozen times as long; all waits are multiplied.
SLOW=1
if [ "$(systemd-detect-virt)" = qemu ]; then SLOW=12; fi

# ok TEXT COMMAND…: one TAP line.
ok() {
    local text=$1; shift
    COUNT=$((COUNT + 1))
    if "$@"; then echo "ok $COUNT - $text"; else BAD=$((BAD + 1)); echo "not ok $COUNT - $text"; tell; fi
}
skip() { COUNT=$((COUNT + 1)); echo "ok $COUNT - $1 # SKIP $2"; }
finish() { echo "1..$COUNT"; echo "LAB-RESULT bad=$BAD of $COUNT"; exit 0; }
bail() { journalctl --no-pager -q -u $UNIT | tail -40 | sed 's/^/# /'; echo "Bail out! $1"; exit 1; }
not() { ! "$@"; }
quietly() { "$@" >/dev/null 2>&1; }
tell() { { systemctl status --no-pager -l -n 8 $UNIT; } 2>&1 | sed 's/^/# /'; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
# within SECONDS COMMAND…: whether it comes true.
within() {
    local end=$(($(now_ms) + $1 * 1000 * SLOW)); shift
    until "$@"; do
        [ "$(now_ms)" -lt $end ] || return 1
        sleep 0.05
    done
}
property() { systemctl show -p "$1" --value $UNIT; }
is() { [ "$(property "$1")" = "$2" ]; }
# shellcheck disable=SC2254 # a pattern is meant
status_says() { case $(property StatusText) in $1) true ;; *) false ;; esac; }
answers() { [ "$(curl -s -m $((5 * SLOW)) http://127.0.0.1/)" = "$1" ]; }
main_pid_is_not() { [ "$(property MainPID)" != "$1" ] && [ "$(property MainPID)" != 0 ]; }
journal_says() { journalctl --no-pager -q -u $UNIT | grep -q -- "$1"; }
processes() { pgrep -u forkproxy | wc -l; }
there_are() { [ "$(processes)" = "$1" ]; }
# Never 0, which would be this script's whole process group.
slay() { [ "${2:-0}" -gt 1 ] && kill "-$1" "$2"; }
# The name is cut by the kernel to 15 characters; a resolver is no worker.
workers() { pgrep -P "$(property MainPID)" '^forkproxy:w'; }
cpu_of() { sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "/proc/$1/status"; }
# pinned_to CPU…: whether these are the CPUs of the workers, each of its own.
pinned_to() {
    local pid
    [ "$(for pid in $(workers); do cpu_of "$pid"; done | sort -n | tr '\n' ' ')" = "$* " ]
}
all_pinned() {
    local pid
    for pid in $(workers); do
        cpu_of "$pid" | grep -Eq '^[0-9]+$' || return 1
    done
}
replaced() { [ -n "$(workers)" ] && ! workers | grep -qx "$1" && [ "$(workers | wc -l)" = "$2" ]; }
drop_in() { mkdir -p $DROP_INS; printf '%s\n' "[Service]" "$@" >$DROP_INS/check.conf; systemctl daemon-reload; }
fresh() {
    rm -rf $DROP_INS
    systemctl daemon-reload
    systemctl stop $UNIT 2>/dev/null
    systemctl reset-failed $UNIT 2>/dev/null
    true
}

# configure ANSWER [WORKERS]: / answers it, /slow takes two seconds over an upstream's 100 bytes.
configure() {
    cat >$CONFIG <<YAML
static_resources:
  listeners:
  - name: web
    address: { socket_address: { address: 127.0.0.1, port_value: 80 } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /var/log/forkproxy/access.log
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: { prefix: "/slow" }
                route: { cluster: slow }
              - match: { prefix: "/" }
                direct_response: { status: 200, body: { inline_string: "$1" } }
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: slow
    load_assignment:
      cluster_name: slow
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 8000 } } } }] }]
forkproxy: { concurrency: ${2:-2}, drain_time_s: 5 }
YAML
}

cat >/tmp/slow.py <<'PYTHON'
import socket
import threading
import time

listener = socket.create_server(("127.0.0.1", 8000), backlog=64)


def answer(sock):
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    for _ in range(10):
        time.sleep(0.2)
        sock.sendall(b"x" * 10)
    sock.close()


while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
PYTHON

# Four connections ask until TERM comes, each as long as it is kept; then "requests N failed N" is printed.
cat >/tmp/load.py <<'PYTHON'
import http.client
import signal
import threading

done, failed, over = [0] * 4, [], threading.Event()
signal.signal(signal.SIGTERM, lambda *_: over.set())


def ask(number):
    connection = None
    while not over.wait(0.002):
        try:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=60)
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
            if response.will_close:
                connection = None
            done[number] += 1
        except (OSError, http.client.HTTPException, AssertionError) as error:
            failed.append(repr(error))
            connection = None


threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"requests {sum(done)} failed {len(failed)}", *sorted(set(failed)))
PYTHON

LOAD=
load() { python3 /tmp/load.py >/tmp/load.txt & LOAD=$!; sleep $((SLOW / 4 + 1)); }
end_load() { kill -TERM $LOAD; wait $LOAD; sed 's/^/# /' /tmp/load.txt; }
none_failed() { grep -Eq '^requests [1-9][0-9]* failed 0$' /tmp/load.txt; }

download() { curl -s -m $((30 * SLOW)) http://127.0.0.1/slow >/tmp/download.txt & DOWNLOAD=$!; sleep 0.5; }
download_is_whole() { wait $DOWNLOAD; [ "$(wc -c </tmp/download.txt)" = 100 ]; }
