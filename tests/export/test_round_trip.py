"""Export, then plan: no changes, for every state of a cluster and every way of writing its secrets."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from scalelite.core.model import (
    CallParams,
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
)
from scalelite.core.plan import diff
from scalelite.flows import export as flow
from scalelite.flows import reconcile
from scalelite.inventory import protect
from scalelite.inventory.load import load_inventory
from scalelite.inventory.parse import parse
from scalelite.inventory.schema import inventory_schema
from scalelite.inventory.source import Source
from scalelite.inventory.vault import Password
from scalelite.store import specs
from scalelite.store.db import apply_lock, connect
from scalelite.store.seal import Sealer
from scalelite.store.specs import Author
from tests.export.states import ODD, declared, held
from tests.export.test_dump import unexpected

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalelite.core.model import Section
    from scalelite.core.plan import Plan
    from scalelite.store.db import Connection

SECTIONS: tuple[Section, ...] = ("cluster", "servers", "tenants")

PASSWORD = Password(Secret("vault password"), "prod")
WAYS: dict[str, Callable[[], Any]] = {
    "plain": lambda: protect.in_clear,
    "env": protect.Environment,
    "vault": lambda: protect.Vault(PASSWORD),
}


async def become(connection: Connection, wanted: Declared, holds: dict[str, tuple[str, str]]) -> None:
    """Make the cluster this one, whatever it was before."""
    async with apply_lock(connection, 5):
        await connection.execute("UPDATE cluster SET from_rev = 0, spec = '{}'")
        await connection.execute("DELETE FROM server")
        await connection.execute("DELETE FROM tenant WHERE name <> ''")
        await specs.write(connection, diff(Declared({}), wanted).changes, Author("tests"), uuid4)
        for server, (state, why) in holds.items():
            await connection.execute(
                "INSERT INTO hold (server, state, by, why) SELECT id, %s, 'ops', %s FROM server WHERE id = %s",
                (state, why.replace("\0", ""), server),
            )


async def planned(connection: Connection, text: str, environment: dict[str, str]) -> Plan:
    inventory = load_inventory(
        ["-"], environment=environment, stdin=io.BytesIO(text.encode()), passwords=lambda: [PASSWORD]
    )
    return (await reconcile.plan(connection, inventory.wanted, "cordon")).plan


async def round_trip(
    database: str, wanted: Declared, holds: dict[str, tuple[str, str]], make: Callable[[], Any], *, verbose: bool
) -> tuple[str, Plan]:
    """Return what is exported, twice the same, and what a plan says of it; `make` makes a way to write secrets."""
    async with connect(database, "tests", Sealer(["k" * 32])) as connection:
        await become(connection, wanted, holds)
        way, again = make(), make()
        texts = flow.export(await flow.read(connection), SECTIONS, way, verbose=verbose)
        assert texts == flow.export(await flow.read(connection), SECTIONS, again, verbose=verbose)
        text = "\n".join(texts.values())
        environment = way.values if isinstance(way, protect.Environment) else {}
        return text, await planned(connection, text, environment)


@pytest.mark.shows("DE-2", "inventory: export, then plan says no changes", "issue B: property tests")
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), wanted=declared(), way=st.sampled_from(["plain", "env"]), verbose=st.booleans())
def test_a_plan_of_an_export_has_no_changes(
    database: str, data: st.DataObject, wanted: Declared, way: str, verbose: bool
) -> None:
    holds = data.draw(held(key.name for key in wanted.objects if key.kind == "server"))
    text, plan = asyncio.run(round_trip(database, wanted, holds, WAYS[way], verbose=verbose))
    assert not plan.changes, text
    assert not plan.blocked


@pytest.mark.shows("inventory: export, then plan says no changes", "inventory: --secrets vault")
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(wanted=declared())
def test_a_plan_of_an_export_with_vaults_has_no_changes(database: str, wanted: Declared) -> None:
    """Few examples: each secret costs 10,000 rounds of hashing, once to write and once to read."""
    text, plan = asyncio.run(round_trip(database, wanted, {}, WAYS["vault"], verbose=False))
    assert not plan.changes, text


@pytest.mark.shows("inventory: export, then plan says no changes")
@pytest.mark.parametrize("way", ["plain", "env"])
async def test_every_odd_text_comes_back_everywhere(database: str, way: str) -> None:
    objects: dict[Key, Any] = {}
    for number, text in enumerate(ODD):
        server, tenant = f"bbb{number}", f"t{number}"
        objects[Key(Kind.SERVER, server)] = ServerSpec(
            id=server, url=f"https://{server}/api", secret=Secret(text), previous_secret=Secret(text), tag=text
        )
        objects[Key(Kind.TENANT, tenant)] = TenantSpec(
            id=UUID(int=number + 1), name=tenant, secrets=(Secret(text), Secret("x" + text))
        )
        objects[Key(Kind.SETTING, tenant, "a")] = SettingSpec(param="a", value=text)
        objects[Key(Kind.SETTING, tenant, "b")] = SettingSpec(param="b", value=text, override=True)
        basic = LrsBasic(username=text, password=Secret(text))
        objects[Key(Kind.LRS, tenant)] = LrsSpec(endpoint="https://lrs/", basic=basic)
    params = CallParams(default={f"p{number}": text for number, text in enumerate(ODD)})
    objects[Key(Kind.CLUSTER)] = ClusterSpec(name="{{ x }}", create=params)
    holds = {f"bbb{number}": ("cordoned", text) for number, text in enumerate(ODD)}
    text, plan = await round_trip(database, Declared(objects), holds, WAYS[way], verbose=way == "env")
    assert not plan.changes, text
    tree = parse(Source("x.yml", text.encode(), text), unexpected)
    assert [error.message for error in Draft7Validator(inventory_schema()).iter_errors(tree)] == []
    assert sum(plan.unchanged.values()) == len(objects)
