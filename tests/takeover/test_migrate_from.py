"""migrate-from: all of a Scalelite is here afterwards, nothing of it twice, and nothing where something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.takeover.scalelite import T1, T2, Old, record

if TYPE_CHECKING:
    from scalelite.sim import RunningServer
    from tests.plan.conftest import Done, Here

RECORDED = "07-recordings/129"
URL = "http://{}.test/bigbluebutton/api"


def fill_redis(old: Old, running: RunningServer) -> None:
    """Servers in every state, two tenants and running meetings."""
    old.valkey.flushall()
    old.server("bbb1", running.url, secret=running.secret, tag="gpu", load_multiplier="2.5")
    old.server("bbb2", URL.format("bbb2"), state="cordoned")
    old.server("bbb3", URL.format("bbb3"), state="disabled")
    old.tenants()
    old.keys({f"scalelite:tenant:{T1}": record("20-rake-tenants/031")["redis"][f"scalelite:tenant:{T1}"]})
    old.keys({f"scalelite:tenant:{T2}": record("20-rake-tenants/036")["redis"][f"scalelite:tenant:{T2}"]})
    old.meeting("room-1", "bbb1", tenant_id=T1, voice_bridge="123456789")
    old.meeting("room-2", "bbb1")


@pytest.fixture
def whole(old: Old, servers: list[RunningServer]) -> Old:
    """A Scalelite with something of everything: also callbacks and recordings."""
    fill_redis(old, servers[0])
    servers[0].create_meeting("room-1", params={"moderatorPW": "pw"})
    old.rows(record(RECORDED)["rows"])
    for meeting, attributes in (
        ("room-1", ":analytics_callback_url: http://client/an\n:recording_ready_url: http://client/rr"),
        ("room-t2", ":recording_ready_url: 'http://client/rr2'"),
        ("nobody", ":recording_ready_url: http://client/rr3"),
    ):
        old.sql(
            "INSERT INTO callback_data (meeting_id, callback_attributes, created_at, updated_at)"
            " VALUES (%s, %s, now(), now())",
            meeting, f"---\n{attributes}\n",
        )  # fmt: skip
    return old


def take_over(here: Here, old: Old, *options: str, status: int = 0) -> Done:
    return here("migrate-from", old.redis, f"@{here.folder}/postgres", *options, status=status)


def contents(here: Here) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of what a takeover may write."""
    tables = ("server", "tenant", "setting", "meeting", "recording", "recording_metadata", "callback_hook", "revision")
    return {table: here.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables}


@pytest.mark.shows("cli: migrate-from", "issue G: migrate-from")
def test_what_scalelite_declares_and_runs_is_here(whole: Old, here: Here, servers: list[RunningServer]) -> None:
    here.environ("MULTITENANCY_ENABLED", "true")
    done = take_over(here, whole, "--yes", "--actor", "ops")
    assert "Taken over: 2 meetings, 3 callbacks, 7 recordings new. Revision 1." in done.out
    states = here.sql("SELECT id, state, tag, load_multiplier FROM server ORDER BY id")
    assert states == [("bbb1", "enabled", "gpu", 2.5), ("bbb2", "cordoned", "", 1.0), ("bbb3", "disabled", "", 1.0)]
    settings = here("tenant-settings", "list", "--format", "json").json
    recorded = record("20-rake-tenants/044")["redis"]
    (setting_id,) = recorded[f"scalelite:tenant_settings:{T1}"]["set"]
    assert settings == [
        {"tenant": "tenant1", "id": setting_id, "param": "param1", "value": "value1", "override": True,
         "calls": ["create", "join"]}
    ]  # fmt: skip
    tenants = here("tenants", "list", "--format", "json", "--show-secrets").json
    assert [(t["id"], t["name"], t["secrets"]) for t in tenants] == [
        (T1, "tenant1", ["tenant1-secret"]),
        (T2, "tenant2", ["tenant2-secret-a", "tenant2-secret-b"]),
    ]
    assert tenants[0]["lrs"]["basic"]["username"] == "user"
    assert tenants[1]["lrs"]["oidc"]["token_url"] == "http://kc/token"
    (revision,) = here("history", "--format", "json").json
    assert (revision["actor"], revision["revision"]) == ("ops", 1)
    # The meeting goes on: a poll counts it, and its end is taken by the server that runs it.
    here("poll", "--once")
    assert here.sql("SELECT tenant::text, voice_bridge FROM meeting WHERE meeting_id = 'room-1'") == [(T1, "123456789")]
    here("meetings", "end", "room-1", "--yes")
    assert "room-1" not in servers[0].meetings


