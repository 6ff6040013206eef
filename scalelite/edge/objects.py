"""Files of recordings in S3-compatible object storage: keys are FORMAT/RECORD_ID.GENERATION/PATH, published or not.

The bucket must not be public: what may be seen is decided by the rows, and files go through this program. Plain signed
requests, with answers of no more than a page or a part in memory. All that goes wrong is an OSError.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape

import aiohttp
from yarl import URL

from scalelite.core import wire
from scalelite.core.recording import RECORD_ID, folder_of
from scalelite.edge.folders import CHUNK, Place
from scalelite.edge.signature import Unsigned, signed_headers
from scalelite.errors import UselessAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from lxml import etree

    from scalelite.edge.signature import Credentials

PART: Final = 16 << 20
_AT_ONCE: Final = 4
_CONNECTIONS: Final = 32
_MOST_DELETED: Final = 1000
_LAST: Final = "metadata.xml"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)


class ObjectsFailed(OSError):
    """The object storage did not do what it was asked."""


def open_session() -> aiohttp.ClientSession:
    """Make the session that the storage is asked over; files come as they are kept."""
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=["User-Agent"],
    )


@dataclass(frozen=True, slots=True)
class Objects:
    """The storage in one bucket; `endpoint` is http://HOST[:PORT] or with https."""

    session: aiohttp.ClientSession
    endpoint: str
    bucket: str
    credentials: Credentials
    now: Callable[[], datetime]
    # Of all uploads together: each has a part in memory.
    _uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    # --- as a storage ------------------------------------------------------------------------------------------------

    async def stage(self, record_id: str, format_name: str, folder: Path) -> str:
        """Upload the folder as a new generation; what says that it is whole, its metadata.xml, comes last."""
        generation = f"{int(self.now().timestamp() * 1000):013}-{secrets.token_hex(4)}"
        prefix = f"{folder_of(record_id, format_name, generation)}/"
        files = {prefix + name: path for name, path in await asyncio.to_thread(_files, folder)}
        last = files.pop(f"{prefix}{_LAST}", None)
        try:
            await self._upload_all(files)
            if last:
                await self._upload(f"{prefix}{_LAST}", last)
        except OSError:
            with suppress(OSError):  # what is left is swept up later
                await self.discard(record_id, format_name, generation)
            raise
        return generation

    async def _upload_all(self, files: Mapping[str, Path]) -> None:
        problem = ""
        try:
            async with asyncio.TaskGroup() as uploads:
                for key, path in files.items():
                    uploads.create_task(self._upload(key, path))
        except* OSError as failed:
            problem = str(failed.exceptions[0])
        if problem:
            raise ObjectsFailed(problem)

    async def discard(self, record_id: str, format_name: str, generation: str) -> None:
        """Remove the objects of a generation."""
        prefix = f"{folder_of(record_id, format_name, generation)}/"
        await self._delete([key async for key in self._keys(prefix)])

    async def place(self, record_id: str, format_name: str, folder: Path, *, published: bool) -> None:
        """Do nothing: what is staged is in its place."""

    async def move(self, record_id: str, formats: Sequence[str], *, published: bool) -> bool:  # noqa: ARG002
        """Do nothing: the row alone says whether a recording is published."""
        return True

    async def remove(self, record_id: str) -> None:
        """Remove the recording's objects of every format and generation, known or not."""
        for format_prefix in await self._folders(""):
            for end in "/.":
                await self._delete([key async for key in self._keys(f"{format_prefix}{record_id}{end}")])

    async def size(self, name: str) -> int | None:
        """Return the size of an object."""
        async with self._send("HEAD", name, allowed=(200, 404)) as answer:
            return answer.content_length if answer.status == 200 else None

    async def read(self, name: str, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield a part of an object; nothing if there is none."""
        if length <= 0:
            return
        headers = {"range": f"bytes={start}-{start + length - 1}"}
        async with self._send("GET", name, headers=headers, allowed=(200, 206, 404, 416)) as answer:
            if answer.status in {200, 206}:
                async for chunk in answer.content.iter_chunked(CHUNK):
                    yield chunk

    async def write(self, name: str, content: bytes) -> None:
        """Write an object whole."""
        async with self._send("PUT", name, body=content):
            pass

    async def places(self) -> list[Place]:
        """List what is there, whole or not; the place does not say whether it is published."""
        found = []
        for format_prefix in await self._folders(""):
            for folder in await self._folders(format_prefix):
                record_id, _, generation = folder.removeprefix(format_prefix).rstrip("/").partition(".")
                if RECORD_ID.fullmatch(record_id):
                    found.append(Place(format_prefix.rstrip("/"), record_id, None, generation))
        return found

    async def tidy(self, before_s: float) -> None:
        """Do nothing: unfinished parts are invisible, and the bucket's lifecycle rule removes them."""

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _upload(self, key: str, path: Path) -> None:
        """Upload a file, in parts if it is larger than one."""
        async with self._uploads:
            await self._upload_now(key, path)

    async def _upload_now(self, key: str, path: Path) -> None:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < PART:
                await self.write(key, await asyncio.to_thread(file.read))
                return
            upload = _text(await self._xml("POST", key, {"uploads": ""}), "UploadId")
            try:
                parts: list[str] = []
                while etag := await self._part(key, upload, len(parts) + 1, file):
                    parts.append(f"<Part><PartNumber>{len(parts) + 1}</PartNumber><ETag>{escape(etag)}</ETag></Part>")
                whole = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()
                done = await self._xml("POST", key, {"uploadId": upload}, whole)
            except BaseException:
                async with self._send("DELETE", key, {"uploadId": upload}, allowed=(204, 404)):
                    raise
        if "CompleteMultipartUploadResult" not in str(done.tag):  # this one may fail with the status 200
            raise ObjectsFailed(f"upload of {key}: {_text(done, 'Code')}")

    async def _part(self, key: str, upload: str, number: int, file: BinaryIO) -> str:
        """Send the next part of a file, of which memory holds no more than that; '' at its end."""
        if not (content := await asyncio.to_thread(file.read, PART)):
            return ""
        query = {"partNumber": str(number), "uploadId": upload}
        async with self._send("PUT", key, query, body=content) as answer:
            if not (etag := answer.headers.get("ETag", "")):
                raise ObjectsFailed(f"upload of {key}: the part {number} has no ETag")
            return etag

    async def _keys(self, prefix: str) -> AsyncIterator[str]:
        async for page in self._pages({"prefix": prefix}):
            for key in page.iterfind("{*}Contents/{*}Key"):
                yield key.text or ""

    async def _folders(self, prefix: str) -> list[str]:
        query = {"prefix": prefix, "delimiter": "/"}
        return [
            node.text or ""
            async for page in self._pages(query)
            for node in page.iterfind("{*}CommonPrefixes/{*}Prefix")
        ]

    async def _pages(self, query: dict[str, str]) -> AsyncIterator[etree._Element]:
        query = {"list-type": "2", **query}
        while True:
            page = await self._xml("GET", "", query)
            yield page
            if not (token := _text(page, "NextContinuationToken")):
                return
            query["continuation-token"] = token

    async def _delete(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _MOST_DELETED):
            named = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys[start : start + _MOST_DELETED])
            body = f"<Delete><Quiet>true</Quiet>{named}</Delete>".encode()
            digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            answer = await self._xml("POST", "", {"delete": ""}, body, {"content-md5": digest})
            if (error := answer.find("{*}Error")) is not None:
                raise ObjectsFailed(f"not deleted: {_text(error, 'Key')}: {_text(error, 'Code')}")

    async def _xml(
        self, method: str, key: str, query: dict[str, str], body: bytes = b"", headers: dict[str, str] | None = None
    ) -> etree._Element:
        async with self._send(method, key, query, body=body, headers=headers) as answer:
            try:
                return wire.parse_xml(await answer.read())
            except UselessAnswer:
                raise ObjectsFailed(f"{method} {key}: the answer is no XML") from None

    def _send(
        self,
        method: str,
        key: str,
        query: dict[str, str] | None = None,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        allowed: Iterable[int] = (200,),
    ) -> _Exchange:
        parts = urlsplit(self.endpoint)
        request = Unsigned(
            method,
            parts.netloc,
            quote(f"{parts.path.rstrip('/')}/{self.bucket}/{key}".rstrip("/"), safe="/~"),
            query or {},
            headers or {},
            body,
        )
        return _Exchange(self, request, frozenset(allowed))


