"""`scalelite servers`, `meetings` and `status`: what they change, say and end with."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

if TYPE_CHECKING:
    from scalelite.sim import RunningServer
    from tests.plan.conftest import Here

URL = "https://new.example.com/bigbluebutton/api"


def revisions(here: Here) -> list[tuple[str, str]]:
    """(actor, first address) of the revisions."""
    return here.sql("SELECT actor, changes -> 0 ->> 'address' FROM revision ORDER BY number")


def state_of(here: Here, server: str) -> str:
    listed = {one["id"]: one for one in here("servers", "list", "--format", "json").json}
    return str(listed[server]["state"])


# --- servers ---------------------------------------------------------------------------------------------------------


@pytest.mark.shows("cli: servers add", "issue G: revision with its actor", "cli: SECRET argument")
def test_a_secret_comes_from_a_file_the_environment_or_standard_input(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.write("from-file\n", "secret")
    here.environ("BBB_SECRET", "from-environment")
    monkeypatch.setattr(sys, "stdin", io.StringIO("from-input\n"))
    for place, source in enumerate(("@secret", "env:BBB_SECRET", "-", "from-arguments")):
        url = URL.replace("new", f"new{place}")
        done = here("servers", "add", url, source, "--id", f"s{place}", "--load-multiplier", "2", "--tag", "gpu")
        assert ("warning" in done.err) == (source == "from-arguments")
    listed = here("servers", "--format", "json", "--show-secrets")
    assert [one["secret"] for one in listed.json] == ["from-file", "from-environment", "from-input", "from-arguments"]
    assert {(one["load_multiplier"], one["tag"], one["state"]) for one in listed.json} == {(2.0, "gpu", "disabled")}
    assert revisions(here) == [("tester", f"server/s{place}") for place in range(4)]
    for shown in (here("servers"), here("servers", "list", "--format", "yaml")):
        assert "from-" not in shown.out
        assert "********" in shown.out
    assert "from-file" in here("servers", "yaml").out


@pytest.mark.shows("cli: SECRET argument")
def test_a_secret_that_is_not_there_is_wrong_usage(here: Here) -> None:
    for source in ("@nowhere", "env:NOT_SET_ANYWHERE", ""):
        here("servers", "add", URL, source, status=64)


@pytest.mark.shows("cli: an id, a name, host name or unique prefix", "cli: ambiguous")
def test_a_server_is_named_by_id_host_or_the_beginning_of_either(here: Here) -> None:
    for place, name in enumerate(("alpha", "alps", "beta")):
        here("servers", "add", f"https://host{place}.example.com/bigbluebutton/api", "x", "--id", name)
    for text in ("alpha", "alph", "host0.example.com", "host0"):
        assert "Server alpha " in here("servers", "cordon", text, "--reason", text).out
        here("servers", "enable", text)
    ambiguous = here("servers", "cordon", "alp", status=64)
    assert "alpha, alps" in ambiguous.err
    assert "no server 'gamma'" in here("servers", "cordon", "gamma", status=1).err


@pytest.mark.shows("cli: servers update, load-multiplier, tag, remove")
def test_fields_are_changed_and_a_second_run_writes_nothing(here: Here) -> None:
    here("servers", "add", URL, "x", "--id", "new")
    here("servers", "update", "new", "--tag", "a", "--load-multiplier", "1.5", "--url", URL.replace("new", "other"))
    here("servers", "tag", "new", "gpu")
    here("servers", "load-multiplier", "new", "2.5")
    assert "Nothing was written" in here("servers", "load-multiplier", "new", "2.5").out
    [server] = here("servers", "list", "--format", "json").json
    assert (server["tag"], server["load_multiplier"]) == ("gpu", 2.5)
    here("servers", "tag", "new")
    here("servers", "load-multiplier", "new", "0", status=1)
    here("servers", "update", "new", status=64)
    here("servers", "remove", "new")
    assert here("servers", "list", "--format", "json").json == []


@pytest.mark.shows("issue G: the next plan marks it as drift")
def test_what_a_command_changed_is_drift_to_the_next_plan(here: Here) -> None:
    here.write("servers:\n  bbb1.example.com: {secret: s}\n")
    here("apply", "inv.yml", "-y")
    here("servers", "tag", "bbb1", "gpu")
    assert "drift: changed by tester" in here("plan", "inv.yml").out
    assert "servers tag" in here("history").out


@pytest.mark.shows("cli: cordon, disable and panic set a hold")
def test_a_hold_is_shown_and_an_apply_does_not_lift_it(here: Here) -> None:
    here.write("servers:\n  bbb1.example.com: {secret: s}\n")
    here("apply", "inv.yml", "-y")
    here("servers", "cordon", "bbb1", "--reason", "audio crackles")
    [server] = here("servers", "list", "--format", "json").json
    assert (server["state"], server["declared_state"]) == ("cordoned", "enabled")
    assert (server["hold"]["by"], server["hold"]["why"]) == ("tester", "audio crackles")
    here("apply", "inv.yml", "-y")
    assert state_of(here, "bbb1.example.com") == "cordoned"
    here("servers", "enable", "bbb1")
    assert state_of(here, "bbb1.example.com") == "enabled"


# --- meetings --------------------------------------------------------------------------------------------------------


@pytest.mark.shows("DR-8", "cli: disable asks and ends", "cli: needs --yes without a terminal")
def test_disable_of_a_server_with_meetings_needs_a_yes_and_ends_them(
    cluster: Here, servers: list[RunningServer]
) -> None:
    refused = cluster("servers", "disable", "bbb1", status=64)
    assert "End 2 meetings on server bbb1?" in refused.err
    assert state_of(cluster, "bbb1") == "enabled"
    done = cluster("servers", "disable", "bbb1", "--yes", "--reason", "disk swap")
    assert "2 meetings ended" in done.out
    assert sorted(done.err.splitlines()) == ["room-1: ended", "room-2: ended"]
    assert not servers[0].meetings
    assert state_of(cluster, "bbb1") == "disabled"
    assert cluster("meetings", "list", "--format", "json").json == []
    cluster("servers", "disable", "bbb2")  # has none, so that nobody is asked


@pytest.mark.shows("cli: panic of an unreachable server", "cli: exits 9")
def test_panic_of_a_server_that_is_away_says_what_it_does_not_know(cluster: Here, servers: list[RunningServer]) -> None:
    servers[0].fail("close")
    done = cluster("servers", "panic", "bbb1", "-y", status=9)
    assert "2 unknown" in done.out
    assert "room-1: unknown" in done.err
    assert "nothing to do" in cluster("servers", "panic", "bbb1").out


@pytest.mark.shows("cli: servers remove", "PO-13")
def test_a_server_with_meetings_is_not_removed(cluster: Here) -> None:
    assert "2 meetings" in cluster("servers", "remove", "bbb1", status=5).err


@pytest.mark.shows("cli: meetings list, info, end")
def test_meetings_are_listed_looked_at_and_ended(cluster: Here, servers: list[RunningServer]) -> None:
    listed = cluster("meetings", "list", "room-1", "--format", "json").json
    assert [(one["meeting_id"], one["server"], one["tenant"]) for one in listed] == [("room-1", "bbb1", None)]
    assert "room-1, room-2" in cluster("meetings", "info", "room", status=64).err
    assert "internalMeetingID" in cluster("meetings", "info", "room-2").out
    assert "no meeting 'nope'" in cluster("meetings", "end", "nope", status=1).err
    assert "End 2 meetings on 1 server?" in cluster("meetings", "end", status=64).err
    assert "1 meeting ended" in cluster("meetings", "end", "room-1", "--yes").out
    servers[0].fail("close", calls=["end"])
    assert "0 meetings ended, 1 unknown" in cluster("meetings", "end", "-y", status=9).out
    assert "No meeting runs" in cluster("meetings", "end", "-y").out


@pytest.mark.shows("operations: meetings that Postgres does not know")
def test_meetings_that_postgres_does_not_know_are_listed_and_noted(cluster: Here, servers: list[RunningServer]) -> None:
    servers[1].create_meeting("theirs")
    cluster("poll", "--once")
    listed = {one["meeting_id"]: one for one in cluster("meetings", "list", "--format", "json").json}
    assert {name: one["phase"] for name, one in listed.items()} == {
        "room-1": "running", "room-2": "running", "theirs": "unknown",
    }  # fmt: skip
    assert listed["theirs"]["server"] == "bbb2"
    assert listed["theirs"].keys() == listed["room-1"].keys()
    assert "theirs" in cluster("meetings").out
    assert "bbb2 runs 1 meeting that Postgres does not know" in cluster("status").err
    assert cluster("status", "--format", "json").err == ""
    assert "no meeting 'theirs'" in cluster("meetings", "end", "theirs", "-y", status=1).err, "not adopted"


@pytest.mark.shows("LB-8")
def test_the_formula_of_a_load_is_told_with_what_it_is_made_of(cluster: Here, servers: list[RunningServer]) -> None:
    servers[0].add_users("room-1", 20)
    cluster("poll", "--once")
    told = cluster("status", "--explain").out
    assert "load = multiplier x (polled + reserved)" in told
    assert "polled = 0 x meetings + 1 x users + 0 x voice + 0 x videos" in told
    assert "counts 15 users at least" in told
    rows = [line.split() for line in told.splitlines() if "127.0.0.1" in line]
    assert rows[0][1:] == ["2", "20", "0", "0", "20.0", "0.0", "0", "meetings", "1", "20.0"]
    (explained,) = cluster("status", "--explain", "--format", "json").json
    assert (explained["weights"]["user"], explained["min_user_count"]) == (1, 15)


@pytest.mark.shows("cli: servers meetings")
def test_servers_are_asked_for_their_meetings(cluster: Here, servers: list[RunningServer]) -> None:
    listed = cluster("servers", "meetings", "--format", "json").json
    assert listed == [{"server": "bbb1", "meeting_id": name} for name in ("room-1", "room-2")]
    servers[1].fail("status")
    assert "server bbb2" in cluster("servers", "meetings", "bbb1", "bbb2", status=9).err


# --- many at once ----------------------------------------------------------------------------------------------------


@pytest.mark.shows("cli: servers sync", "cli: servers yaml")
def test_the_printed_file_is_what_sync_reads(cluster: Here) -> None:
    text = cluster("servers", "yaml", "--verbose").out
    assert YAML(typ="safe").load(text)["servers"]["bbb1"]["online"] is True
    cluster.write(text, "servers.yml")
    assert "Nothing to do" in cluster("servers", "sync", "servers.yml").out
    cluster.write(text.replace("tag: ''", "tag: gpu"), "servers.yml")
    assert "bbb1: Server updated: tag=gpu" in cluster("servers", "sync", "servers.yml", "--dry-run").out
    assert {one["tag"] for one in cluster("servers", "list", "--format", "json").json} == {""}
    cluster("servers", "sync", "servers.yml")
    assert {one["tag"] for one in cluster("servers", "list", "--format", "json").json} == {"gpu"}


@pytest.mark.shows("cli: servers sync", "cli: defects that are mended")
def test_sync_in_mode_force_really_ends_the_meetings(cluster: Here, servers: list[RunningServer]) -> None:
    text = cluster("servers", "yaml").out
    cluster.write("servers:\n" + text[text.index("  bbb2:") :], "servers.yml")
    assert "Cordoned for removal" in cluster("servers", "sync", "servers.yml").out
    assert servers[0].meetings
    assert "Server removed" in cluster("servers", "sync", "servers.yml", "--mode", "force").out
    assert not servers[0].meetings
    assert len(cluster("servers", "list", "--format", "json").json) == 2


@pytest.mark.shows("cli: servers sync: the same guards")
def test_sync_has_the_guards_of_an_apply(cluster: Here) -> None:
    cluster.write("servers: {}\n", "servers.yml")
    assert "guard" in cluster("servers", "sync", "servers.yml", status=5).err
    cluster.write("servers: [\n", "servers.yml")
    cluster("servers", "sync", "servers.yml", status=3)


@pytest.mark.shows("cli: servers add-all", "operator guide: addAll")
def test_the_file_of_the_guide_is_added_whole_or_not_at_all(here: Here) -> None:
    entry = '- url: "{}"\n  secret: "1bdce5cbab581f3f20b199b970e53ae3c9d9df6392f79589bd58be020ed14535"\n'
    here.write("servers:\n" + "".join(map(entry.format, ("bbb1.example.com", "bbb2.example.com"))), "all.yml")
    done = here("servers", "add-all", "all.yml")
    assert done.out.count("id: ") == 2
    urls = {one["url"] for one in here("servers", "list", "--format", "json").json}
    assert urls == {f"https://bbb{place}.example.com/bigbluebutton/api" for place in (1, 2)}
    here.write("servers:\n" + "".join(map(entry.format, ("bbb3.example.com", "bbb2.example.com"))), "all.yml")
    here("servers", "add-all", "all.yml", status=1)
    assert len(here("servers", "list", "--format", "json").json) == 2


# --- status ----------------------------------------------------------------------------------------------------------


@pytest.mark.shows("cli: status", "cli: tables print plainly in a pipe")
def test_status_is_the_table_of_the_guide(cluster: Here) -> None:
    lines = cluster("status").out.splitlines()
    assert lines[0].split("  ")[0] == "HOSTNAME"
    assert len(lines) == 4
    assert "\x1b" not in "".join(lines)
    first = cluster("status", "--format", "json").json[0]
    assert {"id", "state", "health", "meetings", "load", "tag"} <= first.keys()
    cluster("status", "--watch", "--format", "json", status=64)


@pytest.mark.shows("cli: poll --once", "cli: one line per step elsewhere")
def test_a_poll_says_what_each_server_answered(cluster: Here) -> None:
    assert sorted(cluster("poll", "--once").err.splitlines()) == [
        "bbb1: 2 meetings", "bbb2: 0 meetings", "bbb3: 0 meetings",
    ]  # fmt: skip