@pytest.mark.shows("cli: migrate-from", "data: ids of tenants and settings are kept by migration")
def test_recordings_are_as_they_were_recorded(whole: Old, here: Here) -> None:
    take_over(here, whole, "--yes")
    rows = record(RECORDED)["rows"]
    ours = here.sql(
        "SELECT record_id, meeting_id, name, protected, participants, publish_edited, deleted_at IS NOT NULL,"
        " to_char(to_timestamp(start_ms / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') FROM recording"
    )
    assert sorted(ours) == sorted(
        (r["record_id"], r["meeting_id"], r["name"], r["protected"], r["participants"], r["publish_updated"],
         r["deleted_at"] is not None, r["starttime"])
        for r in rows["recordings"]
    )  # fmt: skip
    # One that was hidden as `published` has its files among the unpublished ones.
    states = {
        r["record_id"]: "unpublished" if r["state"] == "published" and not r["published"] else r["state"]
        for r in rows["recordings"]
    }
    assert dict(here.sql("SELECT record_id, state FROM recording")) == states
    joined = "JOIN recording r ON r.id = recording"
    for table, columns in (
        ("metadata", "m.key, m.value"),
        ("playback_formats", "m.format, m.url, m.length, m.processing_ms"),
    ):
        own = {"metadata": "recording_metadata", "playback_formats": "playback_format"}[table]
        found = here.sql(f"SELECT r.record_id, {columns} FROM {own} m {joined}")
        assert sorted(map(repr, found)) == sorted(repr(tuple(row)) for row in rows[table])
    owners = dict(here.sql("SELECT r.record_id, t.name FROM recording r JOIN tenant t ON t.id = r.tenant"))
    named = {name: value for name, key, value in rows["metadata"] if key == "tenant-name"}
    assert owners == {name: named.get(name, "") for name in owners}


@pytest.mark.shows("cli: migrate-from", "CB-3")
def test_callbacks_come_with_their_tenants_secret(whole: Old, here: Here) -> None:
    done = take_over(here, whole, "--yes")
    hooks = here.sql("SELECT h.meeting_id, h.name, t.name, h.url, h.secret, h.server FROM callback_hook h"
                     " JOIN tenant t ON t.id = h.tenant ORDER BY 1, 2")  # fmt: skip
    ready = "meta_bn-recording-ready-url"
    assert hooks == [
        ("room-1", "meta_analytics-callback-url", "tenant1", "http://client/an", "tenant1-secret", "bbb1"),
        ("room-1", ready, "tenant1", "http://client/rr", "tenant1-secret", "bbb1"),
        ("room-t2", ready, "tenant2", "http://client/rr2", "tenant2-secret-a", ""),
    ]
    assert "left: callbacks of the meeting 'nobody': it has ended, and whose it was is not known" in done.err


@pytest.mark.shows("cli: migrate-from", "DE-4")
def test_a_dry_run_says_the_same_and_writes_nothing(whole: Old, here: Here) -> None:
    before = contents(here)
    dry = take_over(here, whole, "--dry-run")
    assert contents(here) == before
    assert "Dry run: 2 meetings, 3 callbacks, 7 recordings would be new. Nothing was written." in dry.out
    assert dry.out.splitlines()[:-1] == take_over(here, whole, "--yes").out.splitlines()[:-1]


@pytest.mark.shows("cli: migrate-from", "RE-2")
def test_a_second_run_adds_only_what_has_come_since(whole: Old, here: Here) -> None:
    take_over(here, whole, "--yes")
    first = contents(here)
    again = take_over(here, whole, "--yes")
    assert "No changes." in again.out
    assert "Taken over: 0 meetings, 0 callbacks, 0 recordings new. What is declared was so already." in again.out
    assert contents(here) == first
    # What people did here stays, and so does what Scalelite has no word for.
    here.sql("UPDATE recording SET protected = true, name = 'ours'")
    here.sql("UPDATE server SET max_meetings = 7")
    whole.sql("INSERT INTO recordings (record_id, meeting_id, state, published, starttime) VALUES ('new-1', 'm', "
              "'published', true, now())")  # fmt: skip
    whole.meeting("room-3", "bbb2")
    whole.valkey.hset("scalelite:server:bbb2", "tag", "late")
    done = take_over(here, whole, "--yes")
    assert "Taken over: 1 meeting, 0 callbacks, 1 recording new. Revision 2." in done.out
    assert here.sql("SELECT tag, max_meetings FROM server WHERE id = 'bbb2'") == [("late", 7)]
    assert here.sql("SELECT count(*) FROM recording WHERE protected AND name = 'ours'") == [(7,)]


