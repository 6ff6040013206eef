"""Properties of history over random sequences of applies and changes by hand, with renames, on a real Postgres."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalelite.core.drift import drift
from scalelite.core.model import (
    SECTION_OF,
    ClusterSpec,
    Declared,
    Key,
    Kind,
    LrsBasic,
    LrsSpec,
    Secret,
    ServerSpec,
    SettingSpec,
    TenantSpec,
    has_secret,
)
from scalelite.core.plan import diff
from scalelite.flows.drift import note_agreement
from scalelite.flows.history import plan_rollback
from scalelite.store import db, specs
from scalelite.store.seal import Sealer
from scalelite.store.specs import Author
from tests.history.conftest import INVENTORY, Cluster

if TYPE_CHECKING:
    from scalelite.core.model import AnySpec

State = dict[Key, "AnySpec"]
HAND = Author("ops@lb1")
SECRET_FIELDS = {"secret", "previous_secret", "secrets"}
SECRETS = st.sampled_from(["s1", "s2", ""]).map(Secret)
# A tenant keeps its id under changing names, and a name is never another tenant's: inventories may not say so.
TENANTS = [(uuid.UUID(int=1), ["x", "x2"]), (uuid.UUID(int=2), ["y", "y2"])]


@st.composite
def states(draw: st.DrawFn) -> State:
    """A whole declared state."""
    state: State = {}
    for name in draw(st.sets(st.sampled_from(["a", "b"]))):
        tag, secret, old = draw(st.sampled_from(["", "gpu"])), draw(st.sampled_from(["s1", "s2"])), draw(SECRETS)
        url = f"https://{name}/bigbluebutton/api"
        state[Key(Kind.SERVER, name)] = ServerSpec(
            id=name, url=url, secret=Secret(secret), previous_secret=old, tag=tag
        )
    for id_, names in TENANTS:
        if name := draw(st.sampled_from(["", *names])):
            secrets = tuple(draw(st.lists(st.sampled_from(["s1", "s2"]).map(Secret), max_size=2)))
            state[Key(Kind.TENANT, name)] = TenantSpec(id=id_, name=name, secrets=secrets)
            if draw(st.booleans()):
                value = draw(st.sampled_from(["true", "false"]))
                state[Key(Kind.SETTING, name, "record")] = SettingSpec(param="record", value=value)
            if draw(st.booleans()):
                basic = LrsBasic(
                    username=draw(st.sampled_from(["u", "v"])), password=Secret(draw(st.sampled_from("pq")))
                )
                state[Key(Kind.LRS, name)] = LrsSpec(endpoint="https://lrs/", basic=basic)
    if draw(st.booleans()):
        state[Key(Kind.CLUSTER)] = ClusterSpec(name=draw(st.sampled_from(["", "prod"])))
    return state


STORIES = st.lists(st.tuples(st.booleans(), states()), min_size=2, max_size=6)


async def empty(cluster: Cluster) -> None:
    await cluster.connection.execute("TRUNCATE revision, version, applied, server, tenant_host, setting CASCADE")
    await cluster.connection.execute("DELETE FROM tenant WHERE name <> ''")
    await cluster.connection.execute("UPDATE cluster SET serial = 0, from_rev = 0, spec = '{}'")


async def settle(cluster: Cluster, state: State, author: Author) -> int:
    """Make the cluster what a state says, without the guards of a plan; returns the revision."""
    wanted = Declared(state)
    async with db.apply_lock(cluster.connection, 5):
        live = await specs.load_live(cluster.connection)
        changes = diff(live.declared, wanted).changes
        revision = live.revision
        if changes:
            revision = await specs.write(cluster.connection, changes, author, uuid.uuid4)
        await note_agreement(cluster.connection, wanted, author)
    return revision


def shape(state: State | Any, *, secrets: bool = True) -> dict[Key, Any]:
    """A state without a cluster section that says nothing, and without secrets if they do not count."""
    return {
        key: spec if secrets else {name: value for name, value in spec if name not in SECRET_FIELDS}
        for key, spec in state.items()
        if spec != ClusterSpec() and (secrets or key.kind is not Kind.LRS)
    }


@pytest.mark.shows("plan: rollback", "issue C: history replayed backwards")
@pytest.mark.parametrize("keys", [(), ("a key of much randomness",)], ids=["without key", "with key"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=STORIES)
async def test_history_replayed_backwards_gives_each_state_again(
    cluster: Cluster, keys: tuple[str, ...], story: list[tuple[bool, State]]
) -> None:
    cluster.connection.sealer = Sealer(keys)
    await empty(cluster)
    states_after: dict[int, State] = {0: {}}
    for by_inventory, state in story:
        live = (await cluster.live()).objects
        kept = {key: spec for key, spec in live.items() if key.kind is Kind.CLUSTER}  # its section may be left out
        states_after[await settle(cluster, state, INVENTORY if by_inventory else HAND)] = kept | state
    for number, state in reversed(states_after.items()):
        told = await plan_rollback(cluster.connection, number, Declared(state))
        assert told.lost == ()
        assert shape(told.request.wanted.objects) == shape(state), "with an inventory that has the secrets"
        way = await plan_rollback(cluster.connection, number, None)
        gone = {lost.key.name for lost in way.lost if lost.is_gone}
        rest = {key: spec for key, spec in state.items() if key.name not in gone}
        known = {key: spec for key, spec in way.request.wanted.objects.items() if key in rest}
        assert shape(known, secrets=bool(keys)) == shape(rest, secrets=bool(keys))
        assert not (keys and way.lost)
        await settle(cluster, dict(told.request.wanted.objects), HAND)
        assert shape((await cluster.live()).objects) == shape(state)


@pytest.mark.shows("plan: three-way", "DE-10")
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(applied=states(), story=st.lists(states(), max_size=4))
async def test_drift_is_what_differs_from_what_was_applied(
    cluster: Cluster, applied: State, story: list[State]
) -> None:
    await empty(cluster)
    await settle(cluster, applied, INVENTORY)
    before = (await cluster.live()).objects
    for state in story:
        await settle(cluster, state, HAND)
    live = await cluster.live()
    found = drift(live, await cluster.pasts())
    managed = {SECTION_OF[key.kind] for key in before}
    old, new = shape(before, secrets=False), shape(live.objects, secrets=False)
    keys = {key for key in old.keys() | new.keys() if SECTION_OF[key.kind] in managed}
    assert {key for key in keys if old.get(key) != new.get(key)} <= {each.key for each in found}
    for each in found:
        both = (before.get(each.key), live.objects.get(each.key))
        assert (each.before is None, each.live is None) == (both[0] is None, both[1] is None)
        assert all(
            has_secret(getattr(each.live, name)) or getattr(both[0], name) != getattr(both[1], name)
            for name in each.fields
        )
    await settle(cluster, dict(live.objects), INVENTORY)
    assert await cluster.pasts() == {}
