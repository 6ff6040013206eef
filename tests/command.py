"""Runs `scalelite` in processes of their own, forked from one that has imported it: a start takes 0.4 s otherwise.

What the installed command itself does (its start, signals, terminals) is shown in tests/e2e, which start it.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scalelite.cli import main

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WARM: Final = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload([
    "pytest",  # the main module here, which each process would import
    *(f"scalelite.cli.{name}" for name in ("config", "export", "history", "inventory", "update", "validate", "vault")),
    *(f"scalelite.inventory.{name}" for name in ("excerpt", "formats", "sandbox", "wording")),
    "scalelite.flows.force",
    "scalelite.flows.saved",
    "scalelite.wiring",
])  # fmt: skip


def run(
    arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with a text as its standard input."""
    with tempfile.TemporaryDirectory() as kept:
        streams = [Path(kept, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(text)
        process = _WARM.Process(target=_command, args=(arguments, folder, dict(environment), streams))
        process.start()
        process.join()
        assert process.exitcode is not None
        said = [stream.read_text() for stream in streams[1:]]
        return subprocess.CompletedProcess(arguments, process.exitcode, *said)


def _command(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], streams: Sequence[Path]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(os.open(stream, os.O_RDWR | os.O_CREAT), number)
    sys.stdin = os.fdopen(0)  # multiprocessing has made it an empty one
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    main(list(arguments))
