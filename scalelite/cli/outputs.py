"""What plan and apply print and write: text, JSON, markdown and reports for CI, from one plan."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import click

from scalelite.core import show
from scalelite.core.drift import causes
from scalelite.core.entries import Known
from scalelite.core.plan import Create, Remove, Update
from scalelite.core.text import NOUNS, Look, plan_text
from scalelite.inventory.places import Places
from scalelite.inventory.write import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from scalelite.cli.plan_options import Options
    from scalelite.core.document import PlanDocument
    from scalelite.core.model import Key
    from scalelite.flows.force import Forced
    from scalelite.flows.reconcile import Origin, Planned, Request
    from scalelite.inventory.load import Inventory


@dataclass(frozen=True)
class View:
    """A plan with all that its outputs need."""

    planned: Planned
    request: Request
    loaded: Inventory
    origin: Origin
    options: Options
    plan_id: str
    now: datetime
    diagnostics: tuple[str, ...] = ()

    @cached_property
    def known(self) -> Known:
        """Places, marks of drift and the time, for entries."""
        marks = dict(_marks(self.planned, self.now))
        places = self.planned.wanted.places
        if not isinstance(places, Places):
            return Known(self.now, places, marks, self.options.full)
        return Known(self.now, places, marks, self.options.full, places.looked_up)

    @cached_property
    def document(self) -> PlanDocument:
        """The plan as a document; costs, so only when one is asked for."""
        from scalelite import __version__  # noqa: PLC0415
        from scalelite.flows.saved import About, document  # noqa: PLC0415 - its models take 0.1 s to import

        about = About(__version__, self.plan_id, self.now, self.origin, self.diagnostics)
        return document(self.planned, self.request, about)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the plan and of its making."""
        return (*self.planned.warnings, *self.diagnostics)

    def rendered(self, kind: str, *, colour: bool = False) -> str:
        """Return one output."""
        planned, known = self.planned, self.known
        if kind == "text":
            return self._text(colour=colour)
        if kind == "json":
            return self.document.model_dump_json(indent=2) + "\n"
        from scalelite.core import report  # noqa: PLC0415 - only when asked for

        match kind:
            case "markdown":
                title = planned.cluster_name or "cluster"
                return report.markdown(title, planned.plan, planned.guards, self.warnings, known)
            case "junit":
                return report.junit(planned.plan, planned.guards, self.warnings, known)
            case _:
                return report.gitlab_terraform(planned.plan)

    def _text(self, *, colour: bool) -> str:
        unchanged = tuple(self._unchanged()) if self.options.show_unchanged else ()
        look = Look(colour, self.options.summary, unchanged, self.options.show_unmanaged)
        planned = self.planned
        text = plan_text(planned.plan, planned.guards, self.warnings, self.known, look)
        return f"{_head(self.loaded, planned)}\n{text}"

    def _unchanged(self) -> Iterator[Key]:
        changed = {change.key for change in self.planned.plan.changes}
        return (key for key in self.planned.wanted.objects if key not in changed)


def contents(loaded: Inventory) -> str:
    """Say how many files an inventory has, and how many objects it declares."""
    counts = [show.counted(sum(1 for _ in loaded.wanted.of_kind(kind)), noun) for kind, noun in NOUNS.items()]
    return f"Inventory  {show.counted(len(loaded.files), 'file')}: {', '.join(counts)}"


def _head(loaded: Inventory, planned: Planned) -> str:
    name = show.plain(planned.cluster_name) or "(no name)"
    lines = [
        (contents(loaded), "valid"),
        (f"Cluster    {name}, revision {planned.plan.revision:,}", f"read in {planned.read_s * 1000:.0f} ms"),
    ]
    return "".join(f"{left:<78} {right}\n" for left, right in lines)


def _marks(planned: Planned, now: datetime) -> Iterator[tuple[tuple[Key, str], str]]:
    """Yield who changed what outside of the inventory since it was applied, by object and field."""
    if not planned.pasts:
        return
    for change in planned.plan.changes:
        past = planned.pasts.get(change.key)
        for name, cause in causes(change, past).items() if past else ():
            if cause.touch is not None:
                verb = "changed" if isinstance(change, Update) else "removed" if isinstance(change, Create) else "made"
                yield (change.key, name), f"{verb} {show.touched(cause.touch, now)}"


def print_plan(view: View, *, err: bool = False) -> None:
    """Print a plan in the style that was asked for, and write the reports."""
    colour = not err and not view.options.no_color and sys.stdout.isatty()
    click.echo(view.rendered(view.options.style, colour=colour), nl=False, err=err)
    for kind, path in view.options.out:
        path.write_text(view.rendered(kind), encoding="utf-8")


def save(view: View, path: Path) -> None:
    """Write the plan as a document that apply takes; readable by its owner alone, whole or not at all."""
    write_whole(path, view.rendered("json"), private=True)


def outcome(forced: Forced, style: str, took_s: float) -> str:
    """Return how an apply ended, as text or JSON."""
    applied = forced.applied
    counts = {
        word: applied.plan.count(kind) for word, kind in (("created", Create), ("updated", Update), ("deleted", Remove))
    }
    if style == "json":
        return (
            json.dumps(
                {
                    "applied": counts,
                    "revision": applied.revision or None,
                    "seconds": round(took_s, 3),
                    "meetings": [
                        {"server": end.meeting.server, "meeting_id": end.meeting.meeting_id, "outcome": end.outcome}
                        for end in forced.ends
                    ],
                    "left": list(applied.left),
                    "stopped": forced.stopped,
                }
            )
            + "\n"
        )
    lines = [f"  {end.meeting.server}  {end.meeting.meeting_id!r}  {end.outcome}" for end in forced.ends]
    if not applied.revision and not lines:
        return "Nothing to apply.\n"
    totals = ", ".join(f"{count} {word}" for word, count in counts.items())
    lines.append(f"Applied: {totals} in {took_s:.1f} s. Revision {applied.revision:,}.")
    why = forced.stopped or "still has meetings"
    lines += [f"Left: {address}: {why}; apply again" for address in applied.left]
    return "\n" + "\n".join(lines) + "\n"
