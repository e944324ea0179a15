"""Derive deals, stages and first answers from the states of a contact and what belongs to it.

Pure functions, like the folds.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from exporter.domain import stages
from exporter.projection.fact_settings import FactSettings
from exporter.projection.schema import (
    Appointment,
    Contact,
    Deal,
    Opportunity,
    PipelineStage,
)

# A stage, and when it was reported.
ReportedStage = tuple[str, datetime]

_POSITION = {stage: position for position, stage in enumerate(stages.STAGES)}
_OFFERED = _POSITION[stages.OFFER_SUBMITTED]


class FirstAnswers(NamedTuple):
    """A contact's first human answers: ever, and at or after the lead's creation."""

    first_ever: datetime | None = None
    first_at: datetime | None = None
    first_user: str | None = None


def derive_deal(
    opportunity: Opportunity,
    contact: Contact | None,
    touches: Iterable[datetime],
    fact_settings: FactSettings,
) -> Deal | None:
    """Return the deal of a won opportunity, or None.

    `touches`: the times at which the AI took part in what its contact did.
    """
    if opportunity.status != "won" or opportunity.deleted:
        return None
    closed_at = opportunity.status_since
    return Deal(
        location_id=opportunity.location_id,
        kind="opportunity",
        deal_id=opportunity.opportunity_id,
        contact_id=opportunity.contact_id,
        agent_id=opportunity.status_owner_id,
        deal_value=opportunity.monetary_value,
        closed_at=closed_at,
        closed_day=opportunity.status_since_day,
        seconds_from_lead=_seconds_from_lead(contact, closed_at),
        ai_assisted=_is_assisted(closed_at, touches, fact_settings),
    )


def derive_contact_deal(
    contact: Contact, touches: Iterable[datetime], fact_settings: FactSettings
) -> Deal | None:
    """Return the deal that was tracked for a contact without an opportunity, or None."""
    closed_at = contact.tracked_deal_at
    if closed_at is None or contact.deleted:
        return None
    return Deal(
        location_id=contact.location_id,
        kind="contact",
        deal_id=contact.contact_id,
        contact_id=contact.contact_id,
        agent_id=contact.tracked_deal_agent,
        deal_value=contact.tracked_deal_value,
        closed_at=closed_at,
        closed_day=fact_settings.day(contact.location_id, closed_at),
        seconds_from_lead=_seconds_from_lead(contact, closed_at),
        ai_assisted=_is_assisted(closed_at, touches, fact_settings),
    )


def _seconds_from_lead(contact: Contact | None, closed_at: datetime | None) -> float | None:
    """Return the time to conversion in seconds; None unless the contact was a lead before."""
    if closed_at is None or contact is None or contact.deleted or contact.created_at is None:
        return None
    elapsed = (closed_at - contact.created_at).total_seconds()
    return elapsed if elapsed >= 0 else None


def _is_assisted(
    closed_at: datetime | None, touches: Iterable[datetime], fact_settings: FactSettings
) -> bool:
    if closed_at is None:
        return False
    return any(closed_at - fact_settings.attribution <= at <= closed_at for at in touches)


def qualified_at(contact: Contact | None, reported: Iterable[ReportedStage]) -> datetime | None:
    """Return when a contact reached ai_qualified; None for a deleted contact."""
    if contact is not None and contact.deleted:
        return None
    return min((at for stage, at in reported if stage == stages.AI_QUALIFIED), default=None)


def derive_contact(
    contact: Contact, answers: FirstAnswers, deals: Sequence[Deal], fact_settings: FactSettings
) -> Contact:
    """Complete a contact's row with its first answer as a lead and the results of its deals."""
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
        first_answer_day=fact_settings.day(contact.location_id, first_answer_at),
        first_answer_user=answers.first_user if is_lead else None,
        has_deal=bool(deals),
        scored_in_time=scored_in_time,
    )


def derive_stages(
    key: tuple[str, str],
    contact: Contact | None,
    answers: FirstAnswers,
    deals: Sequence[Deal],
    appointments: Iterable[Appointment],
    reported: Iterable[ReportedStage],
    fact_settings: FactSettings,
) -> list[PipelineStage]:
    """Return the stages that a contact has reached, each at the earliest time reported.

    A deal closed at an unknown time reaches its stage at an unknown time: it counts in no window.
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
    for stage, reported_at in reported:
        reach(stage, reported_at)
    for deal in deals:
        reach(stages.DEAL_CLOSED, deal.closed_at)
    furthest = max((_POSITION[stage] for stage in reached), default=-1)
    location_id, contact_id = key
    return [
        PipelineStage(
            location_id=location_id,
            contact_id=contact_id,
            stage=stage,
            reached_at=at,
            reached_day=fact_settings.day(location_id, at),
            advanced=_POSITION[stage] < furthest,
            offered=furthest >= _OFFERED,
        )
        for stage, at in reached.items()
    ]
