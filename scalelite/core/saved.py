"""Saved plans: what makes one stale, said with what, when and by whom; decides, and reads nothing itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from scalelite.core.model import Key, Kind, ServerSpec
from scalelite.core.plan import Remove, Update
from scalelite.core.show import counted
from scalelite.errors import StalePlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from scalelite.core.document import PlanDocument, ResourceChange
    from scalelite.core.plan import Change, Facts, Plan

_PLAN_AGAIN = "plan again, and look at what is different"


@dataclass(frozen=True, slots=True)
class Here:
    """Where a saved plan is about to be applied; `applied` says by which revision it was, if it was."""

    cluster_uuid: str
    key: bytes
    schema_revision: int
    now: datetime
    applied: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def refuse_unusable(document: PlanDocument, here: Here) -> None:
    """Raise StalePlan where a saved plan can be applied to nothing any more: another cluster, tampered with, too old …

    The inventory's files are looked at by `refuse_changed_files`.
    """
    from scalelite.core.document import same_digest  # noqa: PLC0415 - its models take a while, and most plans need none

    made = f"it was made at {document.created_at}"
    target = document.target
    if target.cluster_uuid != here.cluster_uuid:
        name = f" {target.cluster!r}" if target.cluster else ""
        raise StalePlan(f"the plan is for another cluster{name} ({target.cluster_uuid})", hint="check DATABASE_URL")
    if not same_digest(document, here.key):
        raise StalePlan("the plan was tampered with: its digest is not that of its content", hint="plan again")
    if target.schema_revision != here.schema_revision:
        versions = f"migration {target.schema_revision}, here it is {here.schema_revision}"
        raise StalePlan(f"the plan was made for another schema of the database: {versions}", hint=_PLAN_AGAIN)
    if here.applied:
        raise StalePlan(f"the plan was applied already {here.applied}", hint=_PLAN_AGAIN)
    if here.now.isoformat() > document.expires_at:
        raise StalePlan(f"the plan has expired: {made}, and was good until {document.expires_at}", hint=_PLAN_AGAIN)


def refuse_changed_files(document: PlanDocument, files: Mapping[str, str]) -> None:
    """Raise StalePlan where the inventory is no longer the files that the plan was made of."""
    planned = {file.path: file.sha256 for file in document.inventory.files}
    changed = sorted(path for path in planned.keys() | files.keys() if planned.get(path) != files.get(path))
    if changed:
        git = document.inventory.git
        commit = f" (commit {git.sha[:12]}{', with changes beside it' if git.dirty else ''})" if git else ""
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        said = f"the inventory has changed since {document.created_at}{commit}: {', '.join(changed[:3])}{more}"
        raise StalePlan(said, hint="check out what was planned, or plan again")


def differing(document: PlanDocument, changes: Sequence[ResourceChange]) -> Iterator[tuple[str, str]]:
    """Yield the addresses that are not as the saved plan has them, and why; '' where the live row has changed.

    `changes` are those of a new plan; what the saved plan does not touch is no matter.
    """
    now = {change.address: change for change in changes}
    for planned in document.resource_changes:
        found = now.get(planned.address)
        if found is None or (found.from_rev, found.before_hash) != (planned.from_rev, planned.before_hash):
            yield planned.address, ""
        elif found.change.actions != planned.change.actions:
            meetings = f"it has {counted(found.impact.meetings, 'meeting')} by now, it had {planned.impact.meetings:,}"
            yield planned.address, f"{meetings}: {planned.change.actions[0]} has become {found.change.actions[0]}"
        elif found.after_hash != planned.after_hash:
            yield planned.address, "a value that the inventory looks up is not what it was when it was planned"


class Reliance(NamedTuple):
    """What a change relied on: no more meetings and recordings than these."""

    key: Key
    meetings: int
    recordings: int


def reliances(plan: Plan) -> list[Reliance]:
    """Return what the changes of a plan rely on."""
    ending = {item.key for item in plan.endings}
    return [
        Reliance(
            change.key,
            plan.facts.meetings_of(change.key) if change.key in ending or isinstance(change, Update) else 0,
            plan.facts.recordings_of(change.key),
        )
        for change in plan.changes
        if _relies_on_meetings(change)
    ]


def reliances_of(document: PlanDocument) -> list[Reliance]:
    """Return what the changes of a saved plan rely on."""
    found = []
    for change in document.resource_changes:
        key, action = Key(Kind(change.type), change.name), change.change.actions[0]
        moved = {field.path for field in change.change.fields if field.path == "url" or field.after == "disabled"}
        if key.kind in {Kind.SERVER, Kind.TENANT} and (action == "delete" or (key.kind is Kind.SERVER and moved)):
            meetings = change.impact.meetings if change.impact.ends_meetings or moved else 0
            found.append(Reliance(key, meetings, change.impact.recordings))
    return found


def broken(reliances: Iterable[Reliance], now: Facts) -> Iterator[str]:
    """Yield what was relied on and is no longer so; fewer meetings are no harm."""
    for key, meetings, recordings in reliances:
        if (running := now.meetings_of(key)) > meetings:
            yield f"{key.address} has {counted(running, 'meeting')}, the plan relied on {_at_most(meetings)}"
        if (owned := now.recordings_of(key)) > recordings:
            yield f"{key.address} has {counted(owned, 'recording')}, the plan relied on {_at_most(recordings)}"


def _at_most(count: int) -> str:
    return f"at most {count:,}" if count else "none"


def _relies_on_meetings(change: Change) -> bool:
    if isinstance(change, Remove):
        return change.key.kind in {Kind.SERVER, Kind.TENANT}
    if not isinstance(change, Update):
        return False
    before, after = change.before, change.after
    if not isinstance(before, ServerSpec) or not isinstance(after, ServerSpec):
        return False
    return before.state != after.state == "disabled" or before.url != after.url
