"""The module `command`: programs on this machine, which the context runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field, model_validator

from scalelite.playbook.registry import Module, Outcome
from scalelite.playbook.values import Args, Duration, Many, ParamText

if TYPE_CHECKING:
    from scalelite.playbook.registry import Context


class CommandArgs(Args):
    """Arguments of `command`."""

    argv: Annotated[tuple[ParamText, ...], Many] | None = Field(
        None, description="The program and its arguments; no shell.", examples=[["ssh", "root@bbb1"]]
    )
    cmd: str | None = Field(None, description="The same as one text with quotes.", examples=["apt-get -y upgrade"])
    stdin: str = Field("", description="What it reads.", examples=["yes\n"])
    chdir: str = Field("", description="Folder to run in.", examples=["roles"])
    env: dict[str, ParamText] = Field({}, description="More environment.", examples=[{"LANG": "C"}])
    creates: str = Field(
        "", description="Do nothing if this file, or pattern, is there.", examples=["/var/lib/upgraded"]
    )
    removes: str = Field("", description="Do nothing unless it is there.", examples=["/var/run/reboot-required"])
    timeout: Duration = Field(600.0, description="Kill it after so long, and fail.", examples=["1h"])

    @model_validator(mode="after")
    def _exactly_one(self) -> CommandArgs:
        if not self.argv and not (self.cmd or "").strip():
            raise ValueError("needs exactly one of 'argv' and 'cmd'")
        return self


async def _command(args: CommandArgs, context: Context) -> Outcome:
    argv = args.argv or tuple(shlex.split(args.cmd or ""))
    said = {"cmd": list(argv)}
    if why := _is_done(args, context):
        return Outcome(False, {**said, "rc": 0, **_printed(f"skipped, since {why}", "")})
    if context.check:
        return Outcome(True, {**said, "rc": 0, **_printed("", ""), "msg": "would run"})
    status, out, err = await context.execute(
        argv, stdin=args.stdin, chdir=args.chdir, env=args.env, timeout_s=args.timeout
    )
    data = {**said, "rc": status, **_printed(out.rstrip("\n"), err.rstrip("\n"))}
    return Outcome(True, data if not status else {**data, "msg": "non-zero return code"}, failed=status != 0)


def _is_done(args: CommandArgs, context: Context) -> str:
    """Return why nothing is to be done, or ''."""
    if args.creates and context.exists(args.creates, args.chdir):
        return f"{args.creates} exists"
    if args.removes and not context.exists(args.removes, args.chdir):
        return f"{args.removes} does not exist"
    return ""


def _printed(out: str, err: str) -> dict[str, str | list[str]]:
    lines = {"stdout_lines": out.splitlines(), "stderr_lines": err.splitlines()}
    return {"stdout": out, "stderr": err, **lines}


MODULES: Final = (
    Module(
        "command", "Run a program on this machine, without a shell.", CommandArgs, _command, free="cmd",
        example="- command: {argv: [ssh, \"root@{{ server.id }}\", reboot], timeout: 1h}\n"
        "  changed_when: false",
    ),
)  # fmt: skip
