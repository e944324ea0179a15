#!/bin/sh
# Makes what is missing in docker/secrets (or in the folder given), and changes nothing that is there.
#
# Compose mounts each file as it is, and no two containers run as the same user: the exporter is 10001,
# PostgreSQL 999, Grafana 472, Alertmanager 65534. So the files can be read by all, and the folder around
# them can be entered by its owner only. What is mounted needs no way through the folder.
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

secret() { # NAME VALUE
    [ -e "$folder/$1" ] && return
    # Under its name only when it is whole: what is there is never written again.
    printf '%s' "$2" >"$folder/.$1"
    chmod 644 "$folder/.$1"
    mv "$folder/.$1" "$folder/$1"
    echo "made $folder/$1"
}

random() { # 48 characters that need no quoting in a URL
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

secret postgres_admin_password "$(random)"
secret postgres_password "$(random)"
secret database_url "postgresql://ghl_exporter:$(cat "$folder/postgres_password")@postgres/ghl_exporter"
secret grafana_admin_password "$(random)"
# Yours: until they are written here, alerts are seen in Alertmanager and sent nowhere.
secret slack_api_url https://slack.invalid/replace-me
secret pagerduty_routing_key replace-me
secret smtp_password replace-me
