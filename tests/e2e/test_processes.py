"""The service's real processes: what dies is replaced, what is asked to stop stops, and no call is lost by it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalelite.errors import ScaleliteError
from scalelite.web.listener import listen, refuse_newcomers
from scalelite.web.supervisor import Program, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = 2


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def serving(database: str, *extra: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `scalelite serve`; yield its process and port. Its session is its own, so that a fault stays in it."""
    port = free_port()
    environment = os.environ | {"DATABASE_URL": database, "LOADBALANCER_SECRET": "test-secret", "LOG_LEVEL": "warning"}
    command = [sys.executable, "-m", "scalelite", "serve", "--host", "127.0.0.1", "--port", str(port)]
    child = subprocess.Popen([*command, "--workers", str(WORKERS), *extra], env=environment, start_new_session=True)
    try:
        wait_until(lambda: is_ready(port))
        yield child, port
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except OSError:
        return False


def wait_until(condition: object, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def children(pid: int) -> set[int]:
    """Python processes below a process: workers and the poller."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z" and "spawn_main" in command:
            found.add(int(stat.parent.name))
    return found


def time_to_come_back(service: int, port: int, victims: set[int]) -> float:
    """Kill some of the processes; returns after how many seconds there are others, and calls are answered."""
    before = children(service)
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: len(children(service) - victims) == len(before) and is_ready(port))
    return time.monotonic() - killed


def time_to_start() -> float:
    """Return how long a process takes on this machine, now, until it has imported the service."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import scalelite.web.server"], check=True)
    return time.monotonic() - began


@pytest.mark.shows("operations: a worker that dies is replaced within 5 s")
def test_a_killed_worker_or_poller_is_replaced_and_the_port_goes_on_answering(database: str) -> None:
    """One after the other, then all at once; where starting a process takes long by itself, three times that."""
    with serving(database) as (service, port):
        assert len(children(service.pid)) == WORKERS + 1
        for victim in children(service.pid):
            took_s = time_to_come_back(service.pid, port, {victim})
            assert took_s < max(5.0, 3 * time_to_start())
        took_s = time_to_come_back(service.pid, port, children(service.pid))
        assert took_s < max(5.0, 3 * time_to_start() * (WORKERS + 1))


@pytest.mark.shows("operations: kill -9 at any point leaves nothing behind")
def test_workers_end_when_their_parent_is_killed(database: str) -> None:
    with serving(database) as (service, port):
        left = children(service.pid)
        service.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), timeout_s=20)
        assert not is_ready(port)


@pytest.mark.shows("operations: SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_of_it_quickly(database: str, number: signal.Signals) -> None:
    with serving(database) as (service, _):
        below = children(service.pid)
        service.send_signal(number)
        assert service.wait(10) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in below)


async def call(port: int, pause_s: float) -> str:
    """Connect, send a request after a while, and return the status, or what happened instead."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return "refused"
    try:
        await asyncio.sleep(pause_s)
        writer.write(b"GET /bigbluebutton/api HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await reader.read()).decode().partition("\r\n")[0] or "closed"
    except OSError as error:
        return type(error).__name__
    finally:
        writer.close()


@pytest.mark.shows("operations: SIGTERM, no call is lost")
async def test_a_stop_under_load_loses_no_call(database: str) -> None:
    """Who was connected is answered, however long before the request came; a new connection is refused, not dropped."""
    with serving(database) as (service, port):
        outcomes: list[str] = []

        async def front_end(pause_s: float) -> None:
            while not outcomes or outcomes[-1] != "refused":
                outcomes.append(await call(port, pause_s))

        callers = [asyncio.create_task(front_end(pause_s)) for pause_s in (0.0, 0.002, 0.02, 0.2) for _ in range(4)]
        await asyncio.sleep(0.5)
        service.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*callers), 20)
        assert await asyncio.to_thread(service.wait, 5) == 0
        assert len(outcomes) > 100
        assert set(outcomes) == {"HTTP/1.1 200 OK", "refused"}


@pytest.mark.shows("operations: SIGTERM", "issue A: as an ordinary user")
def test_a_stop_goes_on_where_the_system_allows_no_socket_filter() -> None:
    """As in sandboxes that let root alone have one: there the whole stop failed."""
    lock_filter = 44  # Linux's SO_LOCK_FILTER: no other one may be attached from here on
    with listen("127.0.0.1", 0) as listener:
        listener.setsockopt(socket.SOL_SOCKET, lock_filter, 1)
        assert not refuse_newcomers(listener)
        socket.create_connection(listener.getsockname(), timeout=10).close()


def end_at_once() -> None:
    sys.exit(3)


@pytest.mark.shows("operations: when none is left the service ends with an error")
def test_a_program_that_ends_again_and_again_ends_the_service_with_an_error() -> None:
    let_go: list[bool] = []
    supervisor = Supervisor([Program("worker", end_at_once)], let_go=lambda: let_go.append(True))
    with pytest.raises(ScaleliteError, match="worker ends again and again"):
        supervisor.run()
    assert let_go == [True]


@pytest.mark.shows("MO-1", "bbb-api: metrics over all workers")
def test_metrics_are_added_up_over_the_workers(database: str) -> None:
    """Each request is a connection of its own, so that both workers get some; each tells the same sum soon."""

    def get(port: int, path: str) -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    line = 'scalelite_requests_total{api="bigbluebutton",call="index",outcome="answered"}'

    def tasks() -> float:
        time.sleep(0.7)  # each notes its own once a second
        return float(get(port, "/metrics").partition("\nscalelite_tasks ")[2].split()[0])

    with serving(database) as (service, port):
        for _ in range(40):
            assert "SUCCESS" in get(port, "/bigbluebutton/api")
        wait_until(lambda: all(f"{line} 40.0" in get(port, "/metrics") for _ in range(6)))
        wait_until(lambda: "scalelite_poll_last_cycle_timestamp_seconds" in get(port, "/metrics"))
        before = max(tasks() for _ in range(4))
        for victim in children(service.pid):
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(children(service.pid)) == WORKERS + 1 and is_ready(port))
        wait_until(lambda: tasks() < 1.5 * before)  # of those that died nothing is left
