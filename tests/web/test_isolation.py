"""Isolation as a matrix: every call, an id that is one's own, another tenant's or nobody's, hosts, and secrets.

A foreign id is answered as an unknown one, byte for byte, and a caller who does not prove who he is learns nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.web.conftest import API, BAD_CHECKSUM, DOMAIN, TENANTS, Answer, Cluster, eventually, signed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.conftest import Service

# Of one length, so that nothing of an answer can differ but by what is known of them.
IDS: Final = {"own": "room-of-tenant1", "foreign": "room-of-tenant2", "unknown": "room-of-nobody0"}
RECORDS: Final = {kind: f"{number:040x}-1700000000000" for number, kind in enumerate(IDS, 1)}
HOSTS: Final = {
    "bare": DOMAIN,
    "own": f"tenant1.{DOMAIN}",
    "foreign": f"tenant2.{DOMAIN}",
    "unknown": f"tenant9.{DOMAIN}",
    "declared": "meet.tenant1.example",
    "elsewhere": "elsewhere.example",
}
SECRETS: Final = {
    "own": TENANTS["tenant1"],
    "foreign": TENANTS["tenant2"],
    "load balancer": "lb-secret",
    "server": "",  # the simulated server's own
    "empty": "",
}
MEETING_CALLS: Final = (
    "isMeetingRunning",
    "getMeetingInfo",
    "join",
    "sendChatMessage",
    "insertDocument",
    "end",
    "create",
)
RECORDING_CALLS: Final = (
    "getRecordings",
    "getRecordingTextTracks",
    "putRecordingTextTrack",
    "publishRecordings",
    "updateRecordings",
    "deleteRecordings",
)
LISTS: Final = ("getMeetings", "getSessions", "getRecordings")
# What the calls that are made by POST bring.
SENT: Final = {
    "insertDocument": ("application/xml", b'<modules><module name="presentation"/></modules>'),
    "putRecordingTextTrack": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.vtt"\r\n\r\nWEBVTT\r\n--x--\r\n',
    ),
}


async def start(cluster: Cluster, folder: Path) -> Service:
    """Two tenants with a meeting and a recording each, on two servers."""
    environment = {"LOADBALANCER_SECRET": "lb-secret", "RECORDING_PUBLISH_DIR": str(folder)}
    service = await cluster.start(3, environment=environment)
    cluster.tenant("tenant1", hosts=("meet.tenant1.example",))
    await cluster.apply()
    for tenant, kind in (("tenant1", "own"), ("tenant2", "foreign")):
        assert (
            await service.create(IDS[kind], tenant=tenant, moderatorPW="moderator", attendeePW="attendee")
        ).succeeded
        cluster.hosts_of(IDS[kind])[0].add_users(IDS[kind])
        await cluster.connection.execute(
            """
            WITH r AS (
                 INSERT INTO recording (record_id, tenant, meeting_id, name, state, published, start_ms, end_ms)
                 SELECT %s, id, %s, 'Recording', 'published', true, 1, 2 FROM tenant WHERE name = %s
                 RETURNING id)
            INSERT INTO playback_format (recording, format, url, length)
            SELECT id, 'presentation', '/playback', 1 FROM r
            """,
            (RECORDS[kind], IDS[kind], tenant),
        )

    async def confirmed() -> bool:
        return {phase for _, _, phase in await cluster.meetings()} == {"running"}

    await eventually(confirmed)
    return service


async def ask(service: Service, call: str, kind: str, host: str, secret: str) -> Answer:
    """Make a call about one of the ids, signed with a secret."""
    params = {
        "meetingID": IDS[kind],
        "recordID": RECORDS[kind],
        "password": "moderator",
        "moderatorPW": "moderator",
        "attendeePW": "attendee",
        "fullName": "Ada",
        "name": "Room",
        "message": "hello",
        "publish": "true",
        "kind": "subtitles",
        "lang": "en",
        "label": "English",
        **({"meta_x": "y"} if call == "updateRecordings" else {}),
    }
    content_type, body = SENT.get(call, ("", None))
    return await service.send(
        f"{API}/{call}?{signed(call, params, secret)}",
        method="GET" if body is None else "POST",
        host=host,
        headers={"Content-Type": content_type} if content_type else None,
        body=body,
    )


@pytest.mark.shows("MT-2", "bbb-api: tenants", "issue D: isolation")
@pytest.mark.parametrize("call", [*MEETING_CALLS[:-1], *RECORDING_CALLS])
@pytest.mark.parametrize("host", ["own", "declared"])
async def test_a_foreign_id_is_answered_as_an_unknown_one(
    cluster: Cluster, call: str, host: str, tmp_path: Path
) -> None:
    service = await start(cluster, tmp_path)
    answers = {kind: await ask(service, call, kind, HOSTS[host], SECRETS["own"]) for kind in ("foreign", "unknown")}
    foreign, unknown = answers["foreign"], answers["unknown"]
    assert (foreign.status, foreign.body) == (unknown.status, unknown.body)
    assert {**foreign.headers, "Date": ""} == {**unknown.headers, "Date": ""}
    own = await ask(service, call, "own", HOSTS[host], SECRETS["own"])
    assert own.body != unknown.body or own.location


@pytest.mark.shows("MT-1", "MT-2", "bbb-api: tenants")
async def test_a_create_with_a_foreign_id_makes_a_meeting_of_ones_own(cluster: Cluster, tmp_path: Path) -> None:
    service = await start(cluster, tmp_path)
    answers = {
        kind: await ask(service, "create", kind, HOSTS["own"], SECRETS["own"]) for kind in ("foreign", "unknown")
    }
    assert [answer.key for answer in answers.values()] == ["", ""]
    assert len(cluster.hosts_of(IDS["foreign"])) == 2
    for tenant, secret in TENANTS.items():
        info = await service.call("getMeetingInfo", {"meetingID": IDS["foreign"]}, tenant=tenant, secret=secret)
        assert info.text("participantCount") == ("0" if tenant == "tenant1" else "1")


@pytest.mark.shows("MT-2", "bbb-api: tenants")
@pytest.mark.parametrize("call", LISTS)
async def test_lists_hold_ones_own_alone(cluster: Cluster, call: str, tmp_path: Path) -> None:
    service = await start(cluster, tmp_path)
    for tenant, other in (("tenant1", "tenant2"), ("tenant2", "tenant1")):
        answer = await service.call(call, {}, tenant=tenant)
        assert answer.succeeded
        assert f"room-of-{tenant}".encode() in answer.body or call == "getSessions"
        assert other.encode() not in answer.body


@pytest.mark.shows("MT-2", "MT-5", "bbb-api: tenants", "issue D: isolation")
async def test_nothing_is_told_or_changed_without_the_tenants_own_secret_on_its_own_host(
    cluster: Cluster, tmp_path: Path
) -> None:
    service = await start(cluster, tmp_path)
    before = await everything(cluster)
    asked = sum(server.request_counts.total() for server in cluster.servers)
    refused: set[tuple[int, bytes]] = set()
    for host_kind, host in HOSTS.items():
        for secret_kind, secret in SECRETS.items():
            if (host_kind in {"own", "declared"} and secret_kind == "own") or (host_kind, secret_kind) == (
                "foreign",
            ) * 2:
                continue
            for call in {*MEETING_CALLS, *RECORDING_CALLS, *LISTS}:
                for kind in IDS:
                    known = cluster.servers[0].secret if secret_kind == "server" else secret
                    answer = await ask(service, call, kind, host, known)
                    if host_kind == "elsewhere":
                        assert (answer.status, answer.body) == (403, b"")
                    else:
                        assert answer.failure == BAD_CHECKSUM, (call, kind, host_kind, secret_kind)
                        refused.add((answer.status, answer.body))
    assert len(refused) == 1
    assert sum(server.request_counts.total() for server in cluster.servers) == asked
    assert await everything(cluster) == before


async def everything(cluster: Cluster) -> list[str]:
    """What the calls could have changed."""
    rows: list[str] = []
    for table in ("meeting", "recording", "recording_metadata", "callback_hook", "callback"):
        cursor = await cluster.connection.execute(f"SELECT t::text AS row FROM {table} t ORDER BY 1")
        rows += [row["row"] for row in await cursor.fetchall()]
    return rows


@pytest.mark.shows("MT-5", "bbb-api: tenants")
async def test_a_disabled_tenant_is_nobody_and_its_data_stay(cluster: Cluster, tmp_path: Path) -> None:
    service = await start(cluster, tmp_path)
    before = await everything(cluster)
    cluster.tenant("tenant1", enabled=False)
    await cluster.apply()
    for call in (*MEETING_CALLS, *RECORDING_CALLS):
        for host in ("own", "declared"):
            answer = await ask(service, call, "own", HOSTS[host], SECRETS["own"])
            assert answer.status == 403 or answer.failure == BAD_CHECKSUM
    assert await everything(cluster) == before
    cluster.tenant("tenant1", enabled=True)
    await cluster.apply()
    assert (await ask(service, "getMeetingInfo", "own", HOSTS["own"], SECRETS["own"])).succeeded


@pytest.mark.shows("MT-7", "bbb-api: tenants")
async def test_a_tenant_is_found_by_its_label_or_a_declared_host_in_any_letter_case(
    cluster: Cluster, tmp_path: Path
) -> None:
    service = await start(cluster, tmp_path)
    for host in (
        HOSTS["own"],
        HOSTS["own"].upper(),
        "meet.tenant1.example",
        "Meet.Tenant1.Example",
        f"{HOSTS['own']}:443",
    ):
        assert IDS["own"] in (await ask(service, "getMeetings", "own", host, SECRETS["own"])).meeting_ids, host
    for host in (f"nobody.{DOMAIN}", "meet.nobody.example", f"tenant1.x.{DOMAIN}", DOMAIN, "tenant1.example"):
        answer = await ask(service, "getMeetings", "own", host, SECRETS["own"])
        assert not answer.is_xml or answer.failure == BAD_CHECKSUM, (host, answer.body)


@pytest.mark.shows("bbb-api: tenants, TRUSTED_PROXIES")
async def test_a_proxys_word_for_the_host_counts_if_it_is_trusted(cluster: Cluster) -> None:
    nobody = await cluster.start(1)
    others = await cluster.serve(TRUSTED_PROXIES="10.0.0.0/8")
    trusted = await cluster.serve(TRUSTED_PROXIES="10.0.0.0/8,127.0.0.1")
    said = {"X-Forwarded-Host": f"tenant2.{DOMAIN}, {HOSTS['own']}"}
    for service in (nobody, others):
        assert (await service.call("getMeetings", host=DOMAIN, headers=said)).failure == BAD_CHECKSUM
        assert (await service.call("getMeetings", headers={"X-Forwarded-Host": f"tenant2.{DOMAIN}"})).succeeded
    assert (await trusted.call("getMeetings", host=DOMAIN, headers=said)).succeeded
    assert (await trusted.call("getMeetings")).succeeded, "a proxy that passes the host on"


@pytest.mark.shows("bbb-api: tenants, MULTITENANCY_ENABLED", "bbb-api: checksum")
async def test_tenants_count_if_they_are_switched_on_in_any_letter_case(cluster: Cluster) -> None:
    await cluster.start(1)
    secrets = {"LOADBALANCER_SECRET": "lb-secret", "LOADBALANCER_SECRETS": "lb-two:lb-three"}
    on = await cluster.serve(MULTITENANCY_ENABLED="TRUE", **secrets)
    off = await cluster.serve(MULTITENANCY_ENABLED="False", **secrets)
    for secret in ("lb-secret", "lb-two", "lb-three"):
        assert (await on.call("getMeetings", secret=secret)).failure == BAD_CHECKSUM
        assert (await off.call("getMeetings", secret=secret, host=DOMAIN)).succeeded
    assert (await on.call("getMeetings")).succeeded
    assert (await off.call("getMeetings", host=DOMAIN)).failure == BAD_CHECKSUM
