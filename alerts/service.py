"""Alerts on the service itself: is it there, does it store, does it project, does it publish?

The scrape job is named ghl-exporter.
"""

from alerts.alert import PAGE, TICKET, Alert
from exporter.domain.slo import FRESH_INTERVALS, FRESH_SLACK_SECONDS, SERVICE

_HEALTH, _SLA = "ghl-health", "ghl-webhook-sla"
# The same hour of last week had this many webhooks: then silence says something.
_BUSY_HOUR = 20
_BUSY_LOCATION = 50
# Prometheus extrapolates an increase: what was counted is the whole number beside it.
_COUNT = '{{ $value | printf "%.0f" }}'

SERVICE_ALERTS = (
    Alert(
        "GhlExporterDown",
        f'up{{job="{SERVICE}"}} == 0',
        PAGE,
        _HEALTH,
        "ghl-exporter at {{ $labels.instance }} does not answer its scrapes",
        "GHL tries a webhook that reaches no copy again, with growing pauses, a dozen times at "
        "most. Look at the process and its log: `systemctl status ghl-exporter`, or `docker "
        "compose ps exporter` and `docker compose logs exporter`.",
        wait="2m",
    ),
    Alert(
        "GhlExporterAbsent",
        f'absent(up{{job="{SERVICE}"}})',
        PAGE,
        _HEALTH,
        "Prometheus scrapes no ghl-exporter",
        "No target of the job ghl-exporter is known: see the scrape configuration of Prometheus.",
        wait="5m",
    ),
    Alert(
        "GhlExporterRestarting",
        f'changes(process_start_time_seconds{{job="{SERVICE}"}}[1h]) > 3',
        TICKET,
        _HEALTH,
        "ghl-exporter at {{ $labels.instance }} was restarted {{ $value }} times within an hour",
        "Webhooks are lost by no restart. The log says why it ended: memory, a signal, a fault.",
    ),
    Alert(
        "GhlExporterDatabaseDown",
        "max by (job) (ghl_exporter_database_up) == 0",
        PAGE,
        _HEALTH,
        "PostgreSQL takes no commits",
        "Webhooks are kept on the exporter's own disk meanwhile and nothing is lost until that is "
        "full; KPIs stay as they were.",
        wait="2m",
    ),
    Alert(
        "GhlExporterRedisDown",
        "max by (job) (ghl_exporter_redis_up) == 0",
        TICKET,
        _HEALTH,
        "Redis does not answer",
        "It is a cache: the API is slower, the day's figures in Redis stand still, nothing is "
        "wrong or lost.",
        wait="10m",
    ),
    # One slow sender is refused too, so a few are not enough to wake somebody.
    Alert(
        "GhlExporterWebhooksRefused",
        'sum by (job) (increase(ghl_exporter_webhooks_total{outcome="refused"}[10m])) >= 5',
        PAGE,
        _SLA,
        "Webhooks are answered 429: stored nowhere",
        f"Neither PostgreSQL nor the local spool took {_COUNT} webhooks in ten minutes. GHL tries "
        "each a dozen times at most, with growing pauses; then it is lost.",
    ),
    Alert(
        "GhlExporterSpoolInUse",
        "ghl_exporter_spool_events > 0",
        TICKET,
        _SLA,
        "{{ $value | humanize }} events wait on the disk of {{ $labels.instance }}",
        "PostgreSQL is away or too slow for the webhooks that come in.",
        wait="10m",
    ),
    # The file may stay large once it is empty: a full disk leaves no room to shrink it.
    Alert(
        "GhlExporterSpoolFilling",
        "(\n  ghl_exporter_spool_bytes / ghl_exporter_spool_limit_bytes > 0.8\n"
        "    or\n  1 - ghl_exporter_spool_free_bytes / ghl_exporter_spool_limit_bytes > 0.8\n)\n"
        "  and\n(ghl_exporter_spool_events > 0 or ghl_exporter_database_up == 0)",
        PAGE,
        _SLA,
        "The spool of {{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        "Of SPOOL_MAX_BYTES that share is used, or missing on its disk. When it is full, webhooks "
        "are answered 429, and GHL gives up on each after a dozen tries. Bring PostgreSQL back, or "
        "give the spool more room.",
        wait="2m",
    ),
    # While all is well: in an outage it would be too late.
    Alert(
        "GhlExporterSpoolUnusable",
        "ghl_exporter_spool_usable == 0\n  or\n"
        "ghl_exporter_spool_free_bytes < 0.2 * ghl_exporter_spool_limit_bytes",
        TICKET,
        _SLA,
        "The spool of {{ $labels.instance }} can't take what it is there for",
        "Its last write failed, or its disk has room for less than a fifth of SPOOL_MAX_BYTES. "
        "While PostgreSQL takes webhooks nothing is lost; without it they would be answered 429.",
        wait="5m",
    ),
    Alert(
        "GhlExporterSpoolSetAside",
        "ghl_exporter_spool_set_aside_events > 0",
        TICKET,
        _SLA,
        "{{ $value | humanize }} spooled events of {{ $labels.instance }} can't be stored",
        "They are damaged, or PostgreSQL refuses them. The log has the reason of each.",
        wait="5m",
    ),
    Alert(
        "GhlExporterBacklogOld",
        # A copy that is cut off from PostgreSQL keeps the last age that it saw.
        "max by (job) (\n  ghl_exporter_inbox_oldest_age_seconds\n"
        "    and on (job, instance)\n  ghl_exporter_database_up == 1\n) > 300",
        PAGE,
        _SLA,
        "Events wait {{ $value | humanizeDuration }} for their projection",
        "KPIs lag behind by as much. Nothing is lost: they are stored.",
        wait="5m",
    ),
    Alert(
        "GhlExporterNoLeader",
        "sum by (job) (ghl_exporter_leader) == 0",
        PAGE,
        _HEALTH,
        "No copy of ghl-exporter projects events",
        "Webhooks are stored; facts and KPIs stand still.",
        wait="5m",
    ),
    # The counter, not the gauge: that one starts at 0 with each process, and then jumps to what has
    # been there for long.
    Alert(
        "GhlExporterQuarantineGrowing",
        "sum by (job) "
        '(increase(ghl_exporter_events_projected_total{outcome="quarantined"}[1h])) > 0',
        TICKET,
        _SLA,
        f"{_COUNT} more events were set aside within an hour",
        "The table quarantine has the error of each; after a fix, `ghl-exporter replay` tries "
        "them again.",
        wait="5m",
    ),
    # A gauge that is stuck is scraped as before: only its age tells. The newest of the copies
    # counts, for only the leader refreshes.
    Alert(
        "GhlExporterKpiStale",
        "time() - max by (job, kpi) (ghl_exporter_kpi_last_success_timestamp_seconds)\n"
        "  > on (job) group_left ()\n"
        f"({FRESH_INTERVALS} * max by (job) (ghl_exporter_kpi_interval_seconds)"
        f" + {FRESH_SLACK_SECONDS})",
        TICKET,
        _HEALTH,
        "KPI {{ $labels.kpi }} {{ if gt $value 1e9 }}was never computed{{ else }}is"
        " {{ $value | humanizeDuration }} old{{ end }}",
        "Its query fails or is too slow: see `kpi_failed` in the log and its refresh duration. "
        "Boards show its last values meanwhile.",
        wait="5m",
    ),
    Alert(
        "GhlExporterKpiRowsDropped",
        "sum by (job, kpi) (increase(ghl_exporter_kpi_rows_dropped_total[1h])) > 0",
        TICKET,
        _HEALTH,
        "KPI {{ $labels.kpi }} gives rows that can't become samples",
        "A value is no finite number, or a label no text: these rows are missing on /metrics.",
        wait="15m",
    ),
    Alert(
        "GhlExporterLabelsCut",
        "sum by (job, label) (increase(ghl_exporter_label_values_cut_total[1h])) > 0",
        TICKET,
        _HEALTH,
        "More values of the label {{ $labels.label }} than there may be",
        "What is beyond the limit has no series of its own (LOCATION_SERIES_LIMIT, "
        "AGENT_SERIES_LIMIT), or is an event name that GHL does not document.",
        wait="1h",
    ),
    # Only the leader looks: what a copy saw while it led may have been put right since.
    Alert(
        "GhlExporterRebuildDue",
        "max by (job) (ghl_exporter_rebuild_due * ghl_exporter_leader) == 1",
        TICKET,
        _HEALTH,
        "Facts are of other settings, or of an older version",
        "KPIs mix both until `ghl-exporter rebuild` was run; the service may run meanwhile.",
        wait="1h",
    ),
    Alert(
        "GhlExporterAuditDropped",
        "sum by (job) (increase(ghl_exporter_audit_entries_dropped_total[1h])) > 0",
        TICKET,
        _HEALTH,
        f"{_COUNT} entries of the audit table were lost",
        "PostgreSQL was away for longer than the queue of entries lasts.",
        wait="5m",
    ),
    # A missing signature is the internet's daily rubbish; a wrong one is GHL's key, or a proxy. The
    # least number is an hour's, so that it tells where few webhooks come, too.
    Alert(
        "GhlExporterSignaturesFailing",
        """
(
  sum by (job) (increase(ghl_exporter_webhooks_rejected_total{reason="signature_invalid"}[10m]))
    >
  0.05 * (
    sum by (job) (increase(ghl_exporter_webhooks_rejected_total{reason="signature_invalid"}[10m]))
      +
    sum by (job) (increase(ghl_exporter_webhooks_total{source="ghl"}[10m]))
  )
)
  and
sum by (job) (increase(ghl_exporter_webhooks_rejected_total{reason="signature_invalid"}[1h])) >= 5
""",
        PAGE,
        _SLA,
        "More than 5 % of GHL's webhooks have a wrong signature",
        f"{_COUNT} were refused in ten minutes. GHL may have changed its key (GHL_PUBLIC_KEYS), a "
        "proxy may change the bodies, or somebody tries.",
        wait="10m",
    ),
    # `unless`, not `== 0`: after a restart a location has no series until it sends something.
    Alert(
        "GhlWebhooksSilent",
        f"""
(sum by (job) (increase(ghl_exporter_webhooks_total{{source="ghl"}}[1h] offset 1w)) >= {_BUSY_HOUR})
  unless
(sum by (job) (increase(ghl_exporter_webhooks_total{{source="ghl"}}[1h])) > 0)
""",
        PAGE,
        _SLA,
        "GHL sends nothing any more",
        "No webhook of GHL's was taken within an hour; in the same hour of last week there were "
        f"{_COUNT}. GHL, the app's webhook URL, DNS, TLS or the proxy; or all are rejected.",
        wait="10m",
    ),
    Alert(
        "GhlLocationSilent",
        f"""
(
  sum by (job, location) (
    increase(ghl_exporter_webhooks_by_location_total{{location!~"none|other"}}[6h] offset 1w)
  ) >= {_BUSY_LOCATION}
)
  unless
(sum by (job, location) (increase(ghl_exporter_webhooks_by_location_total[6h])) > 0)
""",
        TICKET,
        _SLA,
        "Nothing comes any more from {{ $labels.location }}",
        "No webhook of the location came within six hours; in the same hours of last week there "
        f"were {_COUNT}. Its app may have been removed, or its rights.",
        wait="30m",
    ),
    # Always there: whoever misses it knows that alerts no longer arrive.
    Alert(
        "Watchdog",
        "vector(1)",
        "none",
        _HEALTH,
        "Alerts arrive",
        "This alert always fires. A dead man's switch outside says when it stops to arrive.",
    ),
)
