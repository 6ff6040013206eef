"""The output of `playbook run` on a terminal: lines in colour, and below them which task runs with how many targets."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from scalelite.core.show import plain
from scalelite.playbook.output import TextOutput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scalelite.playbook.book import Task
    from scalelite.playbook.output import Masker
    from scalelite.playbook.tasks import Done

# As Ansible has them.
_STYLES: Final = {
    "ok: ": "green",
    "changed: ": "yellow",
    "fatal: ": "red",
    "skipping: ": "cyan",
    "FAILED - RETRYING": "bright_black",
    "left held: ": "yellow",
    "\nPLAY ": "bold",
    "\nTASK ": "bold",
    "\nRUNNING HANDLER ": "bold",
}


class ProgressOutput(TextOutput):
    """Text, with a bar on the terminal for as long as `running` lasts; lines go to standard output all the same."""

    def __init__(self, masker: Masker, *, diff: bool, verbose: bool) -> None:
        super().__init__(self._line_out, masker, diff=diff, verbose=verbose)
        self._on_terminal = sys.stdout.isatty()
        self._masked = masker
        self._console = Console(stderr=not self._on_terminal)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._row = self._bar.add_task("", total=None, visible=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the bar."""
        with self._bar:
            yield

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Take the bar away while somebody is asked."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def task(self, task: Task, targets: Sequence[str], *, handler: bool) -> None:
        """Print its banner, and begin to count."""
        super().task(task, targets, handler=handler)
        self._bar.reset(self._row, total=len(targets), visible=True, description=self._masked(plain(task.name)))

    def result(self, target: str, done: Done, *, rescued: bool) -> None:
        """Print its line, and count it."""
        super().result(target, done, rescued=rescued)
        self._bar.advance(self._row)

    def _line_out(self, text: str) -> None:
        if not self._on_terminal:
            click.echo(text)
            return
        style = next((style for start, style in _STYLES.items() if text.startswith(start)), "")
        self._console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
