"""Alertmanager's committed configuration: who is told what, what stays quiet, and where."""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.alert import Alert
from exporter.demo.servers import Alertmanager
from tests.alerting import (
    BY_NAME,
    CONFIG,
    EVERY_ALERT,
    Received,
    amtool,
    get_alerts,
    labels_of,
    loopback_receivers,
    point_at_loopback,
    post_alerts,
)
from tests.conftest import wait_until

PAGES, TICKETS = "on-call-pages", "on-call-tickets"
RECEIVER = {
    ("page", "on-call"): PAGES,
    ("ticket", "on-call"): TICKETS,
    ("ticket", "business"): "business",
    ("none", "on-call"): "dead-mans-switch",
}
BUSINESS = {alert.name for alert in EVERY_ALERT if alert.team == "business"}
FRESHNESS = {"GhlKpiFreshnessBurnsSlowly"}
LATENCY = {"GhlWebhookLatencyBurnsFast", "GhlWebhookLatencyBurnsSlowly"}
SUCCESS = {"GhlWebhookSuccessBurnsFast", "GhlWebhookSuccessBurnsSlowly"}
AVAILABILITY = {"GhlAvailabilityBurnsFast", "GhlAvailabilityBurnsSlowly"}
OLD = {"GhlExporterBacklogOld", "GhlExporterKpiStale"}
# Cause, what it keeps quiet, and which label has to be the same beside the job.
QUIET: tuple[tuple[str, set[str], str], ...] = (
    (
        "GhlExporterDatabaseDown",
        {
            "GhlExporterNoLeader",
            "GhlExporterSpoolInUse",
            "GhlExporterAuditDropped",
            *(OLD | FRESHNESS | LATENCY | BUSINESS),
        },
        "",
    ),
    ("GhlExporterNoLeader", OLD | FRESHNESS | BUSINESS, ""),
    ("GhlExporterBacklogOld", BUSINESS, ""),
    ("GhlExporterKpiStale", FRESHNESS, ""),
    ("GhlExporterWebhooksRefused", SUCCESS, ""),
    (
        "GhlExporterDown",
        {
            "GhlExporterRestarting",
            "GhlExporterSpoolInUse",
            "GhlExporterSpoolFilling",
            "GhlExporterSpoolSetAside",
            "GhlExporterSpoolUnusable",
        },
        "instance",
    ),
    ("GhlExporterSpoolFilling", {"GhlExporterSpoolInUse", "GhlExporterSpoolUnusable"}, "instance"),
    ("GhlExporterDown", AVAILABILITY, ""),
    ("GhlExporterAbsent", AVAILABILITY, ""),
    ("GhlAvailabilityBurnsFast", {"GhlAvailabilityBurnsSlowly"}, "slo"),
    ("GhlExporterAbsent", {"GhlWebhooksSilent", "GhlLocationSilent"} | FRESHNESS, ""),
    ("GhlWebhooksSilent", {"GhlLocationSilent"} | BUSINESS, ""),
    ("GhlWebhookSuccessBurnsFast", {"GhlWebhookSuccessBurnsSlowly"}, "slo"),
    ("GhlWebhookLatencyBurnsFast", {"GhlWebhookLatencyBurnsSlowly"}, "slo"),
    ("GhlLocationSilent", BUSINESS, "location"),
    ("GhlGradeBelowC", {"GhlGradeFell"}, "location"),
)


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(CONFIG.read_text("utf-8"))["inhibit_rules"]
    return found


def matching(matchers: list[str]) -> set[str]:
    """Return the names of the alerts that all matchers fit."""
    parsed = [re.fullmatch(r'(\w+)(=~?)"(.*)"', matcher) for matcher in matchers]

    def fits(labels: Mapping[str, str]) -> bool:
        for match in parsed:
            assert match is not None
            name, sign, value = match.groups()
            wanted = value if sign == "=~" else re.escape(value)
            if not re.fullmatch(wanted, labels.get(name, "")):
                return False
        return True

    return {alert.name for alert in EVERY_ALERT if fits(labels_of(alert))}


def test_amtool_finds_nothing_to_say() -> None:
    assert "SUCCESS" in amtool("check-config", CONFIG)


def test_secrets_are_files_and_addresses_nobodys() -> None:
    text = CONFIG.read_text("utf-8")
    for name, value in re.findall(r"(\w*(?:api_url|_key|password)\w*): (\S+)", text):
        assert name.endswith("_file"), name
        assert value.startswith("/run/secrets/")
    hosts = set(re.findall(r"(?:[\w.-]+@|//|smarthost: )([\w.-]+)", text))
    assert hosts
    assert all(host == "example.com" or host.endswith(".example.com") for host in hosts)


def test_what_is_to_be_set_stands_before_the_routes() -> None:
    before, _, after = CONFIG.read_text("utf-8").partition("\ntemplates:\n")
    marked = {line for line in before.splitlines() if "# yours" in line}
    assert {line for line in before.splitlines() if "example.com" in line or "'#" in line} <= marked
    assert "# yours" not in after
    assert "example.com" not in after


