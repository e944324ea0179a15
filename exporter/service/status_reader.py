"""Collect the state of this instance from the parts that know it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from exporter.cache.redis import Cache
from exporter.database.availability import Availability
from exporter.inbox.inbox import Inbox
from exporter.kpis.definitions import all_kpis
from exporter.kpis.refresh import KpiRefresher
from exporter.publishing.status import KpiStatus, RedisStatus, SpoolStatus, Status
from exporter.receiver.handlers import Receiver
from exporter.service.leader import Leader
from exporter.service.sampler import Sampler
from exporter.settings import Settings

# A refresh is late after so many intervals, and these seconds.
_LATE_INTERVALS, _LATE_SECONDS = 3, 5


class StatusReader:
    """Reads the state of this instance. It asks no database, so it also works without one."""

    def __init__(
        self,
        settings: Settings,
        receiver: Receiver,
        inbox: Inbox,
        kpis: KpiRefresher,
        cache: Cache,
        leader: Leader,
        sampler: Sampler,
        dependencies: Sequence[Availability],
    ) -> None:
        """`dependencies`: what is named, with its reason, while it is down."""
        self._settings = settings
        self._receiver = receiver
        self._inbox = inbox
        self._kpis = kpis
        self._cache = cache
        self._leader = leader
        self._sampler = sampler
        self._dependencies = (inbox.availability, *dependencies)

    def read(self) -> Status:
        """Return the present state."""
        now = datetime.now(UTC)
        spool, sample = self._inbox.spool, self._sampler.sample
        return Status(
            now=now,
            leader=self._leader.leads,
            commits=self._inbox.database_up,
            database_up=self._sampler.database_up,
            fsync_off=self._inbox.fsync_off,
            faults=tuple(str(one) for one in self._settings.faults),
            outages=tuple(f"{one.problem}: {one.reason}" for one in self._dependencies if one.down),
            spool=SpoolStatus(
                usable=spool.usable,
                problem=None if spool.usable else str(spool.problem),
                events=spool.events,
                set_aside_events=spool.set_aside,
            ),
            redis=self._read_redis(),
            last_webhook_at=self._receiver.last_webhook_at,
            waiting_events=sample.waiting_events,
            oldest_event_age=sample.oldest_event_age,
            quarantined_events=sample.quarantined_events,
            missing_history=self._sampler.missing_history,
            kpis=self._read_kpis(now),
        )

    def _read_redis(self) -> RedisStatus | None:
        availability = self._cache.availability
        fault = self._settings.fault("redis_url")
        if not self._cache.set_up and fault is None and not availability.down:
            return None
        problem = f"{availability.problem}: {availability.reason}" if availability.down else None
        return RedisStatus(up=availability.up, problem=problem)

    def _read_kpis(self, now: datetime) -> KpiStatus:
        refreshed_at = self._kpis.refreshed_at
        limit = _LATE_INTERVALS * self._settings.kpi_interval + _LATE_SECONDS
        return KpiStatus(
            refreshed_at=refreshed_at,
            late=refreshed_at is not None and (now - refreshed_at).total_seconds() > limit,
            failed=len(all_kpis()) - len(self._kpis.snapshot.kpis),
        )
