#!/bin/bash
# Runs as root under a real systemd, with forkproxy installed in /opt/forkproxy, and prints TAP: what the service promises.
# tests/integration/test_systemd_lab.py boots a machine for it.
set -u
PROGRAM=/opt/forkproxy/bin/forkproxy
CONFIG=/etc/forkproxy/forkproxy.yaml
UNIT=forkproxy.service
DROP_INS=/etc/systemd/system/$UNIT.d
COUNT=0 BAD=0

# ok TEXT COMMAND…: one TAP line.
ok() {
    local text=$1; shift
    COUNT=$((COUNT + 1))
    if "$@"; then echo "ok $COUNT - $text"; else BAD=$((BAD + 1)); echo "not ok $COUNT - $text"; tell; fi
}
not() { ! "$@"; }
quietly() { "$@" >/dev/null 2>&1; }
tell() { { systemctl status --no-pager -l -n 8 $UNIT; } 2>&1 | sed 's/^/# /'; }
# within SECONDS COMMAND…: whether it comes true.
within() {
    local end=$(($(date +%s%N) / 1000000 + $1 * 1000)); shift
    until "$@"; do
        [ $(($(date +%s%N) / 1000000)) -lt $end ] || return 1
        sleep 0.05
    done
}
property() { systemctl show -p "$1" --value $UNIT; }
is() { [ "$(property "$1")" = "$2" ]; }
status_says() { case $(property StatusText) in $1) true ;; *) false ;; esac; }
answers() { [ "$(curl -s -m 5 http://127.0.0.1/)" = "$1" ]; }
main_pid_is_not() { [ "$(property MainPID)" != "$1" ] && [ "$(property MainPID)" != 0 ]; }
journal_says() { journalctl --no-pager -q -u $UNIT | grep -q -- "$1"; }
processes() { pgrep -u forkproxy | wc -l; }
no_processes() { [ "$(processes)" = 0 ]; }
# Never 0, which would be this script's whole process group.
slay() { [ "${2:-0}" -gt 1 ] && kill "-$1" "$2"; }
workers() { pgrep -P "$(property MainPID)"; }
all_pinned() {
    local pid
    for pid in $(workers); do
        grep -Eq '^Cpus_allowed_list:[[:space:]]+[0-9]+$' "/proc/$pid/status" || return 1
    done
}
replaced() { [ -n "$(workers)" ] && ! workers | grep -qx "$1" && [ "$(workers | wc -l)" = "$2" ]; }
drop_in() { mkdir -p $DROP_INS; printf '%s\n' "[Service]" "$@" >$DROP_INS/check.conf; systemctl daemon-reload; }
fresh() { rm -rf $DROP_INS; systemctl daemon-reload; systemctl stop $UNIT 2>/dev/null; systemctl reset-failed $UNIT 2>/dev/null; true; }

configure() { # what / answers
    cat >$CONFIG <<EOF
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
              - match: { prefix: "/" }
                direct_response: { status: 200, body: { inline_string: "$1" } }
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
forkproxy: { concurrency: 2, drain_time_s: 2 }
EOF
}

# -- installation
rm -f $CONFIG
ok "install" quietly "$PROGRAM" systemd install --no-start
ok "the user is there" quietly id -u forkproxy
ok "a configuration is there, and runs" "$PROGRAM" check -q $CONFIG
ok "enabled" systemctl -q is-enabled $UNIT
ok "not started" is ActiveState inactive

# -- start
configure one
ok "start" systemctl start $UNIT
if ! is ActiveState active; then
    journalctl --no-pager -q -u $UNIT | tail -40 | sed 's/^/# /'
    echo "Bail out! it does not start"
    exit 1
fi
ok "port 80 answers" answers one
ok "STATUS= says what runs" status_says "2 workers on CPU*, generation 1"
ok "every worker is pinned" all_pinned
ok "nothing runs as root" not quietly pgrep -u root -f "$PROGRAM run"
ok "root asks for the status" quietly "$PROGRAM" status

# -- reload
PID=$(property MainPID)
configure two
ok "a good file is reloaded" systemctl reload $UNIT
ok "the new file is served" within 10 answers two
ok "STATUS= says the generation" within 10 status_says "*generation 2"
ok "the unit is active again" within 10 is ActiveState active
echo "static_resources: { listenrs: [] }" >$CONFIG
ok "a bad file is refused" not quietly systemctl reload $UNIT
ok "the journal says why" journal_says listenrs
systemctl kill --kill-who=main --signal=HUP $UNIT
ok "STATUS= tells of a refusal" within 10 status_says "*generation 2; reload refused: *listenrs*"
ok "the unit is active after it" within 10 is ActiveState active
ok "the old file is served" answers two
configure three
systemctl reload $UNIT
ok "the next good file clears it" within 10 status_says "*generation 3"
ok "the supervisor is the same" is MainPID "$PID"

