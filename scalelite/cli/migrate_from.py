"""migrate-from: take over a live Scalelite; words around flows/takeover."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from scalelite.cli.changes import author_of
from scalelite.cli.progress import steps
from scalelite.cli.secret_text import ADDRESS
from scalelite.cli.session import actor_option, ask_before, settings_of_process, with_connection
from scalelite.core.show import counted, plain
from scalelite.errors import SourceInvalid

if TYPE_CHECKING:
    from scalelite.core.model import Secret
    from scalelite.flows.takeover import Found, Taken
    from scalelite.store.db import Connection

# Of what is left behind, so many lines are printed; all of it would bury the rest.
_LINES: Final = 20


@click.command("migrate-from")
@click.argument("redis", type=ADDRESS)
@click.argument("postgres", type=ADDRESS, required=False)
@click.option("--namespace", default="scalelite", show_default=True, help="REDIS_NAMESPACE of that Scalelite.")
@click.option(
    "--leave-out", multiple=True, metavar="ADDRESS", help="Not this: server/ID, tenant/NAME, tenant/NAME/setting/PARAM."
)
@click.option("--dry-run", is_flag=True, help="Do all of it, and roll it back.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@actor_option
def migrate_from(
    redis: Secret, postgres: Secret | None, namespace: str, leave_out: tuple[str, ...], dry_run: bool, yes: bool
) -> None:
    """Take over a Scalelite: its servers, tenants, settings, running meetings, callbacks and recordings.

    REDIS and POSTGRES are its REDIS_URL and its DATABASE_URL, each as `-` (standard input), @FILE, env:NAME, or the
    address itself. Without POSTGRES no recordings and callbacks are taken over. Nothing is changed there, and a second
    run adds what has come since.

    \b
    Example: scalelite migrate-from redis://redis:6379 env:OLD_DATABASE_URL --dry-run
             scalelite migrate-from redis://redis:6379 env:OLD_DATABASE_URL --yes
    """
    settings = settings_of_process()

    async def taking_over(connection: Connection) -> Taken:
        from scalelite.flows import takeover  # noqa: PLC0415 - 0.2 s to import
        from scalelite.flows.acting import Acting  # noqa: PLC0415

        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(takeover.old_database(postgres)) if postgres else None
            found = await takeover.look(connection, settings, takeover.Scalelite(redis, namespace, leave_out), source)
            _show(found)
            if not dry_run:
                ask_before("Take this over?", yes=yes)
            acting = Acting(author_of(settings, "migrate-from"), uuid.uuid4)
            with steps("Taking over", found.recordings) as tell:
                return await takeover.take(
                    connection, found, source, acting, dry_run=dry_run,
                    tell=lambda read, count: tell(f"{counted(read, 'recording')} read", count),
                )  # fmt: skip

    try:
        taken = with_connection(settings, taking_over, doing="migrate-from")
    except SourceInvalid as error:
        for problem in error.problems:
            click.echo(plain(problem), err=True)
        raise
    _tell(taken, dry_run=dry_run)


def _show(found: Found) -> None:
    from scalelite.core.entries import Known  # noqa: PLC0415
    from scalelite.core.text import plan_text  # noqa: PLC0415

    planned = found.planned
    click.echo(plan_text(planned.plan, planned.guards, planned.warnings, Known(datetime.now(UTC))), nl=False)
    recordings = "" if found.recordings is None else f", {counted(found.recordings, 'recording')}"
    click.echo(f"Found: {counted(len(found.brought.meetings), 'meeting')}{recordings}.")


def _tell(taken: Taken, *, dry_run: bool) -> None:
    for text in taken.left[:_LINES]:
        click.echo(f"left: {plain(text)}", err=True)
    if (more := len(taken.left) - _LINES) > 0:
        click.echo(f"left: {more:,} more", err=True)
    parts = (f"{counted(getattr(taken, noun + 's'), noun)}" for noun in ("meeting", "callback", "recording"))
    new = ", ".join(parts)
    if dry_run:
        click.echo(f"Dry run: {new} would be new. Nothing was written.")
    else:
        revision = f" Revision {taken.revision:,}." if taken.revision else " What is declared was so already."
        click.echo(f"Taken over: {new} new.{revision}")
