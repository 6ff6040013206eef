"""The module `uri`: HTTP requests, which the context makes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from scalelite.playbook.registry import Module, Outcome
from scalelite.playbook.values import Args, Duration, Many, ParamText

if TYPE_CHECKING:
    from scalelite.playbook.registry import Context


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


MODULES: Final = (
    Module(
        "uri", "Make an HTTP request.", UriArgs, _uri,
        example="- uri: {url: \"{{ lookup('env', 'HOOK') }}\", method: POST, body: {text: done}}",
    ),
)  # fmt: skip
