"""demo: the whole of it on this machine, as a newcomer would type it, against simulated servers.

Each step is a command that is printed and run, or a call over HTTP to a tenant's endpoint; nothing is staged.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import urlencode

import click

from scalelite.cli.session import settings_of_process
from scalelite.core import wire
from scalelite.errors import PortTaken, ScaleliteError, UsageError
from scalelite.settings import process_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scalelite.settings import Settings

SERVERS: Final = 3
INVENTORY: Final = Path("inventories/demo")
TENANT: Final = "tenant1"
TENANT_SECRET: Final = "tenant1-secret"  # noqa: S105 - a demo's
DOMAIN: Final = "sl.localhost"
RECORDINGS: Final = Path(".scalelite/recordings")
FOLDERS: Final = ("spool", "work", "publish", "unpublish")
SENT: Final = RECORDINGS / "sent"
FIRST_SIMULATED_PORT: Final = 8091
_READY_S: Final = 20.0
_STOP_S: Final = 5.0


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
        _say("Start a real Postgres in .scalelite/ and migrate it")
        conninfo = stack.enter_context(open_database(_without_database(settings), create_home=LOCAL_HOME))
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


def _hold_tour(tour: Tour, stack: ExitStack) -> None:
    tour.command("plan", str(INVENTORY))
    tour.command("apply", str(INVENTORY), "--auto-approve", "--message", "the demo")
    tour.command("poll", "--once")
    stack.enter_context(tour.running("serve", "--host", "127.0.0.1", "--port", str(tour.port), "--workers", "2"))
    tour.wait_for(tour.port)
    tour.call("create", {"meetingID": "demo-room", "name": "Demo room", "attendeePW": "ap", "moderatorPW": "mp"})
    location = tour.call("join", {"meetingID": "demo-room", "fullName": "Ada", "password": "mp"})
    _say("Follow the redirect, as Ada's browser does")
    click.echo(f"  HTTP {_open(location)}")
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


def _say(title: str) -> None:
    click.secho(f"\n▸ {title}", bold=True)


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


# --- the tour --------------------------------------------------------------------------------------------------------


@dataclass
class Tour:
    """Runs commands and calls of the demo, and prints them as one would type them."""

    conninfo: str
    port: int
    simulated_port: int
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def host(self) -> str:
        """The tenant's host name, with the port."""
        return f"{TENANT}.{DOMAIN}:{self.port}"

    def environment(self) -> Mapping[str, str]:
        """The environment of the commands: this database, these simulated servers, tenants by host name."""
        ports = {f"SIM{place + 1}_PORT": str(self.simulated_port + place) for place in range(SERVERS)}
        ours = {
            "DATABASE_URL": self.conninfo,
            "MULTITENANCY_ENABLED": "true",
            "URL_HOST": DOMAIN,
            "POLL_INTERVAL": "10",
            "DEMO_PORT": str(self.port),
            "RECORDING_SERVE_FILES": "true",
        }
        ours |= {f"RECORDING_{name.upper()}_DIR": str(RECORDINGS / name) for name in FOLDERS}
        quiet = {"LOG_LEVEL": "error", "PYTHONUNBUFFERED": "1"}
        return quiet | process_environment() | ours | ports

    def command(self, *arguments: str) -> None:
        """Run a command to its end; raises ScaleliteError when it fails."""
        _say(f"scalelite {' '.join(_quoted(argument) for argument in arguments)}")
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "scalelite", *arguments], env=self.environment(), check=False, capture_output=True
        )
        _echo(done.stdout)
        _echo(done.stderr)
        if done.returncode:
            raise ScaleliteError(f"the demo's command `scalelite {' '.join(arguments)}` ended with {done.returncode}")

    @contextmanager
    def running(self, *arguments: str) -> Iterator[None]:
        """Run a command beside the tour, in a session of its own; it is stopped at the end."""
        _say(f"scalelite {' '.join(arguments)} &")
        child = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "scalelite", *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=_echo_lines, args=(child.stdout,), daemon=True).start()
        self.children.append(child)
        try:
            yield
        finally:
            _stop(child)

    def wait_for(self, port: int) -> None:
        """Wait until something answers HTTP on the port; raises ScaleliteError when its process has ended."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self.children[-1].poll() is not None:
                raise ScaleliteError("a process of the demo ended at its start; its words are above")
            try:
                if _get(port, "/health/ready", "localhost").status < 500:
                    return
            except OSError:
                time.sleep(0.05)
        raise ScaleliteError(f"nothing answered on port {port} within {_READY_S:g} s")

    def path(self, call: str, params: Mapping[str, str]) -> str:
        """Return the signed path of a call, as the tenant's front end makes it."""
        return f"/bigbluebutton/api/{call}?{wire.sign(call, urlencode(params), TENANT_SECRET, 'SHA256')}"

    def call(self, call: str, params: Mapping[str, str]) -> str:
        """Make a call at the tenant's endpoint and print what comes back; returns where it redirects to, or ''."""
        path = self.path(call, params)
        _say(f"GET http://{self.host}{_without_checksum(path)}")
        answer = _get(self.port, path, self.host)
        if answer.location:
            click.echo(f"  HTTP {answer.status}, Location: {_without_checksum(answer.location)}")
        else:
            _echo(re.sub(rb"<attendees>.*?</attendees>\s*", b"", answer.body, flags=re.DOTALL), most=30)
        if answer.status >= 400 or b"<returncode>FAILED" in answer.body:
            raise ScaleliteError(f"the demo's call {call} failed")
        return answer.location

    def record(self, meeting_id: str) -> Path:
        """Tell the meeting's server that it was recorded; returns the archive that it sends."""
        order = json.dumps({"op": "record", "meetingID": meeting_id})
        for port in range(self.simulated_port, self.simulated_port + SERVERS):
            if _order(port, order) == 200:
                _say(f"curl -d '{order}' http://127.0.0.1:{port}/control")
                archive = max(SENT.glob("*.tar"), key=lambda path: path.stat().st_mtime_ns)
                click.echo(f"  sent {archive}")
                return archive
        raise ScaleliteError("no simulated server has the demo's meeting")

    def fetch(self, path: str) -> None:
        """Fetch a file at the tenant's endpoint; raises ScaleliteError if it is not there."""
        _say(f"GET http://{self.host}{path}")
        answer = _get(self.port, path, self.host)
        click.echo(f"  HTTP {answer.status}, {len(answer.body)} bytes")
        if answer.status != 200:
            raise ScaleliteError("the demo's recording is not served")


