#!/bin/sh
# Run a command of ghl-exporter with the service's settings: `ghl-exporter check`, say.
# docs/running.md installs it as /usr/local/sbin/ghl-exporter.
set -eu
set -a
DATABASE_URL_FILE=/etc/ghl-exporter/database_url
METRICS_TOKEN_FILE=/etc/ghl-exporter/metrics_token
SPOOL_PATH=/var/lib/ghl-exporter/spool.sqlite3
if [ -e /etc/ghl-exporter/environment ]; then . /etc/ghl-exporter/environment; fi
exec /opt/ghl-exporter/bin/ghl-exporter "$@"
