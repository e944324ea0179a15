"""GHL's vocabulary: which events it sends, and which of them the facts are made of.

Source: GHL's webhook guide, and the names of its pages, one for each event; where a page and its
sample name the event differently, both names are here. GHL adds events at will, so an event that
isn't listed here is counted and kept, never an error.
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
    "AppInstall",
    "AppPaymentStatus",
    "AppUninstall",
    "AppUpdate",
    "AssociationCreate",
    "AssociationCreated",
    "AssociationDelete",
    "AssociationDeleted",
    "AssociationUpdate",
    "AssociationUpdated",
    "CampaignStatusUpdate",
    "ConversationUnreadUpdate",
    "ConversationUnreadWebhook",
    "ConversationUpdate",
    "ExternalAuthConnected",
    "INSTALL",
    "InvoiceCreate",
    "InvoiceDelete",
    "InvoicePaid",
    "InvoicePartiallyPaid",
    "InvoiceSent",
    "InvoiceUpdate",
    "InvoiceVoid",
    "KnowledgeBaseCreate",
    "KnowledgeBaseDelete",
    "KnowledgeBaseFaqChange",
    "KnowledgeBaseFileChange",
    "KnowledgeBaseRichTextChange",
    "KnowledgeBaseTableFileChange",
    "KnowledgeBaseTrainedUrlChange",
    "KnowledgeBaseUpdate",
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
    "PlanChange",
    "PriceCreate",
    "PriceDelete",
    "PriceUpdate",
    "ProductCreate",
    "ProductDelete",
    "ProductUpdate",
    "ProviderOutboundMessage",
    "RecordCreate",
    "RecordDelete",
    "RecordUpdate",
    "RelationCreate",
    "RelationDelete",
    "SaaSPlanCreate",
    "SaasPlanCreate",
    "SupportTicketCreate",
    "SupportTicketDelete",
    "SupportTicketUpdate",
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
    """Return the event's name: the body's `type`, or without one the address.

    GHL signs the body alone, so an address must not change what a signed body means: a
    ContactUpdate that somebody posts to `…/ContactDelete` deletes nothing. Among appointment
    events the address wins, because GHL's own samples of Update and Delete say AppointmentCreate.
    `address` is the last part of the path, '' where there is none.
    """
    if body_type is None:
        return address
    if FAMILY_OF_EVENT.get(body_type) == FAMILY_OF_EVENT.get(address) == APPOINTMENT:
        return address
    return body_type
