"""Collects the problems of files as they are found, up to a number, and gives each its place and its line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scalelite.inventory.problems import MAX_PROBLEMS, Path, Problem, Severity, path_text, printable
from scalelite.inventory.source import Mark

if TYPE_CHECKING:
    from scalelite.core.model import Place
    from scalelite.inventory.source import Source


class TooMany(Exception):
    """Nobody reads so many problems; looking for more of them would take minutes."""


class Problems:
    """Collects what is reported, and gives each problem its line when all is read."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, Mark, Problem]] = []
        # The paths of what stands elsewhere than where it has its effect: variables of groups and hosts.
        self.paths: dict[Mark, Path] = {}

    def __call__(
        self,
        code: str,
        path: Path,
        message: str,
        mark: Mark,
        *,
        at_key: bool = False,
        rendered_from: Mark | None = None,
        severity: Severity = "error",
    ) -> None:
        """Take one problem, as `Report` says."""
        if len(self.found) == MAX_PROBLEMS - 1:
            message += f" With {MAX_PROBLEMS:,} problems found, more were not looked for."
        place = mark.key_place if at_key else mark.place
        at = Mark(mark.source, mark.key, mark.key if at_key else mark.start, mark.end)
        origin = rendered_from.place if rendered_from is not None else None
        written = self.paths.get(mark, path)
        problem = Problem(place, code, path_text(written), printable(message), severity=severity, rendered_from=origin)
        self.found.append((place, at, problem))
        if len(self.found) == MAX_PROBLEMS:
            raise TooMany

    def sorted(self) -> list[Problem]:
        """Return the problems by place, each once, with their source lines."""
        if not self.found:
            return []
        from scalelite.inventory.excerpt import Excerpts  # noqa: PLC0415

        offsets: dict[Source, list[int]] = {}
        for _, at, _ in self.found:
            if at.source.text and not at.source.vaulted:
                offsets.setdefault(at.source, []).append(at.start)
        excerpts = {source: Excerpts(source, starts) for source, starts in offsets.items()}
        seen: dict[Problem, None] = {}
        for _, at, problem in sorted(self.found, key=lambda found: (found[0], found[2].code, found[2].path)):
            if at.source in excerpts:
                line, caret = excerpts[at.source].line(at.start)
                problem = replace(problem, source_line=line, caret=caret, byte=at.byte)  # noqa: PLW2901
            seen[problem] = None
        return list(seen)
