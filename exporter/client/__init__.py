"""The AI platform's way to tell and ask the exporter, which can't slow or break the platform.

    with Client("http://127.0.0.1:12105", key) as exporter:
        with exporter.webhook("ContactCreate", location_id="loc") as processing:
            processing.enrichment_data = enrich(...)
        exporter.track_lead_conversion("contact", "ai_qualified", location_id="loc", ai_score=87)
        print(exporter.calculate_revenue_per_lead("loc", days=30))

`AsyncClient` is the same inside an event loop. What is tracked is queued, sent in batches, and sent
again until the exporter has it; `stats` counts, also what was dropped.
"""

import logging

from exporter.client.aio import AsyncClient
from exporter.client.blocking import Client
from exporter.client.outbox import Stats
from exporter.client.sender import ClientError
from exporter.client.tracking import Processing

__all__ = ["AsyncClient", "Client", "ClientError", "Processing", "Stats"]

logging.getLogger("exporter.client").addHandler(logging.NullHandler())
