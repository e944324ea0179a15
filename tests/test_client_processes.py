"""Every way in which Python services run: what is tracked arrives, or is said to be lost.

Each program runs as a process of its own against the real service.
"""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import orjson
import pytest

from exporter.api.keys import create_key
from exporter.client.worker import EXIT_SECONDS
from tests.conftest import Service, Signer, free_port, wait_until
from tests.sender import new_database, running_service

HEAD = """
import asyncio, os, sys, threading, time
from exporter.client import AsyncClient, Client
url, key, place = sys.argv[1:4]
def track(client, name, count):
    for number in range(count):
        assert client.track_agent_activity(f"{name}-{number}")
"""


@pytest.fixture(scope="module")
def database(postgres: object) -> str:
    import asyncio

    return asyncio.run(new_database(postgres))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def service(
    database: str, signer: Signer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service")
    with running_service(
        directory, signer, database_url=database, api_requests_per_minute=100_000
    ) as made:
        yield made


class Runner:
    """Runs programs, each with a location of its own, and reads what of them is stored."""

    def __init__(self, url: str, key: str, connection: asyncpg.Connection, place: str) -> None:
        self._arguments = (url, key, place)
        self._connection = connection
        self._place = place

    def program(self, text: str) -> list[str]:
        return [sys.executable, "-c", HEAD + textwrap.dedent(text), *self._arguments]

    def run(self, text: str, *, url: str | None = None) -> subprocess.CompletedProcess[str]:
        command = self.program(text)
        if url is not None:
            command[-3] = url
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=environment()
        )

    async def agents(self) -> list[str]:
        """Return the agents whose activities are stored; one twice would be there twice."""
        bodies = await self._connection.fetch(
            "SELECT body FROM inbox WHERE location_id = $1", self._place
        )
        return sorted(orjson.loads(body)["agent_id"] for (body,) in bodies)


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])}


def names(**counts: int) -> list[str]:
    return sorted(f"{name}-{number}" for name, count in counts.items() for number in range(count))


