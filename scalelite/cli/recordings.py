"""recordings: import archives, list, hand over, delete, prune by age, read files again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from scalelite.cli.listing import format_option, print_list
from scalelite.cli.progress import steps
from scalelite.cli.session import actor_option, ask_before, settings_of_process, with_connection, with_services
from scalelite.core import show
from scalelite.core.listing import Filter, Page
from scalelite.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from scalelite.cli.listing import Style
    from scalelite.core.model import TenantSpec
    from scalelite.core.recording import Recording
    from scalelite.flows.importer import Outcome
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection

T = TypeVar("T")
HEADS: Final = ("record id", "tenant", "meeting", "name", "state", "protected", "start", "formats")
STATES: Final = ("processing", "processed", "published", "unpublished", "deleted", "any")


@click.group()
def recordings() -> None:
    """Import archives of recordings, and look after what there is.

    \b
    Example: scalelite recordings watch
             scalelite recordings list --tenant acme
    """


def _with_services(use: Callable[[Services], Awaitable[T]], doing: str) -> T:
    return with_services(settings_of_process(), use, doing=f"recordings {doing}")


async def _tenant(services: Services, text: str) -> TenantSpec:
    async with services.database.use() as connection:
        return await _meant(connection, text)


async def _meant(connection: Connection, text: str) -> TenantSpec:
    """Return the tenant that a person means."""
    from scalelite.core.commands import find_tenant  # noqa: PLC0415
    from scalelite.flows.admin import read_live  # noqa: PLC0415

    return find_tenant((await read_live(connection)).declared, text)


# --- import ----------------------------------------------------------------------------------------------------------


@recordings.command()
def watch() -> None:
    """Import what comes into the spool until SIGTERM or Ctrl-C; several may watch one spool.

    \b
    Example: RECORDING_SPOOL_DIR=/var/bigbluebutton/spool scalelite recordings watch
    """
    from scalelite.flows import importer  # noqa: PLC0415
    from scalelite.flows.ending import until_one_ends  # noqa: PLC0415
    from scalelite.web.server import ended, stop_event  # noqa: PLC0415

    async def watching(services: Services) -> None:
        await until_one_ends(importer.watch(services), ended(stop_event()))

    _with_services(watching, "watch")


@recordings.command("import")
@click.argument("archives", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@actor_option
def import_(archives: tuple[Path, ...]) -> int:
    """Import these archives, which stay where they are; without any, all that wait in the spool.

    \b
    Example: scalelite recordings import /backup/0f5c…-1700000100000.tar
    """
    from scalelite.flows import importer, library  # noqa: PLC0415

    async def importing(services: Services) -> list[Outcome]:
        by = library.author(services, "import")
        with steps("Importing", len(archives) or None) as advance:
            if not archives:
                return await importer.import_waiting(services, by=by, tell=lambda outcome: advance(outcome.archive))
            spool, outcomes = importer.spool_of(services), []
            for path in [await asyncio.to_thread(spool.take, archive) for archive in archives]:
                if outcome := await importer.import_archive(services, path, by=by):
                    outcomes.append(outcome)
                advance(path.name)
            return outcomes

    outcomes = _with_services(importing, "import")
    for outcome in outcomes:
        for record_id in outcome.imported:
            click.echo(f"imported {record_id}")
        for reason in (*outcome.failed, *([f"waits: {outcome.waits}"] if outcome.waits else [])):
            click.echo(f"error: {outcome.archive}: {reason}", err=True)
    click.echo(f"{show.counted(sum(len(outcome.imported) for outcome in outcomes), 'recording')} imported.")
    return 9 if any(outcome.failed or outcome.waits for outcome in outcomes) else 0


# --- look ------------------------------------------------------------------------------------------------------------


@recordings.command("list")
@click.option("--tenant", help="Only this tenant's: name, id or a unique prefix.")
@click.option("--meeting-id", help="Only those of this meeting.")
@click.option("--record-id", help="Only those whose id begins so.")
@click.option("--state", type=click.Choice(STATES), help="Only those; else published and unpublished ones.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="So many, the newest.")
@format_option
def list_(
    tenant: str | None, meeting_id: str | None, record_id: str | None, state: str | None, limit: int, style: Style
) -> None:
    """List recordings, newest first.

    \b
    Example: scalelite recordings list --tenant acme --state unpublished --format json
    """
    states: tuple[str, ...] | None = Filter().states if state is None else None if state == "any" else (state,)
    wanted = Filter(
        meeting_ids=(meeting_id,) if meeting_id else None,
        prefixes=(record_id,) if record_id and not meeting_id else None,
        states=states,
        page=Page(0, limit),
    )

    async def looking(connection: Connection) -> tuple[list[Recording], int, dict[UUID, str]]:
        from scalelite.store import recordings as store  # noqa: PLC0415

        owner = (await _meant(connection, tenant)).id if tenant else None
        found, total = await store.find_recordings(connection, owner, wanted)
        return found, total, await store.tenants_by_id(connection)

    found, total, tenants = with_connection(settings_of_process(), looking, doing="recordings list")
    values = [_plain(each, tenants) for each in found]
    print_list(style, HEADS, [_cells(each, tenants) for each in found], values)
    if total > len(found):
        click.echo(f"… {total - len(found)} more; --limit shows them.", err=True)


def _started(recording: Recording) -> datetime:
    return datetime.fromtimestamp(recording.start_ms / 1000, UTC)


def _cells(recording: Recording, tenants: dict[UUID, str]) -> tuple[str, ...]:
    return (
        recording.record_id,
        tenants.get(recording.tenant, "") or "-",
        recording.meeting_id,
        recording.name,
        recording.state,
        "yes" if recording.protected else "no",
        f"{_started(recording):%Y-%m-%d %H:%M}",
        " ".join(each.format for each in recording.formats) or "-",
    )


def _plain(recording: Recording, tenants: dict[UUID, str]) -> dict[str, Any]:
    return {
        "record_id": recording.record_id,
        "tenant": tenants.get(recording.tenant, "") or None,
        "meeting_id": recording.meeting_id,
        "name": recording.name,
        "state": recording.state,
        "published": recording.published,
        "protected": recording.protected,
        "start": _started(recording).isoformat(),
        "participants": recording.participants,
        "metadata": dict(recording.metadata),
        "formats": [each.format for each in recording.formats],
    }


# --- change ----------------------------------------------------------------------------------------------------------


@recordings.command("add-to-tenant")
@click.argument("tenant")
@click.option("--record-id", "record_ids", multiple=True, help="Only those whose ids begin so; repeatable.")
@click.option("--where", "conditions", multiple=True, metavar="meta.KEY=VALUE", help="Only those with it; repeatable.")
@click.option("--from", "owner", help="Take another tenant's; else only those that belong to nobody.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@actor_option
def add_to_tenant(
    tenant: str, record_ids: tuple[str, ...], conditions: tuple[str, ...], owner: str | None, dry_run: bool
) -> None:
    """Give recordings to a tenant; a second run finds none left.

    \b
    Example: scalelite recordings add-to-tenant acme --where meta.bbb-context=Math --dry-run
    """
    wanted = Filter(prefixes=record_ids or None, states=None, metadata=tuple(map(_condition, conditions)))

    async def moving(services: Services) -> tuple[str, int]:
        from scalelite.flows import library  # noqa: PLC0415

        found = await _tenant(services, tenant)
        others = {"owner": (await _tenant(services, owner)).id} if owner else {}
        count = await library.add_to_tenant(services, found, wanted, dry_run=dry_run, **others)  # type: ignore[arg-type]
        return found.name, count

    name, count = _with_services(moving, "add-to-tenant")
    given = "would be given" if dry_run else "given"
    click.echo(f"{show.counted(count, 'recording')} {given} to {name}.")


def _condition(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, value = text.partition("=")
    if not name.startswith("meta.") or len(name) == len("meta.") or not equals:
        raise UsageError(f"--where {text!r}: expected meta.KEY=VALUE")
    return name.removeprefix("meta."), (value,)


@recordings.command()
@click.argument("record_ids", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@actor_option
def delete(record_ids: tuple[str, ...], yes: bool) -> int:
    """Delete recordings with their files, whosesoever they are; each is named by its id, or a unique beginning of it.

    \b
    Example: scalelite recordings delete 0f5c…-1700000100000 --yes
    """
    from scalelite.flows import library  # noqa: PLC0415

    ids = with_connection(
        settings_of_process(), lambda connection: library.named(connection, record_ids), doing="recordings delete"
    )
    return _delete(ids, f"Delete {show.counted(len(ids), 'recording')} ({', '.join(map(show.plain, ids))})?", yes=yes)


@recordings.command()
@click.option("--dry-run", is_flag=True, help="Only list them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@format_option
@actor_option
def prune(dry_run: bool, yes: bool, style: Style) -> int:
    """Delete what is older than its tenant keeps it (recordings: {keep_days: N} in the inventory).

    \b
    Example: scalelite recordings prune --dry-run
    """
    from scalelite.flows import library  # noqa: PLC0415

    found = _with_services(library.expired, "prune")
    if dry_run or not found:
        print_list(style, ("tenant", "record id"), found, [{"tenant": one, "record_id": two} for one, two in found])
        click.echo(f"{show.counted(len(found), 'recording')} would be deleted.", err=style != "table")
        return 0
    ids = [record_id for _, record_id in found]
    return _delete(
        ids, f"Delete {show.counted(len(ids), 'recording')} of {show.counted(len(dict(found)), 'tenant')}?", yes=yes
    )


def _delete(ids: Sequence[str], question: str, *, yes: bool) -> int:
    from scalelite.flows import library  # noqa: PLC0415

    ask_before(question, yes=yes)
    with steps("Deleting", len(ids)) as advance:
        left = _with_services(lambda services: library.delete_each(services, ids, advance), "delete")
    click.echo(f"{show.counted(len(ids) - len(left), 'recording')} deleted.")
    for record_id in left:
        click.echo(f"error: {record_id} is not there, or its files could not be removed yet", err=True)
    return 9 if left else 0


@recordings.command()
@actor_option
def update() -> int:
    """Read the metadata.xml of all recordings again, and take up those that the database does not know.

    What people have edited stays. After a move from Scalelite this makes the rows from the folders.

    \b
    Example: scalelite recordings update
    """
    from scalelite.flows import library  # noqa: PLC0415

    with steps("Reading") as advance:
        outcome = _with_services(lambda services: library.reread(services, advance), "update")
    click.echo(f"{show.counted(outcome.read, 'recording')} read, {outcome.changed} changed.")
    for problem in outcome.problems:
        click.echo(f"error: {problem}", err=True)
    return 9 if outcome.problems else 0
