"""Routes of recordings: the link that opens one, and its files; nginx delivers them, or we do, with ranges."""

from __future__ import annotations

import logging
import mimetypes
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sanic import HTTPResponse, Request
from sanic.response import html, redirect

from scalelite.core.playback import COOKIE
from scalelite.errors import DatabaseAway, NotPlayable, StorageAway
from scalelite.flows.playback import Asked
from scalelite.web.bbb_api import host_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sanic import Sanic

    from scalelite.core.playback import Target
    from scalelite.flows.playback import Granted, Playback
    from scalelite.settings import Settings

log = logging.getLogger(__name__)

# Where nginx has the files, for requests of ours alone (deploy/nginx).
INTERNAL: Final = "/static-resource"
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_TYPES: Final = {".m4v": "video/mp4", ".vtt": "text/vtt; charset=utf-8", ".ogg": "audio/ogg", ".webm": "video/webm"}
_NOT_FOUND: Final = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>No such recording</title></head>
<body><h1>No such recording</h1><p>There is nothing to play at this address, or not for you, or not any more.</p></body>
</html>
"""
_AWAY: Final = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Not now</title></head>
<body><h1>Not now</h1><p>Recordings cannot be played at the moment. Try again in a minute.</p></body>
</html>
"""


def add_routes(app: Sanic[Any, Any], settings: Settings) -> None:
    """Add a route for each folder of URLs under which recordings are."""
    for name in dict.fromkeys(("recording", "playback", *settings.recording_formats)):
        app.add_route(play, f"/{name}/<rest:path>", methods=("GET", "HEAD"), name=f"play_{name}")


async def play(request: Request, rest: str) -> HTTPResponse | None:  # noqa: ARG001 - the path is read whole
    """Deliver what may be played; the rest is not there."""
    worker: Playback = request.app.ctx.playback
    settings: Settings = request.app.ctx.settings
    asked = Asked(
        host=host_of(request, settings),
        path=request.path,
        token=request.args.get("token", ""),
        cookies=request.cookies.getlist(COOKIE) or (),
        user_agent=request.headers.get("user-agent", ""),
    )
    try:
        granted = await worker.grant(asked)
        if granted.page:
            return _opened(granted)
        if settings.recording_serve_files or (settings.s3_recording and not granted.target.player):
            return await _deliver_what_counts(request, worker, asked, granted)
    except NotPlayable:
        return html(_NOT_FOUND, 404, {"Cache-Control": "no-store"})
    except (DatabaseAway, StorageAway) as error:
        log.warning("%s: %s", request.path, error)
        return html(_AWAY, 503, {"Cache-Control": "no-store", "Retry-After": "5"})
    headers = {"X-Accel-Redirect": INTERNAL + granted.target.resource, **_kept(granted)}
    return HTTPResponse(headers=headers, content_type=_type(granted.target))


def _opened(granted: Granted) -> HTTPResponse:
    """Lead on from a link to its page, as Scalelite does: the player reads the id in its path, pages what is beside."""
    response = redirect(granted.page, headers=_kept(granted), status=307)
    for cookie in granted.cookies:
        response.headers.add("Set-Cookie", cookie)
    return response


def _kept(granted: Granted) -> dict[str, str]:
    """What was protected is asked for again each time, and no proxy keeps it."""
    return {"Cache-Control": "private, no-cache"} if granted.protected else {}


async def _deliver_what_counts(
    request: Request, worker: Playback, asked: Asked, granted: Granted
) -> HTTPResponse | None:
    """Send a file; an import that ends just now may have put another in its place."""
    try:
        return await _deliver(request, worker, granted)
    except NotPlayable:
        newer = await worker.grant(asked)
        if newer.file == granted.file:
            raise
        return await _deliver(request, worker, newer)


async def _deliver(request: Request, worker: Playback, granted: Granted) -> HTTPResponse | None:
    """Send a file of a recording; the player is not among those."""
    if granted.target.player:
        raise NotPlayable
    storage, name = worker.services.recordings, granted.file
    with _away():
        size = await storage.size(name)
    if size is None:
        raise NotPlayable
    headers = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff", **_kept(granted)}
    kind = _type(granted.target)
    part = _part(request.headers.get("range", ""), size)
    if part is None:
        return HTTPResponse(status=416, headers={**headers, "Content-Range": f"bytes */{size}"}, content_type=kind)
    start, length = part
    status = 206 if length != size else 200
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        return HTTPResponse(status=status, headers=headers, content_type=kind)
    chunks = storage.read(name, start, length)
    with _away():  # before the status is told
        first = await anext(chunks, b"")
    if length and not first:
        raise NotPlayable
    stream = await request.respond(status=status, headers=headers, content_type=kind)
    await stream.send(first)
    async for chunk in chunks:
        await stream.send(chunk)
    await stream.eof()
    return None


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageAway(str(error)) from None


def _part(header: str, size: int) -> tuple[int, int] | None:
    """Return start and length of the one range that is asked for; all for none or several, None for one outside."""
    match = _RANGE.fullmatch(header.strip())
    if not match or match[0] == "bytes=-":
        return 0, size
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, length) if length else None
    start, end = int(first), min(int(last or size - 1), size - 1)
    return (start, end - start + 1) if start <= end else None


def _type(target: Target) -> str:
    name = target.file
    ending = name[name.rfind(".") :].lower()
    return _TYPES.get(ending) or mimetypes.guess_type(name)[0] or "application/octet-stream"
