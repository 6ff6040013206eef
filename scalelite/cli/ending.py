"""Ending the meetings of a server: asks, shows how it goes on, and says what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scalelite.cli.changes import DONE_IN_PART, author_of
from scalelite.cli.progress import steps
from scalelite.cli.session import ask_before, settings_of_process, with_connection, with_services
from scalelite.core import show

if TYPE_CHECKING:
    from scalelite.flows.admin import Panicked
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection


def server_and_meetings(text: str) -> tuple[str, int]:
    """Return the id of the server that a person means, and how many meetings are on it."""

    async def look(connection: Connection) -> tuple[str, int]:
        from scalelite.core.commands import find_server  # noqa: PLC0415
        from scalelite.flows.admin import read_live  # noqa: PLC0415
        from scalelite.store.runtime import meetings_on  # noqa: PLC0415

        server_id = find_server((await read_live(connection)).declared, text).id
        return server_id, len(await meetings_on(connection, server_id))

    return with_connection(settings_of_process(), look, doing="servers")


def panic_server(server_id: str, meetings: int, why: str, *, yes: bool, command: str, **how: bool) -> int:
    """Panic, after asking; returns the exit status."""
    from scalelite.flows import admin  # noqa: PLC0415 - 0.2 s to import

    settings = settings_of_process()
    ask_before(f"End {show.counted(meetings, 'meeting')} on server {server_id}?", yes=yes)
    with steps(f"Ending meetings on {server_id}", meetings) as advance:

        async def acting(services: Services) -> Panicked:
            author = author_of(settings, command, why)
            return await admin.panic(
                services, author, server_id, why=why, tell=lambda end: advance(told_of(end)), **how
            )

        done = with_services(settings, acting, doing=command)
    return _tell_panicked(done, keeps_state=how.get("keep_state", False))


def told_of(end: Any) -> str:
    """Return what became of a meeting, in a line."""
    reason = f" ({end.reason})" if end.reason else ""
    return f"{show.plain(end.meeting.meeting_id)}: {end.outcome}{reason}"


def _tell_panicked(done: Panicked, *, keeps_state: bool) -> int:
    if not done.changed and not done.meetings:
        click.echo(f"Server {done.server}: nothing to do.")
        return 0
    ended = sum(end.outcome == "ended" for end in done.meetings)
    left = len(done.meetings) - ended
    state = "keeps its state" if keeps_state else "is disabled"
    rest = f", {left} unknown: they are ended when it answers again" if left else ""
    click.echo(f"Server {done.server} {state}. {show.counted(ended, 'meeting')} ended{rest}.")
    return DONE_IN_PART if done.partial else 0
