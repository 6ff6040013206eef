"""doctor: checks an installation, a line a check."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Final

import click

from scalelite.cli.listing import format_option, print_list
from scalelite.cli.session import settings_of_process, with_connection
from scalelite.errors import ScaleliteError
from scalelite.settings import ignored_settings

if TYPE_CHECKING:
    from scalelite.cli.listing import Style
    from scalelite.flows.doctor import Finding
    from scalelite.settings import Settings
    from scalelite.store.db import Connection

HEADS: Final = ("verdict", "what", "found")


@click.command()
@format_option
def doctor(style: Style) -> int:
    """Check database, migrations, clocks, servers with their secrets and certificates, names, poller and settings.

    Changes nothing; ends with 1 if a check fails.

    \b
    Example: scalelite doctor
             scalelite doctor --format json
    """
    settings = dataclasses.replace(settings_of_process(), auto_migrate=False)
    found = _findings(settings)
    values = [dataclasses.asdict(finding) for finding in found]
    print_list(style, HEADS, [tuple(value.values()) for value in values], values)
    return 1 if any(finding.level == "fail" for finding in found) else 0


def _findings(settings: Settings) -> list[Finding]:
    from scalelite.flows import doctor as flow  # noqa: PLC0415 - 0.2 s to import

    async def examine(connection: Connection) -> list[Finding]:
        found = await flow.examine_database(connection, time.time())
        if any(finding.level == "fail" for finding in found):
            return found
        return found + await flow.examine_cluster(connection, settings)

    try:
        found = with_connection(settings, examine, doing="doctor")
    except ScaleliteError as error:
        found = [flow.Finding("fail", "database", error.message)]
    return [*found, flow.ignored_settings(ignored_settings())]
