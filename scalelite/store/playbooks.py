"""The journal of playbooks in Postgres, their locks on servers, and the meetings that they end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from scalelite.store.runtime import as_meeting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from scalelite.core.model import Meeting
    from scalelite.store.db import Connection

# The first part of the advisory lock that a run holds as long as it lives; the second is its number.
_RUN_LOCK: Final = 5342
_LATEST: Final = 50
# Runs of the same files with the same options at the same time: those before them were let go when these began.
_AT_ONCE: Final = 5


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the journal has it; `alive`: a process works on it."""

    id: int
    playbook: str
    digest: str
    actor: str
    state: str
    started_at: datetime
    alive: bool


_RUNS: Final = """
SELECT r.id, r.playbook, r.digest, r.actor, r.state, r.started_at AT TIME ZONE 'UTC' AS started_at,
       EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = 5342 AND l.objid = r.id
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.granted
       ) AS alive
  FROM playbook_run r
"""


async def begin(connection: Connection, playbook: str, digest: str, actor: str, given: str) -> int:
    """Begin a run, and hold its lock on this connection; returns its number. The journal keeps 90 days.

    `given` is kept sealed. A run before it that was asked the same can no longer go on: its results are let go.
    """
    await connection.execute("DELETE FROM playbook_run WHERE started_at < now() - interval '90 days'")
    cursor = await connection.execute(
        _RUNS + "WHERE r.playbook = %s AND r.digest = %s ORDER BY r.id DESC LIMIT %s", (playbook, digest, _AT_ONCE)
    )
    for row in await cursor.fetchall():
        if not row["alive"]:
            await _let_go(connection, row["id"])
    cursor = await connection.execute(
        "INSERT INTO playbook_run (playbook, digest, actor) VALUES (%s, %s, %s) RETURNING id",
        (playbook, digest, actor),
    )
    run: int = (await cursor.fetchone() or {})["id"]
    sealed = connection.sealer.seal(given, given_identity(run))
    await connection.execute("UPDATE playbook_run SET given = %s WHERE id = %s", (sealed, run))
    await hold_run(connection, run)
    return run


async def drop(connection: Connection, run: int) -> None:
    """Take out a run that has begun nothing."""
    await connection.execute("DELETE FROM playbook_run WHERE id = %s", (run,))
    await connection.execute("SELECT pg_advisory_unlock(%s, %s)", (_RUN_LOCK, run))


async def given_of(connection: Connection, run: int) -> str:
    """Return what a run was given, '' if nothing is kept."""
    cursor = await connection.execute("SELECT given FROM playbook_run WHERE id = %s", (run,))
    return connection.sealer.open((await cursor.fetchone() or {"given": ""})["given"], given_identity(run))


def given_identity(run: int) -> str:
    """Return what the variables of a run are bound to when they are sealed."""
    return f"playbook/{run}/given"


async def _let_go(connection: Connection, run: int) -> None:
    """Empty what may hold secrets, and is of no use to anybody any more."""
    await connection.execute("UPDATE playbook_step SET result = '' WHERE run = %s AND result <> ''", (run,))
    await connection.execute("UPDATE playbook_run SET given = '' WHERE id = %s", (run,))


async def hold_run(connection: Connection, run: int) -> bool:
    """Hold the lock of a run on this connection as long as it lasts; False: another process has it."""
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, %s) AS had", (_RUN_LOCK, run))
    return bool((await cursor.fetchone() or {})["had"])


async def latest_runs(connection: Connection, playbook: str | None = None, most: int = _LATEST) -> list[RunRow]:
    """Return the latest runs, of one playbook or of all, newest first."""
    cursor = await connection.execute(
        _RUNS + "WHERE %s::text IS NULL OR r.playbook = %s ORDER BY r.id DESC LIMIT %s", (playbook, playbook, most)
    )
    return [RunRow(**row) for row in await cursor.fetchall()]


async def end(connection: Connection, run: int, state: str) -> None:
    """End a run and let its servers go; the results, which may hold secrets, are kept only if it may be resumed."""
    if state == "done":
        await _let_go(connection, run)
    await connection.execute("UPDATE playbook_run SET state = %s, ended_at = now() WHERE id = %s", (state, run))
    await connection.execute("DELETE FROM playbook_lock WHERE run = %s", (run,))
    await connection.execute("SELECT pg_advisory_unlock(%s, %s)", (_RUN_LOCK, run))


