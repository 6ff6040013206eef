"""The demo's tour: commands that are printed and run, and calls over HTTP to a tenant's endpoint; nothing is staged."""

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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import urlencode

import click

from scalelite.core import wire
from scalelite.errors import GuardRefused, ScaleliteError
from scalelite.settings import process_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SERVERS: Final = 3
TENANT: Final = "tenant1"
TENANT_SECRET: Final = "tenant1-secret"  # noqa: S105 - a demo's
DOMAIN: Final = "sl.localhost"
RECORDINGS: Final = Path(".scalelite/recordings")
FOLDERS: Final = ("spool", "work", "publish", "unpublish")
SENT: Final = RECORDINGS / "sent"
_READY_S: Final = 20.0
_STOP_S: Final = 5.0
# Waits for the end of who holds its standard input, however that ends, and then ends a session.
_WATCH: Final = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGTERM)"


def say(title: str) -> None:
    """Print the title of a step."""
    click.secho(f"\n▸ {title}", bold=True)


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

    def plan(self, inventory: str) -> Sequence[str]:
        """Plan; returns what apply is told to allow.

        Meetings that an earlier demo left are on servers that may have other ports now, which a guard stops.
        """
        said = self.command("plan", inventory, statuses=(0, GuardRefused.exit_status))
        if found := re.search(rb"--allow\s+(reach=\d+)", said):
            return ("--allow", found[1].decode())
        return ()

    def command(self, *arguments: str, statuses: Sequence[int] = (0,)) -> bytes:
        """Run a command to its end and return what it printed; raises ScaleliteError for another exit status."""
        say(f"scalelite {' '.join(_quoted(argument) for argument in arguments)}")
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "scalelite", *arguments], env=self.environment(), check=False, capture_output=True
        )
        _echo(done.stdout)
        _echo(done.stderr)
        if done.returncode not in statuses:
            raise ScaleliteError(f"the demo's command `scalelite {' '.join(arguments)}` ended with {done.returncode}")
        return done.stdout

    @contextmanager
    def running(self, *arguments: str) -> Iterator[None]:
        """Run a command beside the tour, in a session of its own; it is stopped at the end, however the tour ends."""
        say(f"scalelite {' '.join(arguments)} &")
        child = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "scalelite", *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=_echo_lines, args=(child.stdout,), daemon=True).start()
        self.children.append(child)
        with _ended_with_us(child.pid):
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
        say(f"GET http://{self.host}{_without_checksum(path)}")
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
                say(f"curl -d '{order}' http://127.0.0.1:{port}/control")
                archive = max(SENT.glob("*.tar"), key=lambda path: path.stat().st_mtime_ns)
                click.echo(f"  sent {archive}")
                return archive
        raise ScaleliteError("no simulated server has the demo's meeting")

    def fetch(self, path: str) -> None:
        """Fetch a file at the tenant's endpoint; raises ScaleliteError if it is not there."""
        say(f"GET http://{self.host}{path}")
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


def follow(url: str) -> int:
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


@contextmanager
def _ended_with_us(session: int) -> Iterator[None]:
    """End a session when this process ends, also where it is killed: what went on would hold the ports."""
    watch = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-S", "-c", _WATCH, str(session)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        watch.kill()
        watch.communicate()


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the whole session to end, then end it: a worker must not outlive the demo."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
