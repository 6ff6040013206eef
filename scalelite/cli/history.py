"""drift, history, blame and rollback."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from scalelite.cli.listing import format_option, print_document
from scalelite.cli.plan_options import allowances, lock_timeout_option
from scalelite.cli.session import (
    DEFAULT_INVENTORY,
    actor_option,
    ask_to_apply,
    inventory_options,
    read_inventory,
    settings_of_process,
    vault_options,
    with_connection,
)
from scalelite.core import show, show_history
from scalelite.core.model import Key
from scalelite.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalelite.cli.listing import Style
    from scalelite.core.plan import Mode
    from scalelite.core.rollback import Lost
    from scalelite.flows.history import WayBack
    from scalelite.flows.reconcile import Applied, Planned
    from scalelite.store.db import Connection

_DONE_IN_PART = 9
_UNDONE = "The next apply of an inventory that still says otherwise undoes this."


@click.command()
@inventory_options
@format_option
@click.option("--detailed-exitcode", "--exit-code", is_flag=True, help="End with 2 when there is drift.")
def drift(paths: tuple[str, ...], inventory: tuple[str, ...], style: Style, detailed_exitcode: bool) -> int:
    """Say what was changed outside of the inventory since it was applied: which field, by whom, when.

    Reads alone. With an inventory, what it says by now is no drift any more.

    \b
    Example: scalelite drift --detailed-exitcode -i inventories/production
    """
    from scalelite.flows.drift import find_drift  # noqa: PLC0415 - 0.1 s to import

    settings = settings_of_process()
    chosen = [*paths, *inventory]
    is_named = bool(chosen or settings.inventory or DEFAULT_INVENTORY.exists())
    loaded = read_inventory(settings, chosen) if is_named else None
    wanted, ids = (loaded.wanted, loaded.ids_from_urls) if loaded else (None, frozenset[str]())
    found = with_connection(settings, lambda connection: find_drift(connection, wanted, ids), doing="drift")
    values = show_history.drift_plain(found)
    print_document(style, values, lambda: show_history.drift_text(found, datetime.now(UTC)))
    return 2 if detailed_exitcode and found else 0


@click.command()
@click.argument("number", type=click.IntRange(1), required=False, metavar="[N]")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many revisions to list.")
@format_option
def history(number: int | None, limit: int, style: Style) -> None:
    """List the newest revisions, or say what revision N changed; secrets are not shown.

    \b
    Example: scalelite history
             scalelite history 41 --format json
    """
    from scalelite.flows.history import revision_steps  # noqa: PLC0415 - 0.1 s to import
    from scalelite.store.history import load_revisions  # noqa: PLC0415

    settings = settings_of_process()
    if number is None:
        listed = with_connection(settings, lambda connection: load_revisions(connection, limit), doing="history")
        print_document(style, show_history.history_plain(listed), lambda: show_history.history_text(listed))
    else:
        one = with_connection(settings, lambda connection: revision_steps(connection, number), doing="history")
        print_document(style, show_history.revision_plain(*one), lambda: show_history.revision_text(*one))


@click.command()
@click.argument("address")
@format_option
def blame(address: str, style: Style) -> None:
    """Say which revision gave each field of an object its value, and who made it.

    Addresses: server/ID, tenant/NAME, tenant/NAME/setting/PARAM, tenant/NAME/lrs, cluster.

    \b
    Example: scalelite blame server/bbb1.example.com
    """
    from scalelite.flows.history import find_blame  # noqa: PLC0415 - 0.1 s to import

    key = Key.of_address(address)
    if key is None:
        raise UsageError(
            f"'{show.plain(address)}' is no address", hint="such as server/bbb1.example.com or tenant/acme"
        )
    found = with_connection(settings_of_process(), lambda connection: find_blame(connection, key), doing="blame")
    if found is None:
        raise UsageError(
            f"there is no {show.plain(address)}, and there never was", hint="scalelite history lists changes"
        )
    about = (key, found.blame, found.revisions)
    print_document(style, show_history.blame_plain(*about), lambda: show_history.blame_text(*about))


@click.command()
@click.argument("number", type=click.IntRange(0), metavar="N")
@click.option("-i", "--inventory", multiple=True, metavar="PATH", help="Has the secrets that were not kept.")
@vault_options
@click.option(
    "--mode",
    type=click.Choice(["keep", "cordon"]),
    default="cordon",
    show_default=True,
    help="What to do with servers that there were not.",
)
@click.option("--allow", multiple=True, metavar="GUARD=N", help="Let a guard pass that counts exactly N.")
@click.option("-y", "--auto-approve", is_flag=True, help="Do not ask.")
@click.option("--message", default="", help="Why, for the history.")
@lock_timeout_option
@actor_option
def rollback(
    number: int,
    inventory: tuple[str, ...],
    mode: Mode,
    allow: tuple[str, ...],
    auto_approve: bool,
    message: str,
    lock_timeout: float,
) -> int:
    """Plan the way back to the state after revision N, and apply it like any plan.

    Secrets of old versions are kept only where SCALELITE_ENCRYPTION_KEY is set, for 50 revisions; those that cannot be
    restored are named, or taken from an inventory. Ends with 9 where objects could not be made again without them.

    \b
    Example: scalelite rollback 41
    """
    settings = settings_of_process()
    told = read_inventory(settings, inventory).wanted if inventory else None
    allowed = allowances(allow)

    async def roll_back(connection: Connection) -> tuple[WayBack, Applied]:
        from scalelite.flows import reconcile  # noqa: PLC0415 - 0.1 s to import
        from scalelite.flows.acting import Acting  # noqa: PLC0415
        from scalelite.flows.history import plan_rollback  # noqa: PLC0415
        from scalelite.store.specs import Author  # noqa: PLC0415

        way = await plan_rollback(connection, number, told, mode, allowed)
        click.echo(f"Back to the state after revision {number:,}\n\n{_plan_text(way.planned, number)}", nl=False)
        _tell_lost(way.lost)
        reconcile.refuse_blocked(way.planned)
        if way.planned.plan.does_something and not auto_approve:
            click.echo(_UNDONE, err=True)
            ask_to_apply()
        acting = Acting(Author(settings.actor, message, {"rollback": number}), uuid.uuid4, lock_timeout)
        return way, await reconcile.carry_out(connection, way.request, way.planned, acting)

    way, applied = with_connection(settings, roll_back, doing="rollback")
    if applied.revision:
        click.echo(f"\nRolled back to revision {number:,}. This is revision {applied.revision:,}.\n{_UNDONE}")
    return _DONE_IN_PART if any(lost.is_gone for lost in way.lost) else 0


def _plan_text(planned: Planned, number: int) -> str:
    from scalelite.core.entries import Known  # noqa: PLC0415 - only to show a plan
    from scalelite.core.plan import reworded  # noqa: PLC0415
    from scalelite.core.text import plan_text  # noqa: PLC0415

    plan = reworded(planned.plan, f"not there after revision {number:,}")
    return plan_text(plan, planned.guards, planned.warnings, Known(datetime.now(UTC)))


def _tell_lost(lost: Sequence[Lost]) -> None:
    for each in lost:
        fields = ", ".join(each.fields)
        what = "it is left out" if each.is_gone else "it stays as it is"
        click.echo(f"warning: {each.key.address}: {fields} was not kept and cannot be restored; {what}", err=True)
    if lost:
        click.echo("hint: name an inventory that has the secrets: -i PATH", err=True)
