"""Saved plans: applied as they stand, or refused with what, when and who."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft7Validator

from scalelite.core import document as documents
from scalelite.core.document import PlanDocument, plan_schema
from tests.plan.conftest import CANARY

if TYPE_CHECKING:
    from tests.plan.conftest import Here

SCHEMA = Path(__file__).parents[2] / "schemas" / "plan.schema.json"
INVENTORY = f"""
servers:
  bbb1: {{url: "https://bbb1/api", secret: {CANARY}}}
  bbb2: {{url: "https://bbb2/api", secret: {CANARY}, load_multiplier: 2.0}}
tenants:
  acme: {{secrets: [{CANARY}], settings: {{record: true}}}}
"""


@pytest.fixture
def saved(here: Here) -> Here:
    """A live cluster, and a plan that changes bbb2 and the setting, and removes nothing."""
    here.write(INVENTORY)
    here("apply", "inv.yml", "-y")
    here.write(INVENTORY.replace("2.0", "3.0").replace("record: true", "record: false"))
    here("plan", "inv.yml", "-o", "plan.json")
    return here


def edit(here: Here, **changes: Any) -> None:
    """Change a saved plan and sign it anew, as only who knows the cluster's key could."""
    key = bytes(here.sql("SELECT fingerprint_key FROM cluster")[0][0])
    document = PlanDocument.model_validate_json(here.read("plan.json")).model_copy(update=changes)
    signed = document.model_copy(update={"digest": documents.digest(document, key)})
    here.write(signed.model_dump_json(), "plan.json")


@pytest.mark.shows("plan: schema published", "issue B: schemas", "DE-9")
def test_the_published_schema_is_fresh_and_plans_fit_it(saved: Here) -> None:
    assert json.loads(SCHEMA.read_text()) == plan_schema()
    Draft7Validator.check_schema(plan_schema())
    document = json.loads(saved.read("plan.json"))
    assert not list(Draft7Validator(plan_schema()).iter_errors(document))
    assert {"terraform_version", "format_version", "resource_changes", "resource_drift"} <= document.keys()
    change = document["resource_changes"][0]
    assert change["mode"] == "managed"
    assert change["provider_name"] == "scalelite"
    assert change["change"]["after_unknown"] == {}
    assert change["change"]["after"]["secret"] is None


@pytest.mark.shows("plan: -o holds no secret, mode 0600")
def test_a_saved_plan_holds_no_secret_and_is_its_owners_alone(saved: Here) -> None:
    saved.write(saved.read("inv.yml").replace(CANARY, CANARY + "2", 1))
    saved("plan", "inv.yml", "-o", "plan.json")
    assert CANARY not in saved.read("plan.json")
    assert stat.S_IMODE((saved.folder / "plan.json").stat().st_mode) == 0o600
    fields = json.loads(saved.read("plan.json"))["resource_changes"][0]["change"]["fields"]
    assert fields[0]["path"] == "secret"
    assert fields[0]["before"] is None
    assert fields[0]["before_hmac"] != fields[0]["after_hmac"]


@pytest.mark.shows("plan: apply PLANFILE", "DE-4")
def test_a_saved_plan_is_applied_once(saved: Here) -> None:
    assert "2 updated" in saved("apply", "plan.json").out
    assert "Revision 2." not in saved("apply", "plan.json", status=4).out
    again = saved("apply", "plan.json", "--format", "json", status=4)
    assert "applied already by tester at" in again.err
    assert "(revision 2)" in again.err
    assert "No changes." in saved("plan", "inv.yml").out


@pytest.mark.shows("plan: stale by row")
def test_a_row_that_has_changed_makes_a_plan_stale_naming_who_and_when(saved: Here) -> None:
    saved.write(INVENTORY.replace("2.0", "4.0"), "other.yml")
    saved("apply", "other.yml", "-y", "--actor", "ops@lb1")
    refused = saved("apply", "plan.json", status=4)
    assert "server/bbb2 was changed by ops@lb1 at" in refused.err
    saved.write(INVENTORY, "other.yml")
    saved("apply", "other.yml", "-y")
    assert "server/bbb2 was changed by tester" in saved("apply", "plan.json", status=4).err, "A to B to A is seen"


