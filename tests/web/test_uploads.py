"""Archives that are sent over HTTP: into the spool, whole or not at all, from who may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest

from scalelite.flows import importer, tokens
from scalelite.sim import write_archive
from tests.recordings.conftest import environment, recorded
from tests.recordings.test_full_disk import small

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.conftest import Answer, Cluster, Service

PATH: Final = "/scalelite/api/recordings"


async def send(service: Service, body: bytes, token: str) -> Answer:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return await service.send(PATH, method="POST", body=body, headers=headers)


@pytest.mark.shows("recordings: import over HTTP", "issue F: import")
async def test_an_archive_is_sent_and_imported(cluster: Cluster, tmp_path: Path) -> None:
    service = await cluster.start(1, environment=environment(tmp_path))
    archive = write_archive(recorded(), tmp_path / "elsewhere").read_bytes()
    made = {scope: await tokens.add(cluster.connection, scope, scope, "tests") for scope in ("import", "admin", "read")}
    for token, status in (
        ("", 401),
        ("slt_wrong", 401),
        (made["read"], 403),
        (made["import"], 202),
        (made["admin"], 202),
    ):
        answer = await send(service, archive, token)
        assert answer.status == status, answer.body
    spool = tmp_path / "spool"
    assert [path.read_bytes() for path in spool.iterdir()] == [archive, archive]
    outcomes = await importer.import_waiting(await cluster.poller(), settled_s=-60)
    assert [outcome.imported for outcome in outcomes] == [(recorded().record_id,)] * 2
    assert not list(spool.iterdir())


@pytest.mark.shows("recordings: import over HTTP", "recordings: nothing is lost")
async def test_an_upload_that_breaks_off_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    service = await cluster.start(1, environment=environment(tmp_path))
    token = await tokens.add(cluster.connection, "sender", "import", "tests")
    spool = tmp_path / "spool"
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    lines = ("Host: tenant1.sl.localhost", f"Authorization: Bearer {token}", "Content-Length: 90000", "", "")
    writer.write("\r\n".join((f"POST {PATH} HTTP/1.1", *lines)).encode() + b"x" * 30000)
    await writer.drain()
    for _ in range(200):
        if spool.is_dir() and any(spool.iterdir()):
            break
        await asyncio.sleep(0.01)
    assert [path.name.startswith(".") for path in spool.iterdir()] == [True]
    writer.close()
    for _ in range(500):
        if not any(spool.iterdir()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the part stays")


@pytest.mark.needs("mount -t tmpfs")
@pytest.mark.shows("recordings: import over HTTP", "recordings: nothing is lost", "issue F: a disk that is full")
async def test_an_archive_that_does_not_fit_is_refused_and_can_be_sent_again(cluster: Cluster, tmp_path: Path) -> None:
    service = await cluster.start(1, environment=environment(tmp_path))
    token = await tokens.add(cluster.connection, "sender", "import", "tests")
    large = {f"podcast/{recorded().record_id}/large.bin": bytes(64 << 10)}
    archive = write_archive(recorded(), tmp_path / "elsewhere", ("podcast",), replaced=large).read_bytes()
    with small(tmp_path / "spool") as ballast:
        refused = await send(service, archive, token)
        assert (refused.status, b"again" in refused.body) == (507, True)
        assert [path.name for path in ballast.parent.iterdir()] == [ballast.name]
        ballast.unlink()
        assert (await send(service, archive, token)).status == 202
        (outcome,) = await importer.import_waiting(await cluster.poller(), settled_s=-60)
        assert outcome.imported
