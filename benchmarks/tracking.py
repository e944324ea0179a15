"""Tracking calls a second, by the size of their batches, in one run.

    python -m benchmarks.tracking [--seconds 3] [--rounds 3] [--connections 8]

The service stores them in PostgreSQL with fsync on and projects nothing meanwhile (another copy
would). Where there are two CPUs, the service has the first and the load the last.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
from nacl.signing import SigningKey
from rich.console import Console
from rich.table import Table

from benchmarks.ingest import Server
from benchmarks.load import pin
from exporter.api.keys import create_key
from exporter.demo.servers import EmbeddedPostgres

SIZES = (1, 10, 100, 1000)


async def _load(orders: dict[str, Any]) -> dict[str, float]:
    """Send batches over some connections for some seconds."""
    url = f"http://127.0.0.1:{orders['port']}/api/business-metrics/track/conversion"
    headers = {"Authorization": f"Bearer {orders['token']}"}
    call = {
        "location_id": "loc",
        "contact_id": "c" * 20,
        "stage": "ai_qualified",
        "ai_score": 80,
        "occurred_at": "2026-02-01T10:00:00.000Z",
    }
    size, number, sent, refused = orders["size"], 0, 0, 0
    until = time.perf_counter() + orders["seconds"]
    async with aiohttp.ClientSession(headers=headers) as session:

        async def one() -> None:
            nonlocal number, sent, refused
            while time.perf_counter() < until:
                number += size
                keys = range(number, number + size)
                calls = [{**call, "idempotency_key": f"{orders['run']}-{n}"} for n in keys]
                async with session.post(url, json=calls) as answer:
                    taken = answer.status == 200
                sent += size if taken else 0
                refused += not taken

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(orders["connections"])))
        took = time.perf_counter() - started
        return {"per_second": sent / took, "sent": sent, "refused": refused}


def _send(orders: dict[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tracking", "--as-load"],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


async def _measure(options: argparse.Namespace, console: Console, directory: Path) -> None:
    results: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    with EmbeddedPostgres(directory / "postgres") as postgres:
        server = Server("service", postgres, SigningKey.generate(), directory)
        connection = await server.create_database(postgres)
        token = await create_key(connection, "bench", ["track"], ["*"])
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(server.without_leader())
            stack.enter_context(server.running({"API_REQUESTS_PER_MINUTE": "1000000"}))
            for number in range(options.rounds):
                for size in SIZES:
                    orders = {
                        "port": server.port,
                        "token": token,
                        "size": size,
                        "seconds": options.seconds,
                        "connections": options.connections,
                        "run": f"{number}-{size}",
                    }
                    results[size].append(await asyncio.to_thread(_send, orders))
        sent = sum(one["sent"] for rounds in results.values() for one in rounds)
        stored = await connection.fetchval("SELECT count(*) FROM inbox")
        if stored < sent:
            raise RuntimeError(f"{sent:.0f} were answered 200, and {stored} are stored")
        await connection.close()
    table = Table(title=f"{options.connections} connections, {os.cpu_count()} CPUs")
    for column in ("calls in a request", "calls/s stored", "requests not 200"):
        table.add_column(column, justify="right")
    rates = {size: median(one["per_second"] for one in results[size]) for size in SIZES}
    for size in SIZES:
        refused = sum(one["refused"] for one in results[size])
        table.add_row(str(size), f"{rates[size]:,.0f}", f"{refused:.0f}")
    console.print(table)
    for size in SIZES[1:]:
        console.print(f"ratio  {size} in a request / one each: {rates[size] / rates[1]:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--as-load", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_load:
        cpus = os.cpu_count() or 1
        pin(cpus - 1 if cpus > 1 else None)
        print(json.dumps(asyncio.run(_load(json.load(sys.stdin)))))
        return
    with tempfile.TemporaryDirectory(prefix="ghl-exporter-tracking-") as directory:
        asyncio.run(_measure(options, Console(width=110), Path(directory)))


if __name__ == "__main__":
    main()
