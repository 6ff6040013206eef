"""plan and apply."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scalelite.cli.outputs import View, outcome, print_plan, save
from scalelite.cli.plan_options import given_beside, lock_timeout_option, options_of, plan_options
from scalelite.cli.session import (
    actor_option,
    ask_to_apply,
    inventory_options,
    read_inventory,
    settings_of_process,
    with_connection,
)
from scalelite.errors import ApplyFailed, GuardRefused, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from scalelite.cli.plan_options import Options
    from scalelite.core.document import PlanDocument
    from scalelite.flows.force import Forced
    from scalelite.flows.reconcile import Check, Origin, Planned, Request
    from scalelite.flows.services import Services
    from scalelite.inventory.load import Inventory
    from scalelite.settings import Settings
    from scalelite.store.db import Connection
    from scalelite.store.specs import Author

DONE_IN_PART = 9


@click.command()
@inventory_options
@click.option("-o", "output", type=Path, metavar="FILE", help="Save the plan, for apply FILE; it holds no secret.")
@plan_options
@click.option("--detailed-exitcode", "--exit-code", is_flag=True, help="End with 2 when there are changes.")
@click.option("--simulate/--no-simulate", default=True, show_default=True, help="Try the apply and roll it back.")
@actor_option
def plan(
    paths: tuple[str, ...],
    inventory: tuple[str, ...],
    output: Path | None,
    detailed_exitcode: bool,
    simulate: bool,
    **given: Any,
) -> int:
    """Compare the inventory with the cluster and say what apply would do.

    \b
    Example: scalelite plan inventories/production
             scalelite plan inventories/production -o plan.json --out markdown=plan.md
    """
    if saved := next(filter(_is_saved_plan, (*paths, *inventory)), None):
        raise UsageError(f"{saved} is a saved plan, and no inventory", hint=f"scalelite apply {saved}")
    run = _Run.begin([*paths, *inventory], options_of(given))

    async def planned(connection: Connection) -> tuple[View, ApplyFailed | None]:
        made = await run.plan(connection)
        warning, failure = "", None
        if simulate:
            try:
                warning = await run.simulate(connection, made)
            except ApplyFailed as error:
                failure = error
        return run.view(made, warning), failure

    view, failure = with_connection(run.settings, planned, doing="plan")
    print_plan(view)
    if output is not None:
        save(view, output)
        if failure is None and view.planned.applyable:
            click.echo(f"Saved to {output}. Apply it with: scalelite apply {output}", err=run.options.style != "text")
    if failure is not None:
        raise failure
    if not view.planned.applyable:
        return GuardRefused.exit_status
    return 2 if detailed_exitcode and view.planned.plan.does_something else 0


@click.command()
@inventory_options
@plan_options
@click.option("-y", "--auto-approve", is_flag=True, help="Do not ask.")
@click.option("--message", default="", help="Why, for the history.")
@lock_timeout_option
@actor_option
@click.pass_context
def apply(
    context: click.Context,
    /,
    paths: tuple[str, ...],
    inventory: tuple[str, ...],
    auto_approve: bool,
    message: str,
    lock_timeout: float,
    **given: Any,
) -> int:
    """Make the cluster what the inventory, or a saved plan, says: in one transaction, or nothing.

    \b
    Example: scalelite apply inventories/production --auto-approve
             scalelite apply plan.json
    """
    options = options_of(given)
    saved = _saved_plan(paths or inventory)
    if saved is not None:
        if beside := given_beside(context):
            raise UsageError(f"{beside[0]} beside a saved plan: the plan says it", hint="plan again with it")
        run = _Run.begin(saved.inventory.sources, options).scoped(saved)
    else:
        run = _Run.begin([*paths, *inventory], options)
    started = time.monotonic()

    async def reconcile(connection: Connection) -> Forced:
        planned, unchanged = await run.plan_saved(connection, saved) if saved else (await run.plan(connection), None)
        view = run.view(planned, plan_id=saved.plan_id if saved else "")
        print_plan(view, err=options.style == "json")
        return await run.carry_out(
            connection, view, unchanged, ask=not (auto_approve or saved), message=message, timeout_s=lock_timeout
        )

    forced = with_connection(run.settings, reconcile, doing="apply")
    click.echo(outcome(forced, options.style, time.monotonic() - started), nl=False)
    return DONE_IN_PART if forced.applied.left else 0


@dataclass(frozen=True)
class _Run:
    """One run of plan or apply: its settings, options and inventory."""

    settings: Settings
    options: Options
    loaded: Inventory
    request: Request
    origin: Origin

    @classmethod
    def begin(cls, paths: list[str], options: Options) -> _Run:
        settings = settings_of_process()
        if settings.no_color:
            options = replace(options, no_color=True)
        loaded = read_inventory(settings, paths)
        return cls(settings, options, loaded, *_requested(settings, paths, options, loaded))

    def scoped(self, document: PlanDocument) -> _Run:
        """Return this run with what a saved plan says of its scope."""
        from scalelite.flows.saved import scoped  # noqa: PLC0415 - its models take 0.1 s to import

        return replace(self, request=scoped(self.request, document, self.options.allow))

    async def plan(self, connection: Connection) -> Planned:
        from scalelite.flows.reconcile import compare  # noqa: PLC0415 - 0.1 s to import

        if self.options.refresh:
            await self._poll(connection)
        return await compare(connection, self.request)

    async def plan_saved(self, connection: Connection, document: PlanDocument) -> tuple[Planned, Check]:
        """Plan anew what a saved plan says, or raise StalePlan."""
        from scalelite.core.saved import refuse_changed_files  # noqa: PLC0415
        from scalelite.flows import saved  # noqa: PLC0415

        await saved.refuse_unusable(connection, document, datetime.now(UTC))
        refuse_changed_files(document, self.origin.files)
        planned = await saved.plan_again(connection, document, self.request)
        return planned, saved.still_holds(document, planned)

    async def simulate(self, connection: Connection, planned: Planned) -> str:
        from scalelite.flows import reconcile  # noqa: PLC0415

        return await reconcile.simulate(connection, planned, self.author("", ""), uuid.uuid4)

    def author(self, message: str, plan_id: str) -> Author:
        from scalelite.store.specs import Author  # noqa: PLC0415 - 0.1 s to import

        files = [{"path": path, "sha256": sha256} for path, sha256 in self.origin.files.items()]
        git = self.origin.git and {"sha": self.origin.git[0], "dirty": self.origin.git[1]}
        named = {"inventory": files, "git": git, "plan": plan_id}
        return Author(self.settings.actor, message, named)

    def view(self, planned: Planned, warning: str = "", plan_id: str = "") -> View:
        warnings = tuple(filter(None, (*self.secrets_in_clear(), warning)))
        plan_id = plan_id or str(uuid.uuid4())
        return View(planned, self.request, self.loaded, self.origin, self.options, plan_id, datetime.now(UTC), warnings)

    def secrets_in_clear(self) -> Iterable[str]:
        from scalelite.inventory.places import secrets_in_clear  # noqa: PLC0415

        return secrets_in_clear(self.loaded.wanted)

    async def carry_out(
        self, connection: Connection, view: View, unchanged: Check | None, *, ask: bool, message: str, timeout_s: float
    ) -> Forced:
        """Apply what is shown, after asking; raises GuardRefused before anything else."""
        from scalelite.flows import force, reconcile  # noqa: PLC0415 - 0.1 s to import
        from scalelite.flows.acting import Acting  # noqa: PLC0415

        planned = view.planned
        reconcile.refuse_blocked(planned)
        if ask and planned.plan.does_something:
            ask_to_apply()
        author = self.author(message, view.plan_id)
        acting = Acting(author, uuid.uuid4, timeout_s, _tell_waiting)
        if not planned.plan.endings:
            done = await reconcile.carry_out(connection, self.request, planned, acting, unchanged=unchanged)
            return force.Forced(done)
        async with self._services(connection) as services:
            return await force.carry_out(services, connection, self.request, planned, acting, unchanged=unchanged)

    async def _poll(self, connection: Connection) -> None:
        from scalelite.flows.poll import poll_round  # noqa: PLC0415

        async with self._services(connection) as services:
            outcome = await poll_round(services)
        failed = f", no answer from {', '.join(outcome.failed)}" if outcome.failed else ""
        click.echo(f"Polled {len(outcome.statuses):,} servers{failed}.", err=True)

    @asynccontextmanager
    async def _services(self, connection: Connection) -> AsyncIterator[Services]:
        from scalelite.store.db import conninfo_of  # noqa: PLC0415 - 0.1 s to import
        from scalelite.wiring import open_services  # noqa: PLC0415 - 0.2 s to import

        async with open_services(self.settings, conninfo_of(connection), name="scalelite apply") as services:
            yield services


def _requested(settings: Settings, paths: list[str], options: Options, loaded: Inventory) -> tuple[Request, Origin]:
    from scalelite.core.guards import Bounds  # noqa: PLC0415
    from scalelite.flows.reconcile import Origin, Request  # noqa: PLC0415 - 0.1 s to import
    from scalelite.inventory.checkout import checkout_of  # noqa: PLC0415
    from scalelite.inventory.policies import load_policies  # noqa: PLC0415

    sources = list(paths) or [settings.inventory or "inventories/default"]
    policies = load_policies(sources)
    files = [*loaded.files, *policies.files]
    git = checkout_of([file.path for file in files])
    safety = loaded.safety
    request = Request(
        loaded.wanted,
        options.mode,
        options.limit,
        options.exclude,
        options.sections,
        options.tenant_data,
        options.release_holds,
        options.allow,
        Bounds(safety.max_removals, safety.max_updates, safety.min_capacity, loaded.safety_places),
        lambda: {name: frozenset(servers) for name, servers in loaded.groups.members.items()},
        loaded.ids_from_urls,
        _lines,
        policies.judge,
    )
    return request, Origin(tuple(sources), {file.path: file.sha256 for file in files}, git)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"@{path} cannot be read: {reason.lower()}") from None


def _saved_plan(paths: Sequence[str]) -> PlanDocument | None:
    """Return the saved plan that the command names: a file that is JSON with `format_version`."""
    if not (plans := [path for path in paths if _is_saved_plan(path)]):
        return None
    if len(paths) > 1:
        raise UsageError(f"{plans[0]} is a saved plan, and goes alone", hint=f"scalelite apply {plans[0]}")
    from scalelite.flows.saved import parse  # noqa: PLC0415 - 0.1 s to import

    return parse(Path(plans[0]).read_bytes())


def _is_saved_plan(path: str) -> bool:
    if path == "-" or not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        if not file.read(1024).lstrip().startswith(b"{"):
            return False
    try:
        document = json.loads(Path(path).read_bytes())
    except ValueError:
        return False
    return isinstance(document, dict) and "format_version" in document


def _tell_waiting(holder: str) -> None:
    click.echo(f"Waiting for the lock; it is held by {holder}", err=True)
