"""What GHL publishes as samples of its webhooks, through the running service to the facts."""

import json
from typing import Any

import asyncpg
import pytest

from .conftest import SHARED, MakeService, Signer, needs_shared, wait_until
from .sender import GHL_PATH, Sender

pytestmark = needs_shared

SAMPLES = sorted((SHARED / "ghl/payloads").glob("*.json"))
# The table and the columns by which the entity of a sample is found.
FACTS = {
    "Appointment": ("appointments", "appointment_id"),
    "Contact": ("contacts", "contact_id"),
    "Opportunity": ("opportunities", "opportunity_id"),
    "User": ("users", "user_id"),
}


def _family(name: str) -> str | None:
    return next((family for family in FACTS if name.startswith(family)), None)


@pytest.mark.parametrize("own_address", [False, True], ids=["one address", "an address each"])
async def test_every_sample_is_taken_stored_and_its_family_reaches_its_facts(
    make_service: MakeService,
    signer: Signer,
    database_url: str,
    connection: asyncpg.Connection,
    own_address: bool,
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    sender = Sender(service.port, signer)
    for sample in SAMPLES:
        path = f"{GHL_PATH}/{sample.stem}" if own_address else GHL_PATH
        answer = await sender.send(sample.read_bytes(), path)
        assert answer.status == 200, (sample.stem, answer)
    assert not await sender.missing(connection)

    stored = {
        row["body"]: row for row in await connection.fetch("SELECT body, event_type FROM inbox")
    }
    for sample in SAMPLES:
        body: dict[str, Any] = json.loads(sample.read_bytes())
        name = stored[sample.read_bytes()]["event_type"]
        expected = body.get("type", "untyped")
        if own_address and sample.stem != "AppInstall":
            expected = sample.stem
        assert name == expected

    async def projected() -> bool:
        return not await connection.fetchval("SELECT count(*) FROM inbox_pending")

    await wait_until(projected)
    assert await connection.fetch("SELECT * FROM quarantine") == []
    for sample in SAMPLES:
        body = json.loads(sample.read_bytes())
        if family := _family(sample.stem):
            table, column = FACTS[family]
            entity = body.get("appointment", body)["id"]
            count = await connection.fetchval(
                f"SELECT count(*) FROM {table} WHERE location_id = $1 AND {column} = $2",
                body["locationId"],
                entity,
            )
            assert count == 1, sample.stem
        elif sample.stem.endswith("Message"):
            count = await connection.fetchval(
                "SELECT count(*) FROM messages WHERE location_id = $1 AND contact_id = $2",
                body["locationId"],
                body["contactId"],
            )
            assert count == 2, sample.stem
    deleted = await connection.fetchval("SELECT bool_and(deleted) FROM opportunities")
    assert deleted, "a Delete is among the samples"
