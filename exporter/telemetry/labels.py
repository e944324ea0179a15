"""Label values that a sender controls: allow-listed or capped, and what is cut is counted."""

from prometheus_client import Counter

OTHER = "other"


class CappedLabel:
    """Lets the first `limit` values through, and allow-listed ones always; the rest is `other`."""

    def __init__(
        self, name: str, cut: Counter, *, allowed: frozenset[str] = frozenset(), limit: int = 0
    ) -> None:
        self._allowed = allowed
        self._limit = limit
        self._seen: set[str] = set()
        self._banned: frozenset[str] = frozenset()
        self._cut = cut.labels(name)

    def __call__(self, value: str, *, again: bool = False) -> str:
        """Return the value, or `other` where it is one too many.

        `again`: what is observed was counted before, at another step of its way.
        """
        if value in self._banned:
            return OTHER
        if value in self._allowed or value in self._seen:
            return value
        if len(self._seen) < self._limit:
            self._seen.add(value)
            return value
        if not again:
            self._cut.inc()
        return OTHER

    def ban(self, values: frozenset[str]) -> None:
        """Show these values as `other` from now on, and no others that were banned before."""
        self._banned = values
        self._seen -= values

    @property
    def banned(self) -> frozenset[str]:
        """The values that are shown as `other` whatever the cap is."""
        return self._banned
