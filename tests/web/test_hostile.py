"""Hostile requests: never a 5xx, never malformed XML, and never a request to a server for a call that was refused."""

from __future__ import annotations

import asyncio
import random
import re
import string
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.web.conftest import API, BAD_CHECKSUM, DOMAIN, TENANTS, Cluster, checksum, encoded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalelite.sim.server import Request
    from tests.web.conftest import Service

HOST = f"tenant1.{DOMAIN}"
SECRET = TENANTS["tenant1"]
INDEX = f"GET {API} HTTP/1.1\r\nHost: {HOST}\r\n"


async def exchange(service: Service, *parts: bytes, pause_s: float = 0, within_s: float = 5) -> bytes:
    """Send bytes as they stand, and return all that comes back until the service closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        async with asyncio.timeout(within_s):
            sending = asyncio.create_task(send(writer, parts, pause_s))
            try:
                return await reader.read()
            finally:
                sending.cancel()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def send(writer: asyncio.StreamWriter, parts: Iterable[bytes], pause_s: float) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause_s)


def asked(cluster: Cluster) -> int:
    """How often servers were asked, but for their version, which polls ask unsigned."""
    return sum(server.request_counts.total() - server.request_counts["index"] for server in cluster.servers)


def signed_requests(cluster: Cluster) -> list[Request]:
    """What they were asked then."""
    return [request for server in cluster.servers for request in server.requests if request.call != "index"]


# --- framing ---------------------------------------------------------------------------------------------------------

CREATE = f"POST {API}/create HTTP/1.1\r\nHost: {HOST}\r\n"
FRAMING = {
    "bare LF in a header": INDEX + "A: b\nC: d\r\n\r\n",
    "bare CR in a header": INDEX + "A: b\rC: d\r\n\r\n",
    "NUL in a header": INDEX + "A: b\0\r\n\r\n",
    "bare LF after the request line": f"GET {API} HTTP/1.1\nHost: {HOST}\r\n\r\n",
    "space before a colon": CREATE + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "space in a name": INDEX + "A b: c\r\n\r\n",
    "folded header": INDEX + "A: b\r\n c\r\n\r\n",
    "header without a colon": INDEX + "A\r\n\r\n",
    "empty name": INDEX + ": a\r\n\r\n",
    "two Hosts": INDEX + "Host: other.example\r\n\r\n",
    "two Hosts alike": INDEX + f"Host: {HOST}\r\n\r\n",
    "no Host": f"GET {API} HTTP/1.1\r\n\r\n",
    "Host with a path": f"GET {API} HTTP/1.1\r\nHost: {HOST}/x\r\n\r\n",
    "Host with a user": f"GET {API} HTTP/1.1\r\nHost: a@{HOST}\r\n\r\n",
    "Host list": f"GET {API} HTTP/1.1\r\nHost: {HOST}, b\r\n\r\n",
    "length and chunks": CREATE + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": CREATE + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "list of lengths": CREATE + "Content-Length: 3, 3\r\n\r\nabc",
    "length with a sign": CREATE + "Content-Length: +3\r\n\r\nabc",
    "length with spaces": CREATE + "Content-Length: 3 3\r\n\r\nabc",
    "length in hex": CREATE + "Content-Length: 0x3\r\n\r\nabc",
    "length of other digits": CREATE + "Content-Length: \u0663\r\n\r\nabc",
    "huge length": CREATE + f"Content-Length: {'9' * 40}\r\n\r\nabc",
    "unknown encoding": CREATE + "Transfer-Encoding: gzip\r\n\r\nabc",
    "chunked twice": CREATE + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked after another space": CREATE + "Transfer-Encoding: \u00a0chunked\r\n\r\n0\r\n\r\n",
    "length after another space": CREATE + "Content-Length: \u00a03\r\n\r\nabc",
    "chunked in HTTP/1.0": f"POST {API}/create HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    **{
        f"chunk size {size!r}": CREATE + f"Transfer-Encoding: chunked\r\n\r\n{size}\r\nabc\r\n0\r\n\r\n"
        for size in ("0x3", "+3", "-3", "3_0", " 3", "g", "\u0663", "3" * 20)
    },
    "chunk that is longer than its size": CREATE + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
    "chunk that ends with two LF": CREATE + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n\n0\r\n\r\n",
    "chunk size that ends with LF": CREATE + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "LF in a chunk extension": CREATE + "Transfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n",
    "CR in a chunk extension": CREATE + "Transfer-Encoding: chunked\r\n\r\n3;a\rabc\r\n0\r\n\r\n",
    "endless chunk extension": CREATE + f"Transfer-Encoding: chunked\r\n\r\n3;{'a' * 100}",
    "trailer": CREATE + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
    "authority as the target": f"CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "target that is no path": f"GET bigbluebutton/api HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "target *": f"GET * HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "target with a fragment": f"GET {API}#a HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "URL of another scheme": f"GET ftp://{HOST}{API} HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "URL of another host": f"GET http://tenant2.{DOMAIN}{API} HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "URL with a user": f"GET http://a@{HOST}{API} HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "raw bytes in the target": f"GET {API}?a=\u00e9 HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "space in the target": f"GET {API}?a= b HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "another version": f"GET {API} HTTP/1.2\r\nHost: {HOST}\r\n\r\n",
    "no HTTP": "\x16\x03\x01\x02\r\n\r\n",
}  # fmt: skip


@pytest.mark.shows("operations: requests that break HTTP's framing", "issue D: hostile requests")
async def test_what_breaks_the_framing_gets_a_400_and_a_closed_connection(cluster: Cluster) -> None:
    service = await cluster.start(1)
    before = asked(cluster)
    smuggled = f"GET {API} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    for name, raw in FRAMING.items():
        answer = await exchange(service, raw.encode() + smuggled)
        assert answer.startswith(b"HTTP/1.1 400 "), (name, answer[:200])
        assert answer.count(b"HTTP/1.1") == 1, (name, answer)
        assert etree.fromstring(answer.partition(b"\r\n\r\n")[2]).findtext("returncode") == "FAILED", name
    assert asked(cluster) == before


@pytest.mark.shows("operations: requests that break HTTP's framing")
async def test_plain_requests_of_all_kinds_are_answered(cluster: Cluster) -> None:
    service = await cluster.start(1)
    body = encoded({"meetingID": "room-1", "name": "Room", "checksum": checksum("create", "", SECRET)}).encode()
    form = f"{CREATE}Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n".encode()
    for raw in (
        INDEX.encode() + b"Connection: close\r\nX-Odd: \xc3\xa9\t!\r\nX-Empty:\r\n\r\n",
        f"GET {API} HTTP/1.0\r\n\r\n".encode(),
        f"GET http://{HOST.upper()}{API}?a=b HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode(),
        form + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        form + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n",
        form + b"Transfer-Encoding: chunked\r\n\r\n%x;a=b\r\n" % len(body) + body + b"\r\n0\r\n\r\n",
        form + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
    ):
        answer = await exchange(service, raw)
        assert b"HTTP/1.1 200 OK" in answer or b"HTTP/1.1 403" in answer, answer
        assert b"SUCCESS" in answer or raw.startswith(f"GET {API} HTTP/1.0".encode()), answer


@pytest.mark.shows("operations: a slow or dripping client is cut off")
@pytest.mark.parametrize("drips", ["head", "body"])
async def test_a_client_that_drips_is_cut_off(cluster: Cluster, drips: str) -> None:
    service = await cluster.start(1)
    service.app.config.REQUEST_TIMEOUT = service.app.config.RESPONSE_TIMEOUT = 0.5
    head = f"{CREATE}Content-Type: application/xml\r\nContent-Length: 1000\r\n\r\n".encode()
    first = b"" if drips == "body" else head[:20]
    rest = [first or head, *([b"a"] * 200)]
    answer = await exchange(service, *rest, pause_s=0.05, within_s=5)
    assert not answer or answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 ")), answer[:200]
    assert asked(cluster) == 1, "the poll alone"


# --- sizes and encodings ---------------------------------------------------------------------------------------------


@pytest.mark.shows("issue D: hostile requests", "bbb-api: create 5")
async def test_what_is_too_large_is_refused_and_the_service_goes_on(cluster: Cluster) -> None:
    service = await cluster.start(1, environment={"MAX_BODY_SIZE": "100KB"})
    before = asked(cluster)
    huge = await service.send(f"{API}/create?meetingID={'x' * 15_500}")
    assert huge.status in {200, 413}
    assert (
        await exchange(service, f"GET {API}?{'a=1&' * 10_000} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    ).startswith(b"HTTP/1.1 413 ")
    headers = {"Content-Type": "application/xml"}
    query = f"meetingID=room-1&name=Room&checksum={checksum('create', 'meetingID=room-1&name=Room', SECRET)}"
    target = f"{API}/create?{query}"
    answer = await service.send(target, method="POST", headers=headers, body=b"<modules>" + b" " * 200_000)
    assert answer.status == 413
    assert etree.fromstring(answer.body).findtext("returncode") == "FAILED"
    assert asked(cluster) == before
    assert (await service.send(target, method="POST", headers=headers, body=b"<modules/>")).succeeded


DTD = '<!DOCTYPE m [<!ENTITY e SYSTEM "file:///etc/passwd">]><modules>&e;</modules>'
DOCUMENTS = {
    "plain": DTD.encode(),
    "after a declaration": f'<?xml version="1.0"?>\n{DTD}'.encode(),
    "after a BOM": b"\xef\xbb\xbf" + DTD.encode(),
    "UTF-16": DTD.encode("utf-16"),
    "UTF-16 without a BOM": DTD.encode("utf-16-be"),
    "UTF-32": DTD.encode("utf-32"),
    "EBCDIC": f'<?xml version="1.0" encoding="cp037"?>{DTD}'.encode("cp037"),
    "UTF-7": f'<?xml version="1.0" encoding="UTF-7"?>{DTD}'.encode("utf-7"),
    "UTF-7 with a long declaration": b"""<?xml version='1.0' standalone="no" encoding = 'utf-7'?>+ADwAIQ-DOCTYPE""",
    "entity alone": b"<modules><!ENTITY a 'b'></modules>",
}


@pytest.mark.shows("bbb-api: create 5", "issue D: hostile requests")
async def test_documents_with_a_dtd_are_refused_in_any_encoding(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room-1")
    before = asked(cluster)
    headers = {"Content-Type": "text/xml"}
    for call in ("create", "insertDocument"):
        for name, document in DOCUMENTS.items():
            params = {"meetingID": "room-1", "name": "Room"}
            answer = await service.call(call, params, method="POST", headers=headers, body=document)
            assert answer.is_xml
            assert answer.key == "validationError", (call, name)
    assert asked(cluster) == before


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: checksum, ids", "bbb-api: checksum, what goes to a server", "SE-5")
async def test_every_punctuation_mark_goes_to_the_server_and_back_in_ids_and_names(cluster: Cluster) -> None:
    service = await cluster.start(1)
    for mark in [*set(string.punctuation) - {","}, " ", "%20", "%", "+", "é", "日", "😀", "\u00a0", "a&b=c", "</a>"]:
        meeting_id = f"a{mark}b"
        created = await service.create(meeting_id, name=f"n{mark}m")
        assert (created.text("returncode"), created.text("meetingID")) == ("SUCCESS", meeting_id), created.body
        assert cluster.last_params("create")["meetingID"] == meeting_id
        info = await service.about("getMeetingInfo", meeting_id)
        assert (info.text("meetingID"), info.text("meetingName")) == (meeting_id, f"n{mark}m")
        joined = await service.join(meeting_id, fullName=f"u{mark}v", password=created.text("moderatorPW"))
        assert dict(parse_qsl(joined.location.partition("?")[2]))["fullName"] == f"u{mark}v"
        assert not re.search(r'["<>\[\]\\^`{|}]', joined.location)
        assert await service.follow(joined.location) == 302
        assert meeting_id in (await service.call("getMeetings")).meeting_ids
        assert (await service.about("end", meeting_id)).succeeded
    assert all(request.checksum_ok for request in signed_requests(cluster))


@pytest.mark.shows("bbb-api: checksum")
async def test_a_checksum_that_hides_behind_its_encoding_is_refused(cluster: Cluster) -> None:
    service = await cluster.start(1)
    for hidden in ("check%73um=x", "%63hecksum=", "checksum%3D=x&che%63ksum"):
        query = f"meetingID=room-1&name=Room&{hidden}"
        proof = checksum("create", query, SECRET)
        assert (await service.send(f"{API}/create?{query}&checksum={proof}")).failure == BAD_CHECKSUM
    assert cluster.asked("create") == 0


TARGET_CHARACTERS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "#")
QUIET = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


async def plain_get(service: Service, call: str, query: str) -> tuple[int, bytes, bytes]:
    """Status, headers and body of a GET whose target goes as it stands."""
    head = f"GET {API}/{call}?{query} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    raw = await exchange(service, head.encode("ascii"))
    headers, _, body = raw.partition(b"\r\n\r\n")
    return int(headers.split(b" ")[1]), headers, body


@pytest.mark.shows("issue D: hostile requests")
@QUIET
@given(
    query=st.text(TARGET_CHARACTERS, max_size=60), call=st.sampled_from(["create", "join", "end", "getMeetings", "x"])
)
async def test_unsigned_queries_of_any_kind_are_refused_as_xml(cluster: Cluster, query: str, call: str) -> None:
    service = cluster.services[0] if cluster.services else await cluster.start(1)
    before = asked(cluster)
    status, _, body = await plain_get(service, call, query)
    assert status == 200
    assert etree.fromstring(body).findtext("messageKey") in {"checksumError", "unsupportedRequest"}
    assert asked(cluster) == before


NAMES = st.sampled_from(["meetingID", "name", "record", "meta_x", "attendeePW", "role", "fullName", "a[]", "é", ""])
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["room-1", "true", "\0", "]]>"]
)


@pytest.mark.shows("issue D: hostile requests", "bbb-api: checksum")
@QUIET
@given(
    params=st.lists(st.tuples(NAMES, VALUES), max_size=6),
    call=st.sampled_from(
        ["create", "join", "isMeetingRunning", "getMeetingInfo", "end", "sendChatMessage", "getRecordings"]
    ),
    seed=st.integers(0, 1000),
)
async def test_signed_calls_with_any_parameters_are_answered_well(
    cluster: Cluster, params: list[tuple[str, str]], call: str, seed: int
) -> None:
    service = cluster.services[0] if cluster.services else await cluster.start(1)
    before = asked(cluster)
    query = "&".join(f"{oddly_quoted(name, seed)}={oddly_quoted(value, seed)}" for name, value in params)
    proof = f"checksum={checksum(call, query, SECRET)}"
    status, headers, body = await plain_get(service, call, f"{query}&{proof}" if query else proof)
    if status == 302:
        assert call == "join"
        assert b"\r\nLocation: http" in headers or b"\r\nlocation: http" in headers
        return
    assert status == 200, body
    root = etree.fromstring(body)
    key = root.findtext("messageKey")
    if key in {"validationError", "missingParamMeetingID", "checksumError"} and asked(cluster) != before:
        assert cluster.servers[0].requests[-1].checksum_ok, "the server's own word"
    assert all(request.checksum_ok for request in signed_requests(cluster))


def oddly_quoted(text: str, seed: int) -> str:
    """Percent-encoded, more of it than there must be, in mixed letter case."""
    chance = random.Random(seed)
    plain = quote(text, safe="")
    return "".join(
        f"%{ord(character):02x}" if character.isalnum() and character.isascii() and chance.random() < 0.2 else character
        for character in re.split(r"(%[0-9A-F]{2}|.)", plain)
        if character
    )


@pytest.mark.shows("issue D: hostile requests", "PO-12", "CR-10")
@pytest.mark.parametrize("character", ["\0", "\x0b", "\ufffe", "\uffff"])
async def test_what_xml_cannot_hold_hides_no_meeting_of_its_server(cluster: Cluster, character: str) -> None:
    service = await cluster.start(1)
    await service.create("room-1", tenant="tenant2")
    made = await service.create("room-2", name=f"a{character}b", meta_note=character, moderatorPW="mp")
    assert made.succeeded
    await service.follow((await service.join("room-2", fullName=f"c{character}d", password="mp")).location)
    info = await service.about("getMeetingInfo", "room-2")
    assert (info.text("meetingName"), info.text("attendees/attendee/fullName")) == ("a\ufffdb", "c\ufffdd")
    assert (await service.call("getMeetings", tenant="tenant2")).meeting_ids == ["room-1"]
    assert not (await cluster.poll()).failed


@pytest.mark.shows("bbb-api: checksum")
@pytest.mark.parametrize(
    "value", ["%00", "a%00b", "a%c2%85b", "ab%ef%bf%bf", "%0a", "%ff", "%ed%a0%80", "%c0%af", "%", "%zz", "a%2Cb"]
)
async def test_ids_of_odd_bytes_are_no_ids(cluster: Cluster, value: str) -> None:
    service = await cluster.start(1)
    for call in ("create", "join", "isMeetingRunning", "getMeetingInfo", "end", "sendChatMessage"):
        query = f"meetingID={value}&name=Room&fullName=Ada&message=m"
        status, _, body = await plain_get(service, call, f"{query}&checksum={checksum(call, query, SECRET)}")
        assert status in {200, 302}
        if value not in {"%", "%zz"}:
            assert etree.fromstring(body).findtext("messageKey") == "validationError", (call, body)
