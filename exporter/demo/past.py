"""Give the demo's Prometheus a past: what the KPIs were on each day before it began to scrape.

A day's figures are those that the API answers for `until` that day: computed from all that is known
by now. They are told once an hour through the location's day that follows, by the location's own
time zone. What holds for now only, what is open say, has no past.
"""

import asyncio
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path

import asyncpg

from exporter.database.connect import connect
from exporter.demo.servers import Prometheus
from exporter.demo.servers._process import server_environment
from exporter.kpis.definitions import KpiFile, all_kpis
from exporter.kpis.refresh import query_kpi, reported_locations
from exporter.kpis.snapshot import render
from exporter.kpis.windows import windows
from exporter.settings import Settings

# Boards ask for 30 days, and compare them with the 30 before; two more for time zones.
PAST = timedelta(days=62)
_HOUR = timedelta(hours=1)
# With this `lookback` queries find the past as they find what was scraped: a sample holds until the
# next one, and no longer: else who is gone today would stand there at the hour that a day begins.
LOOKBACK = "3599999ms"
# The longest block that Prometheus makes of shorter ones where it keeps 70 days, and its grid since
# 1970: blocks like these it leaves alone.
_BLOCK_HOURS = 162

# A location, and one of its days.
DayOfLocation = tuple[str, date]


class PromtoolError(RuntimeError):
    """promtool made no blocks; the text is what it said."""


