"""GHL's vocabulary: which events it sends, and which of them the facts are made of.

Source: GHL's webhook guide. GHL adds events at will, so an event that isn't listed here is counted
and kept, never an error.
"""

CONTACT = "contact"
OPPORTUNITY = "opportunity"
APPOINTMENT = "appointment"
MESSAGE = "message"
USER = "user"

# Families that are projected, and their events. Event names compare with case.
FAMILY_OF_EVENT: dict[str, str] = {
    **dict.fromkeys(
        (
            "ContactCreate",
            "ContactUpdate",
            "ContactDelete",
            "ContactDndUpdate",
            "ContactTagUpdate",
        ),
        CONTACT,
    ),
    **dict.fromkeys(
        (
            "OpportunityCreate",
            "OpportunityUpdate",
            "OpportunityDelete",
            "OpportunityStatusUpdate",
            "OpportunityStageUpdate",
            "OpportunityMonetaryValueUpdate",
            "OpportunityAssignedToUpdate",
        ),
        OPPORTUNITY,
    ),
    **dict.fromkeys(
        ("AppointmentCreate", "AppointmentUpdate", "AppointmentDelete"),
        APPOINTMENT,
    ),
    **dict.fromkeys(("InboundMessage", "OutboundMessage"), MESSAGE),
    **dict.fromkeys(("UserCreate", "UserUpdate", "UserDelete"), USER),
}

_OTHER_EVENTS = (
    "AssociationCreated",
    "AssociationUpdated",
    "AssociationDeleted",
    "CampaignStatusUpdate",
    "ConversationUnreadUpdate",
    "ConversationUnreadWebhook",
    "ExternalAuthConnected",
    "INSTALL",
    "InvoiceCreate",
    "InvoiceDelete",
    "InvoicePaid",
    "InvoicePartiallyPaid",
    "InvoiceSent",
    "InvoiceUpdate",
    "InvoiceVoid",
    "LCEmailStats",
    "LocationCreate",
    "LocationUpdate",
    "NoteCreate",
    "NoteDelete",
    "NoteUpdate",
    "ObjectSchemaCreate",
    "ObjectSchemaUpdate",
    "OrderCreate",
    "OrderStatusUpdate",
    "PLAN_CHANGE",
    "PriceCreate",
    "PriceDelete",
    "PriceUpdate",
    "ProductCreate",
    "ProductDelete",
    "ProductUpdate",
    "RecordCreate",
    "RecordDelete",
    "RecordUpdate",
    "RelationCreate",
    "RelationDelete",
    "SaaSPlanCreate",
    "TaskComplete",
    "TaskCreate",
    "TaskDelete",
    "UNINSTALL",
    "VoiceAiCallEnd",
)

# A workflow's "Webhook" action: another product, without a type of its own.
WORKFLOW_EVENT = "Workflow"

# Label values of live metrics come from this list; anything else is `other`.
KNOWN_EVENTS: frozenset[str] = frozenset((*FAMILY_OF_EVENT, *_OTHER_EVENTS, WORKFLOW_EVENT))


def event_name(address: str, body_type: str | None) -> str:
    """Return the event's name: the address beats the body's `type` where it names an event.

    GHL lets each event have an address of its own, and some of its bodies carry no type or the
    wrong one. `address` is the last part of the path, '' where there is none.
    """
    if address in KNOWN_EVENTS:
        return address
    return body_type or address
