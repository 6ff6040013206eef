"""status, and the commands about servers, tenants and meetings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from scalelite.cli.session import settings_of_process, with_connection
from scalelite.core import show

if TYPE_CHECKING:
    from scalelite.flows.status import ServerRow

HEADS = ("hostname", "state", "status", "meetings", "users", "largest meeting", "videos", "load", "tag")


@click.command()
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(style: Literal["table", "json"]) -> None:
    """Show servers, their health and their load, as the poller last saw them.

    \b
    Example: scalelite status --format json
    """
    from scalelite.flows.status import server_rows  # noqa: PLC0415 - 0.1 s to import

    rows = with_connection(settings_of_process(), server_rows, doing="status")
    if style == "json":
        click.echo(show.rows_json(rows))
    else:
        click.echo(show.table(HEADS, [_cells(row) for row in rows]), nl=False)


def _cells(row: ServerRow) -> tuple[str, ...]:
    numbers = (row.meetings, row.users, row.largest_meeting, row.videos)
    return (row.hostname, row.state, row.health, *(str(number) for number in numbers), f"{row.load:.1f}", row.tag)
