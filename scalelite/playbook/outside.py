"""The modules that reach beyond the cluster: programs on this machine and HTTP; by the context, like the others."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

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
    timeout: Duration = Field(600.0, description="Kill it after so long, and fail.", examples=["1h"])

    @model_validator(mode="after")
    def _exactly_one(self) -> CommandArgs:
        if not self.argv and not (self.cmd or "").strip():
            raise ValueError("needs exactly one of 'argv' and 'cmd'")
        return self


async def _command(args: CommandArgs, context: Context) -> Outcome:
    argv = args.argv or tuple(shlex.split(args.cmd or ""))
    said = {"cmd": list(argv)}
    if context.check:
        return Outcome(True, {**said, "rc": 0, "stdout": "", "stderr": "", "stdout_lines": [], "msg": "would run"})
    status, out, err = await context.execute(
        argv, stdin=args.stdin, chdir=args.chdir, env=args.env, timeout_s=args.timeout
    )
    out, err = out.rstrip("\n"), err.rstrip("\n")
    data = {**said, "rc": status, "stdout": out, "stderr": err, "stdout_lines": out.splitlines()}
    return Outcome(True, data if not status else {**data, "msg": "non-zero return code"}, failed=status != 0)


class UriArgs(Args):
    """Arguments of `uri`."""

    url: str = Field(pattern=r"^https?://", description="Where.", examples=["https://chat.example.com/hook"])
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"] = Field(
        "GET", description="How.", examples=["POST"]
    )
    headers: dict[str, ParamText] = Field({}, description="More headers.", examples=[{"X-Token": "t"}])
    body: Any = Field(None, description="A text as it is; a mapping or list as JSON.", examples=[{"text": "back"}])
    status_code: Annotated[tuple[int, ...], Many] | int = Field(
        (200, 201, 202, 204), description="What counts as well.", examples=[[200]]
    )
    return_content: bool = Field(False, description="Register the answer's text.", examples=[True])
    timeout: Duration = Field(30.0, description="Fail after so long.", examples=["10s"])


async def _uri(args: UriArgs, context: Context) -> Outcome:
    """A request that may change something says `changed`, unless changed_when says otherwise; a GET does not."""
    changed = args.method not in {"GET", "HEAD"}
    if context.check and changed:
        return Outcome(True, {"url": args.url, "status": 0, "msg": "would ask"})
    headers, body = dict(args.headers), args.body
    if isinstance(body, dict | list):
        headers = {"Content-Type": "application/json", **headers}
        body = json.dumps(body)
    data = None if body is None else str(body).encode()
    status, answered, text = await context.request(args.method, args.url, headers, data, args.timeout)
    found: dict[str, Any] = {"url": args.url, "status": status}
    if args.return_content:
        found["content"] = text
        if "json" in answered.get("Content-Type", ""):
            found["json"] = _json(text)
    expected = (args.status_code,) if isinstance(args.status_code, int) else args.status_code
    if status not in expected:
        wanted = ", ".join(map(str, expected))
        return Outcome(changed, {**found, "msg": f"status {status} instead of {wanted}"}, failed=True)
    return Outcome(changed, found)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


OUTSIDE: Final = (
    Module(
        "command", "Run a program on this machine, without a shell.", CommandArgs, _command, free="cmd",
        example="- command: {argv: [ssh, \"root@{{ server.id }}\", reboot], timeout: 1h}\n"
        "  changed_when: false",
    ),
    Module(
        "uri", "Make an HTTP request.", UriArgs, _uri,
        example="- uri: {url: \"{{ lookup('env', 'HOOK') }}\", method: POST, body: {text: done}}",
    ),
)  # fmt: skip