class Past:
    """Writes what came before Prometheus's oldest sample.

    The past's first sample is the oldest then, so a later start finds nothing to write. Hours in
    which the demo was stopped stay empty: at its start Prometheus takes nothing from its
    write-ahead log that is older than its newest block, so a block of those hours would cost what
    the log alone holds from before them.
    """

    def __init__(
        self, settings: Settings, prometheus: Prometheus, labels: Mapping[str, str]
    ) -> None:
        """`labels` are those that a scrape adds."""
        self._settings = settings
        self._prometheus = prometheus
        self._labels = ",".join(f'{name}="{value}"' for name, value in labels.items())
        self._staging = prometheus.directory / "past"
        self.progress = ""

    @staticmethod
    def available() -> bool:
        """Whether `promtool` is on PATH."""
        return shutil.which("promtool") is not None

    async def write(self) -> int:
        """Wait until what was received before is facts, write the past, return its samples' number.

        Prometheus loads it within a minute. Raises PromtoolError, what asyncpg raises, and OSError.
        """
        connection = await connect(self._settings, "past")
        try:
            await _wait_for_facts(connection)
            hours = await self._missing_hours(connection)
            days = await self._compute(connection, hours)
            return await self._import(hours, days)
        finally:
            self.progress = ""
            await connection.close()

    async def _missing_hours(
        self, connection: asyncpg.Connection
    ) -> dict[datetime, list[DayOfLocation]]:
        """Return each hour that lacks samples, in order, with the days that it tells."""
        now = datetime.now(UTC)
        oldest = await asyncio.to_thread(self._prometheus.oldest_sample)
        until = min(now, oldest or now)
        locations, _ = await reported_locations(connection, self._settings)
        rows = await connection.fetch("SELECT location_id, first_seen FROM locations")
        first_seen = {row["location_id"]: row["first_seen"] for row in rows}
        zones = {location: self._settings.zone(location) for location in locations}
        missing = {}
        for hour in _hours(now - PAST, until):
            told = []
            for location, zone in zones.items():
                yesterday = hour.astimezone(zone).date() - timedelta(days=1)
                since = first_seen.get(location)
                if since is not None and yesterday >= since.astimezone(zone).date():
                    told.append((location, yesterday))
            if told:
                missing[hour] = told
        return missing

    async def _compute(
        self, connection: asyncpg.Connection, hours: Mapping[datetime, list[DayOfLocation]]
    ) -> dict[DayOfLocation, list[str]]:
        """Return the samples at the end of each day, as lines without a time."""
        days = sorted({day for told in hours.values() for _, day in told})
        locations = sorted({location for told in hours.values() for location, _ in told})
        found: dict[DayOfLocation, list[str]] = {}
        for number, day in enumerate(days, 1):
            self.progress = f"Prometheus's past, day {number} of {len(days)}"
            found |= {(location, day): [] for location in locations}
            now = datetime.now(UTC)
            chosen = windows(self._settings, locations, now=now, until=day)
            for kpi in filter(_has_a_past, all_kpis()):
                rows = await query_kpi(
                    connection,
                    kpi,
                    chosen,
                    settings=self._settings,
                    now=now,
                    timeout=self._settings.kpi_timeout,
                )
                for location in locations:
                    own = [row for row in rows if row["location"] == location]
                    for _, text in render(kpi, own, self._settings.agent_series_limit).families:
                        found[location, day] += text.removesuffix("\n").split("\n") if text else []
        return found

    async def _import(
        self,
        hours: Mapping[datetime, list[DayOfLocation]],
        days: Mapping[DayOfLocation, list[str]],
    ) -> int:
        blocks = [list(group) for _, group in groupby(hours, _block_of)]
        count = 0
        shutil.rmtree(self._staging, ignore_errors=True)
        # Not made by the thread: it may run on for a moment after the folder is gone.
        self._staging.mkdir()
        try:
            for number, block in enumerate(blocks, 1):
                self.progress = f"Prometheus's past, block {number} of {len(blocks)}"
                source = self._staging / f"{number}.om"
                lines = {hour: [days[told] for told in hours[hour]] for hour in block}
                count += await asyncio.to_thread(_write_openmetrics, source, lines, self._labels)
                await self._create_block(source)
                source.unlink()
            # The newest first: where this is cut short, the next start writes what is older.
            for made in sorted((self._staging / "blocks").glob("*/meta.json"), reverse=True):
                made.parent.rename(self._prometheus.data / made.parent.name)
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
        return count

    async def _create_block(self, source: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            *("promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet"),
            f"--max-block-duration={_BLOCK_HOURS}h",
            source,
            self._staging / "blocks",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # What it leaves behind when it is killed goes with the folder.
            env=server_environment() | {"TMPDIR": str(self._staging)},
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise PromtoolError(said.decode("utf-8", "replace").strip())


def _has_a_past(kpi: KpiFile) -> bool:
    # What things are called has no window, and is the same on every day.
    return "window" in kpi.labels or kpi.endpoint is None


def _hours(since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the full hours, and last the moment an hour before `until`.

    What that one tells holds until then: lines go on, and the present begins without remains.
    """
    last = (until - _HOUR).replace(microsecond=0)
    hour = since.replace(minute=0, second=0, microsecond=0) + _HOUR
    while hour < last:
        yield hour
        hour += _HOUR
    if last >= since:
        yield last


def _block_of(hour: datetime) -> int:
    return int(hour.timestamp()) // (_BLOCK_HOURS * 3600)


async def _wait_for_facts(connection: asyncpg.Connection) -> None:
    now = datetime.now(UTC)
    older = "SELECT EXISTS (SELECT FROM inbox_pending WHERE received_at < $1)"
    while True:
        if not await connection.fetchval(older, now):
            return
        await asyncio.sleep(1)


def _write_openmetrics(
    path: Path, hours: Mapping[datetime, Iterable[list[str]]], labels: str
) -> int:
    """Write samples, each series' in the order of time; return how many."""
    series: dict[str, list[str]] = {}
    for hour, told in hours.items():
        for lines in told:
            for line in lines:
                name, _, value = line.rpartition(" ")
                series.setdefault(name, []).append(f" {value} {int(hour.timestamp())}\n")
    with path.open("w", encoding="utf-8", newline="\n") as file:
        # In the order of names: all of one metric's series stand together, as OpenMetrics demands.
        for name in sorted(series):
            metric, _, own = name.partition("{")
            file.writelines(f"{metric}{{{labels},{own}{sample}" for sample in series[name])
        file.write("# EOF\n")
    return sum(map(len, series.values()))
