"""status: servers, their health and their load, once or for as long as one watches."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from scalelite.cli.listing import fitting, format_option, print_fitting, print_list
from scalelite.cli.loads import explain_loads
from scalelite.cli.session import settings_of_process, with_connection
from scalelite.core import show
from scalelite.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalelite.cli.listing import Style
    from scalelite.flows.status import ServerRow
    from scalelite.settings import Settings

HEADS: Final = ("hostname", "state", "status", "meetings", "users", "largest meeting", "videos", "load", "tag")
_COLOURS: Final = {"online": "green", "unhealthy": "yellow", "offline": "red", "unknown": "dim"}
# What needs attention stands first.
_ORDER: Final = ("offline", "unhealthy", "unknown", "online")


@click.command()
@format_option
@click.option("--explain", is_flag=True, help="Show how each load came about.")
@click.option("--watch", is_flag=True, help="Show it anew until Ctrl-C: what needs attention first, then by load.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
def status(style: Style, explain: bool, watch: bool, interval: float) -> None:
    """Show servers, their health and their load, as the poller last saw them.

    \b
    Example: scalelite status --format json
             scalelite status --watch
             scalelite status --explain
    """
    settings = settings_of_process()
    if explain:
        explain_loads(settings, style)
        return
    if watch:
        if style != "table":
            raise UsageError("--watch shows a table")
        _watch(settings, interval)
        return
    rows = _rows(settings)
    if style == "table" and sys.stdout.isatty():
        print_fitting(HEADS, [_cells(row) for row in rows], _styles(rows))
    else:
        print_list(style, HEADS, [_cells(row) for row in rows], [asdict(row) for row in rows])
    for row in rows if style == "table" else ():
        if count := len(row.unknown_meetings):
            they = f"{show.counted(count, 'meeting')} that Postgres does not know"
            click.echo(f"note: {row.id} runs {they}; `scalelite meetings list` names them.", err=True)


def _rows(settings: Settings) -> list[ServerRow]:
    from scalelite.flows.status import server_rows  # noqa: PLC0415 - 0.1 s to import

    return with_connection(settings, server_rows, doing="status")


def _cells(row: ServerRow) -> tuple[str, ...]:
    numbers = (row.meetings, row.users, row.largest_meeting, row.videos)
    return (row.hostname, row.state, row.health, *(str(number) for number in numbers), f"{row.load:.1f}", row.tag)


def _styles(rows: Sequence[ServerRow]) -> list[str]:
    return [_COLOURS[row.health] if row.state != "disabled" else "dim" for row in rows]


def _watch(settings: Settings, interval_s: float) -> None:
    if not sys.stdout.isatty():
        while True:
            rows = _sorted(_rows(settings))
            click.echo(show.table(HEADS, [_cells(row) for row in rows]))
            sys.stdout.flush()
            time.sleep(interval_s)
    from rich.live import Live  # noqa: PLC0415 - 0.1 s to import

    with Live(screen=True, auto_refresh=False) as live:
        while True:
            rows = _sorted(_rows(settings))
            cells = [_cells(row) for row in rows]
            live.update(fitting(HEADS, cells, live.console.width, _styles(rows)), refresh=True)
            time.sleep(interval_s)


def _sorted(rows: Sequence[ServerRow]) -> list[ServerRow]:
    return sorted(rows, key=lambda row: (row.state == "disabled", _ORDER.index(row.health), -row.load, row.hostname))