@dataclass(frozen=True)
class Answered:
    """An answer over HTTP."""

    status: int
    location: str
    body: bytes


def _get(port: int, path: str, host: str) -> Answered:
    """Connect to 127.0.0.1 itself: names under localhost do not resolve everywhere."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=12)
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return Answered(response.status, response.headers.get("Location", ""), response.read())
    finally:
        connection.close()


def _order(port: int, order: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=12)
    try:
        connection.request("POST", "/control", order, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def _open(url: str) -> int:
    """Follow redirects as a browser does; returns the last status."""
    status = 302
    while status == 302:
        found = re.fullmatch(r"http://[^/:]+:(\d+)(/.*)", url)
        if not found:
            raise ScaleliteError(f"the demo was redirected to {url.partition('?')[0]}")
        answer = _get(int(found[1]), found[2], "127.0.0.1")
        status, url = answer.status, answer.location
    return status


def _without_checksum(url: str) -> str:
    return re.sub("checksum=.*", "checksum=…", url)


def _quoted(argument: str) -> str:
    return f'"{argument}"' if " " in argument else argument


def _echo(text: bytes, most: int = 60) -> None:
    lines = [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    for line in lines[:most]:
        click.echo(f"  {line}")
    if len(lines) > most:
        click.echo(f"  … {len(lines) - most} more lines")


def _echo_lines(stream: IO[bytes]) -> None:
    for line in stream:
        click.echo(f"  {line.decode('utf-8', 'replace').rstrip()}")


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the whole session to end, then end it: a worker must not outlive the demo."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


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