async def lock_servers(connection: Connection, run: int, servers: Sequence[str]) -> dict[str, RunRow]:
    """Lock servers for a run; returns those that a living run has, with it, and then locks none."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE playbook_lock IN SHARE ROW EXCLUSIVE MODE")
        cursor = await connection.execute(
            "SELECT server, run FROM playbook_lock WHERE server = ANY (%s) AND run <> %s", (list(servers), run)
        )
        held = {row["server"]: row["run"] for row in await cursor.fetchall()}
        cursor = await connection.execute(_RUNS + "WHERE r.id = ANY (%s)", (list(set(held.values())),))
        alive = {row["id"]: RunRow(**row) for row in await cursor.fetchall() if row["alive"]}
        if taken := {server: alive[other] for server, other in held.items() if other in alive}:
            return taken
        await connection.execute(
            """
            INSERT INTO playbook_lock (server, run) SELECT unnest(%s::text[]), %s
                ON CONFLICT (server) DO UPDATE SET run = EXCLUDED.run
            """,
            (list(servers), run),
        )
    return {}


# --- what a run has done ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlayTargets:
    """What a play is about, and what its pattern named before --limit; among the latter its bounds count."""

    targets: list[str]
    meant: list[str]


async def targets_of(connection: Connection, run: int) -> dict[int, PlayTargets]:
    """Return what each play of a run was found to be about."""
    cursor = await connection.execute(
        "SELECT play, targets, COALESCE(meant, targets) AS meant FROM playbook_target WHERE run = %s", (run,)
    )
    return {row["play"]: PlayTargets(row["targets"], row["meant"]) for row in await cursor.fetchall()}


async def keep_targets(connection: Connection, run: int, play: int, found: PlayTargets) -> None:
    """Keep what a play is about, so that it is about the same when it is resumed."""
    await connection.execute(
        "INSERT INTO playbook_target (run, play, targets, meant) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (run, play, found.targets, found.meant),
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A task that is done with a target; `result` as templates see it."""

    step: str
    target: str
    status: str
    result: Mapping[str, Any]


async def keep_steps(connection: Connection, run: int, steps: Iterable[Step]) -> None:
    """Keep what was done; the results sealed."""
    rows = [
        (
            step.step,
            step.target,
            step.status,
            connection.sealer.seal(json.dumps(step.result), step_identity(run, step.step, step.target)),
        )
        for step in steps
    ]
    await connection.execute(
        """
        INSERT INTO playbook_step (run, step, target, status, result)
        SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
            ON CONFLICT (run, step, target) DO UPDATE SET status = EXCLUDED.status, result = EXCLUDED.result
        """,
        (run, *([row[place] for row in rows] for place in range(4))),
    )


async def forget_steps(connection: Connection, run: int, steps: Sequence[str], targets: Sequence[str]) -> None:
    """Take out results, each given by its step and its target: they are to be done again."""
    await connection.execute(
        """
        DELETE FROM playbook_step s USING unnest(%s::text[], %s::text[]) AS f (step, target)
         WHERE s.run = %s AND s.step = f.step AND s.target = f.target
        """,
        (list(steps), list(targets), run),
    )


def step_identity(run: int, step: str, target: str) -> str:
    """Return what a result is bound to when it is sealed."""
    return f"playbook/{run}/{step}/{target}"


async def steps_of(connection: Connection, run: int) -> list[Step]:
    """Return what a run has done."""
    cursor = await connection.execute(
        "SELECT step, target, status, result FROM playbook_step WHERE run = %s AND result <> ''", (run,)
    )
    opened = connection.sealer.open
    found = []
    for row in await cursor.fetchall():
        text = opened(row["result"], step_identity(run, row["step"], row["target"]))
        found.append(Step(row["step"], row["target"], row["status"], json.loads(text)))
    return found


# --- meetings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Which:
    """Which meetings of a server or of a tenant are meant; None: whatever it is. `empty` is as the last poll saw."""

    server: str | None = None
    tenant: str | None = None
    older_than_s: float | None = None
    empty: bool | None = None


async def meetings_that(connection: Connection, which: Which) -> list[Meeting]:
    """Return these meetings, by server."""
    cursor = await connection.execute(
        """
        SELECT m.tenant, m.meeting_id, m.server, m.generation, m.phase, m.moderator_pw, m.voice_bridge
          FROM meeting m JOIN tenant t ON t.id = m.tenant
         WHERE (%(server)s::text IS NULL OR m.server = %(server)s)
           AND (%(tenant)s::text IS NULL OR t.name = %(tenant)s)
           AND (%(older)s::float8 IS NULL OR m.claimed_at < now() - make_interval(secs => %(older)s))
           AND (%(empty)s::bool IS NULL OR (m.counted AND m.users = 0) = %(empty)s)
         ORDER BY m.server, m.meeting_id
        """,
        {"server": which.server, "tenant": which.tenant, "older": which.older_than_s, "empty": which.empty},
    )
    return [as_meeting(row, connection.sealer) for row in await cursor.fetchall()]
