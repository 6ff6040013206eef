"""The modules that look and wait: `poll`, `wait_for`, `pause`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from scalelite.core.model import Count
from scalelite.errors import TaskFailed
from scalelite.playbook.modules.changes import given
from scalelite.playbook.registry import SERVERS, Module, Outcome
from scalelite.playbook.values import Args, Duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalelite.playbook.registry import Context


class NoArgs(Args):
    """A module without arguments."""


async def _poll(_: NoArgs, context: Context) -> Outcome:
    return Outcome(data=await context.poll())


class WaitArgs(Args):
    """Arguments of `wait_for`."""

    meetings: Count | None = Field(None, description="Until it has at most so many meetings.", examples=[0])
    users: Count | None = Field(None, description="Until it has at most so many users.", examples=[0])
    load: float | None = Field(None, ge=0, description="Until its load is at most this.", examples=[10])
    online: bool | None = Field(None, description="Until it is online, or no longer.", examples=[True])
    version: str | None = Field(None, description="Until its BigBlueButton version begins so.", examples=["3.0"])
    seconds: Duration | None = Field(None, description="So long.", examples=["30s"])
    timeout: Duration = Field(300.0, description="Fail after so long.", examples=["2h"])
    every: Duration = Field(5.0, description="Poll the server so often.", examples=["30s"])


async def _wait_for(args: WaitArgs, context: Context) -> Outcome:
    """Wait by polls of our own that the server has answered: what was seen before says nothing of now (DR-1)."""
    if args.seconds is not None:
        await context.sleep(args.seconds)
    wanted = given(args, "seconds", "timeout", "every")
    if not wanted:
        return Outcome()
    of_server = context.target.kind == "server"
    if not of_server and (context.target.kind != "tenant" or wanted.keys() != {"meetings"}):
        raise TaskFailed("wait_for: a server is waited for, or a tenant's meetings", hint="play over `servers:`")
    deadline = context.now_s() + args.timeout
    while True:
        seen = await (context.poll() if of_server else context.look())
        missing = [name for name, value in wanted.items() if not _met(name, value, seen)]
        if context.check and args.meetings is not None:
            await context.expect_meetings(args.meetings)
        if not missing or context.check:
            return Outcome(data=seen)
        left = deadline - context.now_s()
        if left <= 0:
            now = ", ".join(f"{name} is {seen.get(name)}" for name in missing)
            return Outcome(data={**seen, "msg": f"not so within {args.timeout:g} s: {now}"}, failed=True)
        await context.sleep(min(args.every, left))


def _met(name: str, wanted: Any, seen: Mapping[str, Any]) -> bool:
    if name == "online":
        return bool(seen["online"] is wanted)
    if not seen.get("answered", True):
        return False
    if name == "version":
        return str(seen["version"]).startswith(wanted)
    return bool(seen[name] <= wanted)


class PauseArgs(Args):
    """Arguments of `pause`."""

    seconds: Duration | None = Field(None, description="So long.", examples=[30])
    minutes: Duration | None = Field(None, description="So many minutes.", examples=[1])
    prompt: str | None = Field(None, description="Ask on the terminal to press Enter.", examples=["Go on?"])


async def _pause(args: PauseArgs, context: Context) -> Outcome:
    wait_s = (args.seconds or 0.0) + 60 * (args.minutes or 0.0)
    if wait_s:
        await context.sleep(wait_s)
    elif not context.check:
        await context.ask(args.prompt or "Press Enter to go on")
    return Outcome()


MODULES: Final = (
    Module(
        "poll", "Ask the server what runs on it, whatever its state, and keep that.", NoArgs, _poll, SERVERS,
        example="- poll:\n  register: result\n  until: result.online\n  retries: 20\n  delay: 15s",
    ),
    Module(
        "wait_for", "Wait until the server is so, by polls that it answers.", WaitArgs, _wait_for,
        example="- wait_for: {meetings: 0, timeout: 2h, every: 30s}",
    ),
    Module("pause", "Wait, or ask to go on.", PauseArgs, _pause, once=True, example="- pause: {seconds: 30}"),
)  # fmt: skip
