"""The shipped nginx configuration, with a real nginx: files come through it, and nothing that is closed does."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pytest

from scalelite.flows import tokens
from scalelite.sim import write_archive
from tests.recordings.conftest import recorded
from tests.web.conftest import DOMAIN, eventually
from tests.web.test_playback import FORMATS, THEIRS, assert_nothing, paths, sent, theatre

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.conftest import Cluster
    from tests.web.test_playback import Theatre

SHIPPED: Final = Path(__file__).parents[2] / "deploy" / "nginx" / "scalelite.conf"
AROUND: Final = """
daemon off;
user {user};
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    types {{ text/html html; text/css css; video/mp4 m4v; application/xml xml; application/javascript js; }}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/scalelite.conf;
}}
"""
pytestmark = pytest.mark.needs("nginx")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def nginx(folder: Path, service_port: int, published: Path) -> AsyncIterator[int]:
    """Run nginx with the shipped configuration, filled in; yields its port."""
    port = free_port()
    player = folder / "player" / "playback" / "presentation" / "2.3"
    for name in ("static", "styles"):
        (player / name).mkdir(parents=True)
    (player / "styles" / "player.css").write_text("its style")
    (player / "index.html").write_text("the player")
    (player / "static" / "player.js").write_text("its script")
    filled = SHIPPED.read_text()
    for name, value in {
        "SCALELITE_ADDRESS": f"127.0.0.1:{service_port}",
        "LISTEN;": f"127.0.0.1:{port};",
        "SERVER_NAME": DOMAIN,
        "PLAYER_ROOT": str(folder / "player"),
        "PUBLISH_DIR": str(published),
    }.items():
        filled = filled.replace(name, value)
    (folder / "scalelite.conf").write_text(filled)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, user="root" if os.getuid() == 0 else "nobody"))
    program = await asyncio.create_subprocess_exec("nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"))

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(listens, 10)
        yield port
    finally:
        program.terminate()
        await program.wait()


@pytest.fixture
async def house(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Theatre]:
    """The theatre, asked through nginx."""
    it = await theatre(cluster, tmp_path, {"TRUSTED_PROXIES": "127.0.0.1"})
    (tmp_path / "nginx").mkdir()
    async with (
        nginx(tmp_path / "nginx", it.service.port, tmp_path / "published") as port,
        aiohttp.ClientSession() as session,
    ):
        yield dataclasses.replace(it, service=dataclasses.replace(it.service, port=port, session=session))


@pytest.mark.shows("recordings: X-Accel-Redirect", "issue F: nginx", "RE-7")
async def test_files_and_the_player_come_through_nginx(house: Theatre) -> None:
    ours = house.open.record_id
    for path, body, kind in (
        (f"/video/{ours}/video-0.m4v", b"video video-0.m4v", "video/mp4"),
        (f"/video/{ours}/", b"video index.html", "text/html"),
        (f"/playback/video/{ours}/", b"video index.html", "text/html"),
        (f"/recording/screenshare/{ours}/", b"screenshare index.html", "text/html"),
        (f"/podcast/{ours}/audio.ogg", b"podcast audio.ogg", "audio/ogg"),
        (f"/playback/presentation/2.3/{ours}", b"the player", "text/html"),
        ("/playback/presentation/2.3/static/player.js", b"its script", "application/javascript"),
        ("/playback/presentation/2.3/styles/player.css", b"its style", "text/css"),
    ):
        answer = await house.get(path)
        assert (answer.status, answer.body) == (200, body), path
        assert answer.headers["Content-Type"].startswith(kind), path
        assert "X-Accel-Redirect" not in answer.headers
    part = await house.get(f"/video/{ours}/video-0.m4v", headers={"Range": "bytes=6-12"})
    assert (part.status, part.body) == (206, b"video-0")
    listed = await house.service.call("getRecordings", {"recordID": ours})
    assert listed.succeeded


@pytest.mark.shows("recordings: playback", "issue F: nginx", "RE-7")
async def test_a_protected_recording_opens_once_through_nginx(house: Theatre) -> None:
    for name, link in (await house.links(house.closed)).items():
        opened = await house.get(link)
        assert opened.status == 307
        cookies = opened.headers.getall("Set-Cookie")  # type: ignore[attr-defined]
        await assert_nothing(house, link)
        page = await house.get(f"/{name}/{house.closed.record_id}/metadata.xml", headers=sent(cookies[0]))
        assert page.status == 200
        assert page.body.startswith(b"<?xml")
        await assert_nothing(house, opened.location)
        assert (await house.get(opened.location, headers=sent(cookies[-1]))).status == 200


@pytest.mark.shows("RE-7", "issue F: nginx", "issue F: every path x every format")
async def test_every_closed_path_is_the_same_404_through_nginx(house: Theatre) -> None:
    for name in FORMATS:
        cookie = sent((await house.cookies(house.other, name))[0])
        for path in paths(house.closed, name):
            await assert_nothing(house, path)
            await assert_nothing(house, path, headers=cookie)
        for path in paths(house.foreign, name):
            await assert_nothing(house, path)
        for path in paths(house.closed, name)[1:6]:
            for way in (path, path.replace("/", "//"), f"/static/..{path}", f"{path}?x", f"/./{path}"):
                await assert_nothing(house, f"/static-resource{way}")
            await assert_nothing(house, f"/playback/presentation/2.3/static/../../../..{path}")
    await assert_nothing(house, f"/video/{house.open.record_id}/missing.m4v")
    await assert_nothing(house, "/playback/presentation/2.3/static/missing.js")
    await assert_nothing(house, f"/video/{house.open.record_id}/css/")
    await assert_nothing(house, f"/static-resource/playback/presentation/2.3/{house.open.record_id}")


@pytest.mark.shows("RE-7", "issue F: nginx")
async def test_what_is_unpublished_is_gone_through_nginx(house: Theatre) -> None:
    for name in FORMATS:
        assert (await house.get(f"/{name}/{house.open.record_id}/metadata.xml")).status == 200
    for what in (house.open, house.closed):
        cookies = {name: sent((await house.cookies(what, name))[0]) if what is house.closed else {} for name in FORMATS}
        done = await house.service.call("publishRecordings", {"recordID": what.record_id, "publish": "false"})
        assert done.succeeded
        for name in FORMATS:
            for path in paths(what, name):
                await assert_nothing(house, path, headers=cookies[name])
                await assert_nothing(house, path, host=THEIRS)


@pytest.mark.shows("recordings: import over HTTP", "issue F: nginx")
async def test_archives_are_sent_through_nginx(house: Theatre, tmp_path: Path) -> None:
    token = await tokens.add(house.cluster.connection, "sender", "import", "tests")
    large = {f"podcast/{recorded(9).record_id}/large.bin": bytes(3 << 20)}
    archive = write_archive(recorded(9), tmp_path / "elsewhere", ("podcast",), replaced=large).read_bytes()
    body: Any = io.BytesIO(archive)
    sent = await house.service.send(
        "/scalelite/api/recordings", method="POST", headers={"Authorization": f"Bearer {token}"}, body=body
    )
    assert sent.status == 202
    (kept,) = (tmp_path / "spool").glob("*.tar")
    assert kept.read_bytes() == archive
