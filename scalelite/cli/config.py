"""plan and apply."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Literal

import click

from scalelite import __version__
from scalelite.cli.session import (
    actor_option,
    ask_to_apply,
    read_inventory,
    settings_of_process,
    vault_options,
    with_connection,
)
from scalelite.core import show
from scalelite.core.model import Kind
from scalelite.core.plan import Create, Remove, Update
from scalelite.errors import GuardRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalelite.core.plan import Mode
    from scalelite.flows.reconcile import Applied, Planned
    from scalelite.inventory.load import Inventory
    from scalelite.settings import Settings
    from scalelite.store.db import Connection
    from scalelite.store.specs import Author

Style = Literal["text", "json"]


def inventory_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name inventories."""
    function = vault_options(click.argument("paths", nargs=-1, metavar="[PATH]...")(function))
    return click.option("-i", "--inventory", multiple=True, metavar="PATH", help="An inventory; a later one wins.")(
        function
    )


def _plan_options(function: Callable[..., Any]) -> Callable[..., Any]:
    mode = click.Choice(["keep", "cordon"])
    function = click.option(
        "--mode", type=mode, default="cordon", show_default=True, help="What to do with servers that are not declared."
    )(function)
    return click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)(
        function
    )


@click.command()
@inventory_options
@_plan_options
@click.option("--detailed-exitcode", "--exit-code", is_flag=True, help="End with 2 when there are changes.")
def plan(paths: tuple[str, ...], inventory: tuple[str, ...], mode: Mode, style: Style, detailed_exitcode: bool) -> int:
    """Compare the inventory with the cluster and say what apply would do.

    \b
    Example: scalelite plan inventories/production
    """
    settings = settings_of_process()
    loaded = read_inventory(settings, [*paths, *inventory])
    planned = with_connection(settings, lambda connection: _planned(connection, loaded, mode), doing="plan")
    click.echo(_shown(loaded, planned, style), nl=False)
    if planned.plan.blocked:
        return GuardRefused.exit_status
    return 2 if detailed_exitcode and planned.plan.changes else 0


@click.command()
@inventory_options
@_plan_options
@click.option("-y", "--auto-approve", is_flag=True, help="Do not ask.")
@click.option("--message", default="", help="Why, for the history.")
@click.option(
    "--lock-timeout", default=30.0, show_default=True, metavar="SECONDS", help="How long to wait for another apply."
)
@actor_option
def apply(
    paths: tuple[str, ...],
    inventory: tuple[str, ...],
    mode: Mode,
    style: Style,
    auto_approve: bool,
    message: str,
    lock_timeout: float,
) -> int:
    """Make the cluster what the inventory says, in one transaction.

    \b
    Example: scalelite apply inventories/production --auto-approve
    """
    settings = settings_of_process()
    loaded = read_inventory(settings, [*paths, *inventory])
    started = time.monotonic()

    async def reconcile(connection: Connection) -> Applied:
        from scalelite.flows import reconcile as flow  # noqa: PLC0415 - 0.1 s to import

        planned = await _planned(connection, loaded, mode)
        click.echo(_shown(loaded, planned, style), err=style == "json", nl=False)
        flow.refuse_blocked(planned.plan)
        if planned.plan.changes and not auto_approve:
            ask_to_apply()
        author = _author(settings, loaded, message)
        return await flow.apply(
            connection, loaded.wanted, planned.plan, author, uuid.uuid4, lock_timeout_s=lock_timeout
        )

    applied = with_connection(settings, reconcile, doing="apply")
    click.echo(_outcome(applied, style, time.monotonic() - started), nl=False)
    return 0


async def _planned(connection: Connection, loaded: Inventory, mode: Mode) -> Planned:
    from scalelite.flows import reconcile as flow  # noqa: PLC0415 - 0.1 s to import

    return await flow.plan(connection, loaded.wanted, mode)


def _author(settings: Settings, loaded: Inventory, message: str) -> Author:
    from scalelite.inventory.checkout import checkout_of  # noqa: PLC0415 - it runs git
    from scalelite.store.specs import Author  # noqa: PLC0415 - 0.1 s to import

    files = [{"path": str(file.path), "sha256": file.sha256} for file in loaded.files]
    checkout = checkout_of([file.path for file in loaded.files])
    return Author(settings.actor, message, {"inventory": files, "git": checkout and checkout._asdict()})


def contents(loaded: Inventory) -> str:
    """Return the line that says what an inventory holds."""
    kinds = {Kind.SERVER: "server", Kind.TENANT: "tenant", Kind.SETTING: "setting"}
    counts = [show.counted(sum(1 for _ in loaded.wanted.of_kind(kind)), noun) for kind, noun in kinds.items()]
    return f"Inventory  {show.counted(len(loaded.files), 'file')}: {', '.join(counts)}"


def _shown(loaded: Inventory, planned: Planned, style: Style) -> str:
    if style == "json":
        files = [{"path": str(file.path), "sha256": file.sha256} for file in loaded.files]
        about = {
            "scalelite_version": __version__,
            "target": {"cluster": planned.cluster_name, "live_revision": planned.plan.revision},
            "inventory": {"files": files},
        }
        return show.plan_json(planned.plan, about)
    name = planned.cluster_name or "(no name)"
    heads = [
        (contents(loaded), "valid"),
        (f"Cluster    {name}, revision {planned.plan.revision:,}", f"read in {planned.read_s * 1000:.0f} ms"),
    ]
    lines = [f"{left:<72}  {right}" for left, right in heads]
    return "\n".join([*lines, "", show.plan_text(planned.plan)])


def _outcome(applied: Applied, style: Style, took_s: float) -> str:
    counts = {
        word: applied.plan.count(kind) for word, kind in (("created", Create), ("updated", Update), ("deleted", Remove))
    }
    if style == "json":
        return json.dumps({"applied": counts, "revision": applied.revision or None, "seconds": round(took_s, 3)}) + "\n"
    if not applied.revision:
        return "Nothing to apply.\n"
    totals = ", ".join(f"{count} {word}" for word, count in counts.items())
    return f"\nApplied: {totals} in {took_s:.1f} s. Revision {applied.revision:,}.\n"
