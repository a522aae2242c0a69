# forkproxy in /opt/forkproxy, as `make install-service` leaves it, under a real systemd: what the service promises.
# shellcheck shell=bash disable=SC2086,SC2154 # the constants come from tap.sh and are single words
PROGRAM=/opt/forkproxy/bin/forkproxy
# The promise is two seconds; an emulated machine takes two for the question alone.
in_two_seconds() {
    local SLOW=$((SLOW > 1 ? 2 : 1))
    within 2 "$@"
}

python3 /tmp/slow.py &
SLOW_UPSTREAM=$!
trap 'kill $SLOW_UPSTREAM' EXIT

# -- installation
rm -f $CONFIG
ok "install" quietly "$PROGRAM" systemd install --no-start
ok "the user is there" quietly id -u forkproxy
ok "a configuration is there, and runs" "$PROGRAM" check -q $CONFIG
ok "enabled" systemctl -q is-enabled $UNIT
ok "not started" is ActiveState inactive
ok "bash completes it" grep -q forkproxy /usr/local/share/bash-completion/completions/forkproxy
ok "zsh completes it" grep -q forkproxy /usr/local/share/zsh/site-functions/_forkproxy
ok "fish completes it" grep -q forkproxy /usr/local/share/fish/vendor_completions.d/forkproxy.fish
ok "systemd finds nothing wrong with the unit" test -z "$(systemd-analyze verify $UNIT 2>&1)"

# -- start
configure one
ok "start" systemctl start $UNIT
is ActiveState active || bail "it does not start"
ok "port 80 answers" answers one
ok "STATUS= says what runs" status_says "2 workers on CPU*, generation 1"
ok "every worker is pinned" all_pinned
ok "the supervisor may come back from SCHED_IDLE and niceness" is LimitNICE 20
ok "nothing runs as root" not quietly pgrep -u root -f "$PROGRAM run"
ok "root asks for the status" quietly "$PROGRAM" status
ok "the exposure is 2.0 at most" quietly systemd-analyze security --threshold=20 $UNIT
ok "a start of what runs changes nothing" systemctl start $UNIT
fresh

# -- CPUs
if [ "$(nproc)" -gt 1 ]; then
    configure one auto
    drop_in CPUAffinity=1
    systemctl start $UNIT
    ok "CPUAffinity=1: one worker, on CPU 1" pinned_to 1
    ok "STATUS= says so" status_says "1 worker on CPU 1, generation 1"
    fresh
else
    skip "CPUAffinity=" "one CPU"
fi
if [ "$(nproc)" -ge 4 ] && grep -qw cpuset /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then
    configure one auto
    systemctl start $UNIT
    ok "a worker for every CPU" pinned_to 0 1 2 3
    PIDS=$(workers | sort | tr '\n' ' ')
    systemctl set-property --runtime $UNIT AllowedCPUs=1,3
    SINCE=$(now_ms)
    ok "AllowedCPUs=1,3 on a running service is followed" in_two_seconds pinned_to 1 1 3 3
    echo "# after $(($(now_ms) - SINCE)) ms"
    ok "by the same workers" test "$(workers | sort | tr '\n' ' ')" = "$PIDS"
    ok "it answers" answers one
    systemctl set-property --runtime $UNIT AllowedCPUs=0-3
    SINCE=$(now_ms)
    ok "and when it is lifted, every worker has a CPU of its own again" in_two_seconds pinned_to 0 1 2 3
    echo "# after $(($(now_ms) - SINCE)) ms"
    systemctl revert $UNIT
    fresh
    drop_in AllowedCPUs=1,3
    systemctl start $UNIT
    ok "AllowedCPUs=1,3 at the start: two workers, on CPUs 1 and 3" pinned_to 1 3
    fresh
    drop_in AllowedCPUs=1-3 Environment=FORKPROXY_CONCURRENCY=2
    systemctl start $UNIT
    ok "two workers stay in one NUMA node: CPUs 2 and 3, not 1" pinned_to 2 3
    fresh
    drop_in CPUQuota=150%
    systemctl start $UNIT
    ok "CPUQuota=150%: two workers" test "$(workers | wc -l)" = 2
    fresh
else
    skip "AllowedCPUs=, NUMA nodes, CPUQuota=" "needs four CPUs and the cpuset controller in cgroup v2: make systemd-vm"
fi
configure one
systemctl start $UNIT

# -- reload
PID=$(property MainPID)
configure two
load
ok "a good file is reloaded" systemctl reload $UNIT
ok "the new file is served" within 10 answers two
ok "STATUS= says the generation" within 10 status_says "*generation 2"
ok "the unit is active again" within 10 is ActiveState active
end_load
ok "no request failed" none_failed
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

