"""Programs on this machine and plain HTTP requests, each within a time and with a bounded answer."""

from __future__ import annotations

import asyncio
import glob
import os
import signal
from typing import TYPE_CHECKING, Final

from scalelite.errors import TaskFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_OUTPUT: Final = 1_048_576
_CHUNK: Final = 65_536


def exists(pattern: str, folder: str) -> bool:
    """Say whether there is a file of this path or pattern; a relative one is in the folder, else in the current one."""
    return bool(glob.glob(pattern, root_dir=folder or None))  # noqa: PTH207 - Path.glob takes no absolute pattern


async def execute(
    argv: Sequence[str], *, stdin: str, chdir: str, environment: Mapping[str, str], timeout_s: float
) -> tuple[int, str, str]:
    """Run a program in a session of its own, so that all of it can be killed; returns status, output and errors.

    Raises TaskFailed if it cannot be started or takes too long. Of what it prints, the first MiB is kept.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=chdir or None,
            env=dict(environment),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise TaskFailed(f"{argv[0]} cannot be run: {reason.lower()}") from None
    try:
        async with asyncio.timeout(timeout_s):
            _, out, err = await asyncio.gather(_feed(process, stdin), _read(process.stdout), _read(process.stderr))
            return await process.wait(), out, err
    except TimeoutError:
        raise TaskFailed(f"{argv[0]} was killed: it took longer than {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _feed(process: asyncio.subprocess.Process, text: str) -> None:
    if process.stdin is not None:
        process.stdin.write(text.encode())
        process.stdin.close()


async def _read(stream: asyncio.StreamReader | None) -> str:
    """Read to the end, so that the program never waits for us; keep the beginning."""
    kept = b""
    while stream is not None and (data := await stream.read(_CHUNK)):
        kept += data[: MAX_OUTPUT - len(kept)]
    return kept.decode("utf-8", "replace")


async def request(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
) -> tuple[int, Mapping[str, str], str]:
    """Make one request; redirects are not followed. Raises TaskFailed, whose words do not hold the URL's query."""
    import aiohttp  # noqa: PLC0415 - 0.1 s to import, and few playbooks need it

    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, headers=headers, data=body, allow_redirects=False) as answer,
        ):
            data = await answer.content.read(MAX_OUTPUT)
            return answer.status, dict(answer.headers), data.decode("utf-8", "replace")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise TaskFailed(f"no answer from {url.partition('?')[0]}: {type(error).__name__}") from None
