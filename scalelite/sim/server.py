"""One simulated BigBlueButton server while it runs: its meetings, its failures, and what rehearsals change."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from scalelite.sim.calls import check_create
from scalelite.sim.faults import Fault, Mode, take
from scalelite.sim.listener import Address, Listener
from scalelite.sim.meetings import Meeting, Meetings
from scalelite.sim.recording import Recorded, write_archive

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from aiohttp import web

    from scalelite.sim.requests import Asked

REMEMBERED_REQUESTS: Final = 500


@dataclass(frozen=True, slots=True)
class SimulatedServer:
    """What an inventory has to know of a server; `url` is http://HOST:PORT/bigbluebutton/api."""

    name: str
    url: str
    secret: str = field(repr=False)


class Request(NamedTuple):
    """A request to the API that came in; `params` are decoded, those of a form included."""

    method: str
    call: str
    params: Mapping[str, str]
    checksum_ok: bool


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a server takes from outside: the answer to a request, the time in seconds since 1970, randomness."""

    respond: Callable[[RunningServer, web.BaseRequest], Awaitable[web.StreamResponse]]
    clock: Callable[[], float]
    rng: random.Random


class RunningServer:
    """A simulated server. Its methods do at once, and without HTTP, what POST /control does."""

    def __init__(self, name: str, secret: str, address: Address, public_host: str, around: Surroundings) -> None:
        self.listener = Listener(address, partial(around.respond, self))
        host = f"[{public_host}]" if ":" in public_host else public_host
        self.origin = f"http://{host}:{self.listener.port}"
        self.about = SimulatedServer(name, f"{self.origin}/bigbluebutton/api", secret)
        self.rooms = Meetings(around.clock, around.rng)
        self.spool: Path | None = None
        self.faults: tuple[Fault, ...] = ()
        self.requests: deque[Request] = deque(maxlen=REMEMBERED_REQUESTS)
        self.request_counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<RunningServer {self.name} {self.url}>"

    @property
    def name(self) -> str:
        """Its name in an inventory."""
        return self.about.name

    @property
    def url(self) -> str:
        """The root of its API, without a slash at the end."""
        return self.about.url

    @property
    def secret(self) -> str:
        """Its shared secret."""
        return self.about.secret

    @property
    def meetings(self) -> Mapping[str, Meeting]:
        """Its meetings by external id."""
        return self.rooms.by_id

    # --- failures ---

    def fail(
        self,
        mode: Mode,
        calls: Iterable[str] = (),
        times: int | None = None,
        seconds: float | None = None,
        **settings: Any,
    ) -> None:
        """Add a failure (Fault explains modes and settings); the oldest that hits is used. Raises ValueError."""
        self.add_fault(Fault(mode=mode, calls=tuple(calls), times=times, seconds=seconds, **settings))

    def add_fault(self, fault: Fault) -> None:
        """Add a failure; refusing begins at once."""
        if fault.mode == "refuse":
            self.refuse(fault.seconds)
        else:
            self.faults = (*self.faults, fault)

    def heal(self) -> None:
        """End all failures; what hangs already keeps hanging."""
        self.faults = ()
        self.accept()

    def refuse(self, seconds: float | None = None) -> None:
        """Close the listening socket, for a time or until `accept`; idle connections are closed, too."""
        self.listener.refuse(seconds)

    def accept(self) -> None:
        """Take connections again, on the same port."""
        self.listener.accept()

    def note(self, asked: Asked, *, checksum_ok: bool) -> Fault | None:
        """Remember a request to the API; the failure that it gets, if any, is used up by one."""
        self.request_counts[asked.call] += 1
        self.requests.append(Request(asked.method, asked.call, asked.params, checksum_ok))
        fault, self.faults = take(self.faults, asked.call)
        return fault

    # --- meetings and users ---

    def create_meeting(self, meeting_id: str, name: str = "", params: Mapping[str, str] | None = None) -> Meeting:
        """Create a meeting directly. Raises Failed as create does, ValueError where id or voice bridge is taken."""
        wanted = {**(params or {}), "meetingID": meeting_id, "name": name or meeting_id}
        check_create(wanted)
        if meeting_id in self.meetings or wanted.get("voiceBridge") in self.rooms.bridges:
            raise ValueError("the meeting or its voice bridge exists already")
        return self.rooms.create(wanted)

    def add_users(
        self,
        meeting_id: str,
        participants: int = 1,
        *,
        moderators: int = 0,
        voice: int = 0,
        listeners: int = 0,
        video: int = 0,
    ) -> None:
        """Put people in: how many, and how many of these are moderators, speak, listen, show. Raises KeyError."""
        meeting = self.meetings[meeting_id]
        for place in range(participants):
            self.rooms.bring(meeting, place, moderators=moderators, voice=voice, listeners=listeners, video=video)

    def remove_users(self, meeting_id: str, participants: int | None = None) -> None:
        """Take out those who came last, or everybody. Raises KeyError."""
        meeting = self.meetings[meeting_id]
        for user in list(reversed(meeting.users.values()))[:participants]:
            self.rooms.leave(meeting, user)

    def forget(self, meeting_id: str) -> None:
        """Lose a meeting, as a server does that restarts. Raises KeyError."""
        self.rooms.remove(self.meetings[meeting_id])

    def record(self, meeting_id: str, formats: Sequence[str] = ("presentation", "video")) -> Path:
        """Write the archive of a meeting that was held, as if it had been recorded until now, into `spool`.

        Raises KeyError, and ValueError where no spool is set.
        """
        meeting = self.meetings[meeting_id]
        if self.spool is None:
            raise ValueError("this server has no folder for archives")
        host = self.origin.partition("://")[2]
        return write_archive(Recorded.of(meeting, self.rooms.now_ms(), host), self.spool, formats)

    def reset(self) -> None:
        """As if just started: no meetings, no failures, no requests seen."""
        self.rooms.clear()
        self.requests.clear()
        self.request_counts.clear()
        self.heal()
