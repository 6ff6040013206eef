"""A plan as text: at most 120 columns, symbols that carry the meaning, colour that only repeats it."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from scalelite.core.entries import deletes, entries
from scalelite.core.model import Kind
from scalelite.core.plan import Create, Remove, Update
from scalelite.core.show import WIDTH, counted, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from scalelite.core.entries import Entry, FieldLine, Known
    from scalelite.core.guards import Guard
    from scalelite.core.model import Key
    from scalelite.core.plan import Plan

NOUNS: Final = {Kind.SERVER: "server", Kind.TENANT: "tenant", Kind.SETTING: "setting"}
_COLOURS: Final = {"+": "32", "~": "33", "-": "31", "!": "1;31", "=": "2"}
_SUBJECT: Final = 31
_FIELD: Final = 17
_CHANGE: Final = 33


@dataclass(frozen=True, slots=True)
class Look:
    """What is shown besides the changes, and how."""

    colour: bool = False
    only_summary: bool = False
    unchanged: tuple[Key, ...] = ()
    unmanaged: bool = False


def plan_text(plan: Plan, guards: Sequence[Guard], warnings: Sequence[str], known: Known, look: Look = Look()) -> str:
    """Return a plan as people read it; what is deleted stands first and in the index at the end."""
    lines: list[str] = []
    if not look.only_summary:
        for entry in entries(plan, known):
            lines += [_coloured(line, entry.symbol, look) for line in _entry(entry)]
        lines += [line for key in look.unchanged for line in _wrapped(f"    {plain(key.address)}  unchanged")]
    if look.unmanaged:
        lines += [line for key in plan.unmanaged for line in _wrapped(f"    {plain(key.address)}  not managed")]
    lines += [*([""] if lines else []), *_wrapped(summary(plan))]
    lines += _index(plan)
    lines += _guards(guards)
    lines += [line for text in warnings for line in _wrapped(f"Warning: {plain(text)}")]
    return "\n".join(lines) + "\n"


def summary(plan: Plan) -> str:
    """Return the line of totals."""
    unchanged = sum(plan.unchanged.values())
    kept = f"{len(plan.keeps):,} kept" if plan.keeps else ""
    if not plan.does_something and not plan.blocked:
        parts = [counted(plan.unchanged.get(kind, 0), noun) for kind, noun in NOUNS.items()]
        return f"No changes. {', '.join(parts)} match the cluster." + (f" {kept}." if kept else "") + _unmanaged(plan)
    create, update, delete = plan.count(Create), plan.count(Update), plan.count(Remove)
    ends = sum(item.meetings for item in plan.endings)
    totals = [
        f"{create:,} to create, {update:,} to update, {delete:,} to delete",
        f"{counted(len(plan.releases), 'hold')} to release" if plan.releases else "",
        f"{counted(ends, 'meeting')} to end" if ends else "",
        kept,
        f"{len(plan.blocked):,} blocked" if plan.blocked else "",
    ]
    return f"Plan: {', '.join(filter(None, totals))}. {unchanged:,} unchanged.{_unmanaged(plan)}"


def _unmanaged(plan: Plan) -> str:
    return f" {len(plan.unmanaged):,} not managed." if plan.unmanaged else ""


def _index(plan: Plan) -> Iterator[str]:
    if removed := deletes(plan):
        yield from _wrapped(f"Deletes: {plain(', '.join(removed))}", indent="         ")


def _guards(guards: Sequence[Guard]) -> Iterator[str]:
    """Those that diff has stopped stand as entries above already, each with its remedy."""
    for guard in guards:
        if guard.status == "blocked" and not guard.override:
            continue
        said = f"Guards:  {guard.message} ({guard.limit}"
        said += ")  ok" if guard.status == "ok" else f", set by {guard.where})  {guard.status}"
        if guard.status == "blocked":
            said += f"; {guard.override} allows exactly this" + (f", or {guard.remedy}" if guard.remedy else "")
        yield from _wrapped(plain(said), indent="         ")


# --- lines -----------------------------------------------------------------------------------------------------------


def _entry(entry: Entry) -> Iterator[str]:
    head = f"  {entry.symbol} {plain(entry.subject):<{_SUBJECT}} {entry.action:<8}"
    yield from _in_columns(head, plain(entry.detail))
    for line in entry.fields:
        yield from _field(line)


def _field(line: FieldLine) -> Iterator[str]:
    mark = f"# drift: {line.mark}" if line.mark else ""
    detail = "   ".join(filter(None, (line.detail, mark)))
    yield from _in_columns(f"      {line.name:<{_FIELD}} {line.change:<{_CHANGE}}", plain(detail))


def _in_columns(head: str, detail: str) -> Iterator[str]:
    """The detail goes beside the head where there is room, else below it."""
    one_line = f"{head}  {detail}".rstrip()
    if len(one_line) <= WIDTH:
        yield one_line
        return
    yield from _wrapped(head.rstrip(), indent="      ")
    yield from _wrapped(f"          {detail}", indent="          ")


def _wrapped(text: str, indent: str = "  ") -> Iterable[str]:
    if len(text) <= WIDTH:
        return [text]
    leading = text[: len(text) - len(text.lstrip(" "))]
    return wrap(
        text.lstrip(" "), WIDTH, initial_indent=leading, subsequent_indent=indent, break_on_hyphens=False,
        replace_whitespace=False, drop_whitespace=True,
    )  # fmt: skip


def _coloured(line: str, symbol: str, look: Look) -> str:
    return f"\x1b[{_COLOURS[symbol]}m{line}\x1b[0m" if look.colour else line
