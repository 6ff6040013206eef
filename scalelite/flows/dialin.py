"""Dial-in: which meeting a PIN is of, and on which server; one statement for a call that brings a PIN."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scalelite.core import dialin
from scalelite.store import runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalelite.flows.services import Services
    from scalelite.flows.snapshot import Snapshot


async def answer(services: Services, snapshot: Snapshot, host: str, form: Mapping[str, str]) -> bytes:
    """Answer FreeSWITCH; on a tenant's host, PINs of other tenants' meetings are unknown.

    Raises ChecksumError for a host of no tenant.
    """
    settings, declared = services.settings, snapshot.declared
    tenant = declared.dialin_tenant(host)
    call = dialin.dialled(form)
    if call is None:
        return dialin.reject()
    length = dialin.PinLength(settings.voice_bridge_min, settings.voice_bridge_max)
    if not call.pin:
        minutes = settings.fsapi_max_duration
        minutes = declared.cluster.max_meeting_duration if minutes is None else minutes
        return dialin.prompt(call, length, minutes * 60)
    async with services.database.use() as connection:
        meeting = await runtime.find_bridged(connection, tenant, call.bridges)
    server = declared.servers.get(meeting.server) if meeting else None
    if meeting is None or server is None:
        return dialin.reprompt(call, length)
    return dialin.bridge(call, meeting.meeting_id, urlsplit(server.url).hostname or "")
