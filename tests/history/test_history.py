"""Revisions, blame and the way back, on a real Postgres."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from scalelite.core.model import Declared, Key, Kind, LrsBasic, LrsSpec, Secret
from scalelite.core.show_history import blame_text
from scalelite.errors import UsageError
from scalelite.flows import reconcile
from scalelite.flows.history import find_blame, plan_rollback, revision_steps
from scalelite.store.db import connect
from scalelite.store.seal import Sealer
from scalelite.store.specs import Author
from tests.history.conftest import Cluster, declared, server, setting, tenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalelite.core.rollback import Lost

BBB1 = Key(Kind.SERVER, "bbb1")
SCHOOL = Key(Kind.TENANT, "school")


async def roll_back(cluster: Cluster, number: int, inventory: Declared | None = None) -> Sequence[Lost]:
    way = await plan_rollback(cluster.connection, number, inventory)
    author = Author("ops@lb1", source={"rollback": number})
    await reconcile.apply(
        cluster.connection, way.request.wanted, way.planned.plan, author, uuid.uuid4, lock_timeout_s=5
    )
    return way.lost


@pytest.mark.shows("plan: rollback")
async def test_a_rollback_leads_back_to_the_state_after_a_revision(cluster: Cluster) -> None:
    await cluster.apply(server("bbb1"), tenant("school"), setting("school", "record", "true"))
    before = await cluster.live()
    await cluster.apply(server("bbb1", tag="gpu"), server("bbb2"), tenant("school"))
    await cluster.change(dict([server("bbb1", tag="x", load_multiplier=7.0)]))
    assert await roll_back(cluster, 1) == ()
    assert (await cluster.live()).objects == before.objects
    revision, steps = await revision_steps(cluster.connection, 4)
    assert revision.source == {"rollback": 1}
    assert {(step.address, step.action) for step in steps} == {
        ("server/bbb1", "update"),
        ("server/bbb2", "remove"),
        ("tenant/school/setting/record", "create"),
    }


@pytest.mark.shows("plan: rollback")
async def test_a_revision_that_there_is_not_is_wrong_usage(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="no revision 7"):
        await plan_rollback(cluster.connection, 7, None)
    with pytest.raises(UsageError, match="no revision 7"):
        await revision_steps(cluster.connection, 7)


@pytest.mark.shows("data: secrets of old versions")
async def test_without_a_key_a_changed_secret_is_lost_and_named_or_taken_from_the_inventory(cluster: Cluster) -> None:
    inventory = [server("bbb1", secret=Secret("first"), tag="a")]
    await cluster.apply(*inventory)
    await cluster.apply(server("bbb1", secret=Secret("second"), tag="b"))
    (lost,) = await roll_back(cluster, 1)
    assert (lost.key, lost.fields, lost.is_gone) == (BBB1, ("secret",), False)
    assert (await cluster.live()).objects[BBB1] == server("bbb1", secret=Secret("second"), tag="a")[1]
    assert await roll_back(cluster, 1, declared(inventory)) == ()
    assert (await cluster.live()).objects == dict(inventory)


@pytest.mark.shows("data: secrets of old versions")
async def test_what_is_gone_cannot_be_made_again_without_its_secrets(cluster: Cluster) -> None:
    lrs = LrsSpec(endpoint="https://lrs/", basic=LrsBasic(username="u", password=Secret("p")))
    school = [tenant("school", secrets=(Secret("t"),)), setting("school", "record", "true")]
    inventory = [*school, (Key(Kind.LRS, "school"), lrs), tenant("bare"), server("bbb1")]
    await cluster.apply(*inventory)
    then = await cluster.live()
    await cluster.change(
        dict.fromkeys([SCHOOL, Key(Kind.TENANT, "bare"), BBB1])
        | {Key(Kind.SETTING, "school", "record"): None, Key(Kind.LRS, "school"): None}
    )
    lost = await roll_back(cluster, 1)
    assert [each.key.address for each in lost] == ["tenant/school/lrs", "server/bbb1", "tenant/school"]
    assert set((await cluster.live()).objects) == {Key(Kind.TENANT, "bare")}
    assert await roll_back(cluster, 1, declared(inventory)) == ()
    assert (await cluster.live()).objects == then.objects


@pytest.mark.shows("data: secrets of old versions")
async def test_with_a_key_secrets_come_back_for_fifty_revisions(database: str) -> None:
    async with connect(database, "tests", Sealer(["a key of much randomness"])) as connection:
        cluster = Cluster(connection)
        await cluster.apply(server("bbb1", secret=Secret("first")))
        await cluster.apply(server("bbb1", secret=Secret("second")))
        stored = await connection.execute("SELECT spec::text || sealed AS text FROM version")
        assert "first" not in (await stored.fetchone() or {})["text"]
        assert await roll_back(cluster, 1) == ()
        assert (await cluster.live()).objects == dict([server("bbb1", secret=Secret("first"))])
        for number in range(50):
            await cluster.change(dict([server("bbb2", max_users=number)]))
        kept = await connection.execute("SELECT min(to_rev) AS oldest FROM version WHERE sealed IS NOT NULL")
        assert await kept.fetchone() == {"oldest": 5}
        assert [each.fields for each in await roll_back(cluster, 2)] == [("secret",)]


@pytest.mark.shows("plan: rollback")
async def test_a_renamed_tenant_gets_its_name_and_its_own_back(cluster: Cluster) -> None:
    lrs = LrsSpec(endpoint="https://lrs/", basic=LrsBasic(username="u", password=Secret("p")))
    await cluster.apply(
        tenant("old", secrets=(Secret("t"),)), setting("old", "record", "true"), (Key(Kind.LRS, "old"), lrs)
    )
    before = await cluster.live()
    spec = before.objects[Key(Kind.TENANT, "old")].model_copy(update={"name": "new"})
    await cluster.apply((Key(Kind.TENANT, "new"), spec), setting("new", "record", "true"), (Key(Kind.LRS, "new"), lrs))
    assert await roll_back(cluster, 1) == ()
    assert (await cluster.live()).objects == before.objects


@pytest.mark.shows("plan: blame")
async def test_blame_says_which_revision_set_each_field(cluster: Cluster) -> None:
    await cluster.apply(server("bbb1"))
    await cluster.change(dict([server("bbb1", tag="x", secret=Secret("new"))]))
    await cluster.change({BBB1: None})
    await cluster.apply(server("bbb1"))
    await cluster.change(dict([server("bbb1", tag="y")]), actor="eva@lb2")
    found = await find_blame(cluster.connection, BBB1)
    assert found is not None
    assert found.blame.fields["secret"] == 4
    assert found.blame.fields["tag"] == 5
    assert found.revisions[5].actor == "eva@lb2"
    await cluster.change({BBB1: None})
    gone = await find_blame(cluster.connection, BBB1)
    assert gone is not None
    assert (gone.blame.removed, gone.blame.fields["tag"], gone.blame.fields["url"]) == (6, 5, 4)
    assert await find_blame(cluster.connection, Key(Kind.SERVER, "bbb9")) is None


@pytest.mark.shows("plan: blame")
async def test_blame_follows_a_tenant_through_its_names(cluster: Cluster) -> None:
    await cluster.apply(tenant("old"), setting("old", "record", "true"))
    spec = (await cluster.live()).objects[Key(Kind.TENANT, "old")].model_copy(update={"name": "new"})
    await cluster.apply((Key(Kind.TENANT, "new"), spec), setting("new", "record", "true"))
    found = await find_blame(cluster.connection, Key(Kind.TENANT, "new"))
    param = await find_blame(cluster.connection, Key(Kind.SETTING, "new", "record"))
    assert found is not None
    assert param is not None
    assert (found.blame.fields["name"], found.blame.fields["enabled"]) == (2, 1)
    assert param.blame.fields["value"] == 1
    for key, how in (
        (Key(Kind.TENANT, "old"), "is gone; renamed to tenant/new"),
        (Key(Kind.SETTING, "old", "record"), "is gone; with tenant/old renamed to tenant/new"),
    ):
        gone = await find_blame(cluster.connection, key)
        assert gone is not None
        assert how in blame_text(key, gone.blame, gone.revisions)


@pytest.mark.shows("plan: blame")
async def test_blame_keeps_apart_tenants_that_had_one_name_after_the_other(cluster: Cluster) -> None:
    x, y = (uuid.UUID(int=number, version=4) for number in (1, 2))
    await cluster.apply(tenant("a", id=x), setting("a", "record", "x"))
    await cluster.apply(tenant("a", id=x), setting("a", "record", "x"), tenant("b", id=y), setting("b", "record", "y"))
    await cluster.apply(
        tenant("a", id=x, protect=True), setting("a", "record", "x"), tenant("b", id=y), setting("b", "record", "y")
    )
    swapped = [tenant("a", id=y), setting("a", "record", "y"), tenant("b", id=x), setting("b", "record", "x")]
    await cluster.apply(*swapped)
    await cluster.apply(*swapped, setting("a", "welcome", "w"))
    fields = {
        key.address: found.blame.fields
        for key in ((Key(Kind.TENANT, name, "")) for name in "ab")
        if (found := await find_blame(cluster.connection, key))
    }
    of_record = {
        name: found.blame.fields["value"]
        for name in "ab"
        if (found := await find_blame(cluster.connection, Key(Kind.SETTING, name, "record")))
    }
    assert (fields["tenant/a"]["id"], fields["tenant/a"]["protect"], fields["tenant/a"]["name"]) == (2, 2, 4)
    assert (fields["tenant/b"]["id"], fields["tenant/b"]["protect"], fields["tenant/b"]["name"]) == (1, 4, 4)
    assert of_record == {"a": 2, "b": 1}
    await cluster.apply(tenant("c", id=y), setting("c", "record", "y"), tenant("a"), setting("a", "record", "new"))
    new = await find_blame(cluster.connection, Key(Kind.SETTING, "a", "record"))
    assert new is not None
    assert set(new.blame.fields.values()) == {6}