@dataclass(slots=True)
class _Exchange:
    """A request while its answer is read; raises ObjectsFailed for a status that is not allowed."""

    objects: Objects
    request: Unsigned
    allowed: frozenset[int]
    _context: Any = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        request, objects = self.request, self.objects
        parts = urlsplit(objects.endpoint)
        url = f"{parts.scheme}://{request.host}{request.path}" + (f"?{request.raw_query}" if request.query else "")
        self._context = objects.session.request(
            request.method,
            URL(url, encoded=True),
            data=io.BytesIO(request.body) if request.body else None,
            headers=signed_headers(request, objects.credentials, objects.now()),
            skip_auto_headers=["Content-Type"],
            timeout=_TIMEOUT,
            allow_redirects=False,
        )
        try:
            answer: aiohttp.ClientResponse = await self._context.__aenter__()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ObjectsFailed(f"{request.method} {request.path}: {type(error).__name__}") from None
        if answer.status not in self.allowed:
            answer.release()
            raise ObjectsFailed(f"{request.method} {request.path}: status {answer.status}")
        return answer

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await self._context.__aexit__(kind, error, trace)
        if isinstance(error, aiohttp.ClientError | TimeoutError):  # while the answer was read
            raise ObjectsFailed(f"{self.request.method} {self.request.path}: {type(error).__name__}") from None


def _files(folder: Path) -> list[tuple[str, Path]]:
    found = []
    for here, _, names in os.walk(folder):
        paths = [Path(here) / name for name in names]
        found += [(path.relative_to(folder).as_posix(), path) for path in paths]
    return sorted(found)


def _text(node: etree._Element, name: str) -> str:
    return node.findtext(f"{{*}}{name}") or ""
