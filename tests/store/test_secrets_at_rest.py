"""Secrets at rest: what Postgres holds with keys and without, and how keys are changed."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalelite.core.callbacks import ENDED, Hook
from scalelite.core.model import Declared, Key, Kind, LrsBasic, LrsOidc, LrsSpec, Secret, ServerSpec, TenantSpec
from scalelite.core.plan import diff
from scalelite.errors import SecretUnreadable
from scalelite.store import callbacks, runtime, specs
from scalelite.store.db import apply_lock, connect
from scalelite.store.rotation import keys_in_use, rotate
from scalelite.store.seal import CLEAR, Sealer, key_of
from scalelite.store.specs import Author

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scalelite.store.db import Connection

OLD, NEW = "old key " + "o" * 32, "new key " + "n" * 32
TENANT = UUID(int=7)
CANARY = "canary-0123456789abcdef"
SECRETS = 12  # as `wanted`, and the meeting, hook and delivery of `fill` have them


def secret(number: int) -> Secret:
    return Secret(f"{CANARY}-{number}")


def wanted(name: str = "school") -> Declared:
    return Declared(
        {
            Key(Kind.SERVER, "a"): ServerSpec(
                id="a", url="https://a.example/api", secret=secret(1), previous_secret=secret(2)
            ),
            Key(Kind.TENANT, name): TenantSpec(id=TENANT, name=name, secrets=(secret(3), secret(4))),
            Key(Kind.LRS, name): LrsSpec(
                endpoint="https://lrs.example/", basic=LrsBasic(username="u", password=secret(5))
            ),
            Key(Kind.TENANT, "other"): TenantSpec(id=UUID(int=8), name="other", secrets=(secret(6),)),
            Key(Kind.LRS, "other"): LrsSpec(
                endpoint="https://lrs.example/",
                oidc=LrsOidc(
                    token_url="https://kc.example/token",
                    client_id="c",
                    client_secret=secret(7),
                    username="$scalelite$1$looks sealed",
                    password=secret(8),
                ),
            ),
        },
        frozenset({"servers", "tenants"}),
    )


@asynccontextmanager
async def with_keys(database: str, *keys: str) -> AsyncIterator[Connection]:
    async with connect(database, "tests", Sealer(keys)) as connection:
        yield connection


async def declare(connection: Connection, declared: Declared) -> None:
    async with apply_lock(connection, 5):
        live = await specs.load_live(connection)
        await specs.write(connection, diff(live.declared, declared).changes, Author("tests"), uuid4)


async def fill(connection: Connection) -> None:
    await declare(connection, wanted())
    hook = Hook(ENDED, "https://client.example/")
    claim = runtime.Claim(TENANT, "m", ["a"], 1.0, f"{CANARY}-9", f"{CANARY}-10", ["12345"], [hook], "token")
    assert await runtime.claim_meeting(connection, claim)
    async with connection.transaction():
        (kept,) = await callbacks.recording_hooks(connection, TENANT, "m", [ENDED])
        await callbacks.enqueue(connection, kept, "meeting ended", kept.url)


async def read(connection: Connection) -> Declared:
    """The declared objects that `fill` wrote; and its meeting's password is as it was."""
    meeting = await runtime.find_meeting(connection, TENANT, "m")
    assert meeting
    assert meeting.moderator_pw == Secret(f"{CANARY}-9")
    (call,) = await callbacks.take_due(connection, 1, 0)
    assert call.secret == f"{CANARY}-10"
    objects = (await specs.load_live(connection)).declared.objects
    return Declared({key: spec for key, spec in objects.items() if key.name})


def everything(database: str) -> str:
    """All rows of all tables, as text."""
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        queries = [f'SELECT t::text FROM "{name}" t' for (name,) in tables.fetchall()]
        return "\n".join(row for query in queries for (row,) in connection.execute(query).fetchall())


@pytest.mark.shows("inventory: secrets at rest")
async def test_no_secret_is_in_the_database_in_clear(database: str) -> None:
    async with with_keys(database, NEW) as connection:
        await fill(connection)
        assert CANARY not in everything(database)
        assert await keys_in_use(connection) == Counter({Sealer([NEW]).key_id: SECRETS})
        assert (await read(connection)).objects == wanted().objects
        assert (await specs.load_delta(connection, 0)).changed == wanted().objects


@pytest.mark.shows("inventory: secrets at rest")
async def test_without_keys_secrets_are_stored_in_clear(database: str) -> None:
    async with with_keys(database) as connection:
        await fill(connection)
        assert all(f"{CANARY}-{number}" in everything(database) for number in range(1, 11))
        assert (await read(connection)).objects == wanted().objects


@pytest.mark.shows("inventory: secrets at rest")
@pytest.mark.parametrize(("before", "after"), list(itertools.permutations([(), (OLD,), (NEW,)], 2)))
async def test_keys_are_rotated_from_clear_and_back(
    database: str, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    async with with_keys(database, *before) as connection:
        await fill(connection)
    async with with_keys(database, *after, *before) as connection:
        assert await rotate(connection, Sealer(after), lock_timeout_s=5) == SECRETS
    async with with_keys(database, *after) as connection:
        assert (await read(connection)).objects == wanted().objects
        assert await keys_in_use(connection) == Counter({Sealer(after).key_id: SECRETS})
        assert not diff((await specs.load_live(connection)).declared, wanted()).changes
    assert (CANARY in everything(database)) == (not after)


@pytest.mark.shows("inventory: secrets at rest")
async def test_a_rotation_without_the_old_key_changes_nothing(database: str) -> None:
    async with with_keys(database, OLD) as connection:
        await fill(connection)
    before = everything(database)
    async with with_keys(database, NEW) as connection:
        with pytest.raises(SecretUnreadable, match=r"server/a/secret is sealed with key [0-9a-f]{8}, which SCALELITE"):
            await rotate(connection, Sealer([NEW]), lock_timeout_s=5)
        with pytest.raises(SecretUnreadable):
            await specs.load_live(connection)
    assert everything(database) == before


@pytest.mark.shows("inventory: secrets at rest")
async def test_a_secret_that_was_copied_to_another_row_does_not_open(database: str) -> None:
    async with with_keys(database, NEW) as connection:
        await fill(connection)
        await connection.execute("UPDATE server SET previous_secret = secret")
        with pytest.raises(SecretUnreadable, match="server/a/previous_secret does not open"):
            await specs.load_live(connection)


@pytest.mark.shows("inventory: secrets at rest")
async def test_a_renamed_tenant_keeps_its_secrets(database: str) -> None:
    async with with_keys(database, NEW) as connection:
        await declare(connection, wanted("school"))
        await declare(connection, wanted("college"))
        assert {*(await specs.load_live(connection)).declared.objects} >= {*wanted("college").objects}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.shows("inventory: secrets at rest")
@given(TEXTS | TEXTS.map(lambda text: f"$scalelite$1${text}") | TEXTS.map(lambda text: f"$scalelite$1$clear${text}"))
def test_every_text_comes_back(text: str) -> None:
    for keys in ([], [NEW], [NEW, OLD]):
        sealer = Sealer(keys)
        stored = sealer.seal(text, "x")
        assert sealer.open(stored, "x") == text
        assert key_of(stored) == (sealer.key_id if text else CLEAR)
