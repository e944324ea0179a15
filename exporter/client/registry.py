"""The first design's way in: a factory, and a registry that holds the service."""

import os
from collections.abc import Mapping
from typing import Any, Unpack

from .aio import AsyncClient
from .log import log
from .types import Id, Moments, Number

URL_VARIABLE = "GHL_EXPORTER_URL"
KEY_VARIABLE = "GHL_EXPORTER_KEY"


def _client(url: str | None, key: str | None, **options: Any) -> AsyncClient:
    """Make a client. Where `url` or `key` is None the environment has it, or ArgumentError."""
    chosen = url or os.environ.get(URL_VARIABLE, "")
    return AsyncClient(chosen, key or os.environ.get(KEY_VARIABLE, ""), **options)


async def create_business_metrics_service(
    redis_url: str | None = None,
    postgres_url: str | None = None,
    *,
    url: str | None = None,
    key: str | None = None,
    location_id: Id | None = None,
    raise_errors: bool = False,
) -> AsyncClient:
    """Return a started client.

    The exporter is at `url`, or in GHL_EXPORTER_URL; the API key is `key`, or in GHL_EXPORTER_KEY.
    `redis_url` and `postgres_url` are the first design's, and have no use: the exporter has its
    own. Raises ArgumentError where there is no valid URL or key.
    """
    if redis_url is not None or postgres_url is not None:
        log.info("redis_url and postgres_url are not used: the exporter has its own servers")
    client = _client(url, key, location_id=location_id, raise_errors=raise_errors)
    await client.start()
    return client


class ServiceRegistry:
    """Holds the client as `business_metrics`, made at its first use.

    In demo mode nothing is sent: there is no client, what is tracked counts as taken, and there
    are no figures.
    """

    def __init__(
        self,
        demo_mode: bool = False,
        *,
        url: str | None = None,
        key: str | None = None,
        location_id: Id | None = None,
        raise_errors: bool = False,
    ) -> None:
        self.demo_mode = demo_mode
        self._url = url
        self._key = key
        self._options = {"location_id": location_id, "raise_errors": raise_errors}
        self._made: AsyncClient | None = None

    @property
    def business_metrics(self) -> AsyncClient | None:
        """The client; None in demo mode. Raises ArgumentError where there is no URL or key."""
        if self._made is None and not self.demo_mode:
            self._made = _client(self._url, self._key, **self._options)
        return self._made

    async def get_business_dashboard_metrics(
        self, location_id: Id | None = None, days: int = 30
    ) -> dict[str, Any] | None:
        """Return the dashboard, rates in percent; None where it can't be had."""
        client = self.business_metrics
        return (
            None
            if client is None
            else await client.get_executive_dashboard_metrics(location_id, days)
        )

    async def track_lead_conversion(
        self,
        contact_id: Id,
        location_id: Id,
        stage: str,
        ai_score: Number | None = None,
        agent_id: Id | None = None,
        deal_value: Number | None = None,
        metadata: Mapping[str, Any] | None = None,
        **more: Unpack[Moments],
    ) -> bool:
        """Report that a contact reached a stage; return whether it is queued."""
        client = self.business_metrics
        return client is None or await client.track_lead_conversion(
            contact_id, location_id, stage, ai_score, agent_id, deal_value, metadata, **more
        )

    async def track_agent_performance(
        self,
        agent_id: Id,
        location_id: Id,
        activity: str,
        contact_id: Id | None = None,
        deal_value: Number | None = None,
        response_time_minutes: Number | None = None,
        ai_recommendation_used: bool | None = None,
        **more: Unpack[Moments],
    ) -> bool:
        """Report that an agent did something; return whether it is queued."""
        client = self.business_metrics
        return client is None or await client.track_agent_performance(
            agent_id,
            location_id,
            activity,
            contact_id,
            deal_value,
            response_time_minutes,
            ai_recommendation_used,
            **more,
        )

    async def close(self, timeout: float = 5.0) -> None:
        """Send what waits for at most `timeout` seconds, and stop."""
        if self._made is not None:
            await self._made.close(timeout)
