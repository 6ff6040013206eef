"""Callbacks of clients: kept at create, queued when a server or the importer calls, delivered beside the poller.

Any number of deliverers may run at once: each takes rows that are due. Rules: spec/bbb-api.md, Callbacks.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from scalelite.core import callbacks
from scalelite.core.callbacks import ANALYTICS, END_CALLBACK, END_PATHS, RECORDING_READY, Hook
from scalelite.edge.outbound import CALLBACK_S, AddressForbidden, Delivery, OutboundFailed
from scalelite.errors import DatabaseAway
from scalelite.flows.ending import stopped
from scalelite.store import callbacks as rows
from scalelite.store import runtime

if TYPE_CHECKING:
    from uuid import UUID

    from scalelite.flows.cluster import Tenant
    from scalelite.flows.services import Services
    from scalelite.flows.snapshot import Snapshot
    from scalelite.store.callbacks import Call
    from scalelite.store.db import Connection

log = logging.getLogger(__name__)

AT_ONCE: Final = 50
_LEASE_S: Final = CALLBACK_S + 50
_LOOK_EVERY_S: Final = 30.0
# While slow ones are under way: nobody listens then.
_LOOK_AGAIN_S: Final = 0.5
_RETRY_S: Final = 2.0
_PRUNE_EVERY_S: Final = 3600.0
HOOK_DAYS: Final = 90
CALLBACK_DAYS: Final = 30
_ANALYTICS_BYTES: Final = 16 << 20
_PATH_NAMES: Final = {path: name for name, path in END_PATHS.items()}


# --- servers call us -------------------------------------------------------------------------------------------------


async def meeting_ended(services: Services, path: str, token: str, query: str) -> int | None:
    """Forget a meeting that its server says has ended, and queue the client's own call; returns its generation.

    `path` is one of END_PATHS; None for a token that is nobody's.
    """
    name = _PATH_NAMES[path]
    async with services.database.use() as connection, connection.transaction():
        hook = await rows.take_end_hook(connection, name, token)
        if hook is None:
            return None
        await runtime.forget_meetings(connection, [hook.generation])
        added = query if name == END_CALLBACK else ""
        await rows.enqueue(connection, hook, "meeting ended", callbacks.end_url(Hook(name, hook.url), added))
    return hook.generation


async def analytics(services: Services, snapshot: Snapshot, tenant: Tenant, token: str, body: bytes) -> bool:
    """Queue a meeting's analytics for its client; False if no server of ours has signed the token.

    A server speaks for its own meetings alone. What is nobody's is taken and dropped.
    """
    secrets = {
        server.id: [secret.reveal() for secret in (server.secret, server.previous_secret) if secret]
        for server in snapshot.declared.servers.values()
    }
    servers = await asyncio.to_thread(callbacks.signers, token, secrets, services.now_ms() // 1000)
    if not servers:
        return False
    meeting_id = callbacks.meeting_of(body) if len(body) <= _ANALYTICS_BYTES else ""
    if meeting_id:
        async with services.database.use() as connection:
            hook = await rows.analytics_hook(connection, tenant.id, meeting_id, ANALYTICS, servers)
            if hook:
                await rows.enqueue(connection, hook, "analytics", hook.url, body=body)
    return True


async def recording_ready(connection: Connection, tenant: UUID, meeting_id: str, record_id: str) -> int:
    """Queue the calls that say that a recording can be had; returns how many. Once a URL, however many names it has."""
    hooks = await rows.recording_hooks(connection, tenant, meeting_id, RECORDING_READY)
    by_url = {hook.url: hook for hook in hooks}
    for hook in by_url.values():
        await rows.enqueue(connection, hook, "recording ready", hook.url, record_id=record_id)
    return len(by_url)


# --- we call clients -------------------------------------------------------------------------------------------------


async def deliver_forever(services: Services) -> None:
    """Deliver until cancelled: at once what is queued, again what failed."""
    while True:
        try:
            await _deliver_while_connected(services)
        except DatabaseAway as error:
            log.warning("callbacks wait: %s", error)
            await asyncio.sleep(_RETRY_S)


async def _deliver_while_connected(services: Services) -> None:
    loop = asyncio.get_running_loop()
    prune_at = loop.time()
    async with services.database.dedicated() as connection:
        await connection.execute("LISTEN scalelite_callback")
        while True:
            if loop.time() >= prune_at:
                await rows.prune(connection, HOOK_DAYS, CALLBACK_DAYS)
                prune_at = loop.time() + _PRUNE_EVERY_S
            await deliver_due(services)
            due_s = await rows.next_due_s(connection)
            wait_s = _LOOK_EVERY_S if due_s is None else min(max(due_s, 0.05), _LOOK_EVERY_S)
            async for _ in connection.notifies(timeout=wait_s, stop_after=1):
                pass


async def deliver_due(services: Services) -> int:
    """Deliver until nothing is due, so many at a time: who is slow holds up nobody else. Returns how many it was."""
    count, running = 0, set[asyncio.Task[None]]()
    try:
        while True:
            async with services.database.use() as connection:
                due = await rows.take_due(connection, AT_ONCE - len(running), _LEASE_S)
            count += len(due)
            running |= {asyncio.create_task(_deliver(services, call)) for call in due}
            if not running:
                return count
            wait_s = None if len(running) == AT_ONCE else _LOOK_AGAIN_S
            done, running = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        await stopped(*running)


async def _deliver(services: Services, call: Call) -> None:
    status, outcome = await _sent(services, call)
    verdict = "refused" if status == _FORBIDDEN else callbacks.judge(status, call.age_s, call.attempts)
    async with services.database.use() as connection:
        match verdict:
            case "done":
                await rows.delivered(connection, call.id)
            case "again":
                await rows.repeat(connection, call.id, outcome, callbacks.retry_in_s(call.attempts))
            case "refused" | "given up":
                log.warning("callback %d (%s) was %s: %s", call.id, call.kind, verdict, outcome)
                await rows.stop(connection, call.id, verdict, outcome)


_FORBIDDEN: Final = -1


async def _sent(services: Services, call: Call) -> tuple[int, str]:
    """Send a callback; returns the status (0: no answer) and what to note."""
    try:
        status = await services.outbound.deliver(_delivery(services, call))
    except AddressForbidden as error:
        return _FORBIDDEN, str(error)
    except OutboundFailed as error:
        return 0, str(error)
    return status, f"HTTP {status}"


def _delivery(services: Services, call: Call) -> Delivery:
    """Return the request, signed now: tokens expire."""
    match call.kind:
        case "analytics":
            headers = callbacks.analytics_headers(call.secret, services.now_ms() // 1000)
            return Delivery("POST", call.url, headers, call.body)
        case "recording ready":
            algorithms = services.settings.accepted_algorithms
            body = callbacks.recording_ready_body(call.meeting_id, call.record_id, call.secret, algorithms)
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            return Delivery("POST", call.url, form, body.encode())
        case _:
            return Delivery("GET", call.url, {}, b"")
