"""The AI platform's way to track and ask, which can't slow or break the platform.

    with Client("http://127.0.0.1:12105", key) as exporter:
        with exporter.webhook("ContactCreate", location_id="loc") as processing:
            processing.enrichment_data = enrich(...)
        exporter.track_lead_conversion("contact", "ai_qualified", location_id="loc", ai_score=87)
        print(exporter.calculate_revenue_per_lead("loc", days=30))

`AsyncClient` is the same inside event loops. What is tracked is queued, sent in batches by a
thread, and sent again until the exporter has it; `stats` counts, also what was dropped.
"""

from .aio import AsyncClient
from .blocking import Client
from .errors import ArgumentError, ClientError
from .processing import Processing
from .registry import ServiceRegistry, create_business_metrics_service
from .send_queue import Stats
from .types import ConversionStage

__all__ = [
    "ArgumentError",
    "AsyncClient",
    "Client",
    "ClientError",
    "ConversionStage",
    "Processing",
    "ServiceRegistry",
    "Stats",
    "create_business_metrics_service",
]
