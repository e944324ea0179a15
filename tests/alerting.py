"""Receivers of notifications on this machine, and the committed Alertmanager pointed at them."""

import base64
import json
import re
import shutil
import socketserver
import subprocess
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from alerts.alert import Alert
from alerts.generate import ALERTS
from exporter.demo.servers import Alertmanager
from exporter.domain.slo import SERVICE

FOLDER = Path(__file__).parents[1] / "alerts" / "alertmanager"
CONFIG = FOLDER / "alertmanager.yml"
EVERY_ALERT = tuple(alert for alerts in ALERTS.values() for alert in alerts)
BY_NAME = {alert.name: alert for alert in EVERY_ALERT}
PASSWORD, ROUTING_KEY = "mail-password", "0123456789abcdef0123456789abcdef"
# The labels that an alert has of its series, beside those that its rule gives it.
INSTANCE, LOCATION = {"instance": "a:12105"}, {"location": "loc-1"}
_OF_SERIES: dict[str, dict[str, str]] = {
    "GhlExporterDown": INSTANCE,
    "GhlExporterRestarting": INSTANCE,
    "GhlExporterSpoolInUse": INSTANCE,
    "GhlExporterSpoolFilling": INSTANCE,
    "GhlExporterSpoolSetAside": INSTANCE,
    "GhlExporterSpoolUnusable": INSTANCE,
    "GhlExporterKpiStale": {"kpi": "win_ratio"},
    "GhlExporterKpiRowsDropped": {"kpi": "win_ratio"},
    "GhlExporterLabelsCut": {"label": "event"},
    "GhlLocationSilent": LOCATION,
}


def labels_of(alert: Alert, **changed: str) -> dict[str, str]:
    """Return an alert's labels as Alertmanager gets them."""
    rule: dict[str, str] = alert.rule()["labels"]
    labels = {"alertname": alert.name, **rule}
    if alert.name != "Watchdog":
        labels["job"] = SERVICE
        labels |= _OF_SERIES.get(alert.name, LOCATION if alert.team == "business" else {})
    return labels | changed


@dataclass
class Received:
    """What came, in the order it came."""

    slack: list[dict[str, Any]] = field(default_factory=list)
    pagerduty: list[dict[str, Any]] = field(default_factory=list)
    webhook: list[dict[str, Any]] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    http_port: int = 0
    smtp_port: int = 0

    def url(self, kind: str) -> str:
        """Return where one kind of notification is taken."""
        return f"http://127.0.0.1:{self.http_port}/{kind}"


def _http_handler(received: Received) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            getattr(received, self.path.strip("/")).append(body)
            # PagerDuty answers 202, the others 200; Slack's answer is this text.
            self.send_response(202 if "pagerduty" in self.path else 200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _smtp_handler(received: Received) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 loopback")
            while line := self.rfile.readline().decode().strip():
                match line.partition(" ")[0].upper():
                    case "EHLO":
                        self._say("250-loopback", "250 AUTH PLAIN")
                    case "AUTH":
                        received.logins.append(base64.b64decode(line.split(" ")[2]).decode())
                        self._say("235 good")
                    case "RCPT":
                        received.recipients += re.findall("<(.+?)>", line)
                        self._say("250 good")
                    case "DATA":
                        self._say("354 go on")
                        received.mails.append(self._message())
                        self._say("250 taken")
                    case "QUIT":
                        self._say("221 bye")
                        return
                    case _:
                        self._say("250 good")

        def _message(self) -> EmailMessage:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line.removeprefix(b"."))
            message = message_from_bytes(b"".join(lines), policy=policy.default)
            assert isinstance(message, EmailMessage)
            return message

        def _say(self, *lines: str) -> None:
            self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    return Handler


@contextmanager
def loopback_receivers() -> Iterator[Received]:
    """Take what is sent to Slack, PagerDuty, a webhook and a mail server, at free ports."""
    received = Received()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _http_handler(received))
    smtp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _smtp_handler(received))
    received.http_port, received.smtp_port = http.server_address[1], smtp.server_address[1]
    threads = [threading.Thread(target=server.serve_forever) for server in (http, smtp)]
    for thread in threads:
        thread.start()
    try:
        yield received
    finally:
        for server in (http, smtp):
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def point_at_loopback(directory: Path, received: Received, **timing: str) -> Path:
    """Write the committed configuration with the addresses, the secrets and the times of a test.

    Returns the path of its copy; all the rest of it is what is committed.
    """
    copy = directory / "alertmanager"
    shutil.copytree(FOLDER, copy)

    def secret(name: str, text: str) -> str:
        path = directory / name
        path.write_text(text, "utf-8")
        return str(path)

    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    config["global"] |= {
        "smtp_smarthost": f"127.0.0.1:{received.smtp_port}",
        "smtp_require_tls": False,
        "smtp_auth_password_file": secret("smtp_password", PASSWORD),
        "slack_api_url_file": secret("slack_api_url", received.url("slack")),
        "pagerduty_url": received.url("pagerduty"),
    }
    for receiver in config["receivers"]:
        for pagerduty in receiver.get("pagerduty_configs", ()):
            pagerduty["routing_key_file"] = secret("pagerduty_routing_key", ROUTING_KEY)
        for webhook in receiver.get("webhook_configs", ()):
            webhook["url"] = received.url("webhook")
    for route in (config["route"], *config["route"]["routes"]):
        route.update(timing)
    text = yaml.safe_dump(config)
    assert "https://" not in text
    assert "/run/secrets" not in text
    path = copy / CONFIG.name
    path.write_text(text, "utf-8")
    return path


def post_alerts(server: Alertmanager, alerts: Iterable[Mapping[str, Any]]) -> None:
    """Send alerts as Prometheus does."""
    request = urllib.request.Request(
        f"{server.url()}/api/v2/alerts",
        data=json.dumps(list(alerts)).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


def get_alerts(server: Alertmanager) -> list[dict[str, Any]]:
    """Return the alerts that Alertmanager holds, each with its state."""
    with urllib.request.urlopen(f"{server.url()}/api/v2/alerts", timeout=30) as response:
        alerts: list[dict[str, Any]] = json.load(response)
    return alerts


def amtool(*arguments: str | Path) -> str:
    """Run it, and return what it says; whatever it finds wrong fails the test."""
    done = subprocess.run(
        ["amtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
