"""meetings: list, look at and end the meetings of all tenants."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from scalelite.cli.changes import DONE_IN_PART
from scalelite.cli.ending import told_of
from scalelite.cli.listing import Listing, format_option, print_list
from scalelite.cli.progress import steps
from scalelite.cli.session import actor_option, ask_before, settings_of_process, with_connection, with_services
from scalelite.core import show
from scalelite.errors import ScaleliteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalelite.cli.listing import Style
    from scalelite.flows.admin import MeetingEnd
    from scalelite.flows.meetings import Said
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection
    from scalelite.store.observed import RunningMeeting

HEADS: Final = ("meeting", "tenant", "server", "users", "phase", "since")
VALUES: Final = ("meeting_id", "tenant", "server", "users", "phase", "silent", "since")

_tenant = click.option("--tenant", default="", metavar="NAME", help="Only its meetings.")


@click.group(cls=Listing)
def meetings() -> None:
    """List the meetings of all tenants, look at one, and end them.

    A meeting is named by its id, or so much of its beginning that only one begins so.

    \b
    Example: scalelite meetings list --tenant acme
             scalelite meetings end 0f5c
    """


def _running(ids: tuple[str, ...], tenant: str) -> list[RunningMeeting]:
    async def look(connection: Connection) -> list[RunningMeeting]:
        from scalelite.flows.meetings import running  # noqa: PLC0415 - 0.1 s to import

        return await running(connection, ids, tenant)

    return with_connection(settings_of_process(), look, doing="meetings")


@meetings.command("list")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_tenant
@format_option
def list_(ids: tuple[str, ...], tenant: str, style: Style) -> None:
    """List meetings, as Postgres knows them; users as the poller last saw them.

    Without IDs and tenant also those that servers run and Postgres does not know: their phase is "unknown".

    \b
    Example: scalelite meetings list --format json
    """
    values = [_plain(meeting) for meeting in _running(ids, tenant)]
    if not ids and not tenant:
        unknown = with_connection(settings_of_process(), _unknown, doing="meetings")
        values += [
            dict.fromkeys(VALUES) | {"meeting_id": meeting_id, "server": server, "phase": "unknown", "silent": False}
            for server, meeting_ids in sorted(unknown.items())
            for meeting_id in meeting_ids
        ]
    print_list(style, HEADS, [_cells(value) for value in values], values)


async def _unknown(connection: Connection) -> dict[str, tuple[str, ...]]:
    from scalelite.flows.meetings import unknown  # noqa: PLC0415 - 0.1 s to import

    return await unknown(connection)


def _plain(meeting: RunningMeeting) -> dict[str, Any]:
    return {
        "meeting_id": meeting.meeting_id,
        "tenant": meeting.tenant or None,
        "server": meeting.server,
        "users": meeting.users,
        "phase": meeting.phase,
        "silent": meeting.silent,
        "since": meeting.claimed_at.replace(tzinfo=UTC).isoformat(),
    }


def _cells(value: dict[str, Any]) -> tuple[str, ...]:
    phase = f"{value['phase']}, silent" if value["silent"] else value["phase"]
    since = f"{datetime.fromisoformat(value['since']):%Y-%m-%d %H:%M}" if value["since"] else "-"
    users = "-" if value["users"] is None else str(value["users"])
    return (value["meeting_id"], value["tenant"] or "-", value["server"], users, phase, since)


@meetings.command()
@click.argument("meeting_id", metavar="ID")
@_tenant
@format_option
def info(meeting_id: str, tenant: str, style: Style) -> None:
    """Ask a meeting's server about it.

    \b
    Example: scalelite meetings info 0f5c
    """

    async def asking(services: Services) -> Said:
        from scalelite.flows.meetings import about, running  # noqa: PLC0415

        async with services.database.use() as connection:
            found = await running(connection, [meeting_id], tenant)
        return (await about(services, found))[0]

    said = with_services(settings_of_process(), asking, doing="meetings info")
    if said.reply is None:
        raise ScaleliteError(f"server {said.server.id} says nothing of it: {said.failure}")
    rows = list(details(said))
    print_list(style, ("what", "value"), rows, [dict(rows)])


def details(said: Said) -> Iterator[tuple[str, str]]:
    """Yield what a server says of a meeting, and where it is."""
    root = said.reply.root if said.reply else None
    if root is None:
        return
    yield "meeting_id", said.meeting.meeting_id
    yield "tenant", said.meeting.tenant
    yield "server", said.server.id
    yield "url", said.server.url
    names = ("meetingName", "internalMeetingID", "createDate", "recording", "participantCount", "moderatorCount")
    for name in names:
        yield name, root.findtext(name) or ""
    for child in root.iterfind("metadata/*"):
        yield f"metadata.{child.tag!s}", child.text or ""


@meetings.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_tenant
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@actor_option
def end(ids: tuple[str, ...], tenant: str, yes: bool) -> int:
    """End meetings, or all of them, after asking.

    \b
    Example: scalelite meetings end 0f5c 77aa
             scalelite meetings end --tenant acme --yes
    """
    found = _running(ids, tenant)
    if not found:
        click.echo("No meeting runs.")
        return 0
    on = show.counted(len({meeting.server for meeting in found}), "server")
    ask_before(f"End {show.counted(len(found), 'meeting')} on {on}?", yes=yes)
    ends = end_found(found)
    ended = sum(end.outcome == "ended" for end in ends)
    left = len(ends) - ended
    click.echo(f"{show.counted(ended, 'meeting')} ended{f', {left} unknown or refused' if left else ''}.")
    return DONE_IN_PART if left else 0


def end_found(found: list[RunningMeeting]) -> list[MeetingEnd]:
    """End these meetings, and show how that goes on."""
    from scalelite.flows import meetings as flow  # noqa: PLC0415 - 0.2 s to import

    with steps("Ending meetings", len(found)) as advance:
        return with_services(
            settings_of_process(),
            lambda services: flow.end(services, found, lambda ended: advance(told_of(ended))),
            doing="meetings end",
        )
