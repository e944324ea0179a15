"""From the states of a contact and of what belongs to it: its deals, its stages, its answers.

Pure functions, like the folds.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from exporter.domain import stages
from exporter.projection.fact_settings import Rules
from exporter.projection.rows import (
    Appointment,
    Contact,
    Deal,
    Opportunity,
    PipelineStage,
)

# A stage, and when it was told.
ToldStage = tuple[str, datetime]

_POSITION = {stage: position for position, stage in enumerate(stages.STAGES)}
_OFFERED = _POSITION[stages.OFFER_SUBMITTED]


class Answers(NamedTuple):
    """A contact's human answers: the first ever, and the first at or after the lead's creation."""

    first_ever: datetime | None = None
    first_at: datetime | None = None
    first_user: str | None = None


def derive_deal(
    opportunity: Opportunity, contact: Contact | None, touches: Iterable[datetime], rules: Rules
) -> Deal | None:
    """Return the deal that an opportunity is, or None.

    `touches`: when the AI had a part in what its contact did.
    """
    if opportunity.status != "won" or opportunity.deleted:
        return None
    closed_at = opportunity.run_began_at
    return Deal(
        opportunity.location_id,
        "opportunity",
        opportunity.opportunity_id,
        opportunity.contact_id,
        opportunity.run_owner_id,
        opportunity.monetary_value,
        closed_at,
        opportunity.run_began_day,
        _seconds_from_lead(contact, closed_at),
        _is_assisted(closed_at, touches, rules),
    )


def derive_contact_deal(contact: Contact, touches: Iterable[datetime], rules: Rules) -> Deal | None:
    """Return the deal that was tracked for a contact without an opportunity, or None."""
    closed_at = contact.told_deal_at
    if closed_at is None or contact.deleted:
        return None
    return Deal(
        contact.location_id,
        "contact",
        contact.contact_id,
        contact.contact_id,
        contact.told_deal_agent,
        contact.told_deal_value,
        closed_at,
        rules.day(contact.location_id, closed_at),
        _seconds_from_lead(contact, closed_at),
        _is_assisted(closed_at, touches, rules),
    )


def _seconds_from_lead(contact: Contact | None, closed_at: datetime | None) -> float | None:
    """Return the time to conversion, where the contact is a lead that was created before."""
    if closed_at is None or contact is None or contact.deleted or contact.created_at is None:
        return None
    elapsed = (closed_at - contact.created_at).total_seconds()
    return elapsed if elapsed >= 0 else None


def _is_assisted(closed_at: datetime | None, touches: Iterable[datetime], rules: Rules) -> bool:
    if closed_at is None:
        return False
    return any(closed_at - rules.attribution <= at <= closed_at for at in touches)


def qualified_at(contact: Contact | None, told: Iterable[ToldStage]) -> datetime | None:
    """Return when a contact reached ai_qualified; one that is deleted reached nothing."""
    if contact is not None and contact.deleted:
        return None
    return min((at for stage, at in told if stage == stages.AI_QUALIFIED), default=None)


def derive_contact(
    contact: Contact, answers: Answers, deals: Sequence[Deal], rules: Rules
) -> Contact:
    """Complete a contact's row with its first answer as a lead, and what its deals say."""
    is_lead = contact.created_at is not None and not contact.deleted
    first_answer_at = answers.first_at if is_lead else None
    closes = [deal.closed_at for deal in deals]
    known = [at for at in closes if at is not None]
    scored_in_time = (
        is_lead
        and contact.first_score is not None
        and contact.first_score_at is not None
        and len(known) == len(closes)
        and all(contact.first_score_at < at for at in known)
    )
    return contact._replace(
        first_answer_at=first_answer_at,
        first_answer_day=rules.day(contact.location_id, first_answer_at),
        first_answer_user=answers.first_user if is_lead else None,
        has_deal=bool(deals),
        scored_in_time=scored_in_time,
    )


def derive_stages(
    key: tuple[str, str],
    contact: Contact | None,
    answers: Answers,
    deals: Sequence[Deal],
    appointments: Iterable[Appointment],
    told: Iterable[ToldStage],
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
    for stage, told_at in told:
        reach(stage, told_at)
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
            furthest >= _OFFERED,
        )
        for stage, at in reached.items()
    ]
