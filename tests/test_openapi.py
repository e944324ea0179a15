"""The API against its own description: generated requests, good and bad, find no surprise."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from exporter.api.docs_page import docs_page
from exporter.api.keys import create_key
from exporter.api.openapi import document
from exporter.settings import load_settings
from tests.conftest import MakeService, Service
from tests.projecting import project_all, received, store

SEED = 20261124
LOCATION = "a"

schema = schemathesis.openapi.from_dict(document(), config=SchemathesisConfig(seed=SEED))


@pytest.fixture
async def called(
    make_service: MakeService, connection: asyncpg.Connection, database_url: str
) -> tuple[Service, str]:
    """A service that something was told, and a key for it."""
    now = datetime.now(UTC)
    lead = {"type": "ContactCreate", "locationId": LOCATION, "id": "c", "assignedTo": "ann"}
    await store(connection, [received(json.dumps(lead).encode(), "ghl", now)])
    await project_all(connection, load_settings(database_url=database_url))
    service = make_service(
        database_url=database_url,
        api_requests_per_minute=1_000_000,
        trusted_proxies="127.0.0.1",
    )
    service.start()
    return service, await create_key(connection, "all", ["read", "track"], ["*"])


numbers = itertools.count()


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_answer_is_undocumented_and_none_is_a_fault(
    case: Case[Any], called: tuple[Service, str]
) -> None:
    service, key = called
    # Half of the questions are about a location that there is.
    for place in (case.path_parameters, case.query):
        if place and "location_id" in place and len(str(place["location_id"])) % 2:
            place["location_id"] = LOCATION
    case.call_and_validate(
        base_url=service.url,
        # Each case comes from an address of its own: it is sent without a good key too.
        headers={"Authorization": f"Bearer {key}", "X-Forwarded-For": f"case-{next(numbers)}"},
        # A schema can't say that ids are counted in bytes, or how old a day may be.
        excluded_checks=[positive_data_acceptance],
        timeout=10,
    )


def test_the_page_for_people_describes_every_endpoint_and_every_model() -> None:
    page = docs_page()
    for path in document()["paths"]:
        assert f"<code>{path}</code>" in page
    for name in document()["components"]["schemas"]:
        assert f'id="{name}"' in page
