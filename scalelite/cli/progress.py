"""Progress of long work, on standard error: a bar on a terminal, elsewhere one line a step."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from collections.abc import Iterator


class Step(Protocol):
    """Tells of what was just done, and how much of the total that is."""

    def __call__(self, text: str, count: int = 1, /) -> None:
        """Note a step."""


@contextmanager
def steps(doing: str, total: int | None = None) -> Iterator[Step]:
    """Yield a function that is told of each step that is done; `total` is how many there are, where that is known."""
    if not sys.stderr.isatty():
        yield lambda text, _count=1: click.echo(text, err=True)
        return
    from rich.console import Console  # noqa: PLC0415 - 0.1 s to import
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=total)

        def advance(text: str, count: int = 1) -> None:
            progress.update(task, advance=count, description=f"{doing}: {escape(text)}")

        yield advance
