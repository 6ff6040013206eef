"""POST and GET /control: operations as JSON, checked before anything is done, and the state of a server as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from scalelite.sim.answers import Failed
from scalelite.sim.faults import Fault

if TYPE_CHECKING:
    from scalelite.sim.meetings import Meeting
    from scalelite.sim.server import RunningServer

Count = Annotated[int, Field(ge=0, le=100_000, strict=True)]
MeetingId = Annotated[str, Field(alias="meetingID")]


class Operation(BaseModel):
    """What all operations share: nothing unknown is taken."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Fail(Fault):
    """Add a failure. `op` may be left out here: {"mode": "hang", "calls": ["create"], "times": 1}."""

    op: Literal["fail"] = "fail"

    @model_validator(mode="after")
    def _undoable(self) -> Self:
        """Refuse what no later request could undo: this route is closed then, too."""
        if self.mode == "refuse" and self.seconds is None:
            raise ValueError("refuse needs seconds here: /control is refused, too")
        return self


class Heal(Operation):
    """End all failures."""

    op: Literal["heal"]


class Reset(Operation):
    """As if just started."""

    op: Literal["reset"]


class Create(Operation):
    """Create a meeting directly; `params` are other parameters of create."""

    op: Literal["create"]
    meeting_id: MeetingId
    name: str = ""
    params: dict[str, str] = Field(default_factory=dict)


class Join(Operation):
    """Put people into a meeting: so many, of whom so many are moderators, speak, listen only, show themselves."""

    op: Literal["join"]
    meeting_id: MeetingId
    participants: Annotated[Count, Field(ge=1)] = 1
    moderators: Count = 0
    voice: Count = 0
    listeners: Count = 0
    video: Count = 0

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        """Refuse more of a kind than there are people."""
        if max(self.moderators, self.voice + self.listeners, self.video) > self.participants:
            raise ValueError("moderators, voice + listeners, and video may each be at most participants")
        return self


class Leave(Operation):
    """Take people out of a meeting: those who came last, or everybody where `participants` is left out."""

    op: Literal["leave"]
    meeting_id: MeetingId
    participants: Annotated[Count, Field(ge=1)] | None = None


class Forget(Operation):
    """Lose a meeting without ending it."""

    op: Literal["forget"]
    meeting_id: MeetingId


class Record(Operation):
    """Let a meeting have been recorded: its archive goes to where the server was told to send archives."""

    op: Literal["record"]
    meeting_id: MeetingId


def name_of(body: Any) -> str:
    """Which operation a JSON body is: without `op` it is a failure."""
    return str(body.get("op", "fail")) if isinstance(body, dict) else ""


AnyOperation = Annotated[
    Annotated[Fail, Tag("fail")]
    | Annotated[Heal, Tag("heal")]
    | Annotated[Reset, Tag("reset")]
    | Annotated[Create, Tag("create")]
    | Annotated[Join, Tag("join")]
    | Annotated[Leave, Tag("leave")]
    | Annotated[Forget, Tag("forget")]
    | Annotated[Record, Tag("record")],
    Discriminator(name_of),
]
OPERATIONS: Final[TypeAdapter[AnyOperation]] = TypeAdapter(AnyOperation)


class Refused(Exception):
    """An operation that cannot be done: an HTTP status and what is wrong, one entry a problem."""

    def __init__(self, status: int, *problems: dict[str, str]) -> None:
        super().__init__(status, problems)
        self.status = status
        self.problems = problems


def parse(body: bytes) -> AnyOperation:
    """Read an operation. Raises Refused (400) with all problems and their places."""
    try:
        return OPERATIONS.validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        problems = [{"where": ".".join(map(str, each["loc"])), "problem": each["msg"]} for each in found]
        raise Refused(400, *problems) from error


def execute(server: RunningServer, operation: AnyOperation) -> None:
    """Do it. Raises Refused: 404 for a meeting that is not there, 400 for one that cannot be made."""
    try:
        apply(server, operation)
    except KeyError as error:
        raise Refused(404, {"where": "meetingID", "problem": "no such meeting"}) from error
    except (Failed, ValueError) as error:
        raise Refused(400, {"where": operation.op, "problem": str(error)}) from error


def apply(server: RunningServer, operation: AnyOperation) -> None:
    """Call the method of the server that an operation stands for."""
    match operation:
        case Fail():
            server.add_fault(operation)
        case Heal():
            server.heal()
        case Reset():
            server.reset()
        case Create(meeting_id=meeting_id, name=name, params=params):
            server.create_meeting(meeting_id, name, params)
        case Join(meeting_id=meeting_id):
            server.add_users(meeting_id, **operation.model_dump(exclude={"op", "meeting_id"}))
        case Leave(meeting_id=meeting_id, participants=participants):
            server.remove_users(meeting_id, participants)
        case Forget(meeting_id=meeting_id):
            server.forget(meeting_id)
        case Record(meeting_id=meeting_id):
            server.record(meeting_id)


def state(server: RunningServer) -> dict[str, object]:
    """The state of a server as JSON values; its secret is not among them."""
    return {
        "name": server.name,
        "url": server.url,
        "faults": [fault.model_dump(mode="json", exclude={"op"}, exclude_none=True) for fault in server.faults],
        "meetings": [describe(meeting) for meeting in server.rooms.all()],
        "requestCounts": dict(server.request_counts),
        "requests": [
            {"method": each.method, "call": each.call, "params": dict(each.params), "checksumOk": each.checksum_ok}
            for each in server.requests
        ],
    }


def describe(meeting: Meeting) -> dict[str, object]:
    """A meeting as JSON values, with the words of getMeetingInfo."""
    return {
        "meetingID": meeting.id,
        "internalMeetingID": meeting.internal_id,
        "meetingName": meeting.name,
        "createTime": meeting.created_ms,
        "running": meeting.running,
        "participantCount": len(meeting.users),
        "moderatorCount": meeting.moderator_count,
        "listenerCount": meeting.count("listening_only"),
        "voiceParticipantCount": meeting.count("voice"),
        "videoCount": meeting.count("video"),
        "users": [
            {"userID": user.external_id, "fullName": user.name, "role": user.role} for user in meeting.users.values()
        ],
    }