# -- upgrade
load
download
ok "upgrade" quietly timeout $((60 * SLOW)) "$PROGRAM" upgrade
ok "MainPID is another" within 10 main_pid_is_not "$PID"
ok "and that of the new supervisor" test "$(cat /run/forkproxy/forkproxy.pid)" = "$(property MainPID)"
ok "the unit stays active" is ActiveState active
ok "it answers" answers three
ok "what was under way is finished" download_is_whole
end_load
ok "no request failed" none_failed
ok "the old one has gone" within 10 test ! -d "/proc/$PID"
ok "and none of its workers is left" within 10 there_are 3
ok "it was not a restart" is NRestarts 0
PID=$(property MainPID)
configure upgraded
ok "the new one reloads" systemctl reload $UNIT
ok "and serves the new file" within 10 answers upgraded
echo "static_resources: { listenrs: [] }" >$CONFIG
ok "with a bad file there is no upgrade" not quietly timeout $((60 * SLOW)) "$PROGRAM" upgrade
ok "the old one serves on" answers upgraded
ok "and is still the main process" is MainPID "$PID"
configure three
systemctl reload $UNIT
within 10 answers three

# -- crashes
PID=$(property MainPID)
WORKER=$(workers | head -1)
slay KILL "$WORKER"
ok "a killed worker is replaced" within 5 replaced "$WORKER" 2
ok "and nobody notices" answers three
ok "the supervisor stays" is MainPID "$PID"
ok "the unit was not restarted" is NRestarts 0
download
slay KILL "$PID"
ok "a killed supervisor is started again" within 15 main_pid_is_not "$PID"
ok "it answers" within 15 answers three
ok "what was under way is finished by the workers it left" download_is_whole
ok "no worker of the dead one is left after that" within 10 there_are 3
ok "it was a restart" is NRestarts 1
PID=$(property MainPID)
WORKER=$(workers | head -1)
slay STOP "$WORKER"
slay KILL "$PID"
within 15 main_pid_is_not "$PID"
ok "the next one answers, though a worker of the dead one stands still and listens" within 15 answers three
ok "that one is ended" within 15 not test -d "/proc/$WORKER"
ok "and only that one" there_are 3
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
ok "the journal says where the fault is" journal_says "forkproxy.yaml:1:.*listenrs"
fresh
configure four
python3 -m http.server --bind 127.0.0.1 80 >/dev/null 2>&1 &
HOLDER=$!
within 10 quietly curl -s -m 5 http://127.0.0.1/
systemctl start --no-block $UNIT
ok "a port that is taken is tried again" within 20 journal_says "Scheduled restart job"
kill $HOLDER
ok "until it is free" within 20 answers four
fresh

# -- watchdog
WATCHDOG_S=$((SLOW > 1 ? 12 : 2))
drop_in WatchdogSec=$WATCHDOG_S
systemctl start $UNIT
PID=$(property MainPID)
sleep $((WATCHDOG_S * 3 / 2))
ok "a fed watchdog does not bite" is MainPID "$PID"
ok "upgrade" quietly timeout $((60 * SLOW)) "$PROGRAM" upgrade
PID=$(property MainPID)
sleep $((WATCHDOG_S * 3 / 2))
ok "the upgraded one feeds it too" is MainPID "$PID"
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
    (for _ in $(seq $((SLOW > 1 ? 12 : 60))); do curl -s -m $((10 * SLOW)) http://127.0.0.1/ || echo refused; sleep 0.03; done >/tmp/through-restart) &
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
systemctl daemon-reload

# -- stop, disable, enable
systemctl start $UNIT
exec 7<>/dev/tcp/127.0.0.1/80
download
ok "stop" systemctl stop $UNIT
exec 7>&-
ok "what was under way is finished" download_is_whole
ok "exit code 0" is ExecMainStatus 0
ok "a success" is Result success
ok "no process is left" there_are 0
ok "no pid file is left" not test -e /run/forkproxy/forkproxy.pid
ok "disable" quietly systemctl disable $UNIT
ok "disabled" not systemctl -q is-enabled $UNIT
ok "enable --now" quietly systemctl enable --now $UNIT
ok "it answers" within 10 answers four

# -- uninstall
ok "uninstall" quietly "$PROGRAM" systemd uninstall
ok "the unit is gone" not quietly systemctl cat $UNIT
ok "nothing of it runs" within 10 there_are 0
ok "the configuration stays" test -e $CONFIG
finish
