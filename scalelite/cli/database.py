"""db: make, migrate and look at the database."""

from __future__ import annotations

import asyncio
import dataclasses

import click

from scalelite.cli.session import settings_of_process


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


@db.command("status")
def status_() -> int:
    """Say which migrations the database lacks; ends with 1 if it lacks any.

    \b
    Example: scalelite db status
    """
    from scalelite.store.db import connect, pending_migrations  # noqa: PLC0415
    from scalelite.wiring import open_database  # noqa: PLC0415

    async def look(conninfo: str) -> tuple[str, ...]:
        async with connect(conninfo, "scalelite db status") as connection:
            return await pending_migrations(connection)

    settings = dataclasses.replace(settings_of_process(), auto_migrate=False)
    with open_database(settings) as conninfo:
        pending = asyncio.run(look(conninfo))
    click.echo("\n".join(f"pending {name}" for name in pending) or "up to date")
    return 1 if pending else 0
