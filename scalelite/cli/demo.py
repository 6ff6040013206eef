"""demo: the whole of it on this machine, as a newcomer would type it, against simulated servers.

Each step is a command that is printed and run, or a call over HTTP to a tenant's endpoint; nothing is staged.
"""

from __future__ import annotations

import fcntl
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from scalelite.cli.session import settings_of_process
from scalelite.cli.tour import SENT, SERVERS, TENANT_SECRET, Tour, follow, say
from scalelite.errors import PortTaken, ScaleliteError, UsageError

if TYPE_CHECKING:
    from scalelite.settings import Settings

INVENTORY: Final = Path("inventories/demo")
FIRST_SIMULATED_PORT: Final = 8091


@click.command()
@click.option("--once", is_flag=True, help="End after the tour, instead of leaving all running until Ctrl-C.")
@click.option("--port", type=int, help="Port of the service; else PORT, else a free one.")
def demo(once: bool, port: int | None) -> None:
    """Start Postgres, simulated servers and the service here; plan, apply, and hold a meeting.

    \b
    Example: scalelite demo --once
    """
    from scalelite.wiring import LOCAL_HOME, open_database  # noqa: PLC0415 - 0.3 s to import

    if not INVENTORY.is_dir():
        raise UsageError(f"{INVENTORY}/ is not in this folder", hint="run the demo in a clone of the repository")
    settings = settings_of_process()
    started = time.monotonic()
    with ExitStack() as stack:
        say("Start a real Postgres in .scalelite/ and migrate it")
        conninfo = stack.enter_context(open_database(_without_database(settings), create_home=LOCAL_HOME))
        _be_the_only_one(stack, LOCAL_HOME / "demo.lock")
        tour = Tour(conninfo, _service_port(settings, port), _simulated_port())
        stack.enter_context(
            tour.running(
                *("simulate", "--servers", str(SERVERS), "--first-port", str(tour.simulated_port)),
                *("--spool", str(SENT)),
            )
        )
        tour.wait_for(tour.simulated_port)
        _hold_tour(tour, stack)
        click.secho(f"\nThe tour took {time.monotonic() - started:.1f} s.", bold=True)
        if not once:
            _tell_what_next(tour)
            _wait_for_the_end(tour)


def _be_the_only_one(stack: ExitStack, lock: Path) -> None:
    """Hold the lock of this folder, for as long as this process lives: two demos would move each other's servers."""
    file = stack.enter_context(lock.open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(
            "a demo is running in this folder", hint="end it with Ctrl-C, or run this one in another clone"
        ) from None


def _hold_tour(tour: Tour, stack: ExitStack) -> None:
    allowed = tour.plan(str(INVENTORY))
    tour.command("apply", str(INVENTORY), "--auto-approve", "--message", "the demo", *allowed)
    tour.command("poll", "--once")
    stack.enter_context(tour.running("serve", "--host", "127.0.0.1", "--port", str(tour.port), "--workers", "2"))
    tour.wait_for(tour.port)
    tour.call("create", {"meetingID": "demo-room", "name": "Demo room", "attendeePW": "ap", "moderatorPW": "mp"})
    location = tour.call("join", {"meetingID": "demo-room", "fullName": "Ada", "password": "mp"})
    say("Follow the redirect, as Ada's browser does")
    click.echo(f"  HTTP {follow(location)}")
    tour.call("getMeetings", {})
    tour.call("isMeetingRunning", {"meetingID": "demo-room"})
    tour.command("poll", "--once")
    tour.command("status")
    _play_recording(tour)
    tour.command("plan", str(INVENTORY))


def _play_recording(tour: Tour) -> None:
    """Have the meeting recorded, import its archive, list it, and fetch a file of it."""
    archive = tour.record("demo-room")
    tour.command("recordings", "import", str(archive))
    archive.unlink()
    tour.call("getRecordings", {"meetingID": "demo-room", "limit": "1"})
    tour.fetch(f"/video/{archive.stem}/video-0.m4v")


def _without_database(settings: Settings) -> Settings:
    """The demo never touches the database that DATABASE_URL names."""
    from dataclasses import replace  # noqa: PLC0415

    return replace(settings, database_url="")


# --- ports -----------------------------------------------------------------------------------------------------------


def _is_free(port: int) -> bool:
    from scalelite.web.listener import listen  # noqa: PLC0415 - 0.3 s to import

    try:
        listen("127.0.0.1", port).close()
    except PortTaken:
        return False
    return True


def _service_port(settings: Settings, asked: int | None) -> int:
    """Return the port that was asked for, or another free one when nobody asked; raises PortTaken."""
    if asked is not None and not _is_free(asked):
        raise PortTaken("127.0.0.1", asked)
    wanted = asked or settings.port
    return next(port for port in range(wanted, 65536) if _is_free(port))


def _simulated_port() -> int:
    tried = range(FIRST_SIMULATED_PORT, 65000, SERVERS)
    return next(first for first in tried if all(_is_free(first + place) for place in range(SERVERS)))


def _tell_what_next(tour: Tour) -> None:
    resolve = f"--resolve {tour.host}:127.0.0.1"
    running = tour.path("isMeetingRunning", {"meetingID": "demo-room"})
    click.echo(
        f"""
  Endpoint  http://{tour.host}/bigbluebutton/api   secret {TENANT_SECRET}   (for Greenlight, Moodle, …)
  Database  {tour.conninfo}

  Try next, in another terminal in this folder (source .venv/bin/activate first):

  1. curl {resolve} 'http://{tour.host}{running}'
  2. scalelite status
  3. edit {INVENTORY}/servers.yml, then: scalelite apply {INVENTORY}   (the running service follows within a second)
  4. scalelite playbook run playbooks/rolling-upgrade.yml --check --diff   (no meeting would end)
  5. curl -d '{{"mode": "hang"}}' http://127.0.0.1:{tour.simulated_port}/control && scalelite poll --once

  All of it runs until Ctrl-C."""
    )


def _wait_for_the_end(tour: Tour) -> None:
    try:
        while all(child.poll() is None for child in tour.children):
            time.sleep(0.2)
    except KeyboardInterrupt:
        click.echo("\nStopping.")
        return
    raise ScaleliteError("a process of the demo has ended")
