"""The context that modules are handed: what they may ask and do, for one task with one target."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scalelite.core import commands
from scalelite.core.listing import Filter
from scalelite.core.model import SENTINEL_TENANT
from scalelite.errors import TaskFailed
from scalelite.flows import admin, library, playbooks
from scalelite.playbook.applying import apply_inventory
from scalelite.playbook.registry import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalelite.core.commands import Wish
    from scalelite.core.plan import Change, Hold
    from scalelite.flows.admin import MeetingEnd
    from scalelite.playbook.registry import Target, Waiting
    from scalelite.playbook.templates import Scope, Templates
    from scalelite.playbook.world import Bounds, World


@dataclass(frozen=True, slots=True)
class TaskContext:
    """As `registry.Context` says."""

    world: World
    target: Target
    check: bool
    bounds: Bounds
    templates: Templates
    scope: Scope

    @property
    def reason(self) -> str:
        """The run's name."""
        return self.world.reason

    async def change(self, wish: Wish, gate: Waiting | None = None) -> tuple[Change | Hold, ...]:
        """Carry out a wish, or predict what would come of it."""
        return await self.world.change(wish, self.target.name, self.bounds, gate, check=self.check)

    async def look(self) -> Mapping[str, Any]:
        """Return what is known of the target."""
        return await self.world.facts(self.target, check=self.check, fresh=True)

    async def poll(self) -> Mapping[str, Any]:
        """Ask the server; `online` is whether it answered now and is online."""
        if self.check:
            return {**await self.look(), "answered": True}
        answered = self.target.name in await playbooks.poll_some(self.world.services, {self.target.name})
        seen = await self.look()
        return {**seen, "answered": answered, "online": answered and seen.get("health") == "online"}

    async def expect_meetings(self, most: int) -> None:
        """Take for granted in check mode what is waited for."""
        if self.check:
            await self.world.expect_meetings(self.target, most)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        if not self.check:
            await asyncio.sleep(seconds)

    def now_s(self) -> float:
        """Return the clock of the event loop."""
        return asyncio.get_running_loop().time()

    def condition(self, text: str | bool) -> bool:
        """Evaluate a condition over the task's variables."""
        return self.templates.condition(text, self.scope)

    def variable(self, expression: str) -> Any:
        """Evaluate an expression over the task's variables."""
        return self.templates.expression(expression, self.scope)

    async def panic(self, *, keep_state: bool, skip_end_calls: bool, gate: Waiting) -> Outcome:
        """Hold the server disabled first, as far as the bounds allow, then end and forget its meetings."""
        name, world = self.target.name, self.world
        parts: tuple[Change | Hold, ...] = ()
        if not keep_state:
            parts = await self.change(commands.set_state(name, "disabled", self.reason), gate)
        meetings = await playbooks.meetings_that(world.services, server=name)
        if self.check or not (parts or meetings):
            await self.expect_meetings(0)
            return Outcome(bool(parts or meetings), {"meetings": len(meetings)})
        author = playbooks.author(world.actor, self.reason)
        done = await admin.panic(
            world.services, author, name, keep_state=True, skip_end_calls=skip_end_calls, why=self.reason
        )
        world.forget()
        return Outcome(True, _ends(done.meetings))

    async def end_meetings(self, *, tenant: str | None, older_than_s: float | None, empty: bool | None) -> Outcome:
        """End meetings; what could not be ended fails the task."""
        server = self.target.name if self.target.kind == "server" else None
        if self.target.kind == "tenant":
            tenant = tenant or self.target.name
        services = self.world.services
        meetings = await playbooks.meetings_that(
            services, server=server, tenant=tenant, older_than_s=older_than_s, empty=empty
        )
        if self.check or not meetings:
            await self.expect_meetings((await self.look()).get("meetings", 0) - len(meetings))
            return Outcome(bool(meetings), {"meetings": len(meetings)})
        ends = await playbooks.end_meetings(services, meetings)
        self.world.forget()
        left = [end for end in ends if end.outcome != "ended"]
        msg = {"msg": f"{len(left)} of {len(ends)} meetings could not be ended"} if left else {}
        return Outcome(len(left) < len(ends), {**_ends(ends), **msg}, failed=bool(left))

    async def apply(self, paths: Sequence[str], options: Mapping[str, Any]) -> Outcome:
        """Apply inventories."""
        return await apply_inventory(self.world, paths, options, check=self.check)

    async def give_recordings(
        self, tenant: str, *, owner: str | None, record_ids: Sequence[str], metadata: Mapping[str, str]
    ) -> Outcome:
        """Give recordings of nobody, or of another tenant, to a tenant."""
        declared = (await self.world.seen(check=self.check)).known.declared
        to = commands.tenant_of(declared, tenant)
        source = commands.tenant_of(declared, owner).id if owner else SENTINEL_TENANT
        wanted = Filter(
            prefixes=tuple(record_ids) or None,
            states=None,
            metadata=tuple((name, (value,)) for name, value in metadata.items()),
        )
        count = await library.add_to_tenant(
            self.world.services,
            to,
            wanted,
            owner=source or SENTINEL_TENANT,
            dry_run=self.check,
        )
        if self.check:
            (await self.world.course()).move_recordings(owner or "", to.name, count)
        self.world.forget()
        return Outcome(count > 0, {"recordings": count})

    def exists(self, pattern: str, folder: str) -> bool:
        """Look for a file."""
        return playbooks.exists(pattern, folder)

    async def execute(
        self, argv: Sequence[str], *, stdin: str, chdir: str, env: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str, str]:
        """Run a program with this process's environment and more."""
        environment = {**self.world.environment, **env}
        return await playbooks.execute(argv, stdin=stdin, chdir=chdir, environment=environment, timeout_s=timeout_s)

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> tuple[int, Mapping[str, str], str]:
        """Make an HTTP request."""
        return await playbooks.request(method, url, headers, body, timeout_s)

    async def ask(self, prompt: str) -> None:
        """Ask on the terminal; raises TaskFailed where nobody is there."""
        if self.world.ask is None:
            raise TaskFailed("nobody is there to press Enter", hint="give pause its seconds")
        await asyncio.to_thread(self.world.ask, prompt)


def _ends(ends: Sequence[MeetingEnd]) -> dict[str, Any]:
    return {
        "meetings": len(ends),
        "ended": [end.meeting.meeting_id for end in ends if end.outcome == "ended"],
        "unknown": [end.meeting.meeting_id for end in ends if end.outcome != "ended"],
    }
