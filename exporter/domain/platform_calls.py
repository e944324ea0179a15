"""The AI platform's vocabulary: its tracking calls, and what they can say."""

CONVERSION = "conversion"
AGENT_ACTIVITY = "agent-activity"
PROPERTY_RECOMMENDATION = "property-recommendation"
PROPERTY_INTERACTION = "property-interaction"
WEBHOOK_START = "webhook-start"
WEBHOOK_COMPLETION = "webhook-completion"

CALLS = (
    CONVERSION,
    AGENT_ACTIVITY,
    PROPERTY_RECOMMENDATION,
    PROPERTY_INTERACTION,
    WEBHOOK_START,
    WEBHOOK_COMPLETION,
)

INTERACTIONS = ("viewed", "liked", "scheduled", "rejected", "shared")
# What says that a recommendation was accepted.
ACCEPTING = ("liked", "scheduled")