@pytest.mark.shows("cli: migrate-from", "DE-2", "plan: drift")
def test_the_export_of_it_is_an_inventory_without_changes(whole: Old, here: Here) -> None:
    here.write("servers: {}\n")
    take_over(here, whole, "--yes")
    here("export", "--secrets", "plain", "-o", "inv.yml")
    assert "No changes." in here("plan", "inv.yml").out
    here("apply", "inv.yml", "--auto-approve")
    whole.valkey.hset("scalelite:server:bbb2", "tag", "late")
    take_over(here, whole, "--yes")
    assert "drift: changed by tester" in here("plan", "inv.yml").out


REFUSED: Final[tuple[tuple[dict[str, Any], str], ...]] = (
    ({"scalelite:servers": {"set": ["ghost"]}}, "server/ghost: it is in the list, and has no data: it is half"),
    ({"scalelite:server:bbb2": {"secret": ""}}, "server/bbb2: secret: must not be empty"),
    ({"scalelite:server:bbb2": {"url": "http://x/"}}, "server/bbb2: url: must end with /api"),
    ({"scalelite:server:bbb2": {"url": URL.format("BBB3")}}, "server/bbb3: server/bbb2 has this url, too"),
    ({"scalelite:server:bbb2": {"load_multiplier": "-1"}}, "server/bbb2: load_multiplier: input should be greater"),
    ({"scalelite:server:bbb2": {"load_multiplier": "x"}}, "server/bbb2: load_multiplier: input should be a valid"),
    ({"scalelite:server:bbb2": {"state": "odd"}}, "server/bbb2: state: input should be 'enabled', 'cordoned',"),
    ({"scalelite:tenants": {"set": ["ghost"]}}, "tenant/ghost: it is in the list, and has no data: it is half"),
    (record("20-rake-tenants/026")["redis"], f"tenant/tenant2: two tenants have this name, {T1} and {T2}"),
    ({f"scalelite:tenant:{T1}": {"name": "Not A Host"}}, "tenant/not a host: name: string should match pattern"),
    ({f"scalelite:tenant:{T1}": {"secrets": ":"}}, "tenant/tenant1: secrets: needs at least one"),
    ({f"scalelite:tenant:{T1}": {"lrs_endpoint": ""}}, "tenant/tenant1/lrs: endpoint: must be a URL"),
    ({f"scalelite:tenant:{T1}": {"lrs_password": ""}}, "tenant/tenant1/lrs: basic.password: field required"),
    ({f"scalelite:tenant:{T1}": {"kc_username": "u"}}, "tenant/tenant1/lrs: oidc.token_url: field required"),
    (record("20-rake-tenants/053")["redis"], "tenant/tenant1/setting/param1: it is there twice with other values"),
    ({f"scalelite:tenant_settings:{T1}": {"set": ["ghost"]}}, "tenant/tenant1/setting/ghost: it is in the list"),
)  # fmt: skip


@pytest.mark.shows("cli: migrate-from", "cli: validate by the same models")
def test_what_an_inventory_could_not_say_is_refused_whole(whole: Old, here: Here, servers: list[RunningServer]) -> None:
    before = contents(here)
    wrong = []
    for keys, problem in REFUSED:
        fill_redis(whole, servers[0])
        whole.keys(keys)
        done = take_over(here, whole, "--yes", status=1)
        if problem not in done.err or "in what is to be taken over; nothing was written" not in done.err:
            wrong.append(f"{problem} is {done.err}")
    assert not wrong
    assert contents(here) == before


@pytest.mark.shows("cli: migrate-from")
def test_what_is_left_out_may_be_wrong(whole: Old, here: Here) -> None:
    whole.valkey.hset("scalelite:server:bbb1", "url", "ftp://x")
    whole.valkey.hset(f"scalelite:tenant:{T2}", "kc_username", "")
    whole.keys({"scalelite:servers": {"set": ["ghost"]}, "scalelite:tenants": {"set": ["ghost"]}})
    whole.keys({f"scalelite:tenant_settings:{T1}": {"set": ["ghost"]}})
    addresses = ("server/bbb1", "server/ghost", "tenant/ghost", "tenant/tenant1/setting/ghost", "tenant/tenant2/lrs")
    wrong = [word for address in (*addresses, "server/typo") for word in ("--leave-out", address)]
    assert (
        "server/typo: Scalelite has no such thing to leave out" in take_over(here, whole, *wrong, "--yes", status=1).err
    )
    done = take_over(here, whole, *wrong[:-2], "--yes")
    assert "left: meeting 'room-1': its server 'bbb1' is not brought" in done.err
    assert here.sql("SELECT count(*) FROM server") == [(2,)]
    assert here.sql("SELECT lrs IS NULL FROM tenant WHERE name = 'tenant2'") == [(True,)]


