"""What becomes of a removed tenant's recordings: the apply says whose they are, the repair does what that means."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from scalelite.core.model import Declared, Key, Kind, Secret, TenantSpec
from scalelite.flows import reconcile, recordings
from scalelite.flows.acting import Acting
from scalelite.flows.reconcile import Request
from scalelite.store.specs import Author
from tests.recordings.conftest import recorded

if TYPE_CHECKING:
    from tests.recordings.conftest import Desk

TENANTS = {
    Key(Kind.TENANT, name): TenantSpec(name=name, secrets=(Secret(name),), id=uuid.UUID(int=number, version=4))
    for number, name in enumerate(("acme", "other"), 1)
}
OTHER = Key(Kind.TENANT, "other")


async def apply(desk: Desk, wanted: Declared, tenant_data: str = "") -> None:
    request = Request(wanted, tenant_data=tenant_data)
    async with desk.services.database.dedicated() as connection:
        planned = await reconcile.compare(connection, request)
        await reconcile.carry_out(connection, request, planned, Acting(Author("tests"), uuid.uuid4))


@pytest.mark.shows("plan: --tenant-data", "MT-6")
@pytest.mark.parametrize(
    ("tenant_data", "owner", "state"),
    [("delete", "", "deleted"), ("keep", "", "published"), ("move:other", "other", "published")],
)
async def test_recordings_of_a_removed_tenant_are_deleted_kept_or_moved_with_their_files(
    desk: Desk, tenant_data: str, owner: str, state: str
) -> None:
    await apply(desk, Declared(dict(TENANTS)))
    mine, others = recorded(1), recorded(2)
    for what in (mine, others):
        desk.send(what)
    await desk.run()
    async with desk.services.database.use() as connection:
        for what, name in ((mine, "acme"), (others, "other")):
            await connection.execute(
                "UPDATE recording SET tenant = (SELECT id FROM tenant WHERE name = %s) WHERE record_id = %s",
                (name, what.record_id),
            )
    both = {path for path in desk.files("published") if path.endswith("metadata.xml")}
    assert len(both) == 2
    await apply(desk, Declared({OTHER: TENANTS[OTHER]}), tenant_data)
    await recordings.repair(desk.services)
    assert not await desk.problems()
    left = {path for path in desk.files("published") if path.endswith("metadata.xml")}
    gone = {path for path in both if mine.record_id in path} if state == "deleted" else set()
    assert left == both - gone
    async with desk.services.database.use() as connection:
        rows = await connection.execute(
            "SELECT r.record_id, t.name, r.state FROM recording r JOIN tenant t ON t.id = r.tenant"
        )
        found = {row["record_id"]: (row["name"], row["state"]) for row in await rows.fetchall()}
    assert found == {mine.record_id: (owner, state), others.record_id: ("other", "published")}
