"""The old tasks meetings…, poll… and liveness, with the output that Scalelite v1.8.5 was recorded with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from scalelite.cli.rake import Refused, log, not_found
from scalelite.cli.server_rows import known_load, seems_online
from scalelite.errors import Ambiguous, NotDeclared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scalelite.cli.rake import Rake
    from scalelite.core.rake import Arguments
    from scalelite.flows.admin import MeetingEnd
    from scalelite.flows.meetings import Said
    from scalelite.flows.poll import Polled
    from scalelite.flows.services import Services
    from scalelite.flows.status import ServerRow
    from scalelite.store.db import Connection
    from scalelite.store.observed import RunningMeeting

_CLEARING: Final = """\
WARNING: You are trying to clear active meetings.
If you still wish to continue please enter `yes`"""
# What is shown of a meeting's metadata, and of which key: bbb-origin was recorded with the name of the context.
_METADATA: Final = {
    "bbb-context-name": "bbb-context-name",
    "analytics-callback-url": "analytics-callback-url",
    "bbb-recording-tags": "bbb-recording-tags",
    "bbb-origin-server-common-name": "bbb-origin-server-common-name",
    "bbb-context-label": "bbb-context-label",
    "bbb-origin": "bbb-context-name",
    "bbb-context": "bbb-context",
    "bbb-context-id": "bbb-context-id",
    "bbb-recording-name": "bbb-recording-name",
    "bbb-origin-server-name": "bbb-origin-server-name",
    "bbb-recording-description": "bbb-recording-description",
    "bbb-origin-tag": "bbb-origin-tag",
}


async def _running(connection: Connection, ids: Sequence[str]) -> list[RunningMeeting]:
    """Return the meetings of these ids, of whatever tenant, or all; the old tasks take no beginnings of ids."""
    from scalelite.store.observed import running_meetings  # noqa: PLC0415 - 0.1 s to import

    every = await running_meetings(connection)
    for wanted in ids:
        if wanted not in {meeting.meeting_id for meeting in every}:
            raise NotDeclared("meeting", wanted)
    return [meeting for meeting in every if not ids or meeting.meeting_id in ids]


def _said(rake: Rake, ids: Sequence[str]) -> list[Said]:
    async def asking(services: Services) -> list[Said]:
        from scalelite.flows.meetings import about  # noqa: PLC0415 - 0.2 s to import

        async with services.database.use() as connection:
            found = await _running(connection, ids)
        return await about(services, found)

    try:
        return rake.serve(asking)
    except NotDeclared as error:
        raise not_found("Meeting", error.name) from None


def list_meetings(rake: Rake, arguments: Arguments) -> None:
    for said in _said(rake, arguments.listed("meeting_ids")):
        name = said.meeting.meeting_id
        if said.reply is None:
            log.error("Failed to get meeting id=%s status: %s", name, said.failure)
        else:
            rake.say(f"\nMeetingID: {name}\n\tServer ID: {said.server.id}\n\tServer Url: {said.server.url}")


def info(rake: Rake, arguments: Arguments) -> None:
    wanted = arguments["meeting_id"]
    if not wanted:
        raise Refused("Error: Please input a meetingID!")
    found = _said(rake, [wanted])
    if len(found) > 1:
        raise Ambiguous("meeting", wanted, [f"{said.meeting.tenant}/{wanted}" for said in found])
    for said in found:
        if said.reply is None:
            rake.warn(f"WARNING: Could not get info for meeting id={wanted}: {said.failure}")
            continue
        root = said.reply.root
        for line in (
            f"\nMeeting ID: {wanted}",
            f"\tMeeting Name: {root.findtext('meetingName') or ''}",
            f"\tInternal MeetingID: {root.findtext('internalMeetingID') or ''}",
            f"\tCreated Date: {root.findtext('createDate') or ''}",
            f"\tRecording Enabled: {root.findtext('recording') or ''}",
            f"\tServer id: {said.server.id}",
            f"\tSerevr url: {said.server.url}",
            "\tMetaData:",
            *(f"\t\t{shown}: {root.findtext(f'metadata/{key}') or ''}" for shown, key in _METADATA.items()),
        ):
            rake.say(line)


def end(rake: Rake, arguments: Arguments) -> None:
    rake.say(_CLEARING)
    if rake.asked() == "yes":
        _end(rake, arguments.listed("meeting_ids"))
    rake.say("OK")


def _end(rake: Rake, ids: Sequence[str]) -> None:
    async def acting(services: Services) -> list[MeetingEnd]:
        from scalelite.flows import meetings as flow  # noqa: PLC0415

        async with services.database.use() as connection:
            found = await _running(connection, ids)
        return await flow.end(services, found, lambda _: None)

    try:
        ends = rake.serve(acting)
    except NotDeclared as error:
        raise not_found("Meeting", error.name) from None
    if not ends:
        rake.warn("No meetings to clear")
    for ended in ends:
        if ended.outcome == "ended":
            rake.warn(f"Clearing Meeting id={ended.meeting.meeting_id}")
        else:
            log.error("WARNING: Could not end meeting id=%s: %s", ended.meeting.meeting_id, ended.reason)


# --- poll ------------------------------------------------------------------------------------------------------------


def poll_once(rake: Rake, _: Arguments) -> None:
    """One round sees servers and their meetings: each task does that, and logs its own part."""

    async def polling(services: Services) -> None:
        from scalelite.flows.poll import Poll  # noqa: PLC0415 - 0.2 s to import
        from scalelite.flows.status import server_rows  # noqa: PLC0415
        from scalelite.store.observed import running_meetings  # noqa: PLC0415

        heard: list[Polled] = []
        poll = Poll(services, tell=heard.append)
        async with services.database.use() as connection:
            before = {row.id: row for row in await server_rows(connection)}
            meetings = await running_meetings(connection)
        versions = rake.task in {"poll:all", "poll:versions"}
        outcome = await poll.round(await poll.begin(), versions=versions)
        async with services.database.use() as connection:
            rows = [row for row in await server_rows(connection) if row.id in outcome.statuses]
            left = {meeting.generation for meeting in await running_meetings(connection)}
        if rake.task in {"poll:all", "poll:servers"}:
            _log_servers(heard, rows, before)
        if rake.task in {"poll:all", "poll:meetings"}:
            _log_ended(meeting for meeting in meetings if meeting.generation not in left)
        if rake.task in {"poll:all", "poll:versions"}:
            _log_versions(heard)

    rake.serve(polling)


def _log_servers(heard: Sequence[Polled], rows: Sequence[ServerRow], before: Mapping[str, ServerRow]) -> None:
    for answer in heard:
        if answer.meetings is None:
            log.warning("Failed to get server id=%s status: %s", answer.server.id, answer.failure)
    for row in rows:
        was, now = row.id in before and seems_online(before[row.id]), seems_online(row)
        if now and not was:
            log.info("Server id=%s is healthy. Bringing back online...", row.id)
        if was and not now:
            log.warning("Server id=%s is unhealthy. Setting offline...", row.id)
        load = known_load(row)
        shown = "unavailable" if load is None else load
        log.info("Server id=%s %s load: %s", row.id, "online" if now else "offline", shown)


def _log_ended(meetings: Iterable[RunningMeeting]) -> None:
    for meeting in meetings:
        log.info("Meeting id=%s on Server id=%s has ended", meeting.meeting_id, meeting.server)


def _log_versions(heard: Sequence[Polled]) -> None:
    for answer in heard:
        if answer.failure:
            log.warning("Unexpected error when checking version of server id=%s: %s", answer.server.id, answer.failure)


def poll_forever(rake: Rake, arguments: Arguments) -> None:
    from scalelite.web.server import run_poller  # noqa: PLC0415 - 0.3 s to import
    from scalelite.wiring import open_database  # noqa: PLC0415

    settings = rake.settings
    if interval := arguments["interval"]:
        try:
            settings = dataclasses.replace(settings, poll_interval_s=max(float(interval), 0.1))
        except ValueError:
            raise Refused(f"Error: the interval {interval} is no number of seconds") from None
    log.info("Running poller with interval %s", settings.poll_interval_s)
    with open_database(settings) as conninfo:
        run_poller(settings, conninfo)


def liveness(rake: Rake, _: Arguments) -> None:
    async def nothing(_: Connection) -> None:
        """Being connected is all that is asked for."""

    rake.read(nothing)
    rake.say("success")


DOES: Final[Mapping[str, Callable[[Rake, Arguments], None]]] = {
    "meetings": list_meetings,
    "meetings:list": list_meetings,
    "meetings:info": info,
    "meetings:end": end,
    "poll": poll_forever,
    "poll:all": poll_once,
    "poll:servers": poll_once,
    "poll:meetings": poll_once,
    "poll:versions": poll_once,
    "liveness": liveness,
}