# -- logs
mv /var/log/forkproxy/access.log /var/log/forkproxy/access.log.1
sed -n '/systemctl/p' /etc/logrotate.d/forkproxy | sh
answers three
ok "logrotate's signal opens the logs again" within 15 test -e /var/log/forkproxy/access.log

# -- crashes
WORKER=$(workers | head -1)
slay KILL "$WORKER"
ok "a killed worker is replaced" within 5 replaced "$WORKER" 2
ok "and nobody notices" answers three
ok "the supervisor stays" is MainPID "$PID"
ok "the unit was not restarted" is NRestarts 0
slay KILL "$PID"
ok "a killed supervisor is started again" within 15 main_pid_is_not "$PID"
ok "it answers" within 15 answers three
ok "no worker of the dead one is left" within 10 test "$(processes)" = 3
fresh

# -- what /etc/default sets; a worker that stands still
cp /etc/default/forkproxy /tmp/default
echo FORKPROXY_WATCH=1 >>/etc/default/forkproxy
systemctl start $UNIT
configure watched
ok "--watch from /etc/default reloads by itself" within 10 answers watched
cp /tmp/default /etc/default/forkproxy
PID=$(property MainPID)
WORKER=$(workers | head -1)
slay STOP "$WORKER"
ok "a worker that stands still is replaced" within 20 replaced "$WORKER" 2
ok "by its supervisor, not by the unit" is MainPID "$PID"
fresh

# -- a bad start
echo "static_resources: { listenrs: [] }" >$CONFIG
ok "a bad file does not start" not quietly systemctl start $UNIT
ok "exit code 78" is ExecMainStatus 78
sleep 1.5
ok "no loop" is NRestarts 0
ok "failed" is ActiveState failed
fresh

# -- watchdog
configure four
drop_in WatchdogSec=2
systemctl start $UNIT
PID=$(property MainPID)
sleep 3
ok "a fed watchdog does not bite" is MainPID "$PID"
slay STOP "$PID"
ok "a supervisor that stands still is replaced" within 20 main_pid_is_not "$PID"
ok "by the watchdog" journal_says "Watchdog timeout"
ok "it answers again" within 15 answers four
fresh

# -- socket activation
for REUSE in no yes; do
    printf '%s\n' "[Socket]" "ListenStream=127.0.0.1:80" "ReusePort=$REUSE" "FileDescriptorName=web" \
        >/etc/systemd/system/forkproxy.socket
    systemctl daemon-reload
    systemctl start forkproxy.socket
    ok "ReusePort=$REUSE: not started yet" is ActiveState inactive
    ok "ReusePort=$REUSE: the first connection starts it" within 10 answers four
    (for _ in $(seq 60); do curl -s -m 10 http://127.0.0.1/ || echo refused; sleep 0.03; done >/tmp/through-restart) &
    ASKING=$!
    sleep 0.3
    systemctl restart $UNIT
    wait $ASKING
    ok "ReusePort=$REUSE: no connection is refused while it restarts" not grep -q refused /tmp/through-restart
    configure five
    systemctl reload $UNIT
    ok "ReusePort=$REUSE: the socket stays over a reload" within 10 answers five
    configure four
    systemctl stop forkproxy.socket $UNIT 2>/dev/null
    fresh
done
rm -f /etc/systemd/system/forkproxy.socket

# -- stop
fresh
systemctl start $UNIT
exec 7<>/dev/tcp/127.0.0.1/80
ok "stop" systemctl stop $UNIT
exec 7>&-
ok "exit code 0" is ExecMainStatus 0
ok "a success" is Result success
ok "no process is left" no_processes
ok "no pid file is left" not test -e /run/forkproxy/forkproxy.pid

# -- uninstall
ok "uninstall" quietly "$PROGRAM" systemd uninstall
ok "the unit is gone" not quietly systemctl cat $UNIT
ok "the configuration stays" test -e $CONFIG

echo "1..$COUNT"
echo "LAB-RESULT bad=$BAD of $COUNT"
