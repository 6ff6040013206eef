"""Modes, states, holds, limits and guards, through the command; what apply wrote is read back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.junit import junit
from tests.plan.conftest import CANARY

if TYPE_CHECKING:
    from tests.plan.conftest import Here


def server(name: str, **fields: object) -> str:
    more = "".join(f", {key}: {json.dumps(value)}" for key, value in fields.items())
    return f'  {name}: {{url: "https://{name}/api", secret: {CANARY}{more}}}\n'


def servers(*lines: str) -> str:
    return "servers:\n" + "".join(lines)


TENANT = f"tenants:\n  acme: {{secrets: [{CANARY}]}}\n"
ALLOW = ("--allow", "tenants-without-server=1")
TEN = [f"bbb{number}" for number in range(1, 11)]


@pytest.fixture
def ten(here: Here) -> Here:
    """Ten servers and a tenant."""
    here.write(servers(*map(server, TEN)) + TENANT)
    here("apply", "inv.yml", "-y")
    return here


def state(here: Here, name: str) -> str | None:
    rows = here.sql("SELECT state FROM server WHERE id = %s", name)
    return rows[0][0] if rows else None


@pytest.mark.shows("plan: modes", "PO-14")
def test_a_server_that_is_gone_from_the_inventory_is_kept_cordoned_or_removed(ten: Here) -> None:
    ten.meeting("bbb1")
    ten.write(servers(*map(server, TEN[2:])) + TENANT)
    kept = ten("plan", "inv.yml", "--mode", "keep", "--detailed-exitcode").out
    assert "= server bbb1" in kept
    assert "No changes." in kept
    planned = ten("apply", "inv.yml", "-y").out
    assert "enabled → cordoned" in planned
    assert "1 meeting is on it; removed by a later apply" in planned
    assert "Deletes: server bbb2\n" in planned
    assert (state(ten, "bbb1"), state(ten, "bbb2")) == ("cordoned", None)
    again = ten("plan", "inv.yml", "--detailed-exitcode").out
    assert "= server bbb1" in again
    ten.sql("DELETE FROM meeting")
    ten("apply", "inv.yml", "-y")
    assert state(ten, "bbb1") is None


@pytest.mark.shows("plan: state and enabled")
def test_enabled_false_cordons_an_enabled_server_and_makes_a_new_one_disabled(ten: Here) -> None:
    lines = [server(name, enabled=False) if name in {"bbb1", "new"} else server(name) for name in [*TEN, "new"]]
    ten.write(servers(*lines) + TENANT)
    ten("apply", "inv.yml", "-y")
    assert (state(ten, "bbb1"), state(ten, "new")) == ("cordoned", "disabled")
    assert "No changes." in ten("plan", "inv.yml").out
    ten.meeting("bbb2")
    ten.write(servers(*(server(name, state="disabled") if name == "bbb2" else server(name) for name in TEN)) + TENANT)
    blocked = ten("plan", "inv.yml", status=5).out
    assert "! server bbb2" in blocked
    assert "--mode force" in " ".join(blocked.split())


@pytest.mark.shows("plan: holds", "data: hold")
def test_holds_are_kept_and_shown_until_they_are_released(ten: Here) -> None:
    ten.sql("INSERT INTO hold (server, state, by, why) VALUES ('bbb1', 'cordoned', 'ops@lb1', 'audio crackles')")
    shown = ten("plan", "inv.yml", "--detailed-exitcode").out
    assert "held cordoned by ops@lb1 since" in shown
    assert '("audio crackles")' in shown
    assert "No changes. 10 servers, 1 tenant, 0 settings match the cluster. 1 kept." in shown
    ten("apply", "inv.yml", "-y")
    assert ten.sql("SELECT server FROM hold") == [("bbb1",)]
    assert "1 hold to release" in ten("plan", "inv.yml", "--release-holds", "--detailed-exitcode", status=2).out
    ten("apply", "inv.yml", "-y", "--release-holds")
    assert ten.sql("SELECT server FROM hold") == []


@pytest.mark.shows("plan: tenants' removal", "MT-6")
def test_a_tenant_with_recordings_needs_a_word_on_them(ten: Here) -> None:
    ten.sql(
        "INSERT INTO recording (record_id, tenant, meeting_id, name, state, published, start_ms, end_ms)"
        " SELECT 'r1', id, 'm', 'n', 'published', true, 1, 2 FROM tenant WHERE name = 'acme'"
    )
    ten.write(servers(*map(server, TEN)) + f"tenants:\n  other: {{secrets: [{CANARY}]}}\n")
    options = ("inv.yml", "--allow", "tenant-removals=1", "--allow", "tenants-without-server=1")
    blocked = ten("plan", *options, status=5).out
    assert "it owns 1 recording" in blocked
    assert "--tenant-data" in blocked
    assert "no such tenant" in ten("plan", *options, "--tenant-data", "move:nobody", status=64).err
    ten("plan", *options, "--tenant-data", "lose", status=64)
    ten("apply", *options, "-y", "--tenant-data", "move:other")
    owner = "SELECT t.name FROM recording r JOIN tenant t ON t.id = r.tenant"
    assert ten.sql(owner) == [("other",)]
    ten.write(servers(*map(server, TEN)) + TENANT)
    ten("apply", *options, "-y", "--tenant-data", "keep")
    assert ten.sql(owner) == [("",)]


@pytest.mark.shows("plan: limit", "plan: a limited plan removes nothing outside")
def test_limits_are_patterns_and_a_term_that_matches_nothing_is_wrong_usage(ten: Here) -> None:
    lines = [server(name, tag="gpu" if name in {"bbb2", "bbb3"} else "x") for name in TEN[1:]]
    ten.write(servers(*lines) + TENANT)
    for options, changed in (
        (["--limit", "bbb2"], ["bbb2"]),
        (["--limit", "tag=gpu"], ["bbb2", "bbb3"]),
        (["--limit", "all:!bbb4", "--limit", "~^bbb4$"], TEN),
        (["--limit", "servers:&bbb[56]"], ["bbb5", "bbb6"]),
        (["--exclude", "bbb?", "--exclude", "tenants"], ["bbb10"]),
        (["--limit", "@names"], ["bbb7", "bbb8"]),
    ):
        ten.write("bbb7\n# a comment\nbbb8\n", "names")
        document = ten("plan", "inv.yml", "--no-simulate", "--format", "json", *ALLOW, *options).json
        names = sorted(change["name"] for change in document["resource_changes"] if change["type"] == "server")
        assert names == sorted(changed), options
        if "bbb1" not in changed:
            assert {
                "address": "server/bbb1",
                "reason": "no longer in the inventory (was inv.yml); out of --limit",
            } in document["kept"]
    nearest = ten("plan", "inv.yml", "--limit", "bbbb2", status=64).err
    assert "bbb2" in nearest.partition("hint:")[2]


@pytest.mark.shows("plan: sections", "plan: show-unmanaged", "plan: show-unchanged")
def test_sections_that_are_left_out_are_counted_and_left_alone(ten: Here) -> None:
    ten.write(servers(*map(server, TEN)) + f"tenants:\n  acme: {{secrets: [{CANARY}], enabled: false}}\n")
    out = ten("plan", "inv.yml", "--sections", "servers", "--show-unmanaged", "--show-unchanged").out
    assert "No changes." in out
    assert "1 not managed" in out
    assert "tenant/acme  not managed" in out
    assert "server/bbb1  unchanged" in out
    ten("plan", "inv.yml", "--sections", "rooms", status=64)


@pytest.mark.shows("plan: guards", "DE-5")
def test_each_guard_says_its_number_its_bound_where_it_is_set_and_the_flag(ten: Here) -> None:
    ten.meeting("bbb1", tenant="")
    moved = server("bbb1").replace("https://bbb1", "https://new")
    cordoned = servers(*(server(name, state="cordoned") for name in TEN))
    tagged = servers(*(server(name, tag="x") for name in TEN))
    cases = [
        (servers(*map(server, TEN[5:])) + TENANT, "removals", 4, "the default of safety.max_removals"),
        (servers(*map(server, TEN[:6])) + "safety: {max_removals: 10%}\n", "removals", 4, "inv.yml:8:24"),
        (tagged + "safety: {max_updates: 50%}\n", "updates", 10, "inv.yml"),
        (servers(moved, *map(server, TEN[1:])), "reach", 1, ""),
        (cordoned + "safety: {min_capacity: 50%}\n", "capacity", 0, "inv.yml"),
        (servers(*(server(name, tag="gpu") for name in TEN)) + TENANT, "tenants-without-server", 1, ""),
        ("tenants: {}\n", "tenant-removals", 1, "the default"),
        ("servers: {}\n", "removals", 10, "the default"),
    ]  # fmt: skip
    for text, guard, count, where in cases:
        ten.write(text)
        done = ten("plan", "inv.yml", "--no-simulate", "--format", "json", status=5)
        found = next(found for found in done.json["guards"] if found["id"] == guard)
        assert found["status"] == "blocked"
        assert found["override"] == f"--allow {guard}={found['actual']}"
        assert where in found["where"]
        assert found["limit"]
        exact = [f"{other['id']}={other['actual']}" for other in done.json["guards"] if other["override"]]
        assert done.json["applyable"] is False
        ten("plan", "inv.yml", "--no-simulate", *(part for pair in exact for part in ("--allow", pair)))
        ten("plan", "inv.yml", "--no-simulate", "--allow", f"{guard}={found['actual'] + 1}", status=5)
        assert found["actual"] == count
    ten("plan", "inv.yml", "--allow", "nothing=1", status=64)
    ten("plan", "inv.yml", "--allow", "removals=some", status=64)


@pytest.mark.shows("plan: protect")
def test_protection_is_lifted_only_by_an_apply_of_its_own(ten: Here) -> None:
    ten.write(servers(server("bbb1", protect=True), *map(server, TEN[1:])) + TENANT)
    ten("apply", "inv.yml", "-y")
    ten.write(servers(*map(server, TEN[1:])) + TENANT)
    assert "it is protected; apply it with protect: false first" in ten("apply", "inv.yml", "-y", status=5).out
    ten("plan", "inv.yml", "--mode", "force", status=5)
    ten.write(servers(server("bbb1", protect=False), *map(server, TEN[1:])) + TENANT)
    ten("apply", "inv.yml", "-y")
    ten.write(servers(*map(server, TEN[1:])) + TENANT)
    ten("apply", "inv.yml", "-y")
    assert state(ten, "bbb1") is None


@pytest.mark.shows("plan: policies")
def test_policies_beside_the_inventory_deny_changes(ten: Here) -> None:
    ten.write(
        "- name: small-steps\n  when: change.type == 'server' and change.action == 'update'\n"
        "  deny: change.after.load_multiplier > 2 * change.before.load_multiplier\n  message: one doubling at a time\n",
        "policies/steps.yml",
    )
    ten.write(servers(server("bbb1", load_multiplier=3.0), *map(server, TEN[1:])) + TENANT)
    blocked = ten("plan", "inv.yml", "-o", "plan.json", status=5).out
    assert "one doubling at a time (server/bbb1)" in blocked
    assert "policies/steps.yml:1:3" in blocked
    assert "policies/steps.yml" in ten.read("plan.json")
    ten("plan", "inv.yml", "--allow", "policy:small-steps=1")
    ten.write(servers(server("bbb1", load_multiplier=2.0), *map(server, TEN[1:])) + TENANT)
    ten("plan", "inv.yml", "--detailed-exitcode", status=2)
    ten.write("- name: broken\n  when: change.nothing > 1\n  message: broken rules deny\n", "policies/steps.yml")
    assert "the rule fails" in ten("plan", "inv.yml", status=5).out
    ten.write("- {name: broken, wen: x}\n", "policies/steps.yml")
    ten("plan", "inv.yml", status=3)


@pytest.mark.shows("plan: warnings", "LB-13")
def test_what_is_hardly_meant_is_warned_of(ten: Here) -> None:
    ten.write(
        servers(*(server(name, tag="gpu") for name in TEN[:9]), server("bbb10", tag="gpu", load_multiplier=200))
        + TENANT
    )
    out = " ".join(ten("plan", "inv.yml", "--allow", "tenants-without-server=1", "--no-simulate").out.split())
    assert "no untagged server is enabled" in out
    assert "100 times more on bbb10" in out
    assert "11 secrets stand in clear, first at inv.yml:2:" in out


@pytest.mark.shows("plan: collapsed", "plan: 120 columns", "plan: stable", "plan: control characters")
def test_many_identical_changes_are_one_entry_and_lines_are_short(ten: Here) -> None:
    ten.write(
        servers(*(server(name, tag="gpu") for name in TEN[1:]), server("bbb1", tag="x" * 200))
        + 'cluster: {name: "a\\nb"}\n'
    )
    first = ten("plan", "inv.yml", "--no-simulate", *ALLOW).out
    assert "~ 9 servers" in first
    assert "(--full lists them)" in first
    assert "'' → gpu" in first
    assert all(len(line) <= 120 for line in first.splitlines())
    assert "~ server bbb7" in ten("plan", "inv.yml", "--full", *ALLOW).out
    assert "~ 9 servers" not in ten("plan", "inv.yml", "--summary", *ALLOW).out
    body = first.partition("\n\n")[2]
    assert ten("plan", "inv.yml", *ALLOW).out.partition("\n\n")[2] == body
    assert "\x1b" not in first
    ten("apply", "inv.yml", "-y", *ALLOW)
    assert "a\\x0ab, revision 2" in ten("plan", "inv.yml").out


@pytest.mark.shows("plan: places of values")
def test_a_changed_secret_says_which_lookup_it_comes_from(ten: Here) -> None:
    ten.environ("NEW_SECRET", CANARY + "2")
    changed = server("bbb1").replace(CANARY, "\"{{ lookup('env', 'NEW_SECRET') }}\"")
    ten.write(servers(changed, *map(server, TEN[1:])) + TENANT)
    out = ten("plan", "inv.yml").out
    assert "      secret            (sensitive value changed)          lookup env NEW_SECRET, inv.yml:2:" in out


@pytest.mark.shows("plan: --out", "plan: markdown", "plan: junit", "plan: gitlab-terraform")
def test_several_reports_are_written_at_once(ten: Here) -> None:
    ten.write("servers: {}\n")
    outs = [f"--out={kind}={kind}.out" for kind in ("markdown", "junit", "gitlab-terraform", "json", "text")]
    ten("plan", "inv.yml", *outs, status=5)
    assert json.loads(ten.read("gitlab-terraform.out")) == {"create": 0, "update": 0, "delete": 10}
    suite = junit(ten.read("junit.out"))
    assert int(suite.get("failures") or 0) == len(suite.findall(".//failure")) > 0
    assert "- server bbb10" in ten.read("markdown.out")
    assert "**Stopped** by guard `removals`" in ten.read("markdown.out")
    assert json.loads(ten.read("json.out"))["summary"]["delete"] == 10
    assert "Deletes: server bbb1, server bbb10" in ten.read("text.out")
    ten("plan", "inv.yml", "--out", "paper=x", status=64)


@pytest.mark.shows("inventory: the live server with that url")
def test_an_entry_of_the_list_form_is_the_live_server_with_that_url(ten: Here) -> None:
    ten.write(f"servers:\n- {{url: 'https://BBB1:443/api/', secret: {CANARY}}}\n")
    document = ten("plan", "inv.yml", "--allow", "removals=9", "--format", "json", "--no-simulate").json
    assert document["summary"]["create"] == 0
    assert document["summary"]["delete"] == 9


@pytest.mark.shows("inventory: a name that is live under another id")
def test_a_tenant_that_is_live_under_another_id_is_refused(ten: Here) -> None:
    ten.write(f"tenants:\n  acme: {{id: 9a870f45-ec23-4d29-828b-4673f3536d7b, secrets: [{CANARY}]}}\n")
    assert "it is live under the id" in ten("plan", "inv.yml", status=5).out


@pytest.mark.shows("plan: what a guard stops")
def test_the_url_of_a_server_that_stays_is_not_taken(ten: Here) -> None:
    ten.meeting("bbb1")
    ten.write(servers(*map(server, TEN[1:]), server("new").replace("new/api", "bbb1/api")) + TENANT)
    refused = ten("apply", "inv.yml", "-y", status=5)
    assert "server/new: its url https://bbb1:443/api is still that of server/bbb1, which stays" in refused.err
    ten.sql("DELETE FROM meeting")
    assert "1 created, 0 updated, 1 deleted" in ten("apply", "inv.yml", "-y").out
