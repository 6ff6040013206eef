"""Keeps processes running: starts them, replaces those that die, stops all of them; knows nothing of what they do.

Sanic's own manager does not restart a worker that is killed, lets the port listen in vain when none is left, cuts a
graceful stop at 10 s, and kills its whole process group when a worker fails at start (findings.md); hence this one.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Final

from scalelite.errors import ScaleliteError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.context import SpawnProcess
    from types import FrameType

log = logging.getLogger(__name__)

_SPAWN: Final = multiprocessing.get_context("spawn")
_SHORT_LIFE_S: Final = 5.0
_SHORT_LIVES: Final = 5
_RESTART_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Program:
    """What a process runs; function and arguments must be picklable.

    The service ends when a `vital` one cannot be kept running; another is started again for ever.
    """

    name: str
    run: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    vital: bool = True


@dataclass(slots=True)
class _Running:
    program: Program
    process: SpawnProcess
    started: float
    short_lives: int = 0


@dataclass(slots=True)
class Supervisor:
    """Runs programs until SIGINT or SIGTERM.

    `let_go` gives up what the parent shares with them, before they are asked to end; `stop_s` is how long they get.
    """

    programs: Sequence[Program]
    let_go: Callable[[], None]
    stop_s: float = 12.0
    _children: list[_Running] = field(default_factory=list)
    _stopping: bool = False

    def run(self) -> None:
        """Run until a signal; raises ScaleliteError when a program dies again and again just after its start."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        old_wakeup = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        try:
            self._children = [self._start(program) for program in self.programs]
            while not self._stopping:
                connection.wait([woken, *(child.process.sentinel for child in self._children)])
                self._replace_dead(woken)
        finally:
            self._stop_all()
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(woken)
            os.close(wake)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _start(self, program: Program, short_lives: int = 0) -> _Running:
        process = _SPAWN.Process(target=_run, args=(program,), name=f"scalelite {program.name}", daemon=True)
        process.start()
        return _Running(program, process, time.monotonic(), short_lives)

    def _replace_dead(self, woken: int) -> None:
        """Start again what has died, a moment later where it does so at its start; a signal is not kept waiting."""
        for place, child in enumerate(self._children):
            if self._stopping or child.process.is_alive():
                continue
            log.error("%s ended with %s; it is started again", child.program.name, child.process.exitcode)
            short = time.monotonic() - child.started < _SHORT_LIFE_S
            if short and child.program.vital and child.short_lives + 1 >= _SHORT_LIVES:
                raise ScaleliteError(f"{child.program.name} ends again and again at its start", hint="its log says why")
            if short and connection.wait([woken], _RESTART_S):
                return
            self._children[place] = self._start(child.program, child.short_lives + 1 if short else 0)

    def _stop_all(self) -> None:
        """Ask all to end, then end those that did not."""
        self.let_go()
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + self.stop_s
        for child in self._children:
            child.process.join(max(0.0, deadline - time.monotonic()))
            if child.process.is_alive():
                log.error("%s did not end in %g s and is killed", child.program.name, self.stop_s)
                child.process.kill()
                child.process.join()


def _run(program: Program) -> None:
    """Run in the child: a terminal's Ctrl-C goes to the parent alone, which asks each child to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program.run(*program.arguments)
