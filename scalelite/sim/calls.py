"""The API calls as rules over meetings, and the table of which exist; HTTP and its failures are elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalelite.sim.answers import (
    Failed,
    creation,
    failure,
    meeting_info,
    meeting_list,
    session_list,
    voice_bridge_taken,
)
from scalelite.sim.checksum import MISMATCH
from scalelite.sim.join import error_redirect, join
from scalelite.sim.markup import element, elements, failed, flag, success
from scalelite.sim.requests import FORM, XML, Asked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scalelite.sim.join import Redirect
    from scalelite.sim.meetings import Meeting, Meetings

VERSION: Final = "2.0"
LONG_MAX: Final = 2**63 - 1
CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
END_SENT: Final = (
    "A request to end the meeting was sent.  Please wait a few seconds, and then use the getMeetingInfo or "
    "isMeetingRunning API calls to verify that it was ended."
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A call: what answers it, the HTTP methods it takes, the content types a body may have."""

    answer: Callable[[Meetings, Asked], str | Redirect]
    methods: frozenset[str] = frozenset({"GET", "POST"})
    bodies: frozenset[str] = FORM


def answer(meetings: Meetings, asked: Asked, checksum_problem: str) -> str | Redirect:
    """Answer a call. A bad checksum beats every other error; join's errors are redirects since 3.0."""
    endpoint = ENDPOINTS[asked.call]
    try:
        check_request(endpoint, asked, checksum_problem)
        return endpoint.answer(meetings, asked)
    except Failed as error:
        return error_redirect(meetings, asked, error) if asked.call == "join" else failure(error)


def check_request(endpoint: Endpoint, asked: Asked, checksum_problem: str) -> None:
    """Raise Failed for a bad checksum, then for a body that the call does not take."""
    if checksum_problem:
        raise Failed("checksumError", checksum_problem)
    if asked.body_type and asked.body_type not in endpoint.bodies:
        raise Failed("unsupportedContentType", "POST request Content-Type is missing or unsupported")


def refused_checksum(meetings: Meetings, asked: Asked) -> str | Redirect:
    """What a server answers whose secret has changed."""
    return answer(meetings, asked, MISMATCH)


def index_fields(origin: str) -> dict[str, str]:
    """The fields of the API's root, in order; bbbVersion stays empty as in a stock server."""
    return {
        "returncode": "SUCCESS",
        "version": VERSION,
        "apiVersion": VERSION,
        "bbbVersion": "",
        "html5PluginSdkVersion": "0.0.0",
        "graphqlWebsocketUrl": f"{origin.replace('http', 'ws', 1)}/graphql",
        "graphqlApiUrl": f"{origin}/api/rest",
    }


def index(origin: str) -> str:
    """The API's root as XML."""
    return f"<response>\n{elements(index_fields(origin))}\n</response>"


# --- create ----------------------------------------------------------------------------------------------------------


def create(meetings: Meetings, asked: Asked) -> str:
    """Create a meeting, or find it there already: then only the passwords are compared."""
    check_create(asked.params)
    existing = meetings.by_id.get(asked.params["meetingID"])
    if existing:
        return repeated(existing, asked.params)
    if asked.params.get("voiceBridge", "") in meetings.bridges:
        return voice_bridge_taken()
    return creation(meetings.create(asked.params))


def repeated(meeting: Meeting, params: Mapping[str, str]) -> str:
    """The answer for a meeting that exists: equal passwords, or none at all, make it the same meeting."""
    given = params.get("attendeePW", ""), params.get("moderatorPW", "")
    if given not in (("", ""), (meeting.attendee_password, meeting.moderator_password)):
        raise Failed(
            "idNotUnique", "A meeting already exists with that meeting ID.  Please use a different meeting ID."
        )
    return creation(
        meeting, "duplicateWarning", "This conference was already in existence and may currently be in progress."
    )


def check_create(params: Mapping[str, str]) -> None:
    """Raise Failed for the first parameter that create does not take. (bbb-web shows any one of several.)"""
    check_id(params)
    check_name(params)
    for key in ("attendeePW", "moderatorPW"):
        if params.get(key) and not 2 <= len(params[key]) <= 64:
            raise Failed("invalidPassword", "Invalid password")
    if params.get("voiceBridge") and not is_long(params["voiceBridge"]):
        raise Failed("validationError", "Voice bridge must be an integral value")
    if params.get("record", "").lower() not in ("", "true", "false"):
        raise Failed("validationError", "Record must be a boolean value (true or false)")


