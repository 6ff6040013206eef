"""servers sync: the apply of a file's servers alone, without a prompt and with the same guards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalelite.core.model import Kind, ServerSpec
from scalelite.core.plan import Create, Ending, Keep, Remove, Update
from scalelite.flows import force, reconcile
from scalelite.flows.acting import Acting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalelite.core.model import Declared
    from scalelite.core.plan import Mode, Plan
    from scalelite.flows.admin import MeetingEnd
    from scalelite.flows.services import Services
    from scalelite.store.specs import Author


@dataclass(frozen=True, slots=True)
class Synced:
    """What was planned and done; revision 0 when nothing was written, `left` what could not be done."""

    plan: Plan
    revision: int = 0
    ends: tuple[MeetingEnd, ...] = ()
    left: tuple[str, ...] = ()


async def sync(services: Services, wanted: Declared, mode: Mode, author: Author, *, dry_run: bool = False) -> Synced:
    """Make the servers what is wanted; raises what an apply raises."""
    async with services.database.dedicated() as connection:
        request = reconcile.Request(wanted, mode)
        planned = await reconcile.compare(connection, request)
        reconcile.refuse_blocked(planned)
        if dry_run:
            return Synced(planned.plan)
        acting = Acting(author, services.new_id)
        done = await force.carry_out(services, connection, request, planned, acting)
    return Synced(planned.plan, done.applied.revision, done.ends, done.applied.left)


def told(done: Synced) -> Iterator[tuple[str, str]]:
    """Yield (server, what was or would be done), as Scalelite's log says it: of keeps, those of mode keep alone."""
    keeps = done.plan.keeps if done.plan.mode == "keep" else ()
    for item in (*done.plan.changes, *keeps, *done.plan.endings):
        if item.key.kind is Kind.SERVER:
            for what in _told(item):
                yield item.key.name, what
    for end in done.ends:
        yield end.meeting.server, f"Try to end meeting id={end.meeting.meeting_id}"
        if end.outcome != "ended":
            yield end.meeting.server, f"Failed to end meeting id={end.meeting.meeting_id}: {end.reason}"


def _told(item: Create | Update | Remove | Keep | Ending) -> Iterator[str]:
    match item:
        case Create(after=ServerSpec() as after):
            yield "Server created"
            if after.state == "enabled":
                yield "Server enabled"
        case Update(after=ServerSpec() as after):
            for name in item.fields:
                yield _changed(name, after, item.reason)
        case Remove():
            yield "Server removed"
        case Keep():
            yield "Server not removed"
        case Ending():
            yield "Server not empty. Cordoned for removal"
            yield "Server not empty. Ending meetings now..."
        case _:
            return


def _changed(name: str, after: ServerSpec, reason: str) -> str:
    if name == "secret":
        return "Server updated: secret=*****"
    if name == "state":
        if reason:
            return "Server not empty. Cordoned for removal"
        return "Server enabled" if after.state == "enabled" else "Server disabled (cordoned)"
    return f"Server updated: {name}={getattr(after, name)}"
