# The Debian package on a machine that has never seen forkproxy: two versions of it lie in /opt/debs.
# shellcheck shell=bash disable=SC2086,SC2154 # the constants come from tap.sh and are single words
OLD=/opt/debs/old.deb
NEW=/opt/debs/new.deb
SITE=/usr/lib/forkproxy/lib

python3 /tmp/slow.py &
SLOW_UPSTREAM=$!
trap 'kill $SLOW_UPSTREAM' EXIT
export DEBIAN_FRONTEND=noninteractive
version_is() { [ "$(dpkg-query -W -f '${Version}' forkproxy)" = "$1" ]; }
default_answers() { curl -s -m $((5 * SLOW)) http://127.0.0.1:10000/ | grep -q "forkproxy works"; }
none_failed_or_tell() { none_failed || { sed 's/^/# /' /tmp/dpkg.txt; false; }; }
install_package() { dpkg -i "$1" >/tmp/dpkg.txt 2>&1 || { sed 's/^/# /' /tmp/dpkg.txt; false; }; }

# -- a first installation
ok "install" install_package $OLD
is ActiveState active || bail "the package does not start it"
ok "the user is there" quietly id -u forkproxy
ok "enabled" systemctl -q is-enabled $UNIT
ok "it answers" within 10 default_answers
ok "as the user" there_are 3
ok "systemd finds nothing wrong with the unit" test -z "$(systemd-analyze verify $UNIT 2>&1)"
ok "the exposure is 2.0 at most" quietly systemd-analyze security --threshold=20 $UNIT
ok "forkproxy is on the PATH" quietly forkproxy status
ok "its libraries are its own" not quietly python3 -c "import yaml"
ok "byte code is made" test -n "$(find $SITE -name '*.pyc' -print -quit)"
ok "configuration files are dpkg's" test "$(dpkg-query -W -f '${Conffiles}' forkproxy | grep -c /etc/)" = 3
ok "nothing was changed since" test -z "$(dpkg -V forkproxy)"
for FILE in bash-completion/completions/forkproxy zsh/vendor-completions/_forkproxy fish/vendor_completions.d/forkproxy.fish; do
    ok "completion: $FILE" grep -q forkproxy /usr/share/$FILE
done

# -- an upgrade
configure mine
ok "reload" systemctl reload $UNIT
within 10 answers mine
PID=$(property MainPID)
load
download
ok "upgrade under load" install_package $NEW
ok "the version is another" version_is 9.9.9
ok "the process too" within 10 main_pid_is_not "$PID"
ok "active" is ActiveState active
ok "what was under way is finished" download_is_whole
end_load
ok "no request failed" none_failed_or_tell
ok "it was not a restart" is NRestarts 0
ok "the configuration is kept" answers mine
ok "the one before has gone" within 10 there_are 3
echo "static_resources: { listenrs: [] }" >$CONFIG
PID=$(property MainPID)
ok "an upgrade over a file that the new version refuses" install_package $NEW
ok "says so" grep -q listenrs /tmp/dpkg.txt
ok "and leaves the one before at work" is MainPID "$PID"
ok "it answers" answers mine
configure mine
systemctl disable --now $UNIT 2>/dev/null
ok "an upgrade of what was stopped and disabled" install_package $NEW
ok "leaves it stopped" is ActiveState inactive
ok "and disabled" not systemctl -q is-enabled $UNIT
systemctl enable --now $UNIT 2>/dev/null

# -- the end
ok "remove" quietly dpkg -r forkproxy
ok "nothing of it runs" within 10 there_are 0
ok "the program is gone" not test -e /usr/lib/forkproxy
ok "the configuration stays" test -e $CONFIG
ok "the logs stay" test -d /var/log/forkproxy
ok "install again" install_package $OLD
ok "with the configuration that stayed" within 10 answers mine
ok "purge" quietly dpkg -P forkproxy
ok "nothing of it runs any more" within 10 there_are 0
ok "the configuration is gone" not test -e /etc/forkproxy
ok "the logs are gone" not test -e /var/log/forkproxy
ok "nothing else is left" test -z "$(find /etc /usr /var/lib/systemd /lib/systemd -name '*forkproxy*' ! -path '*/sysusers*')"

# -- a machine whose services must not be touched
printf '%s\n' '#!/bin/sh' 'exit 101' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
ok "install where policy-rc.d forbids a start" install_package $OLD
ok "not started" is ActiveState inactive
ok "enabled all the same" systemctl -q is-enabled $UNIT
rm /usr/sbin/policy-rc.d
quietly dpkg -P forkproxy
finish
