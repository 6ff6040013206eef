"""Progress of long work, on standard error: a bar on a terminal, elsewhere one line a step."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def steps(doing: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Yield a function that is told of each step that is done; `total` is how many there are, where that is known."""
    if not sys.stderr.isatty():
        yield lambda text: click.echo(text, err=True)
        return
    from rich.console import Console  # noqa: PLC0415 - 0.1 s to import
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=total)

        def advance(text: str) -> None:
            progress.update(task, advance=1, description=f"{doing}: {text}")

        yield advance
