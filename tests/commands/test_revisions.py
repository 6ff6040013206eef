"""Each command that changes what is declared, in both spellings: a revision with its actor, and drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from tests.plan.conftest import Here

ID: Final = "9a870f45-ec23-4d29-828b-4673f3536d7b"
URL: Final = "https://{}.example.com/bigbluebutton/api"
INVENTORY: Final = f"""
servers: {{bbb1: {{secret: s}}, bbb2: {{secret: s}}, bbb3: {{secret: s}}, bbb4: {{secret: s}}}}
tenants:
  acme: {{id: {ID}, secrets: [t], settings: {{record: true, welcome: Hi}}}}
  gone: {{secrets: [t]}}
  away: {{id: 11111111-1111-4111-8111-111111111111, secrets: [t]}}
"""
BASIC: Final = ("https://lrs.example.com/xapi", "user", "pass")
KEYCLOAK: Final = ("https://lrs.example.com/xapi", "https://kc.example.com/token", "id", "secret", "user", "pass")
# A command, and the address of what it changes.
DECLARED: Final = (
    (("servers", "add", URL.format("new1"), "s", "--id", "new1"), "server/new1"),
    (("servers", "update", "bbb1", "--tag", "gpu"), "server/bbb1"),
    (("servers", "load-multiplier", "bbb1", "2"), "server/bbb1"),
    (("servers", "tag", "bbb1", "big"), "server/bbb1"),
    (("servers", "remove", "bbb3"), "server/bbb3"),
    (("servers", "add-all", "list.yml"), "server/listed.example.com"),
    (("servers", "sync", "sync.yml", "--mode", "keep"), "server/bbb2"),
    (("tenants", "add", "acme2", "t"), "tenant/acme2"),
    (("tenants", "update", "acme", "--secrets", "a:b"), "tenant/acme"),
    (("tenants", "update-lrs-basic", "acme", *BASIC), "tenant/acme/lrs"),
    (("tenants", "update-lrs-kc", "acme", *KEYCLOAK), "tenant/acme/lrs"),
    (("tenants", "remove-lrs", "acme"), "tenant/acme/lrs"),
    (("tenants", "remove", "gone"), "tenant/gone"),
    (("tenant-settings", "add", "acme", "record", "false"), "tenant/acme/setting/record"),
    (("tenant-settings", "remove", "acme/welcome"), "tenant/acme/setting/welcome"),
    (("rake", f"servers:add[{URL.format('new2')},s]"), "server/new2.example.com"),
    (("rake", "servers:update[bbb1,other,3,old]"), "server/bbb1"),
    (("rake", "servers:loadMultiplier[bbb1,4]"), "server/bbb1"),
    (("rake", "servers:tag[bbb1,t]"), "server/bbb1"),
    (("rake", "servers:remove[bbb4]"), "server/bbb4"),
    (("rake", "servers:addAll[list2.yml]"), "server/listed2.example.com"),
    (("rake", "servers:sync[sync2.yml,keep]"), "server/bbb2"),
    (("rake", "tenants:add[acme3,t]"), "tenant/acme3"),
    (("rake", f"tenants:update[{ID},,c]"), "tenant/acme"),
    (("rake", f"tenants:update_lrs_basic[{ID},{','.join(BASIC)}]"), "tenant/acme/lrs"),
    (("rake", f"tenants:update_lrs_kc[{ID},{','.join(KEYCLOAK)}]"), "tenant/acme/lrs"),
    (("rake", "tenants:remove[11111111-1111-4111-8111-111111111111]"), "tenant/away"),
    (("rake", f"tenantSettings:add[{ID},record,true,true]"), "tenant/acme/setting/record"),
)
HELD: Final = (
    ("servers", "cordon", "bbb1", "--reason", "audio"), ("servers", "enable", "bbb1"),
    ("servers", "disable", "bbb1"), ("servers", "enable", "bbb1"), ("servers", "panic", "bbb1"),
    ("rake", "servers:enable[bbb1]"), ("rake", "servers:cordon[bbb1]"), ("rake", "servers:enable[bbb1]"),
    ("rake", "servers:disable[bbb1]"), ("rake", "servers:enable[bbb1]"), ("rake", "servers:panic[bbb1]"),
)  # fmt: skip


@pytest.fixture
def applied(here: Here) -> Here:
    here.environ("MULTITENANCY_ENABLED", "true")
    here.environ("SERVER_ID_IS_HOSTNAME", "true")
    here.write(INVENTORY)
    here.write("servers: [{url: 'https://listed.example.com/bigbluebutton/api', secret: s}]\n", "list.yml")
    here.write("servers: [{url: 'https://listed2.example.com/bigbluebutton/api', secret: s}]\n", "list2.yml")
    here.write("servers: {bbb2: {secret: s, tag: gpu}}\n", "sync.yml")
    here.write("servers: {bbb2: {secret: s, tag: old}}\n", "sync2.yml")
    here("apply", "inv.yml", "-y")
    return here


@pytest.mark.shows("issue G: revisions", "cli: everything that changes state writes a revision", "DE-10")
def test_each_change_is_a_revision_and_drift(applied: Here) -> None:
    wrong = []
    for number, (command, address) in enumerate(DECLARED, 2):
        applied(*command, "--actor", "ops") if command[0] != "rake" else applied(*command)
        actor = "tester" if command[0] == "rake" else "ops"
        newest = applied("history", "--limit", "1", "--format", "json").json[0]
        if (newest["revision"], newest["actor"]) != (number, actor):
            wrong.append(f"{command}: revision {newest['revision']} by {newest['actor']}, not {number} by {actor}")
        if not any(change["address"].startswith(address) for change in newest["changes"]):
            wrong.append(f"{command}: {[change['address'] for change in newest['changes']]}")
    assert not wrong
    drift = {one["address"] for one in applied("drift", "inv.yml", "--format", "json").json["drift"]}
    assert not {address for _, address in DECLARED} - drift
    planned = applied("plan", "inv.yml", "--allow", "removals=4", "--full").out
    assert planned.count("# drift: ") == len({address for _, address in DECLARED}) + 2  # of bbb1 three fields


@pytest.mark.shows("issue G: revisions", "cli: holds", "data: hold")
def test_each_hold_is_a_revision_and_is_shown_by_the_plan(applied: Here) -> None:
    for number, command in enumerate(HELD, 2):
        applied(*command, *(("--yes",) if command[1] == "panic" else ()))
        newest = applied("history", "--limit", "1", "--format", "json").json[0]
        assert (newest["revision"], newest["actor"]) == (number, "tester"), command
        lifted = "enable" in command[1]
        assert ("held" in applied("plan", "inv.yml").out) is not lifted, command
