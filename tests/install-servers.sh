#!/bin/sh
# Installs the Debian packages that some tests use, where they are missing and can be installed. None of
# their servers is started: tests start their own.
set -u
missing=
needs() { # COMMAND PACKAGE
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
needs promtool prometheus
needs amtool prometheus-alertmanager
needs pgbouncer pgbouncer
# For the commands of docs/running.md, which tests run in a machine of its own (tests/machine.py).
needs systemd-analyze systemd
needs pg_ctlcluster postgresql
needs nginx nginx-light
needs curl curl
needs make-ssl-cert ssl-cert
needs dbus-daemon dbus
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # in which packages start nothing
    apt-get update -qq && apt-get install -y -qq $missing >/dev/null && exit 0
fi
echo "not installed, so some tests are skipped: apt install$missing"
