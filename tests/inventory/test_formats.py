"""The forms in which validate reports to other programs, each held to what its reader asks for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, get_args

import pytest
from jsonschema import Draft7Validator

from scalelite.core.model import Place
from scalelite.errors import InventoryInvalid
from scalelite.inventory.formats import Style, formatted
from scalelite.inventory.load import load_inventory
from scalelite.inventory.problems import Problem
from tests.junit import junit

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = "hunter2"
INVENTORY = f"""
servers:
  "bbb ü1": {{secret: {HIDDEN}}}
  bbb2: {{secret: {HIDDEN}, load_multiplyer: "a%b,c:d"}}
  bbb3: {{secret: [{HIDDEN}]}}
  bbb4: {{secret: {HIDDEN}, tag: 5}}
"""
WARNING = Problem(Place("a<b>.yml", 7, 3), "SL112", "servers.x", 'is "odd" & <long>', severity="warning")


@pytest.fixture
def problems(tmp_path: Path) -> list[Problem]:
    """Errors of a real file, and a warning with characters that forms must escape."""
    (tmp_path / "inv.yml").write_text(INVENTORY)
    with pytest.raises(InventoryInvalid) as caught:
        load_inventory([tmp_path / "inv.yml"], environment={})
    found = [problem for problem in caught.value.problems if isinstance(problem, Problem)]
    assert len(found) == 4
    return [*found, WARNING]


@pytest.mark.shows("inventory: secrets are not shown")
@pytest.mark.parametrize("style", get_args(Style))
def test_no_form_shows_a_secret(problems: list[Problem], style: Style) -> None:
    text = formatted(problems, style)
    assert HIDDEN not in text
    assert text.endswith("\n")
    assert formatted(problems, style) == text


@pytest.mark.shows("inventory: --format json")
def test_json_is_terraforms_shape_with_code_and_path(problems: list[Problem]) -> None:
    document = json.loads(formatted(problems, "json"))
    assert {name: document[name] for name in ("format_version", "valid", "error_count", "warning_count")} == {
        "format_version": "1.0",
        "valid": False,
        "error_count": 4,
        "warning_count": 1,
    }
    found = document["diagnostics"][3]
    assert (found["code"], found["path"], found["severity"]) == ("SL114", "servers.bbb4.tag", "error")
    start, end = found["range"]["start"], found["range"]["end"]
    assert INVENTORY.encode()[start["byte"] : end["byte"]] == b"5"
    assert (start["line"], end["column"] - start["column"]) == (6, 1)
    snippet = found["snippet"]
    assert snippet["code"][snippet["highlight_start_offset"] : snippet["highlight_end_offset"]] == "5"
    assert json.loads(formatted([], "json")) == {
        "format_version": "1.0",
        "valid": True,
        "error_count": 0,
        "warning_count": 0,
        "diagnostics": [],
    }


@pytest.mark.shows("inventory: --format github")
def test_github_gets_one_workflow_command_a_problem(problems: list[Problem]) -> None:
    lines = formatted(problems, "github").splitlines()
    assert len(lines) == len(problems)
    for line in lines:
        match = re.fullmatch(r"::(error|warning) ((?:[a-zA-Z]+=[^,:]+,?)+)::(.+)", line)
        assert match, line
        assert {"file", "line", "col", "title"} <= {pair.partition("=")[0] for pair in match[2].split(",")}
    assert lines[-1] == '::warning file=a<b>.yml,line=7,col=3,title=SL112::servers.x: is "odd" & <long>'
    odd = Problem(Place("a,b:c.yml", 1, 1), "SL112", "", "100%\nno")
    assert formatted([odd], "github") == "::error file=a%2Cb%3Ac.yml,line=1,col=1,title=SL112::100%25%0Ano\n"


# What GitLab's page on Code Quality asks of a report.
CODE_QUALITY: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "minLength": 1},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": r"^(?!\./)"},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
    },
}


@pytest.mark.shows("inventory: --format gitlab-codequality")
def test_gitlab_gets_a_code_quality_report(problems: list[Problem]) -> None:
    entries = json.loads(formatted([*problems, WARNING], "gitlab-codequality"))
    Draft7Validator(CODE_QUALITY).validate(entries)
    assert len({entry["fingerprint"] for entry in entries}) == len(problems) + 1
    moved = json.loads(
        formatted([Problem(Place("a<b>.yml", 99, 1), "SL112", "servers.x", "moved")], "gitlab-codequality")
    )
    assert moved[0]["fingerprint"] == entries[-2]["fingerprint"]
    assert json.loads(formatted([], "gitlab-codequality")) == []


@pytest.mark.shows("inventory: --format junit")
def test_junit_has_a_failed_case_for_each_error(problems: list[Problem]) -> None:
    root = junit(formatted(problems, "junit"))
    assert (root.tag, [suite.tag for suite in root]) == ("testsuites", ["testsuite"])
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "4", "0")
    assert [[part.tag for part in case] for case in suite] == [["failure"]] * 4 + [["system-out"]]
    assert all(case.get("name") and case.get("classname") for case in suite)
    assert suite[4].findtext("system-out") == WARNING.text(caret=True)
    fine = junit(formatted([], "junit"))
    assert (fine.get("tests"), fine.get("failures"), len(fine[0][0])) == ("1", "0", 0)


# The parts of SARIF 2.1.0 that we write, closed, so that a misspelt property is found. No package has the whole schema;
# pydantic-sarif 0.1.1, which was made of it, takes what we write (tried by hand).
_TEXT = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
    "additionalProperties": False,
}
_PLACE = {
    "type": "object",
    "properties": {
        "message": _TEXT,
        "physicalLocation": {
            "type": "object",
            "required": ["artifactLocation"],
            "properties": {
                "artifactLocation": {
                    "type": "object",
                    "properties": {"uri": {"type": "string", "pattern": r"^[^\s<>\"{}|\\^`]*$"}},
                    "additionalProperties": False,
                },
                "region": {
                    "type": "object",
                    "properties": {
                        "startLine": {"type": "integer", "minimum": 1},
                        "startColumn": {"type": "integer", "minimum": 1},
                        "endColumn": {"type": "integer", "minimum": 1},
                    },
                    "additionalProperties": False,
                },
            },
            "additionalProperties": False,
        },
        "logicalLocations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"fullyQualifiedName": {"type": "string"}},
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
SARIF: dict[str, Any] = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"enum": ["2.1.0"]},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool"],
                "properties": {
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "version": {"type": "string"},
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "required": ["id"],
                                            "properties": {
                                                "id": {"type": "string"},
                                                "shortDescription": _TEXT,
                                                "help": {
                                                    "type": "object",
                                                    "required": ["text"],
                                                    "properties": {
                                                        "text": {"type": "string"},
                                                        "markdown": {"type": "string"},
                                                    },
                                                    "additionalProperties": False,
                                                },
                                            },
                                            "additionalProperties": False,
                                        },
                                    },
                                },
                                "additionalProperties": False,
                            }
                        },
                        "additionalProperties": False,
                    },
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message"],
                            "properties": {
                                "ruleId": {"type": "string"},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "message": _TEXT,
                                "locations": {"type": "array", "items": _PLACE},
                                "relatedLocations": {"type": "array", "items": _PLACE},
                                "partialFingerprints": {
                                    "type": "object",
                                    "additionalProperties": {"type": "string"},
                                },
                            },
                            "additionalProperties": False,
                        },
                    },
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}


@pytest.mark.shows("inventory: --format sarif")
def test_sarif_names_rules_places_and_origins(problems: list[Problem]) -> None:
    through = Problem(Place("group_vars/eu.yml", 2, 3), "SL112", "x", "no", rendered_from=Place("vars file.yml", 1, 2))
    document = json.loads(formatted([*problems, through], "sarif"))
    Draft7Validator(SARIF).validate(document)
    run = document["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    for result, problem in zip(run["results"], [*problems, through], strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == problem.code
        assert result["level"] == problem.severity
    assert run["results"][-1]["relatedLocations"][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "vars%20file.yml"
    }
    assert json.loads(formatted([], "sarif"))["runs"][0]["results"] == []
