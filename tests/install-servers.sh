#!/bin/sh
# Debian packages that the tests use where they are installed, or can be: prometheus (with promtool),
# prometheus-alertmanager (with amtool).
set -u
missing=
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
command -v amtool >/dev/null 2>&1 || missing="$missing prometheus-alertmanager"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null && exit 0
fi
echo "not installed, so some tests are skipped: apt install$missing"