@pytest.fixture
async def runner(
    service: Service, database: str, request: pytest.FixtureRequest
) -> AsyncIterator[Runner]:
    connection = await asyncpg.connect(database)
    key = await create_key(connection, "platform", ["read", "track"], ["*"])
    yield Runner(service.url, key, connection, request.node.name)
    await connection.close()


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("Client", ""),
        ("AsyncClient", ""),
        ("Client", "raise SystemExit(0)"),
        ("Client", "threading.Thread(target=lambda: time.sleep(0.2)).start()"),
        (
            "Client",
            "import signal; signal.signal(15, lambda *_: sys.exit()); os.kill(os.getpid(), 15)",
        ),
    ],
)
async def test_what_waits_at_the_end_of_the_interpreter_is_sent(
    runner: Runner, kind: str, end: str
) -> None:
    done = runner.run(f"""
        client = {kind}(url, key, location_id=place)
        track(client, "a", 50)
        {end}
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert await runner.agents() == names(a=50)


async def test_what_cannot_be_sent_at_the_end_is_counted_on_standard_error(runner: Runner) -> None:
    started = time.monotonic()
    done = runner.run(
        """
        first, second = (Client(url, key, location_id=place) for _ in range(2))
        track(first, "a", 50)
        track(second, "b", 7)
        """,
        url=f"http://127.0.0.1:{free_port()}",
    )
    assert done.returncode == 0
    assert "50 calls are lost" in done.stderr
    assert "7 calls are lost" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < EXIT_SECONDS + 15


async def test_a_name_is_looked_up_at_the_end_too(runner: Runner, service: Service) -> None:
    done = runner.run(
        "track(Client(url, key, location_id=place), 'a', 1)",
        url=service.url.replace("127.0.0.1", "localhost"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert await runner.agents() == names(a=1)


async def test_a_client_works_over_several_event_loops(runner: Runner) -> None:
    done = runner.run("""
        client = AsyncClient(url, key, location_id=place)
        async def first():
            await client.start()
            track(client, "a", 5)
        async def next(name):
            track(client, name, 5)
            assert (await client.get_health())["database_up"]
            assert await client.flush()
        asyncio.run(first())
        asyncio.run(next("b"))
        asyncio.run(next("c"))
        thread = threading.Thread(target=lambda: asyncio.run(next("d")))
        thread.start()
        thread.join()
        track(client, "e", 5)
        async def last():
            await client.close()
            await client.close()
            assert not client.track_agent_activity("ann")
            assert await client.get_health() is None
            assert not await client.flush()
            print(client.stats.sent, client.stats.dropped)
        asyncio.run(last())
    """)
    assert done.stdout == "25 1\n", done.stderr
    assert await runner.agents() == names(a=5, b=5, c=5, d=5, e=5)


async def test_threads_share_a_client(runner: Runner) -> None:
    done = runner.run("""
        with Client(url, key, location_id=place) as client:
            threads = [
                threading.Thread(target=track, args=(client, f"t{n}", 100), daemon=n % 2)
                for n in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert await runner.agents() == names(**{f"t{number}": 100 for number in range(8)})


async def test_forked_workers_send_their_own_and_the_parent_its_own(runner: Runner) -> None:
    """As gunicorn does with a preloaded application: connections and queue stay the parent's."""
    done = runner.run("""
        client = Client(url, key, location_id=place)
        track(client, "before", 20)
        assert client.flush()
        track(client, "waiting", 20)
        children = []
        for number in range(3):
            if not (pid := os.fork()):
                assert client.stats.queued == 0
                track(client, f"child{number}", 20)
                assert client.get_health()["database_up"]
                sys.exit()
            children.append(pid)
        track(client, "after", 20)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        track(client, "end", 20)
        assert client.flush()
        client.close()
        print(client.stats.sent, client.stats.retries)
    """)
    assert (done.stdout, done.stderr) == ("80 0\n", "")
    parent = names(before=20, waiting=20, after=20, end=20)
    assert await runner.agents() == sorted(parent + names(child0=20, child1=20, child2=20))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_processes_of_multiprocessing_send_before_they_end(
    runner: Runner, tmp_path: Path, method: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        HEAD
        + textwrap.dedent(f"""
        import multiprocessing
        def work(name):
            global client
            client = globals().get("client") or Client(url, key, location_id=place)
            track(client, name, 20)
        if __name__ == "__main__":
            if "{method}" == "fork":
                client = Client(url, key, location_id=place)
                track(client, "parent", 20)
            context = multiprocessing.get_context("{method}")
            children = [context.Process(target=work, args=(f"c{{n}}",)) for n in range(2)]
            for child in children:
                child.start()
            for child in children:
                child.join()
                assert child.exitcode == 0
    """)
    )
    done = subprocess.run(
        [sys.executable, program, *runner._arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert await runner.agents() == names(
        c0=20, c1=20, **({"parent": 20} if method == "fork" else {})
    )


async def test_a_client_that_nobody_refers_to_sends_what_it_has(runner: Runner) -> None:
    done = runner.run("""
        import gc
        client = Client(url, key, location_id=place)
        track(client, "a", 50)
        worker = client._worker
        del client
        gc.collect()
        worker._ended.result(10)
        assert threading.active_count() == 1
        print(worker.stats.sent)
    """)
    assert (done.stdout, done.stderr) == ("50\n", "")
    assert await runner.agents() == names(a=50)


async def test_an_interrupted_close_still_ends_and_counts(runner: Runner) -> None:
    done = runner.run(
        """
        import signal
        main = threading.main_thread().ident
        client = Client(url, key, location_id=place)
        track(client, "a", 3)
        threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
        try:
            client.close(30)
        except KeyboardInterrupt:
            print("interrupted", client.stats.waiting, client.stats.dropped)
        client.close()
        """,
        url=f"http://127.0.0.1:{free_port()}",
    )
    assert done.stdout == "interrupted 0 3\n", done.stderr
    assert "3 calls are lost" in done.stderr
    assert "Traceback" not in done.stderr


async def test_without_threads_calls_wait_and_nothing_breaks(runner: Runner) -> None:
    done = runner.run("""
        threading.stack_size(2**46)
        client = Client(url, key, location_id=place)
        track(client, "a", 3)
        assert client.get_health() is None
        assert not client.flush(1)
        threading.stack_size(0)
        track(client, "b", 3)
        assert client.flush()
    """)
    assert done.returncode == 0, done.stderr
    assert "no thread can be started" in done.stderr
    assert await runner.agents() == names(a=3, b=3)


async def test_uwsgi_without_threads_is_told_so(runner: Runner, tmp_path: Path) -> None:
    pytest.importorskip("pyuwsgi")
    port = free_port()
    (tmp_path / "app.py").write_text(
        HEAD.replace("sys.argv[1:4]", repr(runner._arguments))
        + textwrap.dedent("""
        client = Client(url, key, location_id=place)
        def application(environment, start_response):
            track(client, environment["PATH_INFO"].strip("/"), 5)
            start_response("200 OK", [])
            return [str(client.flush(10)).encode()]
    """)
    )
    command = "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])"
    options = ["--http-socket", f"127.0.0.1:{port}", "--master", "--processes", "2"]
    with (tmp_path / "log").open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", command, *options, "--die-on-term", "--wsgi-file", "app.py"],
            cwd=tmp_path,
            env=environment(),
            stdout=output,
            stderr=output,
        )
    try:
        web = Service(tmp_path, {}, port)

        def answers() -> bool:
            try:
                return web.get("/first") == (200, b"True")
            except OSError:
                return False

        await wait_until(answers, 20)
    finally:
        server.terminate()
        server.wait(20)
    assert set(names(first=5)) <= set(await runner.agents())
    assert "uWSGI runs without threads" in (tmp_path / "log").read_text()
