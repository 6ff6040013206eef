"""The modules of words and variables: `debug`, `assert`, `fail`, `set_fact`, `include_tasks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import ConfigDict, Field

from scalelite.playbook.registry import Module, Outcome
from scalelite.playbook.values import Args, Condition, Conditions

if TYPE_CHECKING:
    from scalelite.playbook.registry import Context


class DebugArgs(Args):
    """Arguments of `debug`."""

    msg: Any = Field("Hello world!", description="What to say.", examples=["{{ server.id }} has {{ server.meetings }}"])
    var: str | None = Field(None, description="An expression whose value to show.", examples=["result"])


async def _debug(args: DebugArgs, context: Context) -> Outcome:
    return Outcome(data={args.var: context.variable(args.var)} if args.var else {"msg": args.msg})


class FailArgs(Args):
    """Arguments of `fail`."""

    msg: str = Field("Failed as requested from task", description="Why.", examples=["No server is left."])


async def _fail(args: FailArgs, _: Context) -> Outcome:
    return Outcome(failed=True, data={"msg": args.msg})


class AssertArgs(Args):
    """Arguments of `assert`."""

    that: Conditions = Field(description="What must be so.", examples=[["server.online"]])
    msg: str = Field("", description="The same as fail_msg.", examples=["It is offline."])
    fail_msg: str = Field("Assertion failed", description="What to say if it is not.", examples=["It is offline."])
    success_msg: str = Field("All assertions passed", description="What to say if it is.", examples=["Good."])
    quiet: bool = Field(False, description="Say nothing of it.", examples=[True])


async def _assert(args: AssertArgs, context: Context) -> Outcome:
    broken: Condition | None = next((text for text in args.that if not context.condition(text)), None)
    if broken is not None:
        return Outcome(failed=True, data={"msg": args.msg or args.fail_msg, "assertion": broken, "evaluated_to": False})
    return Outcome(data={} if args.quiet else {"msg": args.success_msg})


class FactArgs(Args):
    """Arguments of `set_fact`: any names."""

    model_config = ConfigDict(extra="allow")


async def _set_fact(args: FactArgs, _: Context) -> Outcome:
    facts = dict(args.model_extra or {})
    return Outcome(data={"ansible_facts": facts}, facts=facts)


class IncludeArgs(Args):
    """Arguments of `include_tasks`."""

    file: str = Field(description="A file with a list of tasks, beside this one.", examples=["drain-one.yml"])


MODULES: Final = (
    Module("debug", "Say something.", DebugArgs, _debug, instant=True,
        example="- debug: {msg: \"{{ server.id }}\"}"),
    Module("assert", "Fail unless something is so.", AssertArgs, _assert, instant=True,
        example="- assert: {that: server.online}"),
    Module("fail", "Fail.", FailArgs, _fail, instant=True,
        example="- fail: {msg: Not like this}\n  when: server.meetings > 100"),
    Module("set_fact", "Set variables of the target.", FactArgs, _set_fact, instant=True,
        example="- set_fact: {before: 3}"),
    Module(
        "include_tasks", "Do the tasks of another file here.", IncludeArgs, None, free="file",
        instant=True, example="- include_tasks: drain-one.yml",
    ),
)  # fmt: skip
