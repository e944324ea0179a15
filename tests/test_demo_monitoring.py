"""Prometheus and Alertmanager as the demo's servers: real processes, asked over HTTP."""

import json
import time
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.demo.servers import Alertmanager, Prometheus, Server, ServerError
from tests.conftest import free_port

needs_prometheus = pytest.mark.skipif(not Prometheus.available(), reason="no prometheus on PATH")
ROUTES = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


@needs_prometheus
def test_prometheus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    config = tmp_path / "given.yml"
    config.write_text("global: {scrape_interval: 5s}\n")
    with Prometheus(tmp_path / "a", config=config) as server:
        pid = server.pid
        assert pid is not None
        assert server._is_ready(pid)
        server.kill()
        server.start()
        assert server.pid != pid
    assert not Path(f"/proc/{pid}").exists()
    broken: Server = Prometheus(tmp_path / "b", config="no_such_section: {}\n")
    with pytest.raises(ServerError, match="no_such_section"):
        broken.start()
    assert broken.url() == f"http://127.0.0.1:{broken.port}"


@needs_prometheus
def test_prometheus_knows_its_oldest_sample(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    port = free_port()
    config = (
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: own, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]"
    )
    with Prometheus(tmp_path, config=config, port=port) as server:
        assert server.oldest_sample() is None
        deadline = time.monotonic() + 20
        while (oldest := server.oldest_sample()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert before <= oldest <= datetime.now(UTC)
    with pytest.raises(OSError, match="refused"):
        server.oldest_sample()


def alerts(server: Alertmanager, *sent: dict[str, object]) -> list[dict[str, Any]]:
    """Send alerts if there are any; return those that it holds."""
    url = f"{server.url()}/api/v2/alerts"
    if sent:
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(sent).encode(), head)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
    with urllib.request.urlopen(url, timeout=10) as answer:
        held: list[dict[str, Any]] = json.load(answer)
        return held


@pytest.mark.skipif(not Alertmanager.available(), reason="no alertmanager on PATH")
def test_alertmanager(tmp_path: Path) -> None:
    with Alertmanager(tmp_path / "a", config=ROUTES) as server:
        pid = server.pid
        assert pid is not None
        assert server._is_ready(pid)
        assert alerts(server) == []
        labels = {"alertname": "Tried", "severity": "page"}
        held = alerts(server, {"labels": labels, "annotations": {"summary": "It was tried."}})
        assert [alert["labels"] for alert in held] == [labels]
        assert held[0]["annotations"] == {"summary": "It was tried."}
        assert held[0]["status"]["state"] in {"active", "unprocessed"}
        assert listening_ports(pid) == {server.port}
        port = server.port
        server.kill()
        server.start()
        assert (server.port, server.pid != pid) == (port, True)
        pid = server.pid
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    assert not server._is_ready(pid)
    given = tmp_path / "given.yml"
    given.write_text("route: {receiver: missing}\nreceivers: [{name: nobody}]\n")
    with pytest.raises(ServerError, match="missing"):
        Alertmanager(tmp_path / "b", config=given).start()


def listening_ports(pid: int) -> set[int]:
    """TCP ports on which a process listens."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            sockets.add(str(descriptor.readlink()))
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports
