"""The calls of the BigBlueButton API through the real service: what goes well, what each error says, what is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from scalelite.core.model import Secret
from tests.web.conftest import (
    API,
    BAD_CHECKSUM,
    FORM,
    NO_ACCESS,
    NO_SERVER,
    NOT_CREATED,
    NOT_FOUND,
    QUICK,
    TENANTS,
    UNSUPPORTED,
    XML,
    Cluster,
    checksum,
    encoded,
    eventually,
    failed,
    signed,
)

if TYPE_CHECKING:
    from scalelite.sim import RunningServer

SECRET = TENANTS["tenant1"]
MISSING_ID = failed("missingParamMeetingID", "You must specify a meeting ID for the meeting.")
WRONG_TYPE = failed("unsupportedContentType", "POST request Content-Type is missing or unsupported")
PASSWORDS = {"attendeePW": "attendee-pw", "moderatorPW": "moderator-pw"}
ABOUT_ONE_MEETING = ("create", "join", "isMeetingRunning", "getMeetingInfo", "end", "sendChatMessage")


async def first_choice(cluster: Cluster, place: int) -> RunningServer:
    """Make one server the least loaded, and return it."""
    for other in range(len(cluster.servers)):
        cluster.server(other, load_multiplier=1.0 if other == place else 10.0)
    await cluster.apply()
    return cluster.servers[place]


# --- index, routes, methods ------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: routes, index")
@pytest.mark.parametrize("path", ["", "/", "//"])
async def test_index_answers_without_a_checksum(cluster: Cluster, path: str) -> None:
    service = await cluster.start(0)
    answer = await service.send(API + path)
    assert answer.succeeded
    assert answer.text("version") == "2.0"
    assert answer.root.find("build") is None


@pytest.mark.shows("bbb-api: routes, index")
async def test_index_tells_the_build_number_if_there_is_one(cluster: Cluster) -> None:
    service = await cluster.start(0, environment={"BUILD_NUMBER": "2026.11 <b>"})
    assert (await service.send(API, method="POST")).text("build") == "2026.11 <b>"


@pytest.mark.shows("bbb-api: routes, anything else", "CR-13", "PO-15")
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"{API}/noSuchCall"),
        ("GET", f"{API}/CREATE"),
        ("GET", f"{API}/create.xml"),
        ("GET", f"{API}/create/more"),
        ("GET", "/bigbluebutton/"),
        ("GET", "/favicon.ico"),
        ("POST", f"{API}/join"),
        ("POST", f"{API}/sendChatMessage"),
        ("GET", f"{API}/insertDocument"),
        *((method, f"{API}{call}") for method in ("PUT", "PATCH", "DELETE", "OPTIONS") for call in ("", "/create")),
    ],
)
async def test_unknown_calls_and_other_methods_are_unsupported(cluster: Cluster, method: str, target: str) -> None:
    service = await cluster.start(0)
    call = target.rpartition("/")[2]
    answer = await service.send(f"{target}?{signed(call, {'meetingID': 'room-1'}, SECRET)}", method=method)
    assert answer.failure == UNSUPPORTED
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.shows("bbb-api: routes, HEAD")
async def test_head_is_answered_like_get_without_the_body(cluster: Cluster) -> None:
    service = await cluster.start()
    await service.create("room-1")
    for call in ("", "isMeetingRunning", "getMeetings", "noSuchCall"):
        query = signed(call, {"meetingID": "room-1"}, SECRET)
        answer = await service.send(f"{API}/{call}?{query}", method="HEAD")
        assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, XML, b"")


@pytest.mark.shows("bbb-api: routes")
@pytest.mark.parametrize("target", [f"{API}/create/", f"{API}//create"])
async def test_a_slash_too_many_does_not_matter(cluster: Cluster, target: str) -> None:
    service = await cluster.start()
    query = signed("create", {"meetingID": "room-1", "name": "Room"}, SECRET)
    assert (await service.send(f"{target}?{query}")).succeeded


@pytest.mark.shows("bbb-api: routes")
async def test_a_query_that_is_not_utf8_or_holds_raw_bytes_never_ends_in_a_server_error(cluster: Cluster) -> None:
    service = await cluster.start()
    for raw in (
        "meetingID=%FF%FE",
        "meetingID=room%00",
        "meetingID=room%0A1",
        "meetingID=a%2Cb",
        f"meetingID={'x' * 257}",
    ):
        for call in ("create", "isMeetingRunning", "end"):
            query = f"{raw}&name=Room&checksum={checksum(call, f'{raw}&name=Room', SECRET)}"
            answer = await service.send(f"{API}/{call}?{query}")
            assert answer.is_xml
            assert (answer.text("returncode"), answer.key) == ("FAILED", "validationError"), (raw, call)
    assert await cluster.meetings() == []


# --- what calls answer -----------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: create", "bbb-api: join")
async def test_a_meeting_is_created_joined_listed_and_ended(cluster: Cluster) -> None:
    service = await cluster.start()
    created = await service.create("room-1", **PASSWORDS)
    assert created.succeeded
    assert {name: created.text(name) for name in PASSWORDS} == PASSWORDS
    assert (await service.about("isMeetingRunning", "room-1")).text("running") == "false"
    joined = await service.join("room-1", password="moderator-pw")
    assert joined.status == 302
    assert await service.follow(joined.location) == 302
    assert (await service.about("isMeetingRunning", "room-1")).text("running") == "true"
    info = await service.about("getMeetingInfo", "room-1")
    assert (info.text("meetingID"), info.text("participantCount")) == ("room-1", "1")
    assert (await service.call("getMeetings")).meeting_ids == ["room-1"]
    assert (await service.about("end", "room-1", password="moderator-pw")).key == "sentEndMeetingRequest"
    assert (await service.about("getMeetingInfo", "room-1")).failure == NOT_FOUND
    assert await cluster.meetings() == []


@pytest.mark.shows("bbb-api: create 6")
async def test_answers_of_the_server_go_back_byte_for_byte(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room-1", name="Ä & <b> €")
    ours = await service.about("isMeetingRunning", "room-1")
    server = cluster.servers[0]
    query = signed("isMeetingRunning", {"meetingID": "room-1"}, server.secret)
    async with service.session.get(f"{server.url}/isMeetingRunning?{query}") as theirs:
        assert ours.body == await theirs.read()
    assert (await service.about("getMeetingInfo", "room-1")).text("meetingName") == "Ä & <b> €"


@pytest.mark.shows("bbb-api: routes")
async def test_calls_about_an_unknown_meeting_say_so(cluster: Cluster) -> None:
    service = await cluster.start()
    assert (await service.about("isMeetingRunning", "nowhere")).text("running") == "false"
    for call in ("getMeetingInfo", "end", "join", "sendChatMessage"):
        assert (await service.about(call, "nowhere", fullName="Ada", message="hello")).failure == NOT_FOUND, call
    assert cluster.asked("getMeetingInfo") == cluster.asked("end") == cluster.asked("isMeetingRunning") == 0


@pytest.mark.shows("bbb-api: create 1")
@pytest.mark.parametrize("call", ABOUT_ONE_MEETING)
@pytest.mark.parametrize("params", [{}, {"meetingID": ""}, {"meetingid": "room-1"}, {"meetingID[]": "room-1"}])
async def test_a_call_without_a_meeting_id_says_so(cluster: Cluster, call: str, params: dict[str, str]) -> None:
    service = await cluster.start(0)
    assert (await service.call(call, {**params, "fullName": "Ada", "message": "hello"})).failure == MISSING_ID


@pytest.mark.shows("bbb-api: checksum, ids")
async def test_greenlight_may_ask_whether_meeting_0_runs(cluster: Cluster) -> None:
    service = await cluster.start()
    assert (await service.about("isMeetingRunning", "0")).text("running") == "false"


@pytest.mark.shows("bbb-api: getMeetings")
async def test_get_meetings_of_nobody_says_that_there_are_none(cluster: Cluster) -> None:
    service = await cluster.start()
    answer = await service.call("getMeetings")
    assert answer.succeeded
    assert (answer.key, answer.text("message")) == ("noMeetings", "no meetings were found on this server")
    assert answer.root.find("meetings") is not None


@pytest.mark.shows("bbb-api: getMeetings")
async def test_get_meetings_may_be_switched_off(cluster: Cluster) -> None:
    service = await cluster.start(environment={"GET_MEETINGS_API_DISABLED": "true"})
    await service.create("room-1")
    asked = cluster.asked("getMeetings")
    assert (await service.call("getMeetings")).key == "noMeetings"
    assert cluster.asked("getMeetings") == asked


@pytest.mark.shows("bbb-api: getMeetings")
async def test_get_meetings_asks_cordoned_servers_and_not_disabled_ones(cluster: Cluster) -> None:
    service = await cluster.start(3)
    for place, server in enumerate(cluster.servers):
        server.create_meeting(f"room-{place}", params={"meta_tenant-id": await tenant_id(cluster, "tenant1")})
    cluster.server(1, state="cordoned")
    cluster.server(2, state="disabled")
    await cluster.apply()
    assert (await service.call("getMeetings")).meeting_ids == ["room-0", "room-1"]


async def tenant_id(cluster: Cluster, name: str) -> str:
    cursor = await cluster.connection.execute("SELECT id FROM tenant WHERE name = %s", (name,))
    row = await cursor.fetchone()
    return str((row or {})["id"])


@pytest.mark.shows("bbb-api: getSessions")
async def test_get_sessions_lists_who_is_in_the_callers_meetings(cluster: Cluster) -> None:
    service = await cluster.start()
    for tenant in TENANTS:
        await service.create(f"room-{tenant}", tenant=tenant)
        (server,) = cluster.hosts_of(f"room-{tenant}")
        server.add_users(f"room-{tenant}", 2)
    answer = await service.call("getSessions")
    assert answer.root.xpath("sessions/meeting/meetingName/text()") == ["Room room-tenant1"] * 2


# --- content types and bodies ----------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: checksum, content types")
@pytest.mark.parametrize(
    ("call", "content_type"),
    [
        ("", "application/json"),
        ("", "application/xml"),
        ("isMeetingRunning", "application/json"),
        ("isMeetingRunning", "text/xml"),
        ("create", "application/json"),
        ("create", "text/plain"),
        ("insertDocument", "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_of_another_type_is_refused(cluster: Cluster, call: str, content_type: str) -> None:
    service = await cluster.start()
    await service.create("room-1")
    answer = await service.send(
        f"{API}/{call}?{signed(call, {'meetingID': 'room-1'}, SECRET)}",
        method="POST",
        headers={"Content-Type": content_type},
        body=b"<a/>",
    )
    assert answer.failure == WRONG_TYPE


@pytest.mark.shows("bbb-api: checksum, content types")
@pytest.mark.parametrize(
    ("method", "headers", "body"),
    [
        ("GET", {"Content-Type": "application/json"}, None),
        ("POST", {}, None),
        ("POST", {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, b"ignored=1"),
        ("POST", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x--"),
    ],
)
async def test_forms_and_any_type_of_a_get_are_fine(
    cluster: Cluster, method: str, headers: dict[str, str], body: bytes | None
) -> None:
    service = await cluster.start()
    await service.create("room-1")
    answer = await service.call("getMeetingInfo", {"meetingID": "room-1"}, method=method, headers=headers, body=body)
    assert answer.text("meetingID") == "room-1"


@pytest.mark.shows("bbb-api: checksum, form bodies")
@pytest.mark.parametrize("where", ["query", "body"])
async def test_a_form_counts_where_the_checksum_is_the_whole_query_or_in_the_body(cluster: Cluster, where: str) -> None:
    service = await cluster.start()
    proof = f"checksum={checksum('create', '', SECRET)}"
    form = encoded({"meetingID": "room-1", "name": "Ä long one"})
    target, body = (f"?{proof}", form) if where == "query" else ("", f"{form}&{proof}")
    answer = await service.send(f"{API}/create{target}", method="POST", headers=FORM, body=body.encode())
    assert answer.succeeded, answer.body
    assert cluster.last_params("create")["name"] == "Ä long one"


def multipart(*fields: tuple[str, bytes]) -> bytes:
    head = '--x\r\nContent-Disposition: form-data; name="'
    return b"".join(f'{head}{name}"\r\n\r\n'.encode() + value + b"\r\n" for name, value in fields) + b"--x--\r\n"


MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.shows("bbb-api: checksum, form bodies")
@pytest.mark.parametrize("where", ["query", "body"])
async def test_a_multipart_form_counts_as_any_form(cluster: Cluster, where: str) -> None:
    service = await cluster.start()
    proof = checksum("create", "", SECRET)
    fields = [("meetingID", b"room-1"), ("name", "Ä long one & more".encode())]
    if where == "body":
        fields.append(("checksum", proof.encode()))
    file = 'record"; filename="a.txt'
    body = multipart(*fields, (file, b"true"))
    target = f"?checksum={proof}" if where == "query" else ""
    answer = await service.send(f"{API}/create{target}", method="POST", headers=MULTIPART, body=body)
    assert answer.succeeded, answer.body
    asked = cluster.last_params("create")
    assert (asked["name"], asked.get("record")) == ("Ä long one & more", None), "a file is no parameter"


@pytest.mark.shows("bbb-api: checksum, form bodies")
@pytest.mark.parametrize(
    "body",
    [
        multipart(("meetingID", b"\xff")),
        multipart(*[("a", b"b")] * 2000),
        multipart(("meetingID", b"a"), ("meetingID", b"b")),
    ],
)
async def test_a_multipart_form_that_cannot_be_read_is_refused(cluster: Cluster, body: bytes) -> None:
    service = await cluster.start()
    target = f"{API}/create?checksum={checksum('create', '', SECRET)}"
    answer = await service.send(target, method="POST", headers=MULTIPART, body=body)
    assert answer.text("messageKey") == "validationError"
    assert cluster.asked("create") == 0


@pytest.mark.shows("bbb-api: checksum, form bodies")
async def test_a_form_never_adds_to_a_signed_query(cluster: Cluster) -> None:
    service = await cluster.start()
    query = signed("create", {"meetingID": "room-1", "name": "Signed"}, SECRET)
    body = encoded({"name": "Forged", "record": "true", "meetingID": "room-2"}).encode()
    assert (await service.send(f"{API}/create?{query}", method="POST", headers=FORM, body=body)).succeeded
    asked = cluster.last_params("create")
    assert (asked["meetingID"], asked["name"], asked.get("record")) == ("room-1", "Signed", None)


@pytest.mark.shows("bbb-api: checksum, form bodies")
async def test_form_bodies_can_be_switched_off(cluster: Cluster) -> None:
    service = await cluster.start(environment={"FORM_BODIES": "false"})
    proof = f"checksum={checksum('create', '', SECRET)}"
    body = encoded({"meetingID": "room-1", "name": "Room"}).encode()
    assert (await service.send(f"{API}/create?{proof}", method="POST", headers=FORM, body=body)).failure == MISSING_ID


@pytest.mark.shows("bbb-api: create 5")
async def test_slides_go_to_the_server_as_they_came_and_a_dtd_is_refused(cluster: Cluster) -> None:
    service = await cluster.start()
    slides = b'<?xml version="1.0"?><modules><module name="presentation"/></modules>'
    params, headers = {"meetingID": "room-1", "name": "Room"}, {"Content-Type": "application/xml; charset=utf-8"}
    assert (await service.call("create", params, method="POST", headers=headers, body=slides)).succeeded
    assert cluster.hosts_of("room-1")[0].requests[-1].method == "POST"
    evil = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><modules>&e;</modules>'
    answer = await service.call("create", params, method="POST", headers=headers, body=evil)
    assert answer.key == "validationError"
    assert cluster.asked("create") == 1


@pytest.mark.shows("bbb-api: checksum, what goes to a server")
async def test_a_create_that_outgrows_a_request_line_goes_as_a_form(cluster: Cluster) -> None:
    service = await cluster.start()
    assert (await service.create("room-1", welcome="ä" * 1400)).succeeded
    (server,) = cluster.hosts_of("room-1")
    assert (server.requests[-1].method, server.requests[-1].checksum_ok) == ("POST", True)
    assert cluster.last_params("create")["welcome"] == "ä" * 1400


@pytest.mark.shows("bbb-api: checksum, what goes to a server", "SE-5")
async def test_any_characters_reach_the_server_as_they_were_meant(cluster: Cluster) -> None:
    service = await cluster.start()
    name = """Café "A" & <B> [C] \\ ^ ` {|} 100% + ~ 日本 😀 '/?#=;:@,!$()*"""
    assert (await service.create("room-1 & ü", name=name, welcome="")).succeeded
    asked = cluster.last_params("create")
    assert (asked["meetingID"], asked["name"], asked["welcome"]) == ("room-1 & ü", name, "")
    assert (await service.about("getMeetingInfo", "room-1 & ü")).text("meetingName") == name
    assert await service.follow((await service.join("room-1 & ü", role="MODERATOR")).location) == 302


# --- checksums -------------------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: checksum", "SE-5")
@pytest.mark.parametrize("place", ["first", "middle", "last", "after an empty one"])
@pytest.mark.parametrize("rest", ["meetingID=room-1&name=A+b%20c", "name=%C3%A4%C3%B6&meetingID=room-1&empty=&flag"])
async def test_the_checksum_may_stand_anywhere(cluster: Cluster, place: str, rest: str) -> None:
    service = await cluster.start()
    proof = f"checksum={checksum('create', rest, SECRET)}"
    head, _, tail = rest.partition("&")
    query = {
        "first": f"{proof}&{rest}",
        "middle": f"{head}&{proof}&{tail}",
        "last": f"{rest}&{proof}",
        "after an empty one": "&" + rest + "&checksum=" + checksum("create", "&" + rest, SECRET),
    }[place]
    answer = await service.send(f"{API}/create?{query}")
    assert answer.succeeded
    assert cluster.last_params("create")["meetingID"] == "room-1"


@pytest.mark.shows("bbb-api: checksum")
async def test_only_the_parameter_called_checksum_is_taken_out(cluster: Cluster) -> None:
    service = await cluster.start()
    rest = "mychecksum=abc&meetingID=room-1&name=checksum%3Dabc&checksums=1"
    answer = await service.send(f"{API}/create?{rest}&checksum={checksum('create', rest, SECRET)}")
    assert answer.succeeded
    asked = cluster.last_params("create")
    assert (asked["mychecksum"], asked["name"], asked["checksums"]) == ("abc", "checksum=abc", "1")


@pytest.mark.shows("bbb-api: checksum", "SE-4")
@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
async def test_checksums_of_these_lengths_work_in_any_letter_case(cluster: Cluster, algorithm: str) -> None:
    service = await cluster.start(0)
    for proof in (
        checksum("getMeetings", "", SECRET, algorithm),
        checksum("getMeetings", "", SECRET, algorithm).upper(),
    ):
        assert (await service.send(f"{API}/getMeetings?checksum={proof}")).succeeded


@pytest.mark.shows("bbb-api: checksum", "SE-4")
@pytest.mark.parametrize("algorithm", ["sha384", "md5", "sha224"])
async def test_other_algorithms_are_refused(cluster: Cluster, algorithm: str) -> None:
    service = await cluster.start(0)
    proof = checksum("getMeetings", "", SECRET, algorithm)
    assert (await service.send(f"{API}/getMeetings?checksum={proof}")).failure == BAD_CHECKSUM


@pytest.mark.shows("bbb-api: checksum", "SE-4")
async def test_allowed_algorithms_can_be_chosen_and_the_strongest_goes_out(cluster: Cluster) -> None:
    service = await cluster.start(1, environment={"LOADBALANCER_CHECKSUM_ALGORITHM": "SHA1:SHA384"})
    for algorithm, allowed in {"sha1": True, "sha256": False, "sha384": True, "sha512": False}.items():
        proof = checksum("getMeetings", "", SECRET, algorithm)
        assert (await service.send(f"{API}/getMeetings?checksum={proof}")).succeeded is allowed
    assert len(cluster.servers[0].requests[-1].params["checksum"]) == 96


@pytest.mark.shows("bbb-api: checksum", "SE-4")
async def test_a_server_gets_the_algorithm_that_it_declares(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room-1")
    assert len(cluster.servers[0].requests[-1].params["checksum"]) == 64
    cluster.server(0, checksum_algorithm="SHA1")
    await cluster.apply()
    await service.about("getMeetingInfo", "room-1")
    assert len(cluster.servers[0].requests[-1].params["checksum"]) == 40
    joined = dict(parse_qsl(urlsplit((await service.join("room-1")).location).query))
    assert len(joined["checksum"]) == 40


GOOD = checksum("getMeetings", "", SECRET)


@pytest.mark.shows("bbb-api: checksum")
@pytest.mark.parametrize(
    "query",
    [
        "",
        "checksum=",
        "checksum",
        f"checksum={GOOD[:-1]}",
        f"checksum={GOOD}0",
        f"checksum={GOOD}&checksum={GOOD}",
        f"checksum={GOOD}&checksum=",
        f"Checksum={GOOD}",
        f"%63hecksum={GOOD}",
        f"checksum[]={GOOD}",
        f"a=1&checksum={GOOD}",
        f"checksum={checksum('getMeetings', '', 'another secret')}",
        f"checksum={checksum('getMeetings', '', '')}",
        f"checksum={checksum('getMeetingInfo', '', SECRET)}",
        f"checksum={'é' * 32}",
        f"checksum={quote('é' * 32)}",
    ],
)
async def test_calls_without_a_right_checksum_are_refused(cluster: Cluster, query: str) -> None:
    service = await cluster.start(0)
    answer = await service.send(f"{API}/getMeetings?{query}")
    if not query.isascii():  # Sanic's parser refuses such a request line
        assert answer.status == 400
        return
    assert answer.failure == BAD_CHECKSUM


@pytest.mark.shows("bbb-api: checksum")
@pytest.mark.parametrize("call", [*ABOUT_ONE_MEETING, "getMeetings", "getSessions"])
async def test_no_call_works_unsigned(cluster: Cluster, call: str) -> None:
    service = await cluster.start()
    await service.create("room-1")
    answer = await service.send(f"{API}/{call}?meetingID=room-1&name=Room&fullName=Ada&message=hello")
    assert answer.failure == BAD_CHECKSUM
    assert len(cluster.hosts_of("room-1")) == 1


@pytest.mark.shows("bbb-api: checksum, repeated parameters")
@pytest.mark.parametrize(
    ("call", "rest"),
    [
        ("create", "meetingID=room-1&meetingID=room-2&name=Room"),
        ("create", "meetingID=room-1&meeting%49D=room-2&name=Room"),
        ("create", "meetingID=room-1&name=Room&moderatorPW=aaa&moderatorPW=bbb"),
        ("create", "meetingID=room-1&name=Room&attendeePW=aaa&attendeePW=bbb"),
        ("join", "meetingID=room-1&fullName=Ada&password=aaa&password=bbb"),
        ("join", "meetingID=room-1&fullName=Ada&role=VIEWER&role=MODERATOR"),
        ("end", "meetingID=room-1&meetingID=room-1"),
    ],
)
async def test_a_repeated_parameter_that_routes_or_authorises_is_refused(
    cluster: Cluster, call: str, rest: str
) -> None:
    service = await cluster.start()
    answer = await service.send(f"{API}/{call}?{rest}&checksum={checksum(call, rest, SECRET)}")
    assert answer.is_xml
    assert answer.key == "validationError"
    assert cluster.asked("create") == 0


# --- create twice ----------------------------------------------------------------------------------------------------

BOTH_TIMES: list[dict[str, str]] = [
    {},
    PASSWORDS,
    {"attendeePW": "attendee-pw"},
    {"moderatorPW": "moderator-pw", "attendeePW": "", "record": "false"},
]


@pytest.mark.shows("CR-1", "bbb-api: create 2")
@pytest.mark.parametrize("params", BOTH_TIMES[:3], ids=["none", "both", "attendee only"])
async def test_two_identical_creates_are_one_meeting(cluster: Cluster, params: dict[str, str]) -> None:
    service = await cluster.start()
    first = await service.create("room-1", **params)
    loads = {server: row.load for server, row in (await cluster.rows()).items()}
    second = await service.create("room-1", **params)
    assert first.succeeded
    assert second.succeeded
    assert (first.key, second.key) == ("", "duplicateWarning")
    for name in ("internalMeetingID", "attendeePW", "moderatorPW", "voiceBridge", "createTime"):
        assert first.text(name) == second.text(name) != "", name
    assert len(cluster.hosts_of("room-1")) == 1
    assert {server: row.load for server, row in (await cluster.rows()).items()} == loads
    assert sorted(loads.values()) == [0.0, 15.0]


@pytest.mark.shows("CR-1", "bbb-api: create 2")
async def test_a_repeat_through_another_instance_finds_the_same_meeting(cluster: Cluster) -> None:
    service = await cluster.start()
    other = await cluster.serve()
    for params in ({}, {"attendeePW": "attendee-pw"}):
        meeting_id = f"room-{len(params)}"
        first, second = await service.create(meeting_id, **params), await other.create(meeting_id, **params)
        assert second.key == "duplicateWarning"
        assert first.text("internalMeetingID") == second.text("internalMeetingID")
        assert first.text("moderatorPW") == second.text("moderatorPW")


@pytest.mark.shows("CR-5")
async def test_another_password_for_an_id_in_use_is_told_as_the_server_says_it(cluster: Cluster) -> None:
    service = await cluster.start()
    await service.create("room-1", **PASSWORDS)
    answer = await service.create("room-1", **{**PASSWORDS, "moderatorPW": "another-pw"})
    assert answer.failure == failed(
        "idNotUnique", "A meeting already exists with that meeting ID.  Please use a different meeting ID."
    )
    assert (await service.about("getMeetingInfo", "room-1")).text("moderatorPW") == "moderator-pw"
    assert len(await cluster.meetings()) == 1


@pytest.mark.shows("bbb-api: create 6")
async def test_a_create_that_the_server_refuses_leaves_nothing(cluster: Cluster) -> None:
    service = await cluster.start()
    answer = await service.call("create", {"meetingID": "room-1"})
    assert answer.failure == failed("nullError", "You must provide a meeting name")
    assert await cluster.meetings() == []
    assert all(row.load == 0 for row in (await cluster.rows()).values())


# --- create, when servers fail ---------------------------------------------------------------------------------------

FAILURES: dict[str, dict[str, Any]] = {
    "status 500": {"mode": "status", "status": 500},
    "garbage": {"mode": "garbage"},
    "hang": {"mode": "hang"},
    "closed before": {"mode": "close"},
    "checksum error": {"mode": "checksum_error"},
}


@pytest.mark.shows("CR-3", "bbb-api: create 6")
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_create_that_fails_leaves_no_claim_and_works_afterwards(cluster: Cluster, failure: str) -> None:
    service = await cluster.start(2, environment=QUICK)
    for server in cluster.servers:
        server.fail(**FAILURES[failure], calls=["create"])
    answer = await service.create("room-1")
    assert answer.is_xml
    assert answer.text("returncode") == "FAILED"
    assert answer.key == ("checksumError" if failure == "checksum error" else "internalError")
    assert not any(secret_of_servers(cluster, word) for word in answer.body.decode().split())
    assert await cluster.meetings() == []
    assert {row.load for row in (await cluster.rows()).values()} == {0.0}
    assert (await service.about("getMeetingInfo", "room-1")).failure == NOT_FOUND
    for server in cluster.servers:
        server.heal()
    assert (await service.create("room-1")).succeeded


def secret_of_servers(cluster: Cluster, word: str) -> bool:
    """Whether a word of an answer gives a server away."""
    ports = [server.url.split(":")[2].partition("/")[0] for server in cluster.servers]
    return any(text in word for text in ["127.0.0.1", *ports, *(server.secret for server in cluster.servers)])


@pytest.mark.shows("CR-3", "bbb-api: create 6")
async def test_a_create_while_all_servers_refuse_leaves_no_claim(cluster: Cluster) -> None:
    service = await cluster.start(2)
    for server in cluster.servers:
        server.refuse()
    assert (await service.create("room-1")).failure == NOT_CREATED
    assert await cluster.meetings() == []


@pytest.mark.shows("CR-3")
async def test_a_client_that_hangs_up_during_create_leaves_no_claim(cluster: Cluster) -> None:
    service = await cluster.start(1, environment=QUICK)
    cluster.servers[0].fail("hang", calls=["create"])
    task = asyncio.create_task(service.create("room-1"))

    async def claimed() -> bool:
        return await cluster.meetings() != []

    async def gone() -> bool:
        return await cluster.meetings() == []

    await eventually(claimed)
    task.cancel()
    await eventually(gone, 3)


@pytest.mark.shows("CR-4", "bbb-api: create 6")
async def test_a_refused_connection_is_tried_on_the_next_server(cluster: Cluster) -> None:
    service = await cluster.start(2)
    (await first_choice(cluster, 0)).refuse()
    assert (await service.create("room-1")).succeeded
    assert cluster.hosts_of("room-1") == [cluster.servers[1]]
    assert [row[1] for row in await cluster.meetings()] == ["bbb2"]
    assert (await cluster.rows())["bbb1"].load == 0


@pytest.mark.shows("CR-4", "bbb-api: create 6")
async def test_a_refused_connection_is_tried_on_one_other_server_only(cluster: Cluster) -> None:
    service = await cluster.start(3)
    for place in (0, 1):
        cluster.server(place, load_multiplier=0.1)
        cluster.servers[place].refuse()
    await cluster.apply()
    assert (await service.create("room-1")).failure == NOT_CREATED
    assert cluster.asked("create") == 0
    assert await cluster.meetings() == []


@pytest.mark.shows("CR-4", "bbb-api: create 6")
async def test_a_hang_is_never_tried_elsewhere(cluster: Cluster) -> None:
    service = await cluster.start(2, environment=QUICK)
    (await first_choice(cluster, 0)).fail("hang", calls=["create"])
    answer = await service.create("room-1")
    assert answer.failure == NOT_CREATED
    assert 0.5 < answer.took_s < 2.5
    assert [server.request_counts["create"] for server in cluster.servers] == [1, 0]


@pytest.mark.shows("bbb-api: join, end and the others", "PO-15")
@pytest.mark.parametrize("failure", ["status 500", "garbage", "hang", "closed before"])
async def test_a_failing_server_makes_calls_about_its_meetings_fail_as_xml(cluster: Cluster, failure: str) -> None:
    service = await cluster.start(1, environment=QUICK)
    await service.create("room-1")
    cluster.servers[0].fail(**FAILURES[failure])
    calls = ("isMeetingRunning", "getMeetingInfo", "create")
    answers = await asyncio.gather(*(service.about(call, "room-1", name="Room") for call in calls))
    for answer in answers:
        assert answer.is_xml
        assert (answer.text("returncode"), answer.key) == ("FAILED", "internalError")
        assert not any(secret_of_servers(cluster, word) for word in answer.body.decode().split())
    assert len(await cluster.meetings()) == 1
    cluster.servers[0].heal()
    assert (await service.about("getMeetingInfo", "room-1")).succeeded


# --- end -------------------------------------------------------------------------------------------------------------


@pytest.mark.shows("CR-6", "bbb-api: end")
async def test_an_end_that_gets_no_answer_keeps_the_meeting_until_a_poll_says_it_is_gone(cluster: Cluster) -> None:
    service = await cluster.start(1, environment=QUICK)
    (server,) = cluster.servers
    await service.create("room-1")
    server.fail("hang", calls=["end"], times=1)
    assert (await service.about("end", "room-1")).failure == NO_ACCESS
    assert await cluster.meetings() == [("room-1", "bbb1", "ending")]
    assert (await service.about("getMeetingInfo", "room-1")).succeeded
    await cluster.poll(3)
    assert await cluster.meetings() == [("room-1", "bbb1", "ending")]
    server.forget("room-1")
    await cluster.poll()
    assert await cluster.meetings() == []
    assert (await service.about("getMeetingInfo", "room-1")).failure == NOT_FOUND


@pytest.mark.shows("operations: every answer within 12 s", "CR-3", "CR-6", "bbb-api: end", "bbb-api: create 6")
async def test_a_server_that_is_slow_twice_is_not_waited_for_and_what_was_asked_stays_known(cluster: Cluster) -> None:
    service = await cluster.start(1)
    (server,) = cluster.servers
    cluster.server(0, previous_secret=Secret("an-old-secret"))
    await cluster.apply()
    await service.create("room-1")
    for call in ("create", "end", "getMeetingInfo"):
        server.fail("checksum_error", calls=[call], seconds=7, times=1)
        server.fail("hang", calls=[call])
    created, ended, told = await asyncio.gather(
        service.create("room-2"), service.about("end", "room-1"), service.about("getMeetingInfo", "room-1")
    )
    assert (created.failure, ended.failure, told.failure) == (NOT_CREATED, NO_ACCESS, NO_ACCESS)
    assert max(answer.took_s for answer in (created, ended, told)) < 7 + 8
    assert await cluster.meetings() == [("room-1", "bbb1", "ending")]


@pytest.mark.shows("CR-6", "bbb-api: end")
async def test_an_end_can_be_tried_again(cluster: Cluster) -> None:
    service = await cluster.start(1, environment=QUICK)
    await service.create("room-1")
    # Twice: aiohttp asks again by itself when a connection that it kept is closed on it.
    cluster.servers[0].fail("close", calls=["end"], times=2)
    assert (await service.about("end", "room-1")).failure == NO_ACCESS
    assert (await service.about("end", "room-1")).key == "sentEndMeetingRequest"
    assert await cluster.meetings() == []


@pytest.mark.shows("CR-7", "bbb-api: end")
async def test_an_end_of_a_meeting_that_the_server_no_longer_knows_forgets_it(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room-1")
    cluster.servers[0].forget("room-1")
    answer = await service.about("end", "room-1")
    assert answer.is_xml
    assert answer.key == "notFound"
    assert await cluster.meetings() == []


# --- cordoned, disabled, offline -------------------------------------------------------------------------------------


async def all_become(cluster: Cluster, state: str) -> None:
    for place in range(len(cluster.servers)):
        cluster.server(place, state=state)
    await cluster.apply()


@pytest.mark.shows("CR-8", "bbb-api: create 2")
async def test_running_meetings_go_on_while_all_servers_are_cordoned(cluster: Cluster) -> None:
    service = await cluster.start()
    await service.create("room-1", **PASSWORDS)
    cluster.hosts_of("room-1")[0].add_users("room-1")
    await all_become(cluster, "cordoned")
    assert (await service.create("room-1", **PASSWORDS)).key == "duplicateWarning"
    assert (await service.join("room-1")).status == 302
    assert (await service.create("room-2")).failure == NO_SERVER


@pytest.mark.shows("DR-3", "bbb-api: create 2")
async def test_a_meeting_that_nobody_is_in_leaves_a_cordoned_server(cluster: Cluster) -> None:
    service = await cluster.start()
    await first_choice(cluster, 0)
    await service.create("room-1")
    cluster.server(0, state="cordoned")
    await cluster.apply()
    assert (await service.create("room-1")).key == ""
    assert [row[1] for row in await cluster.meetings()] == ["bbb2"]


@pytest.mark.shows("DR-3", "bbb-api: create 2")
async def test_a_meeting_stays_on_a_cordoned_server_that_does_not_answer(cluster: Cluster) -> None:
    service = await cluster.start(environment=QUICK)
    await first_choice(cluster, 0)
    await service.create("room-1")
    cluster.server(0, state="cordoned")
    await cluster.apply()
    cluster.servers[0].fail("hang")
    assert (await service.create("room-1")).failure == NOT_CREATED
    assert [row[1] for row in await cluster.meetings()] == ["bbb1"]
    assert cluster.servers[1].request_counts["create"] == 0


@pytest.mark.shows("PO-13", "bbb-api: create 2")
async def test_a_meeting_on_a_disabled_server_is_placed_anew_in_the_same_request(cluster: Cluster) -> None:
    service = await cluster.start()
    await first_choice(cluster, 0)
    await service.create("room-1")
    cluster.server(0, state="disabled")
    await cluster.apply()
    assert (await service.join("room-1")).failure == failed(
        "serverUnavailable", "The server for this meeting is disabled/offline."
    )
    assert (await service.create("room-1")).succeeded
    assert [row[1] for row in await cluster.meetings()] == ["bbb2"]
    assert (await service.join("room-1")).location.startswith(cluster.servers[1].url)


@pytest.mark.shows("PO-13", "PO-11", "bbb-api: create 2")
async def test_a_meeting_of_an_offline_server_is_placed_anew_and_ended_there_when_it_returns(cluster: Cluster) -> None:
    service = await cluster.start(3)
    home = await first_choice(cluster, 0)
    await service.create("room-1")
    home.refuse()
    await cluster.poll(2)
    assert (await service.join("room-1")).key == "serverUnavailable"
    assert (await service.create("room-1")).succeeded
    assert [server.name for server in cluster.hosts_of("room-1")][1:] == [(await cluster.meetings())[0][1]]
    home.accept()
    assert (await service.call("getMeetings")).meeting_ids == ["room-1"]
    await cluster.poll(2)
    assert home.meetings == {}
    assert len(cluster.hosts_of("room-1")) == 1


# --- join ------------------------------------------------------------------------------------------------------------


@pytest.mark.shows("CR-9", "bbb-api: join")
async def test_join_sends_the_user_to_the_server_signed_with_its_secret(cluster: Cluster) -> None:
    service = await cluster.start(environment={"JOIN_EXCLUDE_PARAMS": "redirect,userdata-x"})
    await service.create("room-1", **PASSWORDS)
    (server,) = cluster.hosts_of("room-1")
    params = {"fullName": "Ada & Co", "password": "attendee-pw", "redirect": "false", "userdata-x": "1"}
    answer = await service.about("join", "room-1", **params)
    url, _, query = answer.location.partition("?")
    rest, _, proof = query.partition("&checksum=")
    assert (answer.status, url) == (302, f"{server.url}/join")
    assert proof == checksum("join", rest, server.secret)
    assert dict(parse_qsl(rest)) == {"meetingID": "room-1", "fullName": "Ada & Co", "password": "attendee-pw"}
    assert await service.follow(answer.location) == 302
    assert [user.name for user in server.meetings["room-1"].users.values()] == ["Ada & Co"]


@pytest.mark.shows("CR-9", "bbb-api: join")
async def test_join_by_post_is_refused(cluster: Cluster) -> None:
    service = await cluster.start()
    await service.create("room-1")
    params = {"meetingID": "room-1", "fullName": "Ada", "role": "MODERATOR"}
    assert (await service.call("join", params, method="POST")).failure == UNSUPPORTED
    body = encoded({**params, "checksum": checksum("join", "", SECRET)}).encode()
    assert (await service.send(f"{API}/join", method="POST", headers=FORM, body=body)).failure == UNSUPPORTED


# --- getMeetings, when servers fail ----------------------------------------------------------------------------------


@pytest.mark.shows("CR-10", "bbb-api: getMeetings")
@pytest.mark.parametrize("failure", ["hang", "refuse", "garbage", "status 500"])
async def test_a_failing_server_takes_nothing_from_the_others_meetings(cluster: Cluster, failure: str) -> None:
    service = await cluster.start(4, environment=QUICK)
    for number in range(8):
        assert (await service.create(f"room-{number}")).succeeded
    bad = cluster.servers[1]
    if failure == "refuse":
        bad.refuse()
    else:
        bad.fail(**FAILURES[failure], calls=["getMeetings"])
    answer = await service.call("getMeetings")
    assert answer.succeeded
    assert answer.took_s < 2
    assert answer.meeting_ids == sorted({f"room-{number}" for number in range(8)} - set(bad.meetings))
    assert len(answer.meeting_ids) == 6


@pytest.mark.shows("CR-10", "bbb-api: one hung server")
async def test_a_hung_server_costs_calls_to_the_others_nothing(cluster: Cluster) -> None:
    service = await cluster.start(2)
    await first_choice(cluster, 0)
    await service.create("room-1")
    await first_choice(cluster, 1)
    await service.create("room-2")
    cluster.servers[0].fail("hang")
    hanging = [asyncio.create_task(service.about("getMeetingInfo", "room-1")) for _ in range(60)]
    await asyncio.sleep(0.2)
    answers = await asyncio.gather(*(service.about("getMeetingInfo", "room-2") for _ in range(20)))
    assert all(answer.succeeded for answer in answers)
    assert max(answer.took_s for answer in answers) < 1.5
    assert cluster.servers[0].request_counts["getMeetingInfo"] <= 32
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
