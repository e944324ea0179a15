"""What an alert is, and the rule that Prometheus reads of it."""

from dataclasses import dataclass, field
from typing import Any

from exporter.domain.slo import SERVICE

# Executives know a location by its name. Where nothing tells it, the id has to do.
LOCATION = (
    '{{ with printf "ghl_location_info{location=%q}" $labels.location | query }}'
    '{{ . | first | label "name" }}{{ else }}{{ $labels.location }}{{ end }}'
)


def link(label: str, rest: str) -> str:
    """Return a link below what an external label of Prometheus says; nothing where it is not set.

    `runbooks` and `grafana` say where this installation has its runbooks and its boards. Without
    them a link would begin with its path, and lead nowhere; an empty one is left out of messages.
    """
    return f"{{{{ with $externalLabels.{label} }}}}{{{{ . }}}}/{rest}{{{{ end }}}}"


PAGE, TICKET = "page", "ticket"
ON_CALL, BUSINESS = "on-call", "business"


@dataclass(frozen=True)
class Alert:
    """One alert.

    `severity`: a page wakes somebody, a ticket waits for the day. `team`: who is told. `wait`: how
    long it has to be so. `board`: the uid of the board to look at.
    """

    name: str
    expr: str
    severity: str
    board: str
    summary: str
    description: str
    team: str = ON_CALL
    wait: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        place = "?var-location={{ $labels.location | urlquery }}" if self.team == BUSINESS else ""
        return {
            "alert": self.name,
            "expr": self.expr.strip(),
            **({"for": self.wait} if self.wait else {}),
            "labels": {
                "severity": self.severity,
                "team": self.team,
                "service": SERVICE,
                **self.labels,
            },
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": link("runbooks", f"{self.name}.md"),
                "dashboard_url": link("grafana", f"d/{self.board}{place}"),
            },
        }
