"""The whole way of a page: PostgreSQL stops, and on-call's telephone knows why and what to do."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.demo.servers import Alertmanager, EmbeddedPostgres, Prometheus
from tests.alerting import get_alerts, loopback_receivers, point_at_loopback
from tests.conftest import MakeService, Service, Signer, wait_until
from tests.sender import Sender, contact

ROOT = Path(__file__).parents[1]
CAUSE = "GhlExporterDatabaseDown"
# What follows from it within seconds, and what else may while it lasts.
FOLLOWS = {"GhlExporterNoLeader", "GhlExporterSpoolInUse"}
QUIET = FOLLOWS | {"GhlExporterBacklogOld", "GhlExporterKpiStale"}


def hurried_rules(directory: Path) -> None:
    """Copy the committed rules; an alert waits for seconds where it waited for minutes."""
    for name in ("recording_rules", "alerts"):
        (directory / name).mkdir()
        for path in (ROOT / name).glob("*.yml"):
            text = path.read_text("utf-8")
            text = re.sub(r"^( +for: \d+)m$", r"\1s", text, flags=re.MULTILINE)
            text = re.sub(r"^( +for: \d+)h$", r"\1m", text, flags=re.MULTILINE)
            (directory / name / path.name).write_text(text, "utf-8")


def prometheus_config(directory: Path, service: Service, alertmanager: Alertmanager) -> Path:
    """Write the committed configuration with the addresses and the pace of a test."""
    config = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text("utf-8"))
    config["global"] |= {
        "scrape_interval": "1s",
        "evaluation_interval": "1s",
        "external_labels": {
            "grafana": "http://grafana.example.com",
            "runbooks": f"{service.url}/runbooks",
        },
    }
    [alerting] = config["alerting"]["alertmanagers"]
    alerting["static_configs"] = [{"targets": [f"127.0.0.1:{alertmanager.port}"]}]
    config["scrape_configs"] = [
        scrape | {"static_configs": [{"targets": [f"127.0.0.1:{service.port}"]}]}
        for scrape in config["scrape_configs"]
        if scrape["job_name"] == "ghl-exporter"
    ]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


def knows_alertmanager(prometheus: Prometheus) -> bool:
    with urllib.request.urlopen(f"{prometheus.url()}/api/v1/alertmanagers", timeout=5) as response:
        return bool(json.load(response)["data"]["activeAlertmanagers"])


@pytest.mark.slow
async def test_a_database_that_stops_gives_one_page_and_one_that_is_back_ends_it(
    make_service: MakeService, signer: Signer, tmp_path: Path
) -> None:
    hurried_rules(tmp_path)
    with loopback_receivers() as received, EmbeddedPostgres(tmp_path / "postgres") as postgres:
        service = make_service(database_url=postgres.url())
        service.start()
        await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1, 20)
        alertmanager = Alertmanager(
            tmp_path,
            config=point_at_loopback(tmp_path, received, group_wait="1s", group_interval="1s"),
        )
        config = prometheus_config(tmp_path, service, alertmanager)
        with alertmanager, Prometheus(tmp_path, config=config) as prometheus:
            # What fires before Prometheus knows whom to tell is told a minute later.
            await wait_until(lambda: knows_alertmanager(prometheus), 20)

            def page(action: str) -> dict[str, Any]:
                found = [
                    event
                    for event in received.pagerduty
                    if event["event_action"] == action and event["payload"]["class"] == CAUSE
                ]
                return found[0] if found else {}

            def quiet() -> set[str]:
                """Return what is silenced by the cause alone."""
                alerts = {alert["labels"]["alertname"]: alert for alert in get_alerts(alertmanager)}
                cause = alerts.get(CAUSE, {"fingerprint": None})["fingerprint"]
                return {
                    name
                    for name, alert in alerts.items()
                    if alert["status"]["inhibitedBy"] == [cause]
                }

            postgres.stop()
            answer = await Sender(service.port, signer).send(contact())
            assert answer.json() == {"status": "spooled"}
            await wait_until(lambda: page("trigger"), 30)
            trigger = page("trigger")
            assert trigger["payload"]["summary"] == "Page: PostgreSQL takes no commits"
            links = {link["text"]: link["href"] for link in trigger["links"]}
            assert links["Board"] == "http://grafana.example.com/d/ghl-health"
            assert links["Runbook"] == f"{service.url}/runbooks/{CAUSE}.md"
            status, runbook = service.get(links["Runbook"].removeprefix(service.url))
            assert status == 200
            assert f"<h1>{CAUSE}</h1>" in runbook.decode()
            # What tells where this installation has its pages is no part of an alert.
            [cause] = [
                alert for alert in get_alerts(alertmanager) if alert["labels"]["alertname"] == CAUSE
            ]
            assert set(cause["labels"]) == {"alertname", "job", "service", "severity", "team"}

            await wait_until(lambda: quiet() >= FOLLOWS, 30)
            assert {event["payload"]["class"] for event in received.pagerduty}.isdisjoint(QUIET)
            told = [part for message in received.slack for part in message["attachments"]]
            assert not [part for part in told for name in QUIET if name in str(part["actions"])]

            postgres.start()
            await wait_until(lambda: page("resolve"), 30)
            assert page("resolve")["dedup_key"] == trigger["dedup_key"]
            title = "Resolved: PostgreSQL takes no commits"
            await wait_until(
                lambda: any(
                    part["title"] == title
                    for message in received.slack
                    for part in message["attachments"]
                )
            )
            await wait_until(lambda: service.metrics()["ghl_exporter_spool_events"] == 0)