@pytest.mark.shows("cli: migrate-from")
def test_orphans_stay_behind_and_are_named(whole: Old, here: Here) -> None:
    whole.meeting("lost", "gone")
    whole.meeting("foreign", "bbb2", tenant_id="33333333-3333-4333-8333-333333333333")
    whole.keys({"scalelite:meetings": {"set": ["expired"]}})
    whole.sql("INSERT INTO recordings (record_id, state) VALUES ('../etc', 'published')")
    done = take_over(here, whole, "--yes")
    for text in (
        "left: meeting 'lost': its server 'gone' is not brought",
        "left: meeting 'foreign': its tenant '33333333-3333-4333-8333-333333333333' is not brought",
        "left: meeting 'expired': it is in the list of meetings, and has no data",
        "left: recording '../etc': '../etc' is no id of a recording",
    ):
        assert text in done.err


@pytest.mark.shows("cli: migrate-from")
def test_what_clashes_with_what_is_here_is_refused(whole: Old, here: Here) -> None:
    here.environ("SERVER_SECRET", "s")
    here("servers", "add", URL.format("bbb2"), "env:SERVER_SECRET", "--id", "mine")
    here("tenants", "add", "tenant1", "env:SERVER_SECRET")
    before = contents(here)
    done = take_over(here, whole, "--yes", status=1)
    assert "server/bbb2: server 'mine' here has the url http://bbb2.test/bigbluebutton/api already" in done.err
    assert "tenant/tenant1: a tenant of this name is here already, with the id" in done.err
    assert contents(here) == before


@pytest.mark.shows("cli: migrate-from")
def test_a_meeting_that_another_one_bars_stays_behind(whole: Old, here: Here) -> None:
    take_over(here, whole, "--yes")
    whole.meeting("room-9", "bbb2", voice_bridge="123456789")
    done = take_over(here, whole, "--yes")
    assert "left: meeting 'room-9': its id or voice bridge is another's here" in done.err
    assert "0 meetings" in done.out


@pytest.mark.shows("cli: migrate-from", "DE-3")
def test_an_error_at_the_end_leaves_nothing(whole: Old, here: Here) -> None:
    here.sql("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk full'; END $$")
    here.sql("CREATE TRIGGER fail BEFORE INSERT ON thumbnail EXECUTE FUNCTION fail()")
    before = contents(here)
    done = take_over(here, whole, "--yes", status=7)
    assert "error: rolled back, nothing was written: disk full" in done.err
    assert contents(here) == before


@pytest.mark.shows("cli: migrate-from", "DR-8")
def test_nobody_is_there_to_confirm(whole: Old, here: Here) -> None:
    before = contents(here)
    done = take_over(here, whole, status=64)
    assert "error: nobody is there to confirm: Take this over?" in done.err
    assert contents(here) == before


@pytest.mark.shows("cli: migrate-from")
def test_servers_of_older_versions_are_enabled_by_their_set(old: Old, here: Here) -> None:
    for name in ("bbb1", "bbb2"):
        old.server(name, URL.format(name), state="", load_multiplier="")
    old.keys({"scalelite:server_enabled": {"set": ["bbb1"]}})
    here("migrate-from", old.redis, "--yes")
    states = here.sql("SELECT id, state, load_multiplier FROM server ORDER BY id")
    assert states == [("bbb1", "enabled", 1.0), ("bbb2", "disabled", 1.0)]


UNREADABLE: Final = (
    (("redis://127.0.0.1:1",), 1, "Redis 127.0.0.1:1/0 cannot be reached: "),
    (("redis://:canary@127.0.0.1:{port}",), 1, "/0 says WRONGPASS"),
    (("redis://127.0.0.1:{port}/3",), 1, "/3 says NOAUTH"),
    (("http://127.0.0.1:{port}",), 64, "this is no address of a Redis"),
    (("{redis}/5",), 64, "/5 holds neither servers nor tenants in the namespace 'scalelite'"),
    (("{redis}", "postgresql://x:canary@127.0.0.1:1/y"), 1, "of what is to be taken over, Postgres is away"),
    (("{redis}", "nonsense canary"), 64, "what was given is no address of a Postgres"),
    (("{redis}", "{database}"), 1, "is no database of a Scalelite: it has no table recordings"),
)


@pytest.mark.shows("cli: migrate-from", "MO-3")
def test_a_source_that_cannot_be_read_is_an_error_without_its_password(whole: Old, here: Here) -> None:
    redis = here.read("redis").strip()
    given = {"redis": redis, "port": redis.rpartition(":")[2], "database": here.database}
    wrong = []
    for sources, status, message in UNREADABLE:
        for place, source in enumerate(sources):
            here.environ(f"SOURCE_{place}", source.format(**given))
        named = (f"env:SOURCE_{place}" for place in range(len(sources)))
        done = here("migrate-from", *named, "--yes", status=status)
        if message not in done.err or "canary" in done.err:
            wrong.append(f"{message} is {done.err}")
    assert not wrong
