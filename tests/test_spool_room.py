"""A spool that could take nothing is told of while PostgreSQL still takes the webhooks."""

import shutil
from pathlib import Path

from tests.conftest import MakeService, Signer, wait_until
from tests.sender import Sender, contact
from tests.test_spool import MIB, as_root, small_disk


@as_root
async def test_a_disk_that_fills_up_shows_before_an_outage_and_so_does_its_room(
    tmp_path: Path, make_service: MakeService, signer: Signer, database_url: str
) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        service = make_service(
            database_url=database_url, spool_path=disk / "spool", spool_max_bytes=2 * MIB
        )
        service.start()
        first = service.metrics()
        assert first["ghl_exporter_spool_usable"] == 1
        assert 2 * MIB < first["ghl_exporter_spool_free_bytes"] <= 4 * MIB
        other = disk / "other"
        other.write_bytes(bytes(disk_room(disk)))
        await wait_until(lambda: service.metrics()["ghl_exporter_spool_usable"] == 0, 25)
        assert service.metrics()["ghl_exporter_spool_free_bytes"] < 64 * 1024
        # Once, however often it is tried.
        said = [line for line in service.log_lines() if line["event"] == "spool_unavailable"]
        assert len(said) == 1
        # PostgreSQL takes them as before.
        assert (await Sender(service.port, signer).send(contact(id="c1"))).status == 200
        other.unlink()
        await wait_until(lambda: service.metrics()["ghl_exporter_spool_usable"] == 1, 25)
        await wait_until(lambda: service.metrics()["ghl_exporter_spool_free_bytes"] > 2 * MIB, 25)
        service.stop()


def disk_room(disk: Path) -> int:
    """Return the bytes that a file on the disk may have."""
    return shutil.disk_usage(disk).free
