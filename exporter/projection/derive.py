"""From the states of a contact and of what belongs to it: its deals, its stages, its answers.

Pure functions, like the folds.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from exporter import stages
from exporter.projection.rows import (
    Appointment,
    Contact,
    Deal,
    Opportunity,
    OpportunityStage,
    PipelineStage,
)
from exporter.projection.rules import Rules

_POSITION = {stage: position for position, stage in enumerate(stages.STAGES)}


class Answers(NamedTuple):
    """A contact's human answers: the first ever, and the first at or after the lead's creation."""

    first_ever: datetime | None = None
    first_at: datetime | None = None
    first_user: str | None = None


def derive_deal(opportunity: Opportunity, contact: Contact | None) -> Deal | None:
    """Return the deal that an opportunity is, or None.

    Its time to conversion is known where its contact is a lead that was created before it closed.
    """
    if opportunity.status != "won" or opportunity.deleted:
        return None
    seconds = None
    closed_at = opportunity.run_began_at
    if closed_at is not None and contact and not contact.deleted and contact.created_at:
        elapsed = (closed_at - contact.created_at).total_seconds()
        seconds = elapsed if elapsed >= 0 else None
    return Deal(
        opportunity.location_id,
        opportunity.opportunity_id,
        opportunity.contact_id,
        opportunity.run_owner_id,
        opportunity.monetary_value,
        closed_at,
        opportunity.run_began_day,
        seconds,
    )


def derive_contact(contact: Contact, answers: Answers, *, has_deal: bool) -> Contact:
    """Complete a contact's row with its first answer as a lead, and whether it has a deal."""
    is_lead = contact.created_at is not None and not contact.deleted
    return contact._replace(
        first_answer_at=answers.first_at if is_lead else None,
        first_answer_user=answers.first_user if is_lead else None,
        has_deal=has_deal,
    )


def derive_stages(
    key: tuple[str, str],
    contact: Contact | None,
    answers: Answers,
    deals: Sequence[Deal],
    appointments: Iterable[Appointment],
    told: Iterable[OpportunityStage],
    rules: Rules,
) -> list[PipelineStage]:
    """Return the stages that a contact has reached, each at the earliest moment told.

    A deal of an unknown time reaches its stage at an unknown time: in no window, yet by now.
    """
    if contact is not None and contact.deleted:
        return []
    reached: dict[str, datetime | None] = {}

    def reach(stage: str, at: datetime | None) -> None:
        before = reached.get(stage)
        if before is None or (at is not None and at < before):
            reached[stage] = at

    if contact is not None and contact.created_at is not None:
        reach(stages.LEAD_CREATED, contact.created_at)
    if answers.first_ever is not None:
        reach(stages.HUMAN_CONTACTED, answers.first_ever)
    for appointment in appointments:
        if not appointment.deleted:
            reach(stages.APPOINTMENT_SCHEDULED, appointment.scheduled_at)
            if appointment.showed_at is not None:
                reach(stages.PROPERTY_SHOWING, appointment.showed_at)
    for row in told:
        reach(row.stage, row.told_at)
    for deal in deals:
        reach(stages.DEAL_CLOSED, deal.closed_at)
    furthest = max((_POSITION[stage] for stage in reached), default=-1)
    location_id, contact_id = key
    return [
        PipelineStage(
            location_id,
            contact_id,
            stage,
            at,
            rules.day(location_id, at),
            _POSITION[stage] < furthest,
        )
        for stage, at in reached.items()
    ]
