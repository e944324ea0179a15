"""The stages of a contact on its way to a deal, in their order."""

LEAD_CREATED = "lead_created"
AI_QUALIFIED = "ai_qualified"
HUMAN_CONTACTED = "human_contacted"
APPOINTMENT_SCHEDULED = "appointment_scheduled"
PROPERTY_SHOWING = "property_showing"
OFFER_SUBMITTED = "offer_submitted"
CONTRACT_SIGNED = "contract_signed"
DEAL_CLOSED = "deal_closed"

STAGES = (
    LEAD_CREATED,
    AI_QUALIFIED,
    HUMAN_CONTACTED,
    APPOINTMENT_SCHEDULED,
    PROPERTY_SHOWING,
    OFFER_SUBMITTED,
    CONTRACT_SIGNED,
    DEAL_CLOSED,
)

# A deal is what an opportunity's status says; a pipeline stage can't make one.
MAPPABLE_STAGES = STAGES[:-1]