@pytest.mark.shows("plan: others may have changed")
def test_other_rows_may_have_changed_since(saved: Here) -> None:
    other = saved.read("inv.yml").replace("bbb1/api", "bbb9/api").replace("3.0", "2.0").replace("false", "true")
    saved.write(other, "other.yml")
    saved("apply", "other.yml", "-y")
    assert "2 updated" in saved("apply", "plan.json").out
    assert saved.sql("SELECT url FROM server WHERE id = 'bbb1'") == [("https://bbb9/api",)]


@pytest.mark.shows("plan: stale by fact")
def test_a_meeting_that_came_since_makes_a_removal_stale(saved: Here) -> None:
    lines = [line for line in INVENTORY.splitlines() if "bbb1" not in line]
    saved.write("\n".join(lines))
    saved("plan", "inv.yml", "-o", "plan.json")
    saved.meeting("bbb1")
    refused = saved("apply", "plan.json", status=4)
    assert "server/bbb1 has 1 meeting, the plan relied on none" in refused.err
    saved.sql("DELETE FROM meeting")
    assert "1 deleted" in saved("apply", "plan.json").out


@pytest.mark.shows("plan: stale by fact")
def test_a_server_that_has_become_empty_makes_its_cordon_stale_and_says_so(saved: Here) -> None:
    lines = [line for line in INVENTORY.splitlines() if "bbb1" not in line]
    saved.write("\n".join(lines))
    saved.meeting("bbb1")
    saved("plan", "inv.yml", "-o", "plan.json")
    saved.sql("DELETE FROM meeting")
    refused = saved("apply", "plan.json", status=4)
    assert "server/bbb1: it has 0 meetings by now, it had 1: update has become delete" in refused.err


@pytest.mark.shows("plan: stale by fact", "plan: --release-holds")
def test_a_hold_that_is_another_by_now_makes_its_release_stale(saved: Here) -> None:
    saved("apply", "plan.json")
    hold = "INSERT INTO hold (server, state, by, why, since) VALUES ('bbb1', 'cordoned', %s, 'audio', %s)"
    saved.sql(hold, "ops@lb1", "2026-11-24T09:00:00Z")
    saved("plan", "inv.yml", "--release-holds", "-o", "release.json")
    saved.sql("DELETE FROM hold")
    saved.sql(hold, "eva@lb2", "2026-11-24T10:00:00Z")
    refused = saved("apply", "release.json", status=4).err
    assert "server/bbb1 was held cordoned by ops@lb1 since 2026-11-24T09:00:00+00:00; that is no longer so" in refused
    assert saved.sql("SELECT by FROM hold") == [("eva@lb2",)]


@pytest.mark.shows("plan: tampered", "plan: expired", "plan: foreign", "plan: inventory digests")
def test_what_a_saved_plan_is_refused_for(saved: Here) -> None:
    original = saved.read("plan.json")
    saved.write(original.replace('"mode": "cordon"', '"mode": "keep"'), "plan.json")
    assert "tampered with" in saved("apply", "plan.json", status=4).err
    saved.write(original, "plan.json")
    edit(saved, expires_at=(datetime.now(UTC) - timedelta(minutes=1)).isoformat())
    assert "has expired" in saved("apply", "plan.json", status=4).err
    saved.write(original, "plan.json")
    document = PlanDocument.model_validate_json(original)
    edit(saved, target=document.target.model_copy(update={"schema_revision": 1}))
    assert "another schema" in saved("apply", "plan.json", status=4).err
    edit(saved, target=document.target.model_copy(update={"cluster_uuid": "0" * 36}))
    assert "another cluster" in saved("apply", "plan.json", status=4).err
    saved.write('{"format_version": "1.0"}', "plan.json")
    assert "another version" in saved("apply", "plan.json", status=4).err
    saved.write(original, "plan.json")
    saved.write(saved.read("inv.yml") + "\n# a comment\n")
    assert "the inventory has changed since" in saved("apply", "plan.json", status=4).err


