"""db: make, migrate and look at the database."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import click

from scalelite.cli.listing import format_option, print_document
from scalelite.cli.session import settings_of_process, with_connection
from scalelite.core import show
from scalelite.errors import UsageError

if TYPE_CHECKING:
    from scalelite.cli.listing import Style


@click.group()
def db() -> None:
    """Make, migrate and look at the database.

    \b
    Example: scalelite db status
    """


@db.command()
def init() -> None:
    """Make an embedded Postgres in .scalelite/ of this folder, for trying and for one machine.

    \b
    Example: scalelite db init && scalelite apply inventories/example
    """
    from scalelite.wiring import LOCAL_HOME, open_database  # noqa: PLC0415 - 0.1 s to import

    with open_database(settings_of_process(), create_home=LOCAL_HOME):
        click.echo(f"The database is in {LOCAL_HOME}/ and starts by itself for each command in this folder.")


@db.command()
def migrate() -> None:
    """Bring the database's schema to this version's.

    \b
    Example: AUTO_MIGRATE=false scalelite db migrate
    """
    from scalelite.wiring import open_database, prepare  # noqa: PLC0415

    settings = dataclasses.replace(settings_of_process(), auto_migrate=False)
    with open_database(settings) as conninfo:
        done = asyncio.run(prepare(conninfo))
    click.echo("\n".join(f"ran {name}" for name in done) or "nothing to do")


@db.command("rotate-keys")
@click.option("--to-clear", is_flag=True, help="Store the secrets in clear, unsealed.")
@click.option(
    "--lock-timeout", default=30.0, show_default=True, metavar="SECONDS", help="How long to wait for an apply."
)
def rotate_keys(to_clear: bool, lock_timeout: float) -> None:
    """Seal all secrets in Postgres anew with the first key of SCALELITE_ENCRYPTION_KEY, in one transaction.

    \b
    Example: SCALELITE_ENCRYPTION_KEY="$NEW_KEY:$OLD_KEY" scalelite db rotate-keys
    """
    from scalelite.store.rotation import rotate  # noqa: PLC0415 - 0.1 s to import
    from scalelite.store.seal import Sealer  # noqa: PLC0415

    settings = settings_of_process()
    if not settings.encryption_keys and not to_clear:
        raise UsageError(
            "SCALELITE_ENCRYPTION_KEY is not set", hint="set it, or give --to-clear with the keys that opened them"
        )
    target = Sealer(() if to_clear else settings.encryption_keys)
    count = with_connection(
        settings, lambda connection: rotate(connection, target, lock_timeout_s=lock_timeout), doing="db rotate-keys"
    )
    how = "are in clear now" if to_clear else f"are sealed with key {target.key_id} now"
    click.echo(f"{show.counted(count, 'secret')} {how}.")


@db.command("status")
@format_option
def status_(style: Style) -> int:
    """Say which migrations the database lacks, and how its secrets are kept; ends with 1 if it lacks any migration.

    \b
    Example: scalelite db status
    """
    from scalelite.store.db import connect, pending_migrations  # noqa: PLC0415
    from scalelite.store.rotation import keys_in_use  # noqa: PLC0415
    from scalelite.wiring import open_database  # noqa: PLC0415

    async def look(conninfo: str) -> tuple[tuple[str, ...], dict[str, int]]:
        async with connect(conninfo, "scalelite db status") as connection:
            pending = await pending_migrations(connection)
            return pending, {} if pending else await keys_in_use(connection)

    settings = dataclasses.replace(settings_of_process(), auto_migrate=False)
    with open_database(settings) as conninfo:
        pending, keys = asyncio.run(look(conninfo))
    lines = [f"pending {name}" for name in pending] or ["up to date"]
    for key, count in sorted(keys.items()):
        lines.append(f"{show.counted(count, 'secret')} {'in clear' if key == 'clear' else f'sealed with key {key}'}")
    print_document(style, {"pending": list(pending), "secrets": keys}, lambda: "\n".join([*lines, ""]))
    return 1 if pending else 0
