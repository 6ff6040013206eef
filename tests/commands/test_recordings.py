"""The commands of recordings: who is meant, what is asked, what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plan.conftest import Here

IDS = tuple(f"{start}{'0' * 36}-170000000{number}000" for number, start in enumerate(("aaaa", "aabb", "cccc")))


@pytest.fixture
def kept(here: Here) -> Here:
    """Three recordings of nobody, whose files are gone, and the tenant acme, which keeps them for a day."""
    for name in ("SPOOL", "WORK", "PUBLISH", "UNPUBLISH"):
        (here.folder / name).mkdir()
        here.environ(f"RECORDING_{name}_DIR", str(here.folder / name))
    here.write("tenants: {acme: {secrets: [s], recordings: {keep_days: 1}}}\n")
    here("apply", "inv.yml", "-y")
    for number, record_id in enumerate(IDS):
        here.sql(
            "INSERT INTO recording (record_id, tenant, meeting_id, name, state, published, start_ms, end_ms)"
            " SELECT %s, id, 'room', 'Room', 'published', true, %s, %s FROM tenant WHERE name = ''",
            record_id, 1_700_000_000_000 + number, 1_700_000_000_000 + number,
        )  # fmt: skip
        here.sql(
            "INSERT INTO recording_metadata (recording, key, value) SELECT id, 'subject', %s FROM recording"
            " WHERE record_id = %s",
            "Math" if number else "Art", record_id,
        )  # fmt: skip
    return here


@pytest.mark.shows("cli: an id, a name, host name or unique prefix", "cli: ambiguous", "DR-8")
def test_a_recording_is_named_by_its_id_or_a_unique_beginning(kept: Here) -> None:
    refused = kept("recordings", "delete", "aa", "--yes", status=64)
    assert f"error: 'aa' stands for several recordings: {IDS[1]}, {IDS[0]}" in refused.err
    asked = kept("recordings", "delete", "cccc", IDS[0], status=64)
    assert f"nobody is there to confirm: Delete 2 recordings ({IDS[2]}, {IDS[0]})?" in asked.err
    done = kept("recordings", "delete", "cccc", IDS[0], "nope", "--yes", status=9)
    assert done.out == "2 recordings deleted.\n"
    assert "error: nope is not there" in done.err
    assert [one["record_id"] for one in kept("recordings", "list", "--format", "json").json] == [IDS[1]]
    (newest,) = kept("history", "--limit", "1", "--format", "json").json
    assert {change["address"] for change in newest["changes"]} == {f"recording/{IDS[0]}", f"recording/{IDS[2]}"}


@pytest.mark.shows("cli: recordings:addToTenant", "MT-9", "recordings: retention per tenant")
def test_recordings_are_handed_over_by_what_they_say_and_pruned_by_age(kept: Here) -> None:
    chosen = ("recordings", "add-to-tenant", "ac", "--where", "meta.subject=Math")
    assert kept(*chosen, "--dry-run").out == "2 recordings would be given to acme.\n"
    assert kept(*chosen).out == "2 recordings given to acme.\n"
    assert kept(*chosen).out == "0 recordings given to acme.\n"
    mine = kept("recordings", "list", "--tenant", "acme", "--format", "json").json
    assert [one["record_id"] for one in mine] == [IDS[2], IDS[1]]
    old = kept("recordings", "prune", "--dry-run", "--format", "json").json
    assert {(one["tenant"], one["record_id"]) for one in old} == {("acme", IDS[1]), ("acme", IDS[2])}
    assert "Delete 2 recordings of 1 tenant?" in kept("recordings", "prune", status=64).err
    assert kept("recordings", "prune", "--yes").out == "2 recordings deleted.\n"
    kept("recordings", "add-to-tenant", "nobody", status=1)
    kept("recordings", "add-to-tenant", "acme", "--where", "subject=Math", status=64)
