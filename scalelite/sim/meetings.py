"""The meetings of one simulated server and the people in them; knows neither HTTP nor XML."""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

Role = Literal["MODERATOR", "VIEWER"]

ALPHANUMERIC: Final = string.ascii_letters + string.digits
LOWER_ALPHANUMERIC: Final = string.ascii_lowercase + string.digits
INTERNAL_ID_START: Final = re.compile(r"[0-9a-f]{1,40}|[0-9a-f]{40}-[0-9]*")
METADATA_KEY: Final = re.compile(r"meta_([a-zA-Z][a-zA-Z0-9-]*)")
LEFT_USERS_STAY_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class User:
    """Somebody in a meeting; `id` is BigBlueButton's own (w_…), `external_id` the front-end's."""

    id: str
    external_id: str
    name: str
    role: Role
    presenter: bool = False
    listening_only: bool = False
    voice: bool = False
    video: bool = False
    custom: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Meeting:
    """A meeting as its server knows it; `users` are in it, `left` went less than a minute ago (with the time in ms)."""

    id: str
    internal_id: str
    name: str
    created_ms: int
    voice_bridge: str
    attendee_password: str
    moderator_password: str
    dial_number: str = "613-555-1234"
    duration_minutes: int = 0
    record: bool = False
    breakout: bool = False
    max_users: int = 0
    logout_url: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    has_user_joined: bool = False
    users: dict[str, User] = field(default_factory=dict)
    left: dict[str, tuple[User, int]] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether somebody is in it."""
        return bool(self.users)

    @property
    def created_on(self) -> str:
        """The time of creation as Java prints a date: `Mon Nov 23 17:23:00 UTC 2026`."""
        return datetime.fromtimestamp(self.created_ms / 1000, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")

    def count(self, trait: Literal["listening_only", "voice", "video"]) -> int:
        """How many of those in the meeting listen only, speak, or show themselves."""
        return sum(getattr(user, trait) for user in self.users.values())

    @property
    def moderator_count(self) -> int:
        """Moderators, with those who left less than a minute ago: so does BigBlueButton."""
        everybody = [*self.users.values(), *(user for user, _ in self.left.values())]
        return sum(user.role == "MODERATOR" for user in everybody)


@dataclass(slots=True)
class Meetings:
    """All meetings of one server. `clock` gives seconds since 1970, as time.time."""

    clock: Callable[[], float]
    random: random.Random
    by_id: dict[str, Meeting] = field(default_factory=dict)
    bridges: dict[str, Meeting] = field(default_factory=dict)

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self.clock() * 1000)

    def draw(self, length: int, alphabet: str = LOWER_ALPHANUMERIC) -> str:
        """Random characters."""
        return "".join(self.random.choices(alphabet, k=length))

    def draw_bridge(self) -> str:
        """A voice bridge that is free: five digits, nine when five begin to run out."""
        while (bridge := self.draw(5 if len(self.bridges) < 50_000 else 9, string.digits)) in self.bridges:
            pass
        return bridge

    def create(self, params: Mapping[str, str]) -> Meeting:
        """Add a meeting from create's parameters, checked before; its id and voice bridge must be free."""
        created_ms = self.now_ms()
        meeting = Meeting(
            id=params["meetingID"],
            internal_id=f"{hashlib.sha1(params['meetingID'].encode(), usedforsecurity=False).hexdigest()}-{created_ms}",
            name=params["name"],
            created_ms=created_ms,
            voice_bridge=params.get("voiceBridge") or self.draw_bridge(),
            attendee_password=params.get("attendeePW") or self.draw(8, ALPHANUMERIC),
            moderator_password=params.get("moderatorPW") or self.draw(8, ALPHANUMERIC),
            dial_number=params.get("dialNumber") or "613-555-1234",
            duration_minutes=whole(params.get("duration", "")),
            record=params.get("record", "").lower() == "true",
            breakout=params.get("isBreakout", "").lower() == "true",
            max_users=whole(params.get("maxParticipants", "")),
            logout_url=params.get("logoutURL", ""),
            metadata={m[1].lower(): value for key, value in params.items() if (m := METADATA_KEY.fullmatch(key))},
        )
        self.by_id[meeting.id] = self.bridges[meeting.voice_bridge] = meeting
        return meeting

    def find(self, meeting_id: str) -> Meeting | None:
        """The meeting of that id; as in BigBlueButton an id is first tried as the start of an internal id."""
        meeting = None
        if INTERNAL_ID_START.fullmatch(meeting_id):
            meeting = next((each for each in self.by_id.values() if each.internal_id.startswith(meeting_id)), None)
        meeting = meeting or self.by_id.get(meeting_id)
        return self.purged(meeting) if meeting else None

    def all(self) -> list[Meeting]:
        """Every meeting, oldest first."""
        return [self.purged(meeting) for meeting in self.by_id.values()]

    def bring(self, meeting: Meeting, place: int, *, moderators: int, voice: int, listeners: int, video: int) -> None:
        """Put in one of several people; those with the lowest places get the roles and devices."""
        user_id = "w_" + self.draw(12)
        user = User(
            id=user_id,
            external_id=user_id,
            name=f"User {len(meeting.users) + 1}",
            role="MODERATOR" if place < moderators else "VIEWER",
            voice=place < voice,
            listening_only=voice <= place < voice + listeners,
            video=place < video,
        )
        self.join(meeting, user)

    def purged(self, meeting: Meeting) -> Meeting:
        """The same meeting, without those who left more than a minute ago."""
        if meeting.left:
            horizon_ms = self.now_ms() - LEFT_USERS_STAY_MS
            meeting.left = {key: gone for key, gone in meeting.left.items() if gone[1] > horizon_ms}
        return meeting

    def join(self, meeting: Meeting, user: User) -> None:
        """Put somebody into a meeting."""
        meeting.users[user.id] = user
        meeting.has_user_joined = True

    def leave(self, meeting: Meeting, user: User) -> None:
        """Take somebody out of a meeting, who is still remembered for a minute."""
        del meeting.users[user.id]
        meeting.left[user.id] = (user, self.now_ms())

    def remove(self, meeting: Meeting) -> None:
        """Forget a meeting; its id and voice bridge are free at once."""
        self.by_id.pop(meeting.id, None)
        self.bridges.pop(meeting.voice_bridge, None)

    def clear(self) -> None:
        """Forget all meetings."""
        self.by_id.clear()
        self.bridges.clear()


def whole(value: str) -> int:
    """The number that the text holds; 0 where it holds none that fits into 32 bits."""
    return int(value) if re.fullmatch("[0-9]{1,9}", value) else 0