def check_id(params: Mapping[str, str]) -> None:
    """Raise Failed for an id with which no meeting can be created."""
    meeting_id = params.get("meetingID", "")
    if not meeting_id or CONTROL_CHARACTER.search(meeting_id):
        raise Failed("validationError", "Invalid meeting ID")
    check_id_size(meeting_id)
    if "," in meeting_id:
        raise Failed("validationError", "Meeting ID cannot contain ','")


def check_id_size(meeting_id: str) -> None:
    """Raise Failed for an id that is too short or too long."""
    if not 2 <= len(meeting_id) <= 256:
        raise Failed("sizeError", "Meeting ID must be between 2 and 256 characters")


def check_name(params: Mapping[str, str]) -> None:
    """Raise Failed for a name that is missing, empty, too short or too long."""
    name = params.get("name")
    if not name:
        raise Failed("nullError" if name is None else "emptyError", "You must provide a meeting name")
    if not 2 <= len(name) <= 256:
        raise Failed("sizeError", "Meeting name must be between 2 and 256 characters")


def is_long(value: str) -> bool:
    """Whether Java can read it as a long: Canvas sends twenty digits with leading zeros."""
    return bool(re.fullmatch(r"[+-]?[0-9]{1,256}", value)) and -LONG_MAX - 1 <= int(value) <= LONG_MAX


# --- the other calls -------------------------------------------------------------------------------------------------


def existing_id(asked: Asked) -> str:
    """The meetingID of a call about a meeting that should exist; raises Failed for one that cannot be."""
    meeting_id = asked.params.get("meetingID", "")
    if not meeting_id:
        raise Failed("missingParamMeetingID", "You must provide a meeting ID")
    check_id_size(meeting_id)
    return meeting_id


def found(meetings: Meetings, asked: Asked) -> Meeting:
    """The meeting that the call names; raises Failed (notFound)."""
    meeting = meetings.find(existing_id(asked))
    if meeting is None:
        raise Failed("notFound", "A meeting with that ID does not exist")
    return meeting


def is_meeting_running(meetings: Meetings, asked: Asked) -> str:
    """Whether somebody is in it; an unknown meeting is not an error."""
    meeting = meetings.find(existing_id(asked))
    return success(element("running", flag(meeting is not None and meeting.running)))


def get_meeting_info(meetings: Meetings, asked: Asked) -> str:
    """Everything about one meeting."""
    return meeting_info(found(meetings, asked))


def get_meetings(meetings: Meetings, asked: Asked) -> str:  # noqa: ARG001 - any parameters do
    """Everything about all meetings."""
    return meeting_list(meetings.all())


def get_sessions(meetings: Meetings, asked: Asked) -> str:  # noqa: ARG001 - any parameters do
    """Who is in which meeting."""
    return session_list(meetings.all())


def end(meetings: Meetings, asked: Asked) -> str:
    """End a meeting, whatever the password; the id is free at once."""
    meetings.remove(found(meetings, asked))
    return success(elements({"messageKey": "sentEndMeetingRequest", "message": END_SENT}))


def insert_document(meetings: Meetings, asked: Asked) -> str:
    """Take slides for a running meeting and drop them; its answers never have a messageKey."""
    meeting_id = existing_id(asked)
    if meetings.find(meeting_id) is None:
        return failed(element("message", f"Meeting with id [{meeting_id}] not found."))
    return success(element("message", "Presentation is being uploaded"))


def send_chat_message(meetings: Meetings, asked: Asked) -> str:
    """Take a chat message for a meeting with somebody in it, and drop it."""
    meeting_id = existing_id(asked)
    message = asked.params.get("message")
    if message is None:
        raise Failed("nullError", "You must provide the param message")
    if not 1 <= len(message) <= 500:
        raise Failed("sizeError", "Message must be between 1 and 500 characters")
    meeting = meetings.find(meeting_id)
    if meeting is None or not meeting.running:
        raise Failed("meetingNotFound", "Meeting not found")
    return success(elements({"messageKey": "", "message": ""}))


ENDPOINTS: Final[dict[str, Endpoint]] = {
    "create": Endpoint(create, bodies=FORM | XML),
    "join": Endpoint(join, methods=frozenset({"GET"})),
    "isMeetingRunning": Endpoint(is_meeting_running),
    "getMeetingInfo": Endpoint(get_meeting_info),
    "getMeetings": Endpoint(get_meetings),
    "getSessions": Endpoint(get_sessions),
    "end": Endpoint(end),
    "insertDocument": Endpoint(insert_document, methods=frozenset({"POST"}), bodies=XML),
    "sendChatMessage": Endpoint(send_chat_message, methods=frozenset({"GET"})),
}
# What a failure can be limited to.
CALLS: Final = frozenset({"index", *ENDPOINTS})
