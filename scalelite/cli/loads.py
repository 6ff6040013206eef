"""How the load of each server came about, for people and machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from scalelite.cli.listing import print_list
from scalelite.cli.session import with_connection
from scalelite.core import show

if TYPE_CHECKING:
    from scalelite.cli.listing import Style
    from scalelite.flows.status import LoadRow, LoadsExplained
    from scalelite.settings import Settings

HEADS: Final = ("hostname", "meetings", "users", "voice", "videos", "polled", "reserved", "for", "multiplier", "load")


def explain_loads(settings: Settings, style: Style) -> None:
    """Print the formula, and what it is made of for each server."""
    from scalelite.flows import status  # noqa: PLC0415 - 0.1 s to import

    found = with_connection(settings, lambda connection: status.explain_loads(connection, settings), doing="status")
    if style == "table":
        click.echo(_formula(found))
    print_list(style, HEADS, [_cells(row) for row in found.servers], [asdict(found)])


def _formula(found: LoadsExplained) -> str:
    weights = found.weights
    return f"""\
load = multiplier x (polled + reserved)
polled = {weights["meeting"]:g} x meetings + {weights["user"]:g} x users + {weights["voice"]:g} x voice \
+ {weights["video"]:g} x videos
A meeting younger than {found.join_buffer_minutes:g} minutes counts {found.min_user_count} users at least; breakout \
rooms do not.
reserved = the same for each meeting that was placed since the last poll, at age 0.
"""


def _cells(row: LoadRow) -> tuple[str, ...]:
    counted = row.counted
    whole = (counted.meetings, counted.users, counted.voice, counted.videos)
    return (
        row.hostname,
        *(str(number) for number in whole),
        f"{row.polled:.1f}",
        f"{row.reserved:.1f}",
        show.counted(row.reserved_meetings, "meeting"),
        f"{row.multiplier:g}",
        f"{row.load:.1f}",
    )
