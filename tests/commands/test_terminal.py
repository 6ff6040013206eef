"""What commands do on a terminal, through the installed command and a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scalelite.sim import RunningServer
    from tests.plan.conftest import Here

LONGEST_S = 30.0


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.ours, theirs = pty.openpty()
        environ = {**os.environ, "TERM": "xterm-256color", **environment}
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
        os.close(theirs)
        self.shown = ""

    def until(self, pattern: str) -> str:
        """Read until the pattern is shown; returns all that was."""
        deadline = time.monotonic() + LONGEST_S
        while not re.search(pattern, self.shown):
            assert time.monotonic() < deadline, self.shown[-500:]
            if select.select([self.ours], [], [], 0.2)[0]:
                self.shown += os.read(self.ours, 65_536).decode(errors="replace")
        return self.shown

    def rest(self) -> str:
        """Read to the end; returns all that was shown."""
        try:
            while chunk := os.read(self.ours, 65_536):
                self.shown += chunk.decode(errors="replace")
        except OSError:  # how Linux says that nobody has the other side open
            pass
        return self.shown

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@contextmanager
def terminal(*arguments: str, columns: int = 100) -> Iterator[Terminal]:
    opened = Terminal(sys.executable, "-m", "scalelite", *arguments, COLUMNS=str(columns))
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.shows("cli: asks, names how many", "cli: refusing is a non-zero exit status")
@pytest.mark.parametrize(("answer", "status", "left"), [("no\n", 64, 2), ("yes\n", 0, 0)])
def test_disable_asks_and_names_how_many_meetings(
    cluster: Here, servers: list[RunningServer], answer: str, status: int, left: int
) -> None:
    with terminal("servers", "disable", "bbb1") as shown:
        shown.until("End 2 meetings on server bbb1[?] Only 'yes' goes on: ")
        shown.type(answer)
        shown.until("2 meetings ended" if not status else "not confirmed, nothing was done")
        assert shown.process.wait(LONGEST_S) == status
    assert len(servers[0].meetings) == left


INVENTORY = "servers:\n  bbb1: {url: 'https://bbb1/api', secret: s}\n"


@pytest.mark.shows("plan: only yes goes on", "plan: colour on a terminal only, NO_COLOR, --no-color")
def test_apply_asks_and_only_yes_goes_on(here: Here) -> None:
    here.write(INVENTORY)
    for answer, said, status in (
        ("y", "error: not confirmed, nothing was written", 64),
        ("YES", "error: not confirmed, nothing was written", 64),
        ("yes", "Applied: 1 created, 0 updated, 0 deleted", 0),
    ):
        with terminal("apply", "inv.yml") as shown:
            assert "\x1b[" in shown.until("Apply these changes[?] Only 'yes' goes on: ")
            shown.type(f"{answer}\n")
            shown.until(re.escape(said))
            assert shown.process.wait(LONGEST_S) == status
    here.write(INVENTORY.replace("bbb1", "bbb2"))
    with terminal("plan", "inv.yml", "--allow", "removals=1", "--no-color") as shown:
        assert "\x1b" not in shown.until("Deletes: server bbb1")
    here.environ("NO_COLOR", "1")
    with terminal("plan", "inv.yml", "--allow", "removals=1") as shown:
        assert "\x1b" not in shown.until("Deletes: server bbb1")


@pytest.mark.shows("cli: status --watch: live, full screen, coloured by health")
def test_watch_shows_the_servers_again_and_again_on_the_whole_screen(cluster: Here) -> None:
    with terminal("status", "--watch", "--interval", "0.2") as shown:
        shown.until(r"\x1b\[\?1049h")  # the other screen
        first = shown.until("bbb1|127.0.0.1")
        assert "\x1b[" in first
        cluster.sql("UPDATE server SET tag = 'seen-later' WHERE id = 'bbb1'")
        shown.until("seen-later")
        shown.process.send_signal(signal.SIGINT)
        shown.until(r"\x1b\[\?1049l")
        assert shown.process.wait(LONGEST_S) == 130


@pytest.mark.shows("cli: status --watch: plain without a terminal")
def test_watch_is_plain_in_a_pipe(cluster: Here) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "scalelite", "status", "--watch", "--interval", "0.1"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(6)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LONGEST_S)
    assert process.returncode == 130
    assert [line[:8] for line in lines].count("HOSTNAME") == 2
    assert "\x1b" not in "".join(lines)


@pytest.mark.shows("cli: tables fit the terminal")
def test_a_table_fits_the_terminal(cluster: Here) -> None:
    with terminal("servers", "list", columns=60) as shown:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.rest())
    assert all(name in plain for name in ("bbb1", "bbb2", "bbb3"))
    assert max(len(line) for line in plain.splitlines()) <= 60
    assert "…" in plain


# How each shell is begun without anybody's settings, and told to complete, and to say so.
SHELLS = {
    "bash": (("bash", "--norc", "--noprofile", "-i"), 'eval "$(scalelite completion bash)"; echo loaded-$((40 + 2))'),
    "zsh": (
        ("zsh", "-f", "-i"),
        'autoload -U compinit; compinit -u -D; eval "$(scalelite completion zsh)"; echo loaded-$((40 + 2))',
    ),
    "fish": (("fish", "--no-config", "-i"), "scalelite completion fish | source; echo loaded-(math 40 + 2)"),
}


@pytest.mark.shows("cli: shell completion")
@pytest.mark.parametrize("shell", [pytest.param(name, marks=pytest.mark.needs(name)) for name in SHELLS])
def test_a_shell_that_has_loaded_the_script_completes(shell: str, tmp_path: Path) -> None:
    command, load = SHELLS[shell]
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "scalelite").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scalelite "$@"\n')
    (scripts / "scalelite").chmod(0o755)
    environment = {"PATH": f"{scripts}:{os.environ['PATH']}", "HOME": str(tmp_path), "SHELL": command[0]}
    opened = Terminal("setsid", "--ctty", *command, **environment)
    try:
        opened.type(f"{load}\r")
        opened.until("loaded-42")
        opened.type("scalelite tenant-settings rem\t")
        opened.until("rem.*ove")
        opened.type("\x15scalelite servers list --format y\t")
        opened.until("--format.*yaml")
    finally:
        opened.close()
