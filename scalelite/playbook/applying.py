"""The module `apply`: an inventory against the cluster, by the same flows as the command, guards and policies too."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalelite.core.guards import Bounds
from scalelite.core.plan import Create, Remove, Update
from scalelite.errors import InventoryInvalid, TaskFailed
from scalelite.flows import force, playbooks, reconcile
from scalelite.flows.acting import Acting
from scalelite.inventory.load import load_inventory
from scalelite.inventory.policies import load_policies
from scalelite.playbook.registry import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalelite.inventory.load import Inventory
    from scalelite.playbook.world import World


async def apply_inventory(world: World, paths: Sequence[str], options: Mapping[str, Any], *, check: bool) -> Outcome:
    """Apply inventories, or in check mode plan them; raises what `apply` ends with."""
    loaded = await asyncio.to_thread(_loaded, world, paths)
    request = _request(paths, options, loaded)
    services = world.services
    async with services.database.dedicated() as connection:
        planned = await reconcile.compare(connection, request)
        reconcile.refuse_blocked(planned)
        plan = planned.plan
        if not check and plan.does_something:
            files = [{"path": file.path, "sha256": file.sha256} for file in loaded.files]
            author = playbooks.author(world.actor, world.reason, {"inventory": files})
            acting = Acting(author, services.new_id)
            forced = await force.carry_out(services, connection, request, planned, acting)
            world.forget()
            if forced.applied.left:
                raise TaskFailed(f"some of it could not be done: {', '.join(forced.applied.left)}")
    if check:
        (await world.course()).decide(lambda _: (*plan.changes, *plan.releases))
    counts = {name: plan.count(kind) for name, kind in (("created", Create), ("updated", Update), ("deleted", Remove))}
    signs = {Create: "+", Update: "~", Remove: "-"}
    lines = [f"{signs[type(change)]} {change.key.address}" for change in plan.changes]
    return Outcome(plan.does_something, counts, diff=lines)


def _loaded(world: World, paths: Sequence[str]) -> Inventory:
    try:
        return load_inventory([Path(path) for path in paths], environment=world.environment, passwords=world.passwords)
    except InventoryInvalid as error:
        first = next(problem for problem in error.problems if problem.severity == "error")  # type: ignore[attr-defined]
        more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
        raise TaskFailed(f"{first.text()}{more}") from None  # type: ignore[attr-defined]


def _request(paths: Sequence[str], options: Mapping[str, Any], loaded: Inventory) -> reconcile.Request:
    safety = loaded.safety
    return reconcile.Request(
        loaded.wanted,
        bounds=Bounds(safety.max_removals, safety.max_updates, safety.min_capacity, loaded.safety_places),
        sets=lambda: {name: frozenset(servers) for name, servers in loaded.groups.members.items()},
        ids_from_urls=loaded.ids_from_urls,
        judge=load_policies(list(paths)).judge,
        **options,
    )
