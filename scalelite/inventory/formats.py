"""Problems as others read them: Terraform's JSON, GitHub, GitLab, JUnit and SARIF; each a text from values, no files.

What stands in them is what the text form says, so no secret is in any.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, Literal
from xml.sax.saxutils import escape, quoteattr

from scalelite import __version__
from scalelite.inventory.explain import page
from scalelite.inventory.problems import CODES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scalelite.inventory.problems import Problem

Style = Literal["json", "github", "gitlab-codequality", "junit", "sarif"]

# What is wrong, from its caret on: a quoted text, or the characters up to the next punctuation.
_TOKEN: Final = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\'\'|[^\'])*\'|[^\s,:\[\]{}#]+')
_SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def formatted(problems: Sequence[Problem], style: Style) -> str:
    """Return the problems of a run (none: it is valid) in one of the forms, with a newline at the end."""
    return _FORMS[style](problems) + "\n"


def said(problem: Problem) -> str:
    """Return path, message and origin of a problem, without place and code."""
    origin = f" (rendered from {problem.rendered_from})" if problem.rendered_from else ""
    return f"{problem.path}: {problem.message}{origin}" if problem.path else f"{problem.message}{origin}"


def _width(problem: Problem) -> int:
    """Return how many characters of the shown line are wrong; 0 where none is shown."""
    match = _TOKEN.match(problem.source_line, max(problem.caret - 1, 0))
    return len(match[0]) if match and problem.caret else 0


def _file(problem: Problem) -> str:
    """Return the file as CI finds it: relative to the working folder, with slashes."""
    path, here = PurePath(problem.place.file), Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


# --- Terraform's validate -json --------------------------------------------------------------------------------------


def _json(problems: Sequence[Problem]) -> str:
    severities = Counter(problem.severity for problem in problems)
    document = {
        "format_version": "1.0",
        "valid": not severities["error"],
        "error_count": severities["error"],
        "warning_count": severities["warning"],
        "diagnostics": [_diagnostic(problem) for problem in problems],
    }
    return json.dumps(document, ensure_ascii=False, indent=2)


def _diagnostic(problem: Problem) -> dict[str, Any]:
    place, width = problem.place, _width(problem)
    start = {"line": place.line, "column": place.column, "byte": problem.byte}
    end = {"line": place.line, "column": place.column + width, "byte": problem.byte + width}
    found: dict[str, Any] = {
        "severity": problem.severity,
        "code": problem.code,
        "path": problem.path,
        "summary": CODES[problem.code].partition(":")[0],
        "detail": problem.message,
        "range": {"filename": place.file, "start": start, "end": end},
    }
    if problem.source_line:
        caret = max(problem.caret - 1, 0)
        found["snippet"] = {
            "context": None,
            "code": problem.source_line,
            "start_line": place.line,
            "highlight_start_offset": caret,
            "highlight_end_offset": caret + width,
            "values": [],
        }
    if problem.rendered_from:
        file, line, column = problem.rendered_from
        found["rendered_from"] = {"filename": file, "line": line, "column": column}
    return found


# --- CI --------------------------------------------------------------------------------------------------------------


def _github(problems: Sequence[Problem]) -> str:
    """Return workflow commands, which GitHub shows beside the lines of a pull request."""
    return "\n".join(_command(problem) for problem in problems)


def _command(problem: Problem) -> str:
    place = problem.place
    properties = {"file": _file(problem), "line": place.line, "col": place.column, "title": problem.code}
    if width := _width(problem):
        properties["endColumn"] = place.column + width
    shown = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in properties.items())
    return f"::{problem.severity} {shown}::{_escaped(said(problem))}"


def _escaped(text: str, more: str = "") -> str:
    return "".join(f"%{ord(letter):02X}" if letter in f"%\r\n{more}" else letter for letter in text)


def _codequality(problems: Sequence[Problem]) -> str:
    entries = [
        {
            "description": said(problem),
            "check_name": problem.code,
            "fingerprint": fingerprint,
            "severity": "major" if problem.severity == "error" else "minor",
            "location": {"path": _file(problem), "lines": {"begin": problem.place.line}},
        }
        for problem, fingerprint in zip(problems, _fingerprints(problems), strict=True)
    ]
    return json.dumps(entries, ensure_ascii=False, indent=2)


def _fingerprints(problems: Sequence[Problem]) -> list[str]:
    """Return what a problem is known by in the next run: not its line, which moves, but which of several it is."""
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for problem in problems:
        what = (_file(problem), problem.code, problem.path)
        seen[what] += 1
        found.append(hashlib.sha256("\0".join([*what, str(seen[what])]).encode()).hexdigest())
    return found


def _junit(problems: Sequence[Problem]) -> str:
    """Return a test case a problem, of which the errors failed; one that passed where there is none."""
    failures = sum(problem.severity == "error" for problem in problems)
    cases = [_case(problem) for problem in problems] or ['    <testcase classname="inventory" name="valid" time="0"/>']
    head = f'tests="{len(cases)}" failures="{failures}" errors="0"'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f"<testsuites {head}>",
            f'  <testsuite name="scalelite validate" {head} skipped="0" time="0">',
            *cases,
            "  </testsuite>",
            "</testsuites>",
        ]
    )


def _case(problem: Problem) -> str:
    name = quoteattr(f"{problem.code} {problem.path}".rstrip() + f" (line {problem.place.line})")
    head = f'<testcase classname={quoteattr(_file(problem) or "inventory")} name={name} time="0">'
    text = escape(problem.text(caret=True))
    if problem.severity == "error":
        body = f"<failure type={quoteattr(problem.code)} message={quoteattr(said(problem))}>{text}</failure>"
    else:
        body = f"<system-out>{text}</system-out>"
    return f"    {head}\n      {body}\n    </testcase>"


# --- SARIF 2.1.0 -----------------------------------------------------------------------------------------------------


def _sarif(problems: Sequence[Problem]) -> str:
    codes = sorted({problem.code for problem in problems})
    explained = {code: page(code) for code in codes}
    rules = [
        {"id": code, "shortDescription": {"text": CODES[code]}, "help": {"text": text, "markdown": text}}
        for code, text in explained.items()
    ]
    driver = {"name": "scalelite", "version": __version__, "rules": rules}
    results = [
        _result(problem, codes, fingerprint)
        for problem, fingerprint in zip(problems, _fingerprints(problems), strict=True)
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, ensure_ascii=False, indent=2)


def _result(problem: Problem, codes: list[str], fingerprint: str) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": problem.place.line, "startColumn": problem.place.column}
    if width := _width(problem):
        region["endColumn"] = problem.place.column + width
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(_file(problem))}, "region": region}
    }
    if problem.path:
        location["logicalLocations"] = [{"fullyQualifiedName": problem.path}]
    found: dict[str, Any] = {
        "ruleId": problem.code,
        "ruleIndex": codes.index(problem.code),
        "level": problem.severity,
        "message": {"text": said(problem)},
        "locations": [location],
        "partialFingerprints": {"problem/v1": fingerprint},
    }
    if origin := problem.rendered_from:
        place = {"startLine": origin.line, "startColumn": origin.column}
        at = {"artifactLocation": {"uri": _uri(origin.file)}, "region": place}
        found["relatedLocations"] = [{"message": {"text": "rendered from here"}, "physicalLocation": at}]
    return found


def _uri(path: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415

    return quote(path)


_FORMS: Final[dict[Style, Callable[[Sequence[Problem]], str]]] = {
    "json": _json, "github": _github, "gitlab-codequality": _codequality, "junit": _junit, "sarif": _sarif,
}  # fmt: skip
