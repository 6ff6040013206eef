"""Every exit status of plan and apply, in text and JSON, and what stands in the way of the simulation."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from scalelite.core.entries import Known
from scalelite.core.guards import Bounds, check
from scalelite.core.model import Declared, Key, Kind, Secret, ServerSpec
from scalelite.core.plan import diff
from scalelite.core.report import MARKDOWN_LIMIT, markdown
from scalelite.store.db import APPLY_LOCK
from tests.plan.conftest import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tests.plan.conftest import Here

INVENTORY = f"""
servers:
  bbb1: {{url: "https://bbb1/api", secret: {CANARY}}}
tenants:
  acme: {{secrets: [{CANARY}]}}
"""
OTHER_SERVER = INVENTORY.replace("bbb1", "bbb2")


def stale(here: Here) -> None:
    here("apply", "inv.yml", "-y")
    here.write(INVENTORY + "cluster: {name: a}\n")
    here("plan", "inv.yml", "-o", "plan.json")
    here("apply", "plan.json")


def empty(here: Here) -> None:
    here("apply", "inv.yml", "-y")
    here.write("servers: {}\n")


def invalid(here: Here) -> None:
    here.write("server: {}\n")


def away(here: Here) -> None:
    here.environ("DATABASE_URL", f"postgresql://u:{CANARY}@127.0.0.1:1/x")


def refused_by_postgres(here: Here) -> None:
    here.sql("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$")
    here.sql("CREATE TRIGGER no BEFORE INSERT ON server FOR EACH ROW EXECUTE FUNCTION no()")


def half_way(here: Here) -> None:
    """A server is cordoned and its meetings forgotten, and then it cannot be removed."""
    here("apply", "inv.yml", "-y")
    here.meeting("bbb1")
    here.environ("CONNECT_TIMEOUT", "0.2")
    here.sql("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$")
    here.sql("CREATE TRIGGER no BEFORE DELETE ON server FOR EACH ROW EXECUTE FUNCTION no()")
    here.write(OTHER_SERVER)


def nothing(here: Here) -> None:
    """The inventory is new and the cluster empty."""


def same(here: Here) -> None:
    here("apply", "inv.yml", "-y")


MATRIX: list[tuple[Callable[[Here], None], tuple[str, ...], int]] = [
    (nothing, ("plan", "inv.yml"), 0),
    (nothing, ("plan", "inv.yml", "--detailed-exitcode"), 2),
    (nothing, ("plan", "inv.yml", "--exit-code"), 2),
    (same, ("plan", "inv.yml", "--detailed-exitcode"), 0),
    (nothing, ("apply", "inv.yml", "-y"), 0),
    (same, ("apply", "inv.yml", "-y"), 0),
    (away, ("plan", "inv.yml"), 1),
    (away, ("apply", "inv.yml", "-y"), 1),
    (invalid, ("plan", "inv.yml"), 3),
    (invalid, ("apply", "inv.yml", "-y"), 3),
    (stale, ("apply", "plan.json"), 4),
    (empty, ("plan", "inv.yml", "--detailed-exitcode"), 5),
    (empty, ("apply", "inv.yml", "-y"), 5),
    (refused_by_postgres, ("plan", "inv.yml"), 7),
    (refused_by_postgres, ("plan", "inv.yml", "--no-simulate"), 0),
    (refused_by_postgres, ("apply", "inv.yml", "-y"), 7),
    (half_way, ("apply", "inv.yml", "-y", "--mode", "force", "--allow", "removals=1"), 9),
    (nothing, ("plan", "inv.yml", "--mode", "nonsense"), 64),
    (nothing, ("plan", "inv.yml", "--limit", "nobody"), 64),
    (nothing, ("apply", "inv.yml"), 64),
]


@pytest.mark.shows("plan: exit statuses", "issue C: matrix", "plan: text and JSON end with the same status")
@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(("prepare", "arguments", "status"), MATRIX)
def test_exit_status(
    here: Here, prepare: Callable[[Here], None], arguments: tuple[str, ...], status: int, style: str
) -> None:
    here.write(INVENTORY)
    prepare(here)
    done = here(*arguments, "--format", style, status=status)
    if status == 9:
        assert "not today" in done.out
        assert "server/bbb1" in done.out
        assert here.sql("SELECT state FROM server") == [("cordoned",)]
    elif status not in {0, 2, 3}:
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (0 if arguments[0] == "plan" and status == 5 else 1), done.err
        assert "Traceback" not in done.err
    if style == "json" and done.out:
        assert done.json


@pytest.mark.shows("plan: exit statuses, 130", "plan: nothing written by apply")
def test_an_apply_that_is_interrupted_ends_with_130_and_wrote_nothing(here: Here) -> None:
    here.write(INVENTORY)
    with psycopg.connect(here.database) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s, %s)", APPLY_LOCK)
        waiting = subprocess.Popen(
            [sys.executable, "-m", "scalelite", "apply", "inv.yml", "-y"],
            cwd=here.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        with waiting, waiting.stderr:
            assert any("Waiting for the lock" in line for line in waiting.stderr)
            waiting.send_signal(signal.SIGINT)
            rest = waiting.stderr.read()
    assert waiting.returncode == 130, rest
    assert "Traceback" not in rest
    assert here.sql("SELECT id FROM server") == []


@pytest.mark.shows("plan: lock", "plan: --lock-timeout", "plan: simulate, lock timeout", "plan: exit statuses")
def test_who_waits_is_told_who_holds_the_lock_and_a_plan_never_waits(here: Here) -> None:
    here.write(INVENTORY)
    here("apply", "inv.yml", "-y")
    here.write(INVENTORY + "cluster: {name: a}\n")
    with psycopg.connect(here.database, application_name="scalelite apply ops@lb1 pid 42") as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s, %s)", APPLY_LOCK)
        holder.execute("UPDATE cluster SET serial = serial")
        done = here("apply", "inv.yml", "-y", "--lock-timeout", "0.2s", status=6)
        assert "Waiting for the lock; it is held by scalelite apply ops@lb1 pid 42 since" in done.err
        assert "error: the lock was not had within 0.2 s" in done.err
        assert "not simulated: another apply is running" in here("plan", "inv.yml").out
        release = threading.Timer(0.5, holder.rollback)
        release.start()
        assert "1 created" in here("apply", "inv.yml", "-y", "--lock-timeout", "1m").out
        release.join()


@pytest.mark.shows("plan: read-only role")
def test_a_role_that_only_reads_can_plan_and_is_not_simulated(here: Here) -> None:
    here.write(INVENTORY)
    here("apply", "inv.yml", "-y")
    here.write(INVENTORY + "cluster: {name: a}\n")
    here.sql("DROP ROLE IF EXISTS plan_reader")
    here.sql("CREATE ROLE plan_reader LOGIN")
    here.sql("GRANT pg_read_all_data TO plan_reader")
    here.environ("DATABASE_URL", psycopg.conninfo.make_conninfo(here.database, user="plan_reader"))
    assert "+ cluster" in here("plan", "inv.yml", "--detailed-exitcode", status=2).out
    assert "permission denied" in here("apply", "inv.yml", "-y", status=7).err


@pytest.mark.shows("plan: exit statuses", "plan: an error is one line", "plan: --out")
def test_what_cannot_be_written_and_what_is_no_inventory_are_errors_of_one_line(here: Here) -> None:
    here.write(INVENTORY)
    (here.folder / "folder").mkdir()
    assert here("plan", "inv.yml", "--out", "text=folder", status=1).err.endswith("\nerror: folder: is a directory\n")
    assert "folder" in here("plan", "inv.yml", "-o", "folder", status=1).err
    here("plan", "inv.yml", "-o", "/dev/null", "--out", "text=/dev/null", "--out", "text=a", "--out", "text=b")
    assert Path("/dev/null").is_char_device()
    assert here.read("a") == here.read("b") != ""
    here("plan", "inv.yml", "-o", "plan.json")
    assert "plan.json is a saved plan, and no inventory" in here("plan", "plan.json", status=64).err
    assert "plan.json is a saved plan, and goes alone" in here("apply", "plan.json", "inv.yml", status=64).err
    assert "beside a saved plan" in here("apply", "-i", "plan.json", status=64).err
    here.write('{"servers": {"bbb1": {"url": "https://bbb1/api", "secret": "s"}}}', "inv.json")
    assert "+ server bbb1" in here("plan", "inv.json").out, "JSON is YAML"


@pytest.mark.shows("plan: exit statuses", "plan: an error is one line")
@pytest.mark.needs("/dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output_is_an_error_of_one_line(here: Here, unbuffered: str) -> None:
    here.write(INVENTORY)
    here.environ("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "scalelite", "validate", "inv.yml", "--format", "json"]
        done = subprocess.run(command, cwd=here.folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "error: input or output: no space left on device\n"
    assert done.returncode == 1


@pytest.mark.shows("plan: --simulate", "plan: mode force")
def test_a_plan_that_ends_meetings_is_not_simulated_and_no_failure(here: Here) -> None:
    here.write(INVENTORY)
    here("apply", "inv.yml", "-y")
    here.meeting("bbb1")
    here.write(OTHER_SERVER)
    out = here("plan", "inv.yml", "--mode", "force", "--allow", "removals=1", "-o", "plan.json").out
    assert "ends 1 meeting" in out
    assert "not simulated: meetings are still running on what is removed" in out
    assert "Saved to plan.json" in out


@pytest.mark.shows("plan: --refresh")
def test_refresh_polls_first(here: Here) -> None:
    here.write(INVENTORY)
    here("apply", "inv.yml", "-y")
    here.environ("CONNECT_TIMEOUT", "0.2")
    done = here("plan", "inv.yml", "--refresh", "--format", "json")
    assert "Polled 1 servers, no answer from bbb1." in done.err
    assert done.json["summary"]["no_op"] == 2
    assert here.sql("SELECT health FROM server_status") != []


@pytest.mark.shows("DE-10", "plan: drift", "plan: resource_drift")
def test_a_plan_marks_what_was_changed_outside_with_its_actor(here: Here) -> None:
    here.write(INVENTORY)
    here("apply", "inv.yml", "-y")
    here.sql("INSERT INTO revision (number, actor) VALUES (2, 'ops@lb1')")
    here.sql(
        "INSERT INTO version (kind, name, from_rev, to_rev, spec, fields) SELECT 'server', 'bbb1', 1, 2,"
        " to_jsonb(s) - 'url_key' - 'from_rev', '{tag}' FROM server s"
    )
    here.sql("UPDATE server SET tag = 'gpu', from_rev = 2")
    here.sql("UPDATE cluster SET serial = 2")
    text = " ".join(here("plan", "inv.yml").out.split())
    assert "gpu → ''" in text
    assert "# drift: changed by ops@lb1" in text
    assert "(revision 2)" in text
    document = here("plan", "inv.yml", "--format", "json").json
    assert document["summary"]["drift"] == 1
    drift = document["resource_drift"][0]
    assert (drift["address"], drift["path"], drift["actor"], drift["after"]) == ("server/bbb1", "tag", "ops@lb1", "gpu")
    here.write(INVENTORY + "cluster: {name: a}\n")
    limited = here("plan", "inv.yml", "--format", "json", "--limit", "acme").json
    assert limited["resource_changes"] == []
    assert limited["resource_drift"] == document["resource_drift"], "also what the plan does not change back"


@pytest.mark.shows("plan: markdown within its bound", "plan: deletes always in it")
@pytest.mark.parametrize("count", [1, 300, 5_000])
def test_markdown_is_never_too_long_whatever_the_plan(count: int, now: datetime) -> None:
    def servers(prefix: str, tag: str) -> dict[Key, ServerSpec]:
        names = [f"{prefix}-{number}-" + "`x" * 60 for number in range(count)]
        return {
            Key(Kind.SERVER, name): ServerSpec.model_construct(
                id=name, url=f"https://{name}/api", secret=Secret("s"), tag=f"{tag}{name}", state="enabled"
            )
            for name in names
        }

    live, wanted = Declared({**servers("a", "x"), **servers("b", "x")}), Declared(dict(servers("b", "y")))
    plan = diff(live, wanted)
    guards = check(plan, live, wanted, Bounds(), allowed={})
    text = markdown("a" * 100, plan, guards, ["w" * 500] * 50, Known(now))
    assert len(text) <= MARKDOWN_LIMIT
    assert f"{count:,} to delete" in text
    assert f"Deletes ({count:,}):" in text
    assert text.count("```") % 2 == 0
    assert text.count("<details") == text.count("</details>")
    if count == 1:
        assert "~ server b-0" in text
