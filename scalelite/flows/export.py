"""Export: the live cluster as an inventory, all of it as of one moment; writes no file itself.

Rules: spec/inventory.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalelite.core.balance import effective_state
from scalelite.core.model import Declared, Kind, ServerStatus
from scalelite.inventory import dump
from scalelite.store import runtime, specs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scalelite.core.model import Section, ServerSpec
    from scalelite.inventory.dump import Placed, Tree, Written
    from scalelite.store.db import Connection
    from scalelite.store.runtime import Held


@dataclass(frozen=True, slots=True)
class Live:
    """The cluster as it is: declared, held and observed."""

    declared: Declared
    holds: Mapping[str, Held]
    statuses: Mapping[str, ServerStatus]


async def read(connection: Connection) -> Live:
    """Read it in one snapshot and without a lock."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        live = await specs.load_live(connection)
        holds = await runtime.load_holds_in_full(connection)
        _, statuses = await runtime.load_statuses(connection)
    return Live(live.declared, holds, {status.server: status for status in statuses})


def export(
    live: Live,
    sections: Iterable[Section],
    protect: Callable[[Sequence[Placed]], Sequence[str | Written | None]],
    *,
    verbose: bool,
) -> dict[Section, str]:
    """Return the text of each section: YAML of its own, which together are one inventory."""
    servers = {key.name: _server(spec, live, verbose=verbose) for key, spec in live.declared.of_kind(Kind.SERVER)}
    trees = dump.trees(live.declared, sections, servers)
    for tree in trees.values():
        dump.protect(tree, protect)
    return {section: dump.yaml(tree) for section, tree in trees.items()}


def _server(spec: ServerSpec, live: Live, *, verbose: bool) -> Tree | dump.Commented:
    tree = dump.server_tree(spec)
    held = live.holds.get(spec.id)
    if verbose:
        tree |= _observed(spec, live.statuses.get(spec.id, ServerStatus(spec.id)), held)
    return dump.Commented(tree, (_told(held),)) if held else tree


def _observed(spec: ServerSpec, status: ServerStatus, held: Held | None) -> Tree:
    """Return what loading ignores; beside `enabled`, `state` is what was observed, too."""
    seen = {
        "load": round(status.load * spec.load_multiplier, 2),
        "online": status.health in {"online", "unhealthy"},
        "bbb_version": status.bbb_version,
    }
    if spec.state != "enabled":
        return seen
    return {"enabled": True, "state": effective_state(spec.state, held.state if held else None), **seen}


def _told(held: Held) -> str:
    until = f" until {held.until:%Y-%m-%d %H:%M} UTC" if held.until else ""
    why = f' ("{held.why}")' if held.why else ""
    return f"held {held.state} by {held.by} since {held.since:%Y-%m-%d %H:%M} UTC{until}{why}; not declared"
