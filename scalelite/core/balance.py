"""Where meetings go: load, tags, the choice among servers, health; pure functions over what was observed.

Load and tag rules: spec/bbb-api.md, create 3. Health: spec/operations.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from scalelite.core.model import NO_SECRET
from scalelite.errors import NoServer, ServersFull, ServerTagUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalelite.core.model import Health, LoadWeights, Phase, Secret, ServerSpec, ServerStatus, State

_STRICTNESS: Final[Mapping[State, int]] = {"enabled": 0, "cordoned": 1, "disabled": 2}


@dataclass(frozen=True, slots=True)
class Load:
    """The load formula's parameters; the buffer is how long a meeting counts as young."""

    weights: LoadWeights
    min_user_count: int = 15
    join_buffer_s: float = 900.0


@dataclass(frozen=True, slots=True)
class SeenMeeting:
    """A meeting as a server lists it; `created_ms` is BigBlueButton's createTime."""

    meeting_id: str
    created_ms: int
    users: int = 0
    voice: int = 0
    videos: int = 0
    breakout: bool = False
    moderator_pw: Secret = NO_SECRET

    def age_s(self, now_ms: int) -> float:
        """Return how long ago it was created: in milliseconds since 1970; a server that tells seconds is understood."""
        created_ms = self.created_ms if self.created_ms >= _FIRST_MS else self.created_ms * 1000
        return (now_ms - created_ms) / 1000


# As seconds, the year 5138; as milliseconds, 1973.
_FIRST_MS: Final = 100_000_000_000


@dataclass(frozen=True, slots=True)
class Counted:
    """What load is reckoned from: meetings, users (of young meetings a minimum), people with audio, cameras."""

    meetings: int = 0
    users: int = 0
    voice: int = 0
    videos: int = 0

    @classmethod
    def of(cls, load: Load, meetings: Sequence[SeenMeeting], now_ms: int) -> Counted:
        """Count what runs on a server."""
        return cls(
            len(meetings),
            sum(counted_users(load, meeting, now_ms) for meeting in meetings),
            sum(meeting.voice for meeting in meetings),
            sum(meeting.videos for meeting in meetings),
        )

    def load(self, weights: LoadWeights) -> float:
        """Return the load, before the server's multiplier: the one formula, of a poll and of a reservation."""
        return (
            weights.meeting * self.meetings
            + weights.user * self.users
            + weights.voice * self.voice
            + weights.video * self.videos
        )


def counted_users(load: Load, meeting: SeenMeeting, now_ms: int) -> int:
    """Return the users of a meeting, at least the minimum while it is young; breakout rooms have none."""
    young = not meeting.breakout and meeting.age_s(now_ms) < load.join_buffer_s
    return max(meeting.users, load.min_user_count) if young else meeting.users


def reservation(load: Load, expected_users: int = 0, *, breakout: bool = False) -> float:
    """Return what a meeting that is being created adds: what the formula gives for one of age 0 with so many users."""
    new = SeenMeeting("", created_ms=0, users=expected_users, breakout=breakout)
    return Counted.of(load, [new], now_ms=0).load(load.weights)


# --- tags and choice -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TagRule:
    """A parsed `meta_server-tag`, as `text` without its `!`; an empty one of `tags` stands for untagged servers."""

    text: str
    tags: frozenset[str]
    required: bool

    @classmethod
    def parse(cls, text: str) -> TagRule:
        """Read `a;b`, `none` for untagged, and a trailing `!`; blank means untagged servers only."""
        named = text.removesuffix("!")
        if not named.strip():
            return cls(named, frozenset({""}), required=False)
        tags = frozenset("" if name == "none" else name for part in named.split(";") if (name := part.strip()))
        return cls(named, tags, required=text != named)


def effective_state(declared: State, held: State | None, *, drained: bool = False) -> State:
    """Return the stricter of what is declared and what is held; a cordoned server that was emptied is disabled."""
    state = max(declared, held or "enabled", key=_STRICTNESS.__getitem__)
    return "disabled" if drained and state == "cordoned" else state


def state_of(spec: ServerSpec, status: ServerStatus, held: State | None) -> State:
    """Return the state that counts of a server."""
    return "disabled" if spec.state == "not enabled" else effective_state(spec.state, held, drained=status.drained)


def may_take_meetings(spec: ServerSpec, status: ServerStatus, held: State | None) -> bool:
    """Say whether new meetings may be placed on a server, its caps aside: enabled and online."""
    return state_of(spec, status, held) == "enabled" and status.health == "online"


def is_full(spec: ServerSpec, status: ServerStatus) -> bool:
    """Say whether a server has as many meetings or users as it may; polled, the claim itself counts what was placed."""
    return bool(
        (spec.max_meetings and status.meetings >= spec.max_meetings)
        or (spec.max_users and status.users >= spec.max_users)
    )


def eligible(takers: Mapping[str, Sequence[str]], rule: TagRule) -> list[str]:
    """Return the ids of the servers that the tag rule allows, of those that may take meetings (ids by tag)."""
    found = [server for tag in rule.tags for server in takers.get(tag, ())]
    return found if found or rule.required else list(takers.get("", ()))


def no_server(rule: TagRule, *, full: bool = False) -> NoServer | ServersFull | ServerTagUnavailable:
    """Return the error for a tag rule that no server satisfies; `full`: one would, but for its caps."""
    if full:
        return ServersFull()
    return ServerTagUnavailable(rule.text) if rule.required else NoServer()


# --- health ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Polls in a row: failed ones until offline, good ones until an offline server begins to recover."""

    unhealthy: int = 2
    healthy: int = 1
    suspect_fraction: float = 0.5


@dataclass(frozen=True, slots=True)
class Condition:
    """A server's health as a score from 0 (online) to 2 x the unhealthy threshold (offline)."""

    health: Health = "unknown"
    score: int = 0
    good_polls: int = 0


def after_poll(before: Condition, *, answered: bool, thresholds: Thresholds, suspect: bool = False) -> Condition:
    """Return the condition after a poll: a failed one adds 2 to the score, a good one takes 1 away.

    `suspect`: the poller suspects its own network, so that nobody goes offline by this failure.
    """
    highest = 2 * thresholds.unhealthy
    if not answered:
        bound = highest - 1 if suspect and before.health != "offline" else highest
        score = min(before.score + 2, bound)
        return Condition("offline" if score == highest else "unhealthy", score, 0)
    good = before.good_polls + 1
    if before.health == "unknown":
        return Condition("online", 0, good)
    if before.health == "offline" and good < thresholds.healthy:
        return Condition("offline", before.score, good)
    score = max(before.score - 1, 0)
    return Condition("unhealthy" if score else "online", score, good)


def poller_suspects_itself(polled: int, failed: int, fraction: float) -> bool:
    """Say whether so many servers failed in one round that the fault is more likely the poller's own network.

    One alone is not many, though it be half of two: else a dead server of two would never go offline.
    """
    return failed >= max(2, fraction * polled)


Verdict = Literal["count missed", "remove"]


def verdict_on_missing(phase: Phase, missed_before: int, age_s: float, grace_s: float = 30.0) -> Verdict:
    """Say what becomes of a meeting that a good poll of its server did not list; never by age alone (PO-1, PO-2).

    One that was to end has ended. A claim that nobody confirmed goes the same way as a meeting.
    """
    gone = phase == "ending" or (missed_before + 1 >= 2 and age_s >= grace_s)
    return "remove" if gone else "count missed"
