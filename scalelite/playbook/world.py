"""What playbooks do to the cluster: changes together, looks not older than a second, predictions in check mode."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from scalelite.core.commands import Known, state_in
from scalelite.core.course import Course
from scalelite.core.model import Kind
from scalelite.errors import ScaleliteError, TaskFailed
from scalelite.flows import admin, playbooks
from scalelite.flows.acting import Acting
from scalelite.playbook.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scalelite.core.commands import Wish
    from scalelite.core.plan import Change, Hold
    from scalelite.flows.playbooks import Seen
    from scalelite.flows.services import Services
    from scalelite.flows.status import ServerRow
    from scalelite.inventory.vault import Password
    from scalelite.playbook.registry import Target, Waiting

_FRESH_S: Final = 1.0
_WRITE_S: Final = 90.0


class MustWait(TaskFailed):
    """A step would leave too few servers enabled and online."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many of a play's servers must stay enabled and online."""

    servers: tuple[str, ...] = ()
    at_least: int = 0
    why: str = ""

    def mind(self, wish: Wish, server: str) -> Wish:
        """Return the wish, refused with MustWait if it would leave too few."""

        def decide(known: Known) -> Iterable[Change | Hold]:
            parts = tuple(wish(known))
            there = playbooks.available(known, self.servers) if parts else 0
            goes = parts and server in known.facts.online and state_in(known, server) == "enabled"
            if goes and there - 1 < self.at_least:
                left = f"{there - 1} of {len(self.servers)} servers would be left enabled and online"
                raise MustWait(f"{left}: {self.why}")
            return parts

        return decide


@dataclass(slots=True)
class _Ask:
    """A wish of one task, and what came of it."""

    wish: Wish
    parts: tuple[Change | Hold, ...] = ()
    error: ScaleliteError | None = None

    def settle(self, course: Course) -> None:
        try:
            self.parts = course.decide(self.wish)
        except ScaleliteError as error:
            self.error = error


@dataclass(slots=True)
class World:
    """The cluster as one run works on it; `actor` is the run, as history and holds name it."""

    services: Services
    actor: str
    reason: str
    environment: Mapping[str, str]
    passwords: Callable[[], Sequence[Password]] = tuple
    ask: Callable[[str], None] | None = None
    _seen: Seen | None = None
    _seen_at: float = 0.0
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _course: Course | None = None
    _left: dict[str, int] = field(default_factory=dict)
    _changes: Together[_Ask] = field(init=False)

    def __post_init__(self) -> None:
        self._changes = Together(self._write)

    # --- looking ------------------------------------------------------------------------------------------------------

    async def seen(self, *, check: bool = False, max_age_s: float = _FRESH_S) -> Seen:
        """Return the cluster as it was a moment ago; in check mode with what the run would have done."""
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if self._seen is None or now - self._seen_at > max_age_s:
                self._seen = await playbooks.look(self.services)
                self._seen_at = now
            seen = self._seen
        if not check or self._course is None:
            return seen
        rows = {name: self._expected(name, row) for name, row in seen.rows.items()}
        return replace(seen, known=self._course.known, rows=rows)

    def _expected(self, server: str, row: ServerRow) -> ServerRow:
        most = self._left.get(server, row.meetings)
        return row if row.meetings <= most else replace(row, meetings=most)

    async def expect_meetings(self, target: Target, most: int) -> None:
        """Take for granted in check mode that a server or a tenant has no more meetings than that."""
        if target.kind == "server":
            self._left[target.name] = most
        if target.kind != "cluster":
            kind = Kind.SERVER if target.kind == "server" else Kind.TENANT
            (await self.course()).leave_meetings(kind, target.name, most)

    def forget(self) -> None:
        """Look anew the next time: something has changed."""
        self._seen = None

    async def facts(self, target: Target, *, check: bool = False, fresh: bool = False) -> dict[str, Any]:
        """Return what is known of a target; nothing of one that is gone."""
        seen = await self.seen(check=check, max_age_s=0.0 if fresh else _FRESH_S)
        read = {"server": playbooks.server_facts, "tenant": playbooks.tenant_facts}.get(target.kind)
        if read is None:
            return {}
        try:
            return read(seen, target.name)
        except ScaleliteError:
            return {"id": target.name, "name": target.name, "gone": True}

    # --- changing -----------------------------------------------------------------------------------------------------

    async def change(
        self, wish: Wish, server: str, bounds: Bounds, gate: Waiting | None, *, check: bool
    ) -> tuple[Change | Hold, ...]:
        """Carry out a wish; where `gate` is given, wait until the bounds allow it. Raises what it is refused with."""
        if gate is None or not bounds.at_least:
            return await self._change(wish, check=check)
        return await self._gated(bounds, bounds.mind(wish, server), gate, check=check)

    async def _gated(self, bounds: Bounds, wish: Wish, gate: Waiting, *, check: bool) -> tuple[Change | Hold, ...]:
        """Carry out a wish as soon as it is not refused with MustWait, within a time; ask who may be back by now."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + gate.timeout_s
        while True:
            try:
                return await self._change(wish, check=check)
            except MustWait as refused:
                if check or loop.time() >= deadline:
                    raise TaskFailed(f"not allowed within {gate.timeout_s:g} s: {refused.message}") from None
            if silent := playbooks.silent((await self.seen()).known, bounds.servers):
                await playbooks.poll_some(self.services, silent)
                self.forget()
            await asyncio.sleep(min(gate.every_s, max(deadline - loop.time(), 0.0)))

    async def _change(self, wish: Wish, *, check: bool) -> tuple[Change | Hold, ...]:
        ask = _Ask(wish)
        if check:
            ask.settle(await self.course())
        else:
            await self._changes.do(ask)
        if ask.error is not None:
            raise ask.error
        return ask.parts

    async def course(self) -> Course:
        """Return what check mode predicts: the cluster, and what the run would have done to it so far."""
        seen = await self.seen()
        if self._course is None:
            self._course = Course(seen.known)
        return self._course

    async def _write(self, asks: Sequence[_Ask]) -> None:
        def decide(known: Known) -> Iterable[Change | Hold]:
            course = Course(known)
            for ask in asks:
                ask.settle(course)
            return course.decided

        async with self.services.database.use(_WRITE_S) as connection:
            author = playbooks.author(self.actor, self.reason)
            acting = Acting(author, self.services.new_id)
            if await admin.change(connection, acting, decide):
                self.forget()
