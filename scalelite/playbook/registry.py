"""Modules: what each is, and the context that it is handed; modules import nothing that does IO.

A plugin adds one with an entry point of the group `scalelite.modules`: a `Module`, or a function that returns one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from scalelite.core.commands import Wish
    from scalelite.core.plan import Change, Hold
    from scalelite.playbook.values import Args

GROUP: Final = "scalelite.modules"
TargetKind = Literal["server", "tenant", "cluster"]
# Of a module that is about a server.
SERVERS: Final = frozenset[TargetKind]({"server"})


@dataclass(frozen=True, slots=True)
class Target:
    """What a task is done with: a server, a tenant, or the whole cluster, whose name is ''."""

    kind: TargetKind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a module has done, or in check mode would have done.

    `data` is what `register` keeps; `facts` are variables that it sets; `diff` are lines for --diff.
    """

    changed: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    diff: Sequence[str] = ()
    failed: bool = False
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long a step may wait, and how often it looks (seconds)."""

    timeout_s: float
    every_s: float = 1.0


class Context(Protocol):
    """What a module may ask and do. Of every method, check mode has its own that changes nothing and does not wait."""

    @property
    def target(self) -> Target:
        """What the task is done with."""

    @property
    def check(self) -> bool:
        """Whether nothing may be changed."""

    @property
    def reason(self) -> str:
        """Why something is done, for the history: the run's name."""

    async def change(self, wish: Wish, gate: Waiting | None = None) -> tuple[Change | Hold, ...]:
        """Carry out a wish (core/commands.py), as one revision with those of other targets; returns what changed.

        `gate`: it may take a server out, so it waits until min_available and max_unavailable allow that.
        """

    async def look(self) -> Mapping[str, Any]:
        """Return what is known of the target now, as `server.*` in templates."""

    async def poll(self) -> Mapping[str, Any]:
        """Ask the server what runs on it, keep that, and return what is known then."""

    async def expect_meetings(self, most: int) -> None:
        """In check mode: take for granted from here on that the target has no more meetings than that."""

    async def sleep(self, seconds: float) -> None:
        """Wait; not at all in check mode."""

    def now_s(self) -> float:
        """Return a clock that only goes forward (seconds)."""

    def condition(self, text: str | bool) -> bool:
        """Evaluate a condition as `when` does; raises TaskFailed."""

    def variable(self, expression: str) -> Any:
        """Evaluate an expression over the variables; raises TaskFailed."""

    async def panic(self, *, keep_state: bool, skip_end_calls: bool, gate: Waiting) -> Outcome:
        """Hold the server disabled and end its meetings."""

    async def end_meetings(self, *, tenant: str | None, older_than_s: float | None, empty: bool | None) -> Outcome:
        """End meetings of the server, of the tenant, or of all."""

    async def apply(self, paths: Sequence[str], options: Mapping[str, Any]) -> Outcome:
        """Apply inventories."""

    async def give_recordings(
        self, tenant: str, *, owner: str | None, record_ids: Sequence[str], metadata: Mapping[str, str]
    ) -> Outcome:
        """Give recordings to a tenant."""

    def exists(self, pattern: str, folder: str) -> bool:
        """Say whether there is a file of this path or pattern on this machine; a relative one is in the folder."""

    async def execute(
        self, argv: Sequence[str], *, stdin: str, chdir: str, env: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str, str]:
        """Run a program on this machine; returns its status and what it printed. Raises TaskFailed."""

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> tuple[int, Mapping[str, str], str]:
        """Make an HTTP request; returns status, headers and text. Raises TaskFailed."""

    async def ask(self, prompt: str) -> None:
        """Show a prompt and wait for Enter, where somebody is there to press it."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module: its arguments, and what it does with them.

    `free` is the argument that a text in place of a mapping is; `once`: it is done with the first target, for all;
    `instant`: it asks the database alone, so that --forks does not bound it, and all targets share a transaction. Of a
    module that the engine does itself, `run` is None.
    """

    name: str
    summary: str
    args: type[Args]
    run: Callable[[Any, Context], Awaitable[Outcome]] | None
    targets: frozenset[TargetKind] = frozenset({"server", "tenant", "cluster"})
    free: str = ""
    once: bool = False
    instant: bool = False
    example: str = ""


def load_modules() -> dict[str, Module]:
    """Return all modules by name: ours, and those of plugins, which cannot take the names of ours."""
    from scalelite.playbook.modules import BUILTIN  # noqa: PLC0415 - modules import this one

    ours = {module.name: module for module in BUILTIN}
    plugins = {}
    for entry in entry_points(group=GROUP):
        found = entry.load()
        module = found if isinstance(found, Module) else found()
        plugins[module.name] = module
    return {**plugins, **ours}