@pytest.mark.shows("plan: scope options beside a plan")
def test_scope_options_beside_a_saved_plan_are_wrong_usage(saved: Here) -> None:
    for options in (["--mode", "keep"], ["--limit", "bbb*"], ["--sections", "servers"], ["-i", "inv.yml"]):
        assert "beside a saved plan" in saved("apply", "plan.json", *options, status=64).err


@pytest.mark.shows("plan: applyable false")
def test_a_blocked_plan_is_saved_all_the_same_and_not_applied(saved: Here) -> None:
    saved.write("servers: {}\n")
    blocked = saved("plan", "inv.yml", "-o", "plan.json", "--detailed-exitcode", status=5)
    assert "--allow removals=2" in blocked.out
    assert json.loads(saved.read("plan.json"))["applyable"] is False
    assert "--allow" in saved("apply", "plan.json", status=5).err
    assert saved.sql("SELECT count(*) FROM server") == [(2,)]


@pytest.mark.shows("plan: --release-holds", "plan: saved plans")
def test_a_saved_plan_may_only_release_holds(saved: Here) -> None:
    saved("apply", "plan.json")
    saved.sql("INSERT INTO hold (server, state, by, why) VALUES ('bbb1', 'cordoned', 'ops@lb1', 'audio')")
    saved("plan", "inv.yml", "--release-holds", "-o", "release.json")
    document = json.loads(saved.read("release.json"))
    assert document["resource_changes"] == []
    assert [kept["address"] for kept in document["releases"]] == ["server/bbb1"]
    saved("apply", "release.json")
    assert saved.sql("SELECT server FROM hold") == []
    assert "applied already" in saved("apply", "release.json", status=4).err


@pytest.mark.shows("plan: was servers/eu.yml")
def test_what_is_gone_says_in_which_file_it_was(here: Here) -> None:
    here.write(INVENTORY, "inv/servers/eu.yml")
    here.write("servers:\n  bbb9: {url: 'https://bbb9/api', secret: s}\n", "inv/more.yml")
    here("apply", "inv", "-y")
    here.meeting("bbb2")
    here.write(INVENTORY.replace("  bbb1:", "  bbb4:").replace("//bbb1", "//bbb4").replace("  bbb2:", "  bbb3:"))
    here.write(here.read("inv.yml").replace("//bbb2", "//bbb3"), "inv/servers/eu.yml")
    allow = ("--allow", "removals=1", "--allow", "tenants-without-server=1")
    text = " ".join(here("plan", "inv", *allow).out.split())
    assert "- server bbb1 delete no longer in the inventory (was inv/servers/eu.yml), empty" in text
    assert "~ server bbb2 update no longer in the inventory (was inv/servers/eu.yml)" in text
    here("apply", "inv", *allow, "-y")
    kept = " ".join(here("plan", "inv").out.split())
    assert "= server bbb2 keep no longer in the inventory (was inv/servers/eu.yml); cordoned, 1 meeting on it" in kept


@pytest.mark.shows("plan: was servers/eu.yml")
def test_what_was_moved_to_another_file_unchanged_was_in_that_one(here: Here) -> None:
    line = "  {0}: {{url: 'https://{0}/api', secret: s}}\n"
    here.write("servers:\n" + line.format("bbb1") + line.format("bbb2"), "inv/eu.yml")
    here("apply", "inv", "-y")
    here.write("servers:\n" + line.format("bbb1"), "inv/eu.yml")
    here.write("servers:\n" + line.format("bbb2"), "inv/us.yml")
    assert "Nothing to apply." in here("apply", "inv", "-y").out
    here.write("servers: {}\n", "inv/us.yml")
    assert "- server bbb2 delete no longer in the inventory (was inv/us.yml), empty" in " ".join(
        here("plan", "inv").out.split()
    )
