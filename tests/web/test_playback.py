"""Recordings are played by those who may, and for all others there is nothing: the same nothing, byte for byte."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from scalelite.core.playback import takes_same_site_none
from scalelite.flows import importer
from scalelite.settings import read_settings
from scalelite.sim import write_archive
from scalelite.wiring import open_services
from tests.recordings.conftest import environment, recorded
from tests.web.conftest import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalelite.flows.services import Services
    from scalelite.sim import Recorded
    from tests.web.conftest import Answer, Cluster, Service

FORMATS: Final = ("presentation", "video", "screenshare", "podcast", "notes")
MINE: Final = f"tenant1.{DOMAIN}"
THEIRS: Final = f"tenant2.{DOMAIN}"


def paths(what: Recorded, name: str) -> list[str]:
    """Every way to a format: its link, its page, its folder, its files, its picture, where BigBlueButton has it."""
    ours = what.record_id
    return [
        f"/recording/{ours}/{name}",
        f"/{name}/{ours}",
        f"/{name}/{ours}/",
        f"/{name}/{ours}/metadata.xml",
        f"/{name}/{ours}/index.html",
        f"/{name}/{ours}/presentation/deck/thumbnails/thumb-1.png",
        f"/playback/{name}/{ours}/",
        f"/playback/{name}/2.3/{ours}",
        f"/playback/{name}/2.3/{ours}/",
        f"/recording/{name}/{ours}/",
        f"/recording/{name}/{ours}/metadata.xml",
    ]


@dataclass
class Theatre:
    """A service with recordings: two protected ones of tenant1, an open one of it, an open one of tenant2."""

    service: Service
    services: Services
    cluster: Cluster
    closed: Recorded
    other: Recorded
    open: Recorded
    foreign: Recorded

    async def get(self, path: str, *, host: str = MINE, **how: Any) -> Answer:
        return await self.service.send(path, host=host, **how)

    async def links(self, what: Recorded) -> dict[str, str]:
        """The links that getRecordings gives, by format, without their hosts."""
        answer = await self.service.call("getRecordings", {"recordID": what.record_id})
        formats = answer.root.iterfind("recordings/recording/playback/format")
        return {
            each.findtext("type") or "": re.sub("https://[^/]*", "", each.findtext("url") or "") for each in formats
        }

    async def cookies(self, what: Recorded, name: str) -> list[str]:
        """What a browser gets for opening a link."""
        answer = await self.get((await self.links(what))[name])
        assert answer.status == 307
        return answer.headers.getall("Set-Cookie")  # type: ignore[attr-defined, no-any-return]


def sent(cookie: str) -> dict[str, str]:
    return {"Cookie": cookie.partition(";")[0]}


async def theatre(cluster: Cluster, folder: Path, variables: Mapping[str, str]) -> Theatre:
    await cluster.start(1, environment={**environment(folder), "RECORDING_SERVE_FILES": "false", **variables})
    rows = await cluster.connection.execute("SELECT name, id FROM tenant")
    tenants = {row["name"]: str(row["id"]) for row in await rows.fetchall()}
    made = [
        recorded(number, metadata={"tenant-id": tenants[tenant]})
        for number, tenant in enumerate(("tenant1", "tenant1", "tenant1", "tenant2"))
    ]
    for what in made:
        write_archive(what, folder / "spool", FORMATS)
    settings = read_settings({**cluster.environment})
    services = await cluster.stack.enter_async_context(open_services(settings, cluster.conninfo, name="tests"))
    await importer.import_waiting(services, settled_s=-60)
    ids = ",".join(what.record_id for what in made[:2])
    await cluster.services[0].call("updateRecordings", {"recordID": ids, "protect": "true"})
    return Theatre(cluster.services[0], services, cluster, *made)


@pytest.fixture
async def behind_nginx(cluster: Cluster, tmp_path: Path) -> Theatre:
    return await theatre(cluster, tmp_path, {})


@pytest.fixture
async def alone(cluster: Cluster, tmp_path: Path) -> Theatre:
    return await theatre(cluster, tmp_path, {"RECORDING_SERVE_FILES": "true"})


def nothing(answer: Answer) -> tuple[int, bytes, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in {"date", "keep-alive"}}
    return answer.status, answer.body, headers


async def assert_nothing(theatre: Theatre, path: str, **how: Any) -> None:
    """There is nothing, exactly as for a recording that never was."""
    unknown = nothing(await theatre.get("/presentation/never-was/x"))
    assert unknown[0] == 404
    assert nothing(await theatre.get(path, **how)) == unknown, (path, how)


# --- what is closed --------------------------------------------------------------------------------------------------


@pytest.mark.shows("RE-7", "recordings: playback", "issue F: every path x every format")
async def test_every_path_of_every_format_of_a_protected_recording_is_closed(behind_nginx: Theatre) -> None:
    it = behind_nginx
    used = {name: link for name, link in (await it.links(it.closed)).items() if (await it.get(link)).status == 307}
    assert used.keys() == set(FORMATS)
    others_links = await it.links(it.other)
    for name in FORMATS:
        mine = await it.cookies(it.closed, name)
        others = await it.cookies(it.other, name)
        token = others_links[name].partition("?")[2]
        for path in paths(it.closed, name):
            await assert_nothing(it, path)
            await assert_nothing(it, f"{path}?token=")
            await assert_nothing(it, f"{path}?token={'0' * 64}")
            await assert_nothing(it, f"{path}?{token}")
            await assert_nothing(it, f"{path}?{used[name].partition('?')[2]}")
            await assert_nothing(it, path, headers={"Cookie": "scalelite_playback=9999999999.00"})
            await assert_nothing(it, path, headers=sent(others[0]))
            await assert_nothing(it, path, headers=sent(mine[0]), host=THEIRS)
        for other_format in set(FORMATS) - {name}:
            await assert_nothing(it, f"/{other_format}/{it.closed.record_id}/metadata.xml", headers=sent(mine[0]))


@pytest.mark.shows("RE-7", "recordings: playback", "issue F: every path x every format")
async def test_what_is_unpublished_or_deleted_is_closed_also_with_a_good_cookie(behind_nginx: Theatre) -> None:
    it = behind_nginx
    cookies = {name: sent((await it.cookies(it.closed, name))[0]) for name in FORMATS}
    links = await it.links(it.closed)
    for call, params in (("publishRecordings", {"publish": "false"}), ("deleteRecordings", {})):
        for what in (it.closed, it.open):
            done = await it.service.call(call, {"recordID": what.record_id, **params})
            assert done.succeeded
            for name in FORMATS:
                await assert_nothing(it, links[name])
                for path in paths(what, name):
                    await assert_nothing(it, path, headers=cookies[name])


@pytest.mark.shows("RE-7", "bbb-api: tenants")
async def test_foreign_hosts_and_strange_paths_are_closed(behind_nginx: Theatre) -> None:
    it = behind_nginx
    for name in FORMATS:
        for path in paths(it.foreign, name):
            await assert_nothing(it, path)
            await assert_nothing(it, path, host=f"nobody.{DOMAIN}")
            await assert_nothing(it, path, host="elsewhere.example.com")
    ours = it.open.record_id
    for path in (
        f"/presentation/{ours}/../{it.closed.record_id}/metadata.xml",
        f"/presentation/{ours}/%2e%2e/{it.closed.record_id}/metadata.xml",
        f"/presentation/{ours}/..%2f{it.closed.record_id}%2fmetadata.xml",
        f"/presentation/{ours}%2f..%2f{it.closed.record_id}/metadata.xml",
        f"/presentation/{ours}/%00",
        f"/presentation/{ours}/a%5c..%5cb",
        f"/presentation/{ours}/%ff",
        f"/presentation/{ours}//metadata.xml",
        f"/presentation//{ours}/metadata.xml",
        f"/playback/presentation/2.3/../{ours}",
        f"/recording/{ours}/statistics",
        "/presentation/" + "a" * 200,
        "/presentation/",
        "/recording/",
    ):
        await assert_nothing(it, path)


@pytest.mark.shows("RE-7", "settings: PROTECTED_RECORDINGS_TOKEN_TIMEOUT, PROTECTED_RECORDINGS_TIMEOUT")
async def test_tokens_and_cookies_expire(behind_nginx: Theatre) -> None:
    it = behind_nginx
    links = await it.links(it.closed)
    await it.cluster.connection.execute("UPDATE playback_token SET expires_at = now() - interval '1 second'")
    await assert_nothing(it, links["video"])
    cookie = sent((await it.cookies(it.closed, "video"))[0])["Cookie"]
    expires, _, signature = cookie.partition("=")[2].partition(".")
    for forged in (f"{int(expires) + 1}.{signature}", f"{expires}.{signature[:-1]}", expires, f".{signature}", "é.é"):
        headers = {"Cookie": f"scalelite_playback={forged}"}
        await assert_nothing(it, f"/video/{it.closed.record_id}/", headers=headers)


# --- what is open ----------------------------------------------------------------------------------------------------


@pytest.mark.shows("recordings: playback", "recordings: X-Accel-Redirect")
async def test_nginx_is_told_what_to_deliver(behind_nginx: Theatre) -> None:
    it = behind_nginx
    ours = it.open.record_id
    for path, resource in (
        (f"/playback/presentation/2.3/{ours}", f"/playback/presentation/2.3/{ours}"),
        (f"/podcast/{ours}/audio.ogg", f"/podcast/{ours}/audio.ogg"),
        (f"/recording/screenshare/{ours}/", f"/screenshare/{ours}/"),
        (f"/playback/video/{ours}/video-0.m4v?x=1", f"/video/{ours}/video-0.m4v"),
        (f"/presentation/{ours}/a%20b%c3%a4.html", f"/presentation/{ours}/a%20b%C3%A4.html"),
    ):
        for method in ("GET", "HEAD"):
            answer = await it.get(path, method=method)
            assert (answer.status, answer.body) == (200, b"")
            assert answer.headers["X-Accel-Redirect"] == f"/static-resource{resource}"
            assert "Set-Cookie" not in answer.headers
            kind = "text/html" if resource.endswith(("/", ours, ".html")) else answer.headers["Content-Type"]
            assert answer.headers["Content-Type"].startswith(kind)
    refused = await it.get(f"/recording/{ours}/presentation", method="POST")
    assert refused.key == "unsupportedRequest"


@pytest.mark.shows("recordings: playback")
async def test_a_link_leads_to_its_page(behind_nginx: Theatre) -> None:
    it = behind_nginx
    ours = it.open.record_id
    for name, page in (
        ("presentation", f"/playback/presentation/2.3/{ours}"),
        ("video", f"/playback/video/{ours}/"),
        ("screenshare", f"/recording/screenshare/{ours}/"),
        ("podcast", f"/podcast/{ours}/audio.ogg"),
        ("notes", f"/notes/{ours}/notes.pdf"),
    ):
        for method in ("GET", "HEAD"):
            answer = await it.get(f"/recording/{ours}/{name}", method=method)
            assert (answer.status, answer.location) == (307, page)
            assert "Set-Cookie" not in answer.headers
            assert (await it.get(page, method=method)).status == 200


@pytest.mark.shows("recordings: playback", "RE-7")
async def test_the_link_of_an_archive_opens_no_other_recording(behind_nginx: Theatre) -> None:
    it = behind_nginx
    for page in (
        f"/video/{it.closed.record_id}/",
        f"/podcast/{it.open.record_id}/",
        "/bigbluebutton/api",
        "//evil.example.com/",
    ):
        await it.cluster.connection.execute(
            "UPDATE playback_format SET url = %s FROM recording r"
            " WHERE r.id = recording AND r.record_id = %s AND format = 'video'",
            (page, it.open.record_id),
        )
        await assert_nothing(it, f"/recording/{it.open.record_id}/video")


@pytest.mark.shows("recordings: playback", "RE-7")
async def test_a_token_opens_once_and_the_cookie_goes_on(behind_nginx: Theatre) -> None:
    it = behind_nginx
    for name, link in (await it.links(it.closed)).items():
        first = await it.get(link)
        cookies = first.headers.getall("Set-Cookie")  # type: ignore[attr-defined]
        assert {f"Path=/recording/{it.closed.record_id}/{name}", f"Path=/{name}/{it.closed.record_id}"} <= {
            part.strip() for cookie in cookies for part in cookie.split(";")
        }
        assert all(cookie.endswith("; Max-Age=21600; HttpOnly; Secure; SameSite=None") for cookie in cookies)
        await assert_nothing(it, link)
        for path in (first.location, f"/{name}/{it.closed.record_id}/metadata.xml"):
            await assert_nothing(it, path)
            opened = await it.get(path, headers=sent(cookies[0]))
            assert opened.headers["X-Accel-Redirect"].startswith("/static-resource/")
            assert "Set-Cookie" not in opened.headers
        assert (await it.get(link, headers=sent(cookies[0]))).status == 307


@pytest.mark.shows("recordings: SameSite=None where the browser can")
@pytest.mark.parametrize(
    ("knows", "user_agent"),
    [
        (True, ""),
        (True, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"),
        (False, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/60.0.3112.113 Safari"),
        (False, "Mozilla/5.0 (iPhone; CPU iPhone OS 12_4 like Mac OS X) AppleWebKit/605.1.15 Version/12.1.2 Safari"),
        (True, "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Version/17.4 Safari"),
        (False, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/605.1.15 Version/12.1 Safari/605.1.15"),
        (True, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/537.36 Chrome/90.0.1 Safari/537.36"),
        (False, "Mozilla/5.0 (Linux; U; Android 9; en-US) AppleWebKit/537.36 UCBrowser/12.11.1.1197 Mobile Safari"),
        (True, "Mozilla/5.0 (Linux; U; Android 9; en-US) AppleWebKit/537.36 UCBrowser/12.13.2.1000 Mobile Safari"),
    ],
)
def test_old_browsers_get_no_same_site(knows: bool, user_agent: str) -> None:
    assert takes_same_site_none(user_agent) is knows


@pytest.mark.shows("recordings: playback", "recordings: RECORDING_SERVE_FILES")
async def test_files_are_served_with_ranges_where_there_is_no_nginx(alone: Theatre, tmp_path: Path) -> None:
    it = alone
    path = f"/video/{it.open.record_id}/video-0.m4v"
    whole = await it.get(path)
    assert (whole.status, whole.body, whole.headers["Content-Type"]) == (200, b"video video-0.m4v", "video/mp4")
    for asked, status, body, said in (
        ("bytes=0-4", 206, b"video", "bytes 0-4/17"),
        ("bytes=6-", 206, b"video-0.m4v", "bytes 6-16/17"),
        ("bytes=-3", 206, b"m4v", "bytes 14-16/17"),
        ("bytes=5-99", 206, b" video-0.m4v", "bytes 5-16/17"),
        ("bytes=17-", 416, b"", "bytes */17"),
        ("bytes=-0", 416, b"", "bytes */17"),
        ("bytes=4-2", 416, b"", "bytes */17"),
        ("bytes=0-1,3-4", 200, b"video video-0.m4v", None),
        ("lines=0-1", 200, b"video video-0.m4v", None),
    ):
        part = await it.get(path, headers={"Range": asked})
        assert (part.status, part.body, part.headers.get("Content-Range")) == (status, body, said), asked
    head = await it.get(path, method="HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "17")
    assert (await it.get(f"/video/{it.open.record_id}/")).body == b"video index.html"
    (tmp_path / "published" / "video" / it.open.record_id / "empty.txt").touch()
    empty = await it.get(f"/video/{it.open.record_id}/empty.txt")
    assert (empty.status, empty.body, empty.headers["Content-Length"]) == (200, b"", "0")
    assert (await it.get(path)).status == 200
    await assert_nothing(it, f"/video/{it.open.record_id}/not-there")
    await assert_nothing(it, f"/video/{it.open.record_id}/css")


@pytest.mark.shows("recordings: playback", "recordings: RECORDING_SERVE_FILES", "RE-7")
async def test_a_protected_link_leads_to_its_page_where_there_is_no_nginx(alone: Theatre) -> None:
    it = alone
    opened = await it.get((await it.links(it.closed))["video"])
    assert (opened.status, opened.location) == (307, f"/playback/video/{it.closed.record_id}/")
    cookies = opened.headers.getall("Set-Cookie")  # type: ignore[attr-defined]
    assert f"Path=/playback/video/{it.closed.record_id}" in cookies[2]
    await assert_nothing(it, opened.location)
    page = await it.get(opened.location, headers=sent(cookies[2]))
    assert (page.status, page.body) == (200, b"video index.html")
    assert page.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.shows("recordings: playback")
async def test_links_out_of_a_recording_lead_nowhere(alone: Theatre, tmp_path: Path) -> None:
    folder = tmp_path / "published" / "video" / alone.open.record_id
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "closed").symlink_to(tmp_path / "published" / "video" / alone.closed.record_id)
    await assert_nothing(alone, f"/video/{alone.open.record_id}/out")
    await assert_nothing(alone, f"/video/{alone.open.record_id}/closed/index.html")


@pytest.mark.shows("RE-8", "recordings: links use the tenant's public address")
async def test_links_use_the_tenants_public_address(behind_nginx: Theatre) -> None:
    it = behind_nginx
    it.cluster.tenant("tenant1", public_url="https://video.acme.example/")
    await it.cluster.apply()
    answer = await it.service.call(
        "getRecordings", {"recordID": it.open.record_id}, headers={"X-Forwarded-Host": "evil"}
    )
    urls = [node.text or "" for node in answer.root.iter("url", "image")]
    assert urls
    assert all(url.startswith("https://video.acme.example/") for url in urls)
