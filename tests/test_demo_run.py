"""`ghl-exporter demo` as a newcomer uses it: started, looked at, stopped, started again."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.demo.past import Past
from exporter.demo.servers import Prometheus
from tests.conftest import free_port

# A shell turns Ctrl-C off for what it starts in the background.
IN_BACKGROUND = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"]
RUNNING = "Ctrl-C stops everything"
PAST = "Prometheus has a past"
WITH_PAST = Prometheus.available() and Past.available()


class Demo:
    """The demo in a directory of the test's, in a terminal session of its own."""

    def __init__(self, directory: Path, port: int, *flags: str, **settings: str) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{port}"
        self.output = directory.with_suffix(f".{port}.output")
        # The least that a shell has: no settings, no home.
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "LISTEN_ADDRESS": f"127.0.0.1:{port}",
            **settings,
        }
        command = ["-m", "exporter", "demo"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*IN_BACKGROUND, sys.executable, *command, "--directory", str(directory), *flags],
                env=environment,
                cwd=directory.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def wait_until_running(self, seconds: float = 90) -> None:
        self.wait_for(lambda: RUNNING in self.said(), seconds)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a metric that have the labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        chosen = [line for line in lines if re.match(rf"{name}(\{{| )", line)]
        return sum(
            float(line.rpartition(" ")[2])
            for line in chosen
            if all(f'{label}="{value}"' in line for label, value in labels.items())
        )

    def stop(self, number: signal.Signals, *, group: bool = False) -> str:
        """Send a signal, wait for the end, return what the demo said."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        assert self.process.wait(40) == 0, self.said()
        return self.said()


def processes_of(directory: Path) -> list[str]:
    """Command lines of the processes that have to do with a demo's directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (process / "environ").read_bytes().decode("utf-8", "replace")
            where = str((process / "cwd").readlink())
        except OSError:
            continue
        if any(str(directory) in text for text in (command, environment, where)):
            found.append(command)
    return found


@pytest.fixture
def make_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start demos; none outlives the test."""
    demos: list[Demo] = []

    def make(*flags: str, port: int | None = None, **settings: str) -> Demo:
        demos.append(Demo(tmp_path / "demo", port or free_port(), *flags, **settings))
        return demos[-1]

    yield make
    for demo in demos:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()


def test_shows_live_kpis_and_continues_after_a_stop(
    make_demo: Callable[..., Demo], tmp_path: Path
) -> None:
    demo = make_demo("--days", "3", "--rate", "20")
    demo.wait_until_running()
    demo.wait_for(lambda: demo.total("ghl_leads_created", window="7d") > 100, 30)
    demo.wait_for(lambda: demo.total("ghl_exporter_webhooks_total", outcome="stored") > 20, 30)
    if WITH_PAST:
        demo.wait_for(lambda: PAST in demo.said(), 60)
    assert demo.total("ghl_exporter_webhooks_rejected_total") == 0
    leads = demo.total("ghl_leads_created", window="7d")
    # As a terminal does it: every process of the group hears it.
    said = demo.stop(signal.SIGINT, group=True)
    assert said.rstrip().endswith("stopped"), said
    assert f"{demo.url}/metrics" in said
    assert processes_of(tmp_path / "demo") == []

    again = make_demo("--days", "3", "--rate", "20")
    again.wait_until_running(30)
    second = make_demo()
    assert second.process.wait(20) == 1
    assert f"another demo is running in {tmp_path / 'demo'}" in second.said().replace("\n", "")
    again.wait_for(lambda: again.total("ghl_leads_created", window="7d") >= leads, 20)
    again.wait_for(lambda: again.total("ghl_exporter_webhooks_total", outcome="stored") > 5, 30)
    history = re.search(r"history.* ([\d,]+) events", again.said())
    assert history is not None, again.said()
    assert int(history[1].replace(",", "")) < 1000, "the history was written again"
    assert PAST not in again.said(), "so was the past"
    again.stop(signal.SIGTERM)
    assert processes_of(tmp_path / "demo") == []


def test_a_stop_while_the_history_is_written_leaves_nothing_and_the_next_start_goes_on(
    make_demo: Callable[..., Demo], tmp_path: Path
) -> None:
    demo = make_demo("--days", "60")
    # Made once the servers run; the history takes longer than these seconds.
    demo.wait_for((tmp_path / "demo" / "signing.key").exists, 30)
    time.sleep(3)
    assert RUNNING not in demo.said()
    demo.stop(signal.SIGINT)
    assert processes_of(tmp_path / "demo") == []

    again = make_demo("--days", "60")
    again.wait_until_running()
    again.wait_for(lambda: again.total("ghl_leads_created", window="90d") > 5000, 60)
    again.stop(signal.SIGINT)
    assert processes_of(tmp_path / "demo") == []


@pytest.mark.parametrize("setting", ["LISTEN_ADDRESS", "METRICS_ADDRESS"])
def test_an_address_in_use_is_said_before_anything_is_started_or_written(
    make_demo: Callable[..., Demo], tmp_path: Path, setting: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        demo = make_demo("--days", "1", **{setting: address})
        assert demo.process.wait(60) == 1
    assert demo.said().splitlines() == [f"wrong  {setting} {address}: Address already in use"]
    assert processes_of(tmp_path / "demo") == []
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["lock"]


@pytest.mark.skipif(not Prometheus.available(), reason="needs Prometheus on PATH")
def test_metrics_at_an_address_of_their_own_behind_a_token_are_scraped(
    make_demo: Callable[..., Demo],
) -> None:
    address = f"127.0.0.1:{free_port()}"
    demo = make_demo("--days", "1", METRICS_ADDRESS=address, METRICS_TOKEN="m" * 32)
    demo.wait_until_running()
    assert f"http://{address}/metrics" in demo.said()
    prometheus = re.search(r"Prometheus +(http://\S+)/graph", demo.said())
    assert prometheus is not None

    def scraped() -> bool:
        with urllib.request.urlopen(f"{prometheus[1]}/api/v1/query?query=up", timeout=10) as found:
            samples = json.load(found)["data"]["result"]
        return [(one["metric"]["instance"], one["value"][1]) for one in samples] == [(address, "1")]

    demo.wait_for(scraped, 60)
    demo.stop(signal.SIGINT)
