"""The state of this instance at one moment, and the sentences that say it to people."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# Seconds beyond which an event that is not projected yet is worth a warning.
OLD_EVENT_SECONDS = 60.0


class Level(StrEnum):
    """How much attention a sentence asks for. The values are CSS classes of the landing page."""

    GOOD = "good"
    WARNING = "warn"
    BAD = "bad"


@dataclass(frozen=True)
class Sentence:
    """One sentence of the state."""

    level: Level
    text: str


@dataclass(frozen=True, kw_only=True)
class RedisStatus:
    """The state of a Redis that is set up. `problem`: why it cannot be used, if that is known."""

    up: bool
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class SpoolStatus:
    """The state of the local spool. `problem`: why it cannot be used; None while it can."""

    usable: bool
    problem: str | None
    events: int
    set_aside_events: int


@dataclass(frozen=True, kw_only=True)
class KpiStatus:
    """The KPIs that this instance publishes.

    `refreshed_at` is None where it publishes none; `late` where the last refresh is older than it
    may be; `failed` counts KPIs that were never computed.
    """

    refreshed_at: datetime | None
    late: bool
    failed: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of this instance at one moment.

    `commits`: PostgreSQL takes commits; `database_up`: it answers queries too. `faults` names
    settings that are ignored, `outages` each dependency that is down, with its reason.
    `missing_history` says what the figures lack. Ages are in seconds.
    """

    now: datetime
    leader: bool
    commits: bool
    database_up: bool
    fsync_off: bool
    faults: tuple[str, ...]
    outages: tuple[str, ...]
    spool: SpoolStatus
    redis: RedisStatus | None
    last_webhook_at: datetime | None
    waiting_events: int
    oldest_event_age: float
    quarantined_events: int
    missing_history: tuple[str, ...]
    kpis: KpiStatus

    @property
    def accepts_webhooks(self) -> bool:
        """Tell whether a webhook can be stored, in PostgreSQL or in the spool."""
        return self.commits or self.spool.usable

    @property
    def not_final(self) -> str | None:
        """Return the sentence that figures are not final, or None where they are."""
        if not self.missing_history:
            return None
        return f"Figures are not final, and there is no grade: {'; '.join(self.missing_history)}."

    def sentences(self) -> list[Sentence]:
        """Return the state in sentences, in the order in which they matter."""
        return [
            *self._database_sentences(),
            *self._spool_sentences(),
            self._last_webhook_sentence(),
            *(self._projection_sentences() if self.database_up else _PAUSED),
            self._redis_sentence(),
        ]

    def problems(self) -> list[str]:
        """Return the sentences that ask for attention."""
        return [one.text for one in self.sentences() if one.level is not Level.GOOD]

    def _database_sentences(self) -> list[Sentence]:
        found = [
            Sentence(Level.GOOD, "PostgreSQL takes commits.")
            if self.database_up
            else Sentence(Level.BAD, "PostgreSQL is down; webhooks go to the local spool.")
        ]
        found += [Sentence(Level.BAD, f"{one} (ghl-exporter check)") for one in self.faults]
        found += [Sentence(Level.BAD, one) for one in self.outages]
        if self.fsync_off:
            text = "PostgreSQL has fsync off: what it commits could be lost in a crash."
            found.append(Sentence(Level.BAD, text))
        return found

    def _spool_sentences(self) -> list[Sentence]:
        spool, found = self.spool, []
        if spool.events:
            text = f"Webhooks that wait in the local spool: {spool.events:,}."
            found.append(Sentence(Level.WARNING, text))
        if not spool.usable:
            text = f"The local spool cannot be used: {spool.problem}"
            found.append(Sentence(Level.BAD, text))
        if spool.set_aside_events:
            text = f"Spooled webhooks that were set aside: {spool.set_aside_events:,}."
            found.append(Sentence(Level.WARNING, text))
        return found

    def _last_webhook_sentence(self) -> Sentence:
        if self.last_webhook_at is None:
            return Sentence(Level.GOOD, "No webhook has arrived since this instance started.")
        age = format_duration((self.now - self.last_webhook_at).total_seconds())
        return Sentence(Level.GOOD, f"The last webhook arrived {age} ago.")

    def _projection_sentences(self) -> list[Sentence]:
        waiting = f"{self.waiting_events:,}"
        if self.oldest_event_age > OLD_EVENT_SECONDS:
            age = format_duration(self.oldest_event_age)
            found = [Sentence(Level.WARNING, f"Events that wait: {waiting}, the oldest for {age}.")]
        else:
            text = f"Stored events become facts at once ({waiting} waiting)."
            found = [Sentence(Level.GOOD, text)]
        if self.quarantined_events:
            text = f"Events in quarantine: {self.quarantined_events:,} (ghl-exporter replay)."
            found.append(Sentence(Level.WARNING, text))
        if self.not_final is not None:
            found.append(Sentence(Level.WARNING, self.not_final))
        return [*found, *self._kpi_sentences()]

    def _kpi_sentences(self) -> list[Sentence]:
        kpis = self.kpis
        if kpis.refreshed_at is None:
            text = "KPIs are published by another instance, or not computed yet."
            return [Sentence(Level.WARNING if self.leader else Level.GOOD, text)]
        age = format_duration((self.now - kpis.refreshed_at).total_seconds())
        found = [Sentence(Level.WARNING if kpis.late else Level.GOOD, f"KPIs are {age} old.")]
        if kpis.failed:
            text = f"{kpis.failed} KPI queries have never succeeded."
            found.append(Sentence(Level.BAD, text))
        return found

    def _redis_sentence(self) -> Sentence:
        if self.redis is None:
            return Sentence(Level.GOOD, "Redis is not set up; nothing depends on it.")
        if self.redis.problem is not None:
            return Sentence(Level.WARNING, self.redis.problem)
        if self.redis.up:
            return Sentence(Level.GOOD, "Redis answers.")
        return Sentence(Level.WARNING, "Redis is down: answers are slower.")


_PAUSED = [Sentence(Level.WARNING, "Facts and KPIs are not updated until PostgreSQL is back.")]


def format_duration(seconds: float) -> str:
    """Return a duration in the largest unit of which it has at least two."""
    seconds = max(0.0, seconds)
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
