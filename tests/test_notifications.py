"""What people get: pages, messages, mails and signs of life, from the committed configuration."""

import json
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.alert import Alert
from exporter.demo.servers import Alertmanager
from tests.alerting import (
    BY_NAME,
    FOLDER,
    PASSWORD,
    ROUTING_KEY,
    Received,
    amtool,
    labels_of,
    loopback_receivers,
    point_at_loopback,
    post_alerts,
)
from tests.conftest import wait_until

# Somebody may call a location so.
HOSTILE = '<!channel> & <img src=x onerror=alert(1)>"{{ .Labels }}'


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    with loopback_receivers() as receivers:
        yield receivers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, received: Received) -> Iterator[Alertmanager]:
    """The committed configuration, in a hurry."""
    directory = tmp_path_factory.mktemp("alertmanager")
    config = point_at_loopback(
        directory, received, group_wait="300ms", group_interval="300ms", repeat_interval="1h"
    )
    with Alertmanager(directory, config=config) as running:
        yield running


def told(alert: Alert, summary: str, **labels: str) -> dict[str, Any]:
    """Return an alert as Prometheus sends it; `summary` is the test's own, to know it again."""
    place = f"?var-location={labels['location']}" if "location" in labels else ""
    return {
        "labels": labels_of(alert, **labels),
        "annotations": {
            "summary": summary,
            "description": f"Why {summary}",
            "runbook_url": f"https://runbooks.example.com/{alert.name}.md",
            "dashboard_url": f"https://grafana.example.com/d/{alert.board}{place}",
        },
        "startsAt": "2026-03-01T10:00:00Z",
    }


def over(alert: Mapping[str, Any]) -> dict[str, Any]:
    return {**alert, "endsAt": "2026-03-01T11:30:00Z"}


def attachment(received: Received, title: str) -> dict[str, Any]:
    """Return Slack's message of this title, with its channel."""
    found = [
        {**part, "channel": message["channel"]}
        for message in received.slack
        for part in message["attachments"]
        if part["title"] == title
    ]
    return found[0] if found else {}


async def test_a_page_reaches_pagerduty_and_slack_and_so_does_its_end(
    server: Alertmanager, received: Received
) -> None:
    alert = told(BY_NAME["GhlExporterDown"], "a is down")

    def event(action: str) -> dict[str, Any]:
        found = [
            event
            for event in received.pagerduty
            if event["event_action"] == action and "a is down" in event["payload"]["summary"]
        ]
        return found[0] if found else {}

    post_alerts(server, [alert])
    await wait_until(lambda: event("trigger") and attachment(received, "Page: a is down"))
    page = event("trigger")
    assert page["routing_key"] == ROUTING_KEY
    assert page["payload"]["summary"] == "Page: a is down"
    assert page["payload"]["severity"] == "critical"
    assert page["payload"]["source"] == "a:12105"
    assert page["payload"]["class"] == "GhlExporterDown"
    assert page["links"] == [
        {"text": "Runbook", "href": "https://runbooks.example.com/GhlExporterDown.md"},
        {"text": "Board", "href": "https://grafana.example.com/d/ghl-health"},
    ]
    firing = page["payload"]["custom_details"]["firing"]
    assert firing.startswith(
        "* a is down\n  Why a is down\n  since 1 March, 10:00 UTC\n  alertname: GhlExporterDown\n"
    )
    assert "  runbook: https://runbooks.example.com/GhlExporterDown.md\n" in firing
    # Newer Alertmanagers take details for YAML where they are: this must be none.
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(firing)
    shown = attachment(received, "Page: a is down")
    assert shown["channel"] == "#ghl-on-call"
    assert shown["color"] == "#cf222e"
    assert shown["text"] == "Why a is down\n_since 1 March, 10:00 UTC_\n"
    links = {button["text"]: button["url"] for button in shown["actions"]}
    assert links["Runbook"] == "https://runbooks.example.com/GhlExporterDown.md"
    assert links["Board"] == "https://grafana.example.com/d/ghl-health"
    assert "/#/silences/new?filter=%7Balertname%3D%22GhlExporterDown%22%2C" in links["Silence"]
    assert "instance%3D%22a%3A12105%22" in links["Silence"]

    post_alerts(server, [over(alert)])
    await wait_until(lambda: event("resolve") and attachment(received, "Resolved: a is down"))
    assert event("resolve")["dedup_key"] == page["dedup_key"]
    ended = attachment(received, "Resolved: a is down")
    assert ended["color"] == "#1a7f37"
    assert ended["text"] == "_1 March, 10:00 to 1 March, 11:30 UTC_\n"


async def test_a_ticket_reaches_slack_and_nobody_is_woken(
    server: Alertmanager, received: Received
) -> None:
    stale = BY_NAME["GhlExporterKpiStale"]
    alerts = [told(stale, f"{kpi} is old", kpi=kpi) for kpi in ("stages", "win_ratio")]
    post_alerts(server, alerts)
    title = "stages is old (2 in all)"
    await wait_until(lambda: attachment(received, title))
    shown = attachment(received, title)
    assert shown["channel"] == "#ghl-on-call"
    assert shown["color"] == "#bf8700"
    assert shown["text"] == (
        "• *stages is old*\nWhy stages is old\n_since 1 March, 10:00 UTC_\n"
        "• *win_ratio is old*\nWhy win_ratio is old\n_since 1 March, 10:00 UTC_\n"
    )
    # One of them ends: the other still is.
    post_alerts(server, [over(alerts[0])])
    await wait_until(lambda: attachment(received, "win_ratio is old"))
    assert attachment(received, "win_ratio is old")["text"].endswith(
        "• Resolved: stages is old\n_1 March, 10:00 to 1 March, 11:30 UTC_\n"
    )
    assert not any("is old" in event["payload"]["summary"] for event in received.pagerduty)
    assert not any("is old" in mail["Subject"] for mail in received.mails)


