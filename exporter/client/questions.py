"""The questions of both clients: where each is asked, and what of the answer is returned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from .encode import convert
from .errors import ArgumentError, ClientError
from .forms import read_arguments
from .values import kind, plain

T = TypeVar("T")
Answer = dict[str, Any]


@dataclass(frozen=True)
class Question(Generic[T]):
    """A question to the exporter. `read` raises LookupError or TypeError at another's answer."""

    path: str
    read: Callable[[Answer], T]
    query: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, body: Answer) -> T:
        """Return what was asked for. Raises ClientError where the answer is not the exporter's."""
        try:
            return self.read(body)
        except (LookupError, TypeError):
            raise ClientError(f"not the exporter's answer to {self.path}") from None


class Asks:
    """Makes the questions, with a default location."""

    _location_id: str | None

    def _dashboard(
        self, location_id: object, days: object, until: object, include_trends: object
    ) -> Question[Answer]:
        query = {
            "days": _days(days),
            "until": _day(until),
            "include_trends": "true" if include_trends else None,
        }
        return Question(self._at("dashboard", location_id), _with("ghl_integration"), query)

    def _summary(self, location_id: object, days: object) -> Question[Answer]:
        query = {"days": _days(days)}
        return Question(self._at("summary", location_id), _with("location_id"), query)

    def _revenue(self, location_id: object, days: object) -> Question[float | None]:
        def read(answer: Answer) -> float | None:
            value: float | None = answer["figures"]["ghl_revenue_per_lead"]
            return value

        return Question(self._at("revenue-metrics", location_id), read, {"days": _days(days)})

    def _agents(
        self, positional: tuple[Any, ...], named: Mapping[str, Any]
    ) -> Question[list[Answer]]:
        known = frozenset({"agent_id", "location_id", "days"})
        given = read_arguments("get_agent_productivity_metrics", positional, named, known)
        agent_id = given.get("agent_id")

        def read(answer: Answer) -> list[Answer]:
            agents: list[Answer] = answer["agents"]
            return agents

        query = {
            "days": _days(given.get("days", 30)),
            "agent_id": None if agent_id is None else convert("agent_id", agent_id),
        }
        return Question(self._at("agent-performance", given.get("location_id")), read, query)

    def _at(self, endpoint: str, location_id: object) -> str:
        if location_id is None:
            place = self._location_id
            if place is None:
                raise ArgumentError("location_id", "is missing: the client was made without one")
        else:
            place = convert("location_id", location_id)
        if not place:
            raise ArgumentError("location_id", "must not be empty")
        return f"{endpoint}/{quote(place, safe='')}"


def _with(name: str) -> Callable[[Answer], Answer]:
    """Return the whole answer, which has to hold `name`."""

    def read(answer: Answer) -> Answer:
        if name not in answer:
            raise LookupError(name)
        return answer

    return read


def _days(value: object) -> int:
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, int):
        raise ArgumentError("days", f"must be a number of days, not {kind(value)}")
    return int(found)


def _day(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, date):
        return value.isoformat()[:10]
    return str(convert("until", value))


HEALTH: Question[Answer] = Question("health", _with("events_waiting"))
