"""validate and schema through the installed command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.config.test_commands import CANARY, INVENTORY, Command

WRONG = "servers:\n  bbb1: {secret: x, load_multiplier: -1}\n  bbb2: {secrt: x}\n"


@pytest.fixture
def scalelite(tmp_path: Path) -> Command:
    command = Command(tmp_path, "postgresql://127.0.0.1:1/none")
    command.inventory(WRONG)
    return command


@pytest.mark.shows("inventory: validate", "issue A3")
def test_problems_are_told_with_a_caret_and_counted(scalelite: Command) -> None:
    done = scalelite("validate", "inv.yml", status=3)
    assert done.stdout == ""
    what = "servers.bbb1.load_multiplier: must be above 0, got -1. Use 1.0 for a normal server."
    shown = done.stderr.splitlines()
    assert shown[:3] == [
        f"inv.yml:2:38: error[SL112] {what}",
        "      bbb1: {secret: ********, load_multiplier: -1}",
        " " * shown[1].index("-1") + "^",
    ]
    assert [line.partition(" ")[0] for line in shown[3::3]] == ["inv.yml:3:3:", "inv.yml:3:10:", "3"]
    assert shown[-1] == "3 errors in the inventory"
    brief = scalelite("validate", "--brief", "inv.yml", status=3).stderr.splitlines()
    assert brief == [line for line in shown if not line.startswith("    ")]


@pytest.mark.shows("inventory: validate", "plan: standard output carries the result alone")
def test_other_forms_go_to_standard_output(scalelite: Command) -> None:
    done = scalelite("validate", "--format", "json", "inv.yml", status=3)
    assert done.stderr == ""
    assert json.loads(done.stdout)["error_count"] == 3
    scalelite.inventory(INVENTORY)
    done = scalelite("validate", "--format", "sarif", "inv.yml")
    assert json.loads(done.stdout)["runs"][0]["results"] == []
    assert CANARY not in done.stdout
    assert "2 servers, 1 tenant, 1 setting  valid" in scalelite("validate", "inv.yml").stdout


@pytest.mark.shows("inventory: scalelite schema inventory")
def test_the_schema_is_printed_as_it_is_committed(scalelite: Command) -> None:
    committed = Path(__file__).parents[2] / "schemas" / "inventory.schema.json"
    assert scalelite("schema", "inventory").stdout == committed.read_text()


@pytest.mark.shows("inventory: explain")
def test_explain_prints_the_page_of_a_code(scalelite: Command) -> None:
    shown = scalelite("explain", "sl112").stdout
    assert shown.startswith("SL112: A number is outside of its range.\n")
    assert "Wrong:" in shown
    assert "there is no code SL999" in scalelite("explain", "SL999", status=64).stderr


@pytest.mark.shows("inventory: validate")
def test_a_warning_is_told_and_counted_and_no_error(scalelite: Command) -> None:
    scalelite.inventory('servers: {a: {secret: x}}\ngroups: {large: {servers: ["b*"]}}\n')
    done = scalelite("validate", "--brief", "inv.yml")
    assert done.stderr.startswith("inv.yml:2:28: warning[SL142] groups.large.servers[0]: ")
    assert done.stderr.endswith("\n1 warning in the inventory\n")
    assert done.stdout.endswith("  valid\n")
    document = json.loads(scalelite("validate", "--format", "json", "inv.yml").stdout)
    assert (document["valid"], document["warning_count"]) == (True, 1)
