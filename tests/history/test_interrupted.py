"""Applies that are killed at every statement, that meet another apply, and whose Postgres restarts under them.

Each leaves the old or the new state and never a mix, the lock free, and a next plan that says exactly what is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from scalelite.core.model import Key, Kind
from scalelite.core.plan import diff
from scalelite.inventory.load import load_inventory
from scalelite.store import specs
from scalelite.store.db import APPLY_LOCK, connect
from scalelite.store.embedded import Cluster as Embedded
from scalelite.store.embedded import embedded
from scalelite.wiring import prepare
from tests.history.interrupt import proxy_of, start_apply

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

    from scalelite.core.model import AnySpec, Declared

# Two inventories that differ in everything: each apply of one over the other creates, updates and removes.
INVENTORIES = {
    name: f"""
cluster: {{name: {name}}}
servers:
  both.example.com: {{secret: s-{name}, tag: {name}}}
  only-{name}.example.com: {{secret: s}}
tenants:
  both:
    secrets: [t-{name}]
    settings: {{record: "{value}", only{name}: x}}
    lrs: {{endpoint: "https://{name}.example.com/", basic: {{username: u, password: p}}}}
  only-{name}: {{secrets: [t], hosts: [{name}.example.org]}}
"""
    for name, value in (("a", "true"), ("b", "false"))
}
LONGEST_S = 60.0


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, Declared]:
    """What each inventory wants, by its name, with its file written."""
    for name, text in INVENTORIES.items():
        (tmp_path / name).write_text(text)
    return {name: load_inventory([tmp_path / name], environment={}).wanted for name in INVENTORIES}


async def objects_of(database: str) -> Mapping[Key, AnySpec]:
    """What is live, without the ids that tenants were given."""
    async with connect(database, "tests") as connection:
        live = await specs.load_live(connection)
    return {
        key: spec.model_copy(update={"id": None}) if key.kind is Kind.TENANT else spec
        for key, spec in live.declared.objects.items()
        if key != Key(Kind.TENANT)
    }


def wait_until_gone(home: Path, postmaster: int) -> None:
    deadline_s = time.monotonic() + LONGEST_S
    while Embedded.at(home).postmaster() == postmaster:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


async def ended(process: ForkServerProcess) -> int | None:
    await asyncio.to_thread(process.join, LONGEST_S)
    return process.exitcode


async def seconds_until_the_lock_is_free(database: str) -> float:
    started = time.monotonic()
    async with connect(database, "tests") as connection:
        while time.monotonic() - started < LONGEST_S:
            cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s) AS had", APPLY_LOCK)
            if (await cursor.fetchone() or {})["had"]:
                break
            await asyncio.sleep(0.01)
    return time.monotonic() - started


async def check_whole(database: str, before: Mapping[Key, AnySpec], target: Declared) -> bool:
    """Check that the old or the new state is there and that the next plan is exact; returns whether it is the new."""
    async with connect(database, "tests") as connection:
        live = (await specs.load_live(connection)).declared
        cursor = await connection.execute(
            "SELECT serial, (SELECT max(number) FROM revision) AS last,"
            " (SELECT max(from_rev) FROM declared_object) AS newest FROM cluster"
        )
        numbers = set((await cursor.fetchone() or {}).values())
    objects = await objects_of(database)
    is_new = objects == target.objects
    assert is_new or objects == before
    left = {change.key for change in diff(live, target).changes}
    names = before.keys() | target.objects.keys()
    assert left == (set() if is_new else {key for key in names if before.get(key) != target.objects.get(key)})
    assert len(numbers) == 1, "rows, revisions and serial are of one moment"
    return is_new


@pytest.mark.shows("DE-3", "plan: kill -9", "issue C: kill at every statement")
async def test_an_apply_killed_at_any_statement_leaves_the_old_or_the_new_state(
    tmp_path: Path, database: str, wanted: Mapping[str, Declared]
) -> None:
    async with proxy_of(database) as proxy:
        assert await ended(start_apply(tmp_path, proxy.url, "a")) == 0
        proxy.arm(0, lambda: None, before=False)
        assert await ended(start_apply(tmp_path, proxy.url, "b")) == 0
        statements, now, other = proxy.count, "b", "a"
        assert statements > 15
        outcomes = []
        for place in range(1, statements):
            for before in (True, False):
                old = await objects_of(database)
                proxy.arm(place, lambda: victim.kill(), before=before)  # noqa: B023, PLW0108 - it is there by then
                victim = start_apply(tmp_path, proxy.url, other)
                assert await ended(victim) == -signal.SIGKILL, f"statement {place} of {statements}"
                assert await seconds_until_the_lock_is_free(database) < 5
                outcomes.append(await check_whole(database, old, wanted[other]))
                if outcomes[-1]:
                    now, other = other, now
        assert set(outcomes) == {True, False}, "both were seen: killed too early, and after the commit"


@pytest.mark.shows("DE-3", "issue C: two applies at once")
async def test_of_two_applies_at_once_each_waits_or_fails_cleanly(
    tmp_path: Path, database: str, wanted: Mapping[str, Declared]
) -> None:
    winners = []
    for _ in range(20):
        both = [start_apply(tmp_path, database, name, "--lock-timeout", "30") for name in INVENTORIES]
        statuses = [await ended(process) for process in both]
        assert set(statuses) <= {0, 4}, "applied, or stale since the other was faster"
        assert 0 in statuses
        objects = await objects_of(database)
        winners += [name for name in INVENTORIES if objects == wanted[name].objects]
    assert len(winners) == 20, "never a mix"
    assert not any("Traceback" in (tmp_path / f"{name}.log").read_text() for name in INVENTORIES)


@pytest.mark.shows("DE-3", "issue C: Postgres restarts")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], ids=lambda how: how.name)
async def test_a_postgres_that_stops_in_the_middle_leaves_the_old_state(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, wanted: Mapping[str, Declared], how: signal.Signals
) -> None:
    home = tmp_path_factory.mktemp("own")
    with embedded(home, linger_s=0.2, fsync=False) as database:
        await asyncio.to_thread(asyncio.run, prepare(database))
        async with proxy_of(database) as proxy:
            assert await ended(start_apply(tmp_path, proxy.url, "a")) == 0
            old, middle = await objects_of(database), proxy.count // 2
            postmaster = Embedded.at(home).postmaster()
            assert postmaster is not None
            proxy.arm(middle, lambda: os.kill(postmaster, how), before=False)
            assert await ended(start_apply(tmp_path, proxy.url, "b")) in {1, 7}
        await asyncio.to_thread(wait_until_gone, home, postmaster)
    with embedded(home, linger_s=0.2, fsync=False) as database:
        assert not await check_whole(database, old, wanted["b"])
        assert await ended(start_apply(tmp_path, database, "b")) == 0
        assert await check_whole(database, old, wanted["b"])
    said = (tmp_path / "b.log").read_text()
    assert "Traceback" not in said
    assert "error: " in said
