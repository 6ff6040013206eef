"""A bucket for tests, and a thing between that lets requests to it fail, or something else happen at one of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from aiohttp import web
from yarl import URL

from scalelite.core.recording import folder_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from scalelite.core.recording import Recording
    from scalelite.edge.objects import Objects
    from scalelite.flows.services import Services
    from tests.recordings.conftest import Desk

BUCKET: Final = "recordings"
_NOT_PASSED_ON: Final = ("Host", "Content-Length", "Transfer-Encoding", "Connection", "Date", "Server")


def variables(s3: str, bucket: str = BUCKET) -> dict[str, Any]:
    """The settings of an importer whose files are in a bucket."""
    return {
        "S3_RECORDING": "true",
        "S3_BUCKET_NAME": bucket,
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_ENDPOINT_URL": s3,
    }


async def made_bucket(s3: str, bucket: str = BUCKET) -> None:
    """Make a bucket; moto's server asks for no signature."""
    async with aiohttp.request("PUT", f"{s3}/{bucket}") as answer:
        assert answer.status in {200, 409}


async def with_bucket(desk: Desk, s3: str) -> Services:
    """An importer with an empty bucket."""
    await made_bucket(s3)
    services = await desk.open(**variables(s3))
    await cast("Objects", services.recordings)._delete(await keys(services))
    return services


async def keys(services: Services, prefix: str = "") -> list[str]:
    return [key async for key in cast("Objects", services.recordings)._keys(prefix)]


async def content(services: Services, name: str, start: int = 0, length: int = 1 << 30) -> bytes:
    return b"".join([chunk async for chunk in services.recordings.read(name, start, length)])


def place(recording: Recording, format_name: str) -> str:
    """Where the files of a format are that count."""
    (generation,) = [each.generation for each in recording.formats if each.format == format_name]
    return folder_of(recording.record_id, format_name, generation)


class Between:
    """Stands between an importer and the S3 server: before or after the n-th request is done, something happens.

    With a status, that is the answer; before it, nothing is done then. `cut`: the answer breaks off in the middle.
    """

    def __init__(self, s3: str) -> None:
        self.s3 = s3
        self.address = ""
        self.count = 0
        self.expect(-1)

    def expect(
        self,
        at: int,
        happens: Callable[[web.Request], object] = bool,
        *,
        after: bool = False,
        status: int | None = None,
        cut: bool = False,
    ) -> None:
        """Let something happen at that request, counted from 0 and from now on."""
        self.count, self.at, self.happens, self.after, self.status = 0, at, happens, after, status
        self.cut = cut

    @property
    def was_reached(self) -> bool:
        return self.count > self.at

    async def answer(self, request: web.Request) -> web.StreamResponse:
        number, self.count = self.count, self.count + 1
        body = await request.read()
        if number != self.at:
            return await self.pass_on(request, body)
        if not self.after:
            await self.happen(request)
        if self.status and not self.after:
            return web.Response(status=self.status)
        answered = await self.pass_on(request, body)
        if self.after:
            await self.happen(request)
        if self.cut:
            return await self.broken_off(request, answered)
        return web.Response(status=self.status) if self.status else answered

    async def broken_off(self, request: web.Request, answered: web.Response) -> web.StreamResponse:
        assert isinstance(answered.body, bytes)
        begun = web.StreamResponse(status=answered.status, headers={"Content-Length": str(len(answered.body) + 1)})
        await begun.prepare(request)
        await begun.write(answered.body[: len(answered.body) // 2])
        assert request.transport
        request.transport.abort()
        return begun

    async def happen(self, request: web.Request) -> None:
        done = self.happens(request)
        if hasattr(done, "__await__"):
            await cast("Awaitable[object]", done)

    async def pass_on(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED_ON}
        url = URL(self.s3 + request.raw_path, encoded=True)
        async with aiohttp.request(
            request.method, url, data=body, headers=headers, skip_auto_headers=["Content-Type"]
        ) as found:
            content = await found.read()
            kept = {name: value for name, value in found.headers.items() if name not in _NOT_PASSED_ON}
            if request.method == "HEAD":
                kept["Content-Length"] = found.headers["Content-Length"]
            return web.Response(status=found.status, body=content, headers=kept)


@asynccontextmanager
async def between(s3: str) -> AsyncIterator[Between]:
    it = Between(s3)
    server = web.Application(client_max_size=1 << 30)
    server.router.add_route("*", "/{rest:.*}", it.answer)
    runner = web.AppRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    it.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield it
    finally:
        await runner.cleanup()
