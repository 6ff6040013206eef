"""A plan as reports for others: markdown for a pull request, JUnit, and GitLab's report of Terraform plans."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Final

from scalelite.core.entries import deletes, entries
from scalelite.core.plan import Create, Remove, Update
from scalelite.core.show import plain
from scalelite.core.text import summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalelite.core.entries import Entry, Known
    from scalelite.core.guards import Guard
    from scalelite.core.plan import Plan

# GitHub takes 65,536 characters in a comment; the bound leaves room for what a job writes around it.
MARKDOWN_LIMIT: Final = 60_000
_INDEX_LIMIT: Final = 20_000
_GUARDS_LIMIT: Final = 6_000
_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>&#|~!])")


def markdown(title: str, plan: Plan, guards: Sequence[Guard], warnings: Sequence[str], known: Known) -> str:
    """Return a comment for a pull request: totals, guards and deletes always, then as many changes as fit."""
    head = [f"### scalelite plan: {_escaped(title)}", "", f"**{_escaped(summary(plan))}**", ""]
    stopped = [guard for guard in guards if guard.status == "blocked"]
    head += _bounded([f"- **Stopped** by guard `{guard.id}`: {_why(guard)}" for guard in stopped], _GUARDS_LIMIT)
    head += _bounded([f"- Warning: {_escaped(text)}" for text in warnings], _GUARDS_LIMIT)
    head += _bounded(_index(plan), _INDEX_LIMIT)
    text = "\n".join(head).rstrip("\n") + "\n"
    return text + _changes(entries(plan, known), MARKDOWN_LIMIT - len(text))


def _why(guard: Guard) -> str:
    bound = f" ({guard.limit}, set by {guard.where})" if guard.where else ""
    way = f"`{guard.override}` allows exactly this" if guard.override else _escaped(guard.remedy)
    return f"{_escaped(guard.subject)}: {_escaped(guard.message + bound)}; {way}"


def _index(plan: Plan) -> list[str]:
    removed = deletes(plan)
    return [f"Deletes ({len(removed):,}):", "", *(f"- {_escaped(name)}" for name in removed), ""] if removed else []


def _bounded(lines: list[str], limit: int) -> list[str]:
    """Return the lines that fit, and how many do not."""
    kept: list[str] = []
    size = 0
    for line in lines:
        size += len(line) + 1
        if size > limit:
            return [*kept, f"- … and {len(lines) - len(kept):,} more", ""]
        kept.append(line)
    return [*kept, ""] if kept else []


def _changes(found: Sequence[Entry], room: int) -> str:
    """Return the changes in a fenced block, cut where there is no more room for a whole one."""
    if not found:
        return ""
    opening, closing = "\n<details open><summary>Changes</summary>\n\n```diff\n", "```\n\n</details>\n"
    left = "# … and 1,000,000,000 more entries: see the job's log\n"
    room -= len(opening) + len(closing) + len(left)
    blocks: list[str] = []
    for entry in found:
        block = _fenced(entry)
        if len(block) > room:
            blocks.append(f"# … and {len(found) - len(blocks):,} more entries: see the job's log\n")
            break
        room -= len(block)
        blocks.append(block)
    return opening + "".join(blocks) + closing


def _fenced(entry: Entry) -> str:
    """A block of `diff` colours lines by their first character; three backticks would end it."""
    head = " ".join(filter(None, (entry.symbol, entry.subject, entry.action, entry.detail)))
    lines = [head]
    for field in entry.fields:
        mark = f"# drift: {field.mark}" if field.mark else ""
        lines.append("    " + "  ".join(filter(None, (field.name, field.change, field.detail, mark))))
    return "".join(plain(line).replace("```", "'''") + "\n" for line in lines)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", plain(text))


# --- JUnit -----------------------------------------------------------------------------------------------------------

# What XML 1.0 has no way to write.
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def junit(plan: Plan, guards: Sequence[Guard], warnings: Sequence[str], known: Known) -> str:
    """Return a JUnit report: a case for each entry and each guard; what is blocked is a failure."""
    cases = [_case(entry) for entry in entries(plan, known)]
    cases += [_guard_case(guard) for guard in guards if guard.override or guard.status != "blocked"]
    cases += [f"<testcase classname='warning' name={_quoted(_xml(text))}/>" for text in warnings]
    if not cases:
        cases = [f"<testcase classname='plan' name={_quoted(summary(plan))}/>"]
    failures = sum("<failure" in case for case in cases)
    body = "".join(f"{case}\n" for case in cases)
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n"
        f"<testsuite name='scalelite plan' tests='{len(cases)}' failures='{failures}' errors='0'>\n{body}</testsuite>\n"
    )


def _case(entry: Entry) -> str:
    name = _quoted(_xml(f"{entry.action} {entry.subject}"))
    if entry.symbol == "!" and entry.action == "blocked":
        return f"<testcase classname='plan' name={name}><failure message={_quoted(_xml(entry.detail))}/></testcase>"
    said = html.escape(_xml(_fenced(entry)))
    return f"<testcase classname='plan' name={name}><system-out>{said}</system-out></testcase>"


def _guard_case(guard: Guard) -> str:
    name = _quoted(_xml(f"guard {guard.id} {guard.subject}"))
    if guard.status != "blocked":
        return f"<testcase classname='guard' name={name}/>"
    message = _quoted(_xml(f"{guard.message}; {guard.override or guard.remedy}"))
    return f"<testcase classname='guard' name={name}><failure message={message}/></testcase>"


def _quoted(text: str) -> str:
    return f'"{html.escape(text)}"'


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", plain(text) if "\n" not in text else text)


# --- GitLab ----------------------------------------------------------------------------------------------------------


def gitlab_terraform(plan: Plan) -> str:
    """Return the counts that GitLab's merge request shows (artifacts:reports:terraform)."""
    counts = {"create": plan.count(Create), "update": plan.count(Update), "delete": plan.count(Remove)}
    return json.dumps(counts) + "\n"