@pytest.mark.parametrize("alert", EVERY_ALERT, ids=lambda alert: alert.name)
def test_each_alert_goes_where_its_severity_and_its_team_say(alert: Alert) -> None:
    pairs = [f"{name}={value}" for name, value in labels_of(alert).items()]
    expected = RECEIVER[alert.severity, alert.team]
    amtool(
        "config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={expected}",
        *pairs,
    )  # fmt: skip


def test_an_alert_that_nobody_knows_goes_to_on_call() -> None:
    amtool(
        "config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={TICKETS}",
        "alertname=NodeDown", "severity=critical",
    )  # fmt: skip


def test_each_rule_of_inhibition_names_its_alerts_on_both_sides() -> None:
    for rule in rules():
        assert "job" in rule["equal"]
        sources, targets = matching(rule["source_matchers"]), matching(rule["target_matchers"])
        assert sources
        assert targets
        for label in rule["equal"]:
            for name in sources | targets:
                assert label in labels_of(BY_NAME[name]), (name, label)


def test_alerts_have_the_labels_that_routes_and_inhibition_rely_on() -> None:
    """The cases of the rules say which labels Prometheus gives an alert."""
    cases = [
        (expected["alertname"], set(alert["exp_labels"]))
        for path in (CONFIG.parents[2] / "tests" / "rules").glob("*.yml")
        for test in yaml.safe_load(path.read_text("utf-8"))["tests"]
        for expected in test.get("alert_rule_test", ())
        for alert in expected.get("exp_alerts", ())
    ]
    assert {name for name, _ in cases} == set(BY_NAME)
    for name, labels in cases:
        assert labels | {"alertname"} == set(labels_of(BY_NAME[name])), name


def test_no_name_in_a_rule_of_inhibition_is_of_no_alert() -> None:
    for rule in rules():
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            if matcher.startswith("alertname"):
                # Each name of a pattern, GhlExporter(Down|Absent)|Watchdog say.
                pattern = matcher.partition("=")[2].strip('~"')
                for prefix, inner in re.findall(r"(\w*)\(([^)]+)\)", pattern):
                    for part in inner.split("|"):
                        assert matching([f'alertname=~"{prefix}{part}"']), part
                for part in re.sub(r"\w*\([^)]+\)", "", pattern).split("|"):
                    assert not part or matching([f'alertname=~"{part}"']), part


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    with loopback_receivers() as receivers:
        yield receivers


@pytest.fixture
def patient(tmp_path: Path, received: Received) -> Iterator[Alertmanager]:
    """The committed configuration; it tells nobody anything before an hour is over."""
    config = point_at_loopback(tmp_path, received, group_wait="1h")
    with Alertmanager(tmp_path, config=config) as running:
        yield running


async def test_each_cause_keeps_quiet_what_follows_from_it_and_nothing_else(
    patient: Alertmanager,
) -> None:
    expected = {(cause, follows): same for cause, quiet, same in QUIET for follows in quiet}
    posted, quiet = [], set()
    # Every two alerts alone, as if in an installation of their own.
    for one, other in combinations(EVERY_ALERT, 2):
        pair = f"{one.name} {other.name}"
        posted += [labels_of(one, job=pair), labels_of(other, job=pair)]
        for cause, follows in ((one, other), (other, one)):
            same = expected.get((cause.name, follows.name))
            if same is None:
                continue
            quiet.add((pair, follows.name))
            for label in filter(None, ("job", same)):
                job = f"{pair}, not the same {label}"
                changed = {"job": job} | {label: f"other {job}"}
                posted += [labels_of(cause, job=job), labels_of(follows, **changed)]
    post_alerts(patient, [{"labels": labels} for labels in posted])
    # What comes last is looked at last.
    job = "last"
    post_alerts(
        patient,
        [
            {"labels": labels_of(BY_NAME[name], job=job)}
            for name in ("GhlExporterNoLeader", "GhlExporterDatabaseDown")
        ],
    )
    quiet.add((job, "GhlExporterNoLeader"))

    def suppressed() -> set[tuple[str, str]]:
        return {
            (alert["labels"]["job"], alert["labels"]["alertname"])
            for alert in get_alerts(patient)
            if alert["status"]["state"] == "suppressed" and alert["status"]["inhibitedBy"]
        }

    await wait_until(lambda: (job, "GhlExporterNoLeader") in suppressed())
    assert suppressed() == quiet


async def test_a_cause_that_ends_lets_what_followed_speak(patient: Alertmanager) -> None:
    cause, follows = (labels_of(BY_NAME[name]) for name in ("GhlWebhooksSilent", "GhlRevenueLow"))

    def state() -> str:
        [found] = [one for one in get_alerts(patient) if one["labels"] == follows]
        return str(found["status"]["state"])

    post_alerts(patient, [{"labels": cause}, {"labels": follows}])
    await wait_until(lambda: state() == "suppressed")
    post_alerts(patient, [{"labels": cause, "endsAt": "2020-01-01T00:00:00Z"}])
    await wait_until(lambda: state() == "active")