class _Html(HTMLParser):
    """What a mail shows, and the elements that it is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_the_business_gets_a_mail_and_a_message_that_no_name_of_a_location_can_break(
    server: Alertmanager, received: Received
) -> None:
    low = BY_NAME["GhlRevenueLow"]
    summary = f"Revenue of {HOSTILE} is low"
    hostile = told(low, summary, location="a b|<c>")
    other = told(low, "Revenue of Harbor Lane is low", location="loc-2")
    post_alerts(server, [hostile, other])

    def mail(beginning: str) -> Any:
        found = [one for one in received.mails if one["Subject"].startswith(beginning)]
        return found[0] if found else None

    subject = f"{summary} (2 in all)"
    await wait_until(lambda: mail(subject))
    got = mail(subject)
    assert got["Subject"] == subject
    assert got["From"] == "ghl-exporter <alerts@example.com>"
    assert "agency@example.com" in received.recipients
    assert f"\0alerts@example.com\0{PASSWORD}" in received.logins
    page = _Html()
    page.feed(got.get_body(("html",)).get_content())
    assert summary in page.text
    assert "Why Revenue of Harbor Lane is low" in page.text
    assert "since 1 March, 10:00 UTC" in page.text
    assert page.tags.isdisjoint({"img", "script", "b"})
    assert page.links == [
        "https://grafana.example.com/d/ghl-revenue?var-location=a%20b%7c%3cc%3e",
        "https://runbooks.example.com/GhlRevenueLow.md",
        "https://grafana.example.com/d/ghl-revenue?var-location=loc-2",
        "https://runbooks.example.com/GhlRevenueLow.md",
    ]
    plain = got.get_body(("plain",)).get_content()
    assert plain.splitlines()[:3] == [summary, f"Why {summary}", "since 1 March, 10:00 UTC"]

    escaped = "Revenue of &lt;!channel&gt; &amp; &lt;img src=x onerror=alert(1)&gt;" + (
        '"{{ .Labels }} is low'
    )
    await wait_until(lambda: attachment(received, f"{escaped} (2 in all)"))
    shown = attachment(received, f"{escaped} (2 in all)")
    assert shown["channel"] == "#ghl-business"
    # The only brackets are those of links.
    assert re.findall("<[^>]*>", json.dumps(shown)) == [
        "<https://grafana.example.com/d/ghl-revenue?var-location=a%20b%7C&lt;c&gt;|Board>",
        "<https://grafana.example.com/d/ghl-revenue?var-location=loc-2|Board>",
    ]
    buttons = {button["text"]: button["url"] for button in shown["actions"]}
    assert buttons["Board"] == "https://grafana.example.com/d/ghl-revenue"

    post_alerts(server, [over(hostile), over(other)])
    await wait_until(lambda: mail("Over: "))
    ended = mail("Over: ").get_body(("html",)).get_content()
    assert "Over: Revenue of Harbor Lane is low" in ended
    assert "1 March, 10:00 to 1 March, 11:30 UTC" in ended
    assert not any("Revenue" in event["payload"]["summary"] for event in received.pagerduty)


async def test_the_watchdog_reaches_the_switch_and_its_end_does_not(
    server: Alertmanager, received: Received
) -> None:
    watchdog = told(BY_NAME["Watchdog"], "Alerts arrive")
    post_alerts(server, [watchdog])
    await wait_until(lambda: received.webhook)
    assert received.webhook[0]["status"] == "firing"
    assert received.webhook[0]["groupLabels"] == {"alertname": "Watchdog"}
    post_alerts(server, [over(watchdog)])
    # It was looked at again, and more than once, when this one has come and gone.
    probe = told(BY_NAME["GhlExporterRedisDown"], "probe")
    post_alerts(server, [probe])
    await wait_until(lambda: attachment(received, "probe"))
    post_alerts(server, [over(probe)])
    await wait_until(lambda: attachment(received, "Resolved: probe"))
    assert {message["status"] for message in received.webhook} == {"firing"}
    assert not any("Alerts arrive" in json.dumps(message) for message in received.slack)


async def test_an_alert_of_others_without_any_annotation_can_be_read(
    server: Alertmanager, received: Received
) -> None:
    post_alerts(server, [{"labels": {"alertname": "NodeDown", "severity": "critical"}}])
    await wait_until(lambda: attachment(received, "NodeDown"))
    shown = attachment(received, "NodeDown")
    assert shown["channel"] == "#ghl-on-call"
    assert all(button["url"].startswith("http://") for button in shown["actions"])
    assert "<no value>" not in json.dumps(shown)


def test_of_many_alerts_slack_shows_ten_and_says_how_many_there_are(tmp_path: Path) -> None:
    alert = told(BY_NAME["GhlRevenueLow"], "it is low")
    names = [f"loc-{number}" for number in range(25)]
    data = {
        "status": "firing",
        "alerts": [
            {**alert, "status": "firing", "labels": {**alert["labels"], "location": name}}
            for name in names
        ],
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example.com",
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data), "utf-8")

    def render(template: str) -> str:
        return amtool(
            "template", "render", f"--template.glob={FOLDER}/templates/*.tmpl",
            f'--template.text={{{{ template "{template}" . }}}}', f"--template.data={path}",
        )  # fmt: skip

    assert render("ghl.slack.title") == "it is low (25 in all)"
    assert render("ghl.slack.text").count("•") == 10
