"""The join call: who comes in, as what, and the redirects that bbb-web answers instead of XML."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_plus

from scalelite.sim.answers import Failed, failure, joined
from scalelite.sim.meetings import Meeting, Meetings, Role, User

if TYPE_CHECKING:
    from scalelite.sim.requests import Asked

ROLES: Final[dict[str, Role]] = {"moderator": "MODERATOR", "viewer": "VIEWER"}
USERDATA: Final = re.compile(r"userdata-([A-Za-z_][A-Za-z0-9_.-]*)")
ENDED: Final = Failed("meetingForciblyEnded", "You can not join a meeting that has already been forcibly ended")
OTHER_MEETING: Final = Failed(
    "mismatchCreateTimeParam", "The createTime parameter submitted mismatches with the current meeting."
)
FULL: Final = Failed("maxParticipantsReached", "The number of participants allowed for this meeting has been reached.")


@dataclass(frozen=True, slots=True)
class Redirect:
    """A 302; `session` is the value of the session cookie, empty where none is set."""

    url: str
    session: str = ""


def join(meetings: Meetings, asked: Asked) -> str | Redirect:
    """Let somebody in. Raises Failed for what bbb-web validates first, an unknown meeting included."""
    meeting = validated(meetings, asked)
    wants_redirect = asked.params.get("redirect", "").lower() != "false"
    if error := problem(meeting, asked):
        return error_redirect(meetings, asked, error) if wants_redirect else failure(error)
    role = role_of(meeting, asked)
    if role is None:
        # Always XML, whatever `redirect` says.
        return failure(Failed("Params required", "You must either send a valid role or a valid password"))
    user = new_user(meetings, meeting, asked, role)
    meetings.join(meeting, user)
    return welcome(meetings, meeting, user, asked, wants_redirect=wants_redirect)


def validated(meetings: Meetings, asked: Asked) -> Meeting:
    """The meeting, when the parameters pass bbb-web's validation; else raises Failed."""
    if not asked.params.get("fullName", "").strip():
        raise Failed("missingParamFullName", "You must provide your name")
    meeting_id = asked.params.get("meetingID", "")
    if not meeting_id:
        raise Failed("missingParamMeetingID", "You must provide a meeting ID")
    if not 2 <= len(meeting_id) <= 256:
        raise Failed("sizeError", "Meeting ID must be between 2 and 256 characters")
    password = asked.params.get("password", "")
    if password and not 2 <= len(password) <= 64:
        raise Failed("invalidPassword", "Invalid password")
    meeting = meetings.find(meeting_id)
    if meeting is None:
        raise Failed(ENDED.key, ENDED.message)
    return meeting


def problem(meeting: Meeting, asked: Asked) -> Failed | None:
    """What keeps somebody out of a meeting that exists."""
    created = asked.params.get("createTime", "")
    if created and created != str(meeting.created_ms):
        return OTHER_MEETING
    if 0 < meeting.max_users <= len(meeting.users):
        return FULL
    return None


def role_of(meeting: Meeting, asked: Asked) -> Role | None:
    """The role: a valid `role` wins over the password."""
    if role := ROLES.get(asked.params.get("role", "").lower()):
        return role
    match asked.params.get("password", ""):
        case meeting.moderator_password:
            return "MODERATOR"
        case meeting.attendee_password:
            return "VIEWER"
    return None


def new_user(meetings: Meetings, meeting: Meeting, asked: Asked, role: Role) -> User:
    """Somebody new; the first moderator presents. Joining twice makes two users, as in BigBlueButton."""
    user_id = "w_" + meetings.draw(12)
    return User(
        id=user_id,
        external_id=asked.params.get("userID") or user_id,
        name=asked.params["fullName"].strip(),
        role=role,
        presenter=role == "MODERATOR" and not any(each.presenter for each in meeting.users.values()),
        custom=tuple((m[1], value) for key, value in asked.params.items() if (m := USERDATA.fullmatch(key))),
    )


def welcome(meetings: Meetings, meeting: Meeting, user: User, asked: Asked, *, wants_redirect: bool) -> str | Redirect:
    """The way into the client: a redirect with a session cookie, or the same as XML."""
    token = meetings.draw(16)
    url = f"{asked.origin}/html5client/?sessionToken={token}"
    if asked.params.get("enforceLayout"):
        url += "&waitLayout=1"
    if wants_redirect:
        return Redirect(url, session=meetings.draw(32).upper())
    return joined(meeting, user, token, auth_token=meetings.draw(12), url=url)


def error_redirect(meetings: Meetings, asked: Asked, error: Failed) -> Redirect:
    """Send the browser to errorRedirectUrl, else the logout URL of call or meeting, else to our front page."""
    meeting = meetings.find(asked.params.get("meetingID", ""))
    url = (
        asked.params.get("errorRedirectUrl")
        or asked.params.get("logoutURL")
        or (meeting.logout_url if meeting else "")
        or f"{asked.origin}/"
    )
    errors = json.dumps([{"message": error.message, "key": error.key}], separators=(",", ":"))
    return Redirect(f"{url}{'&' if '?' in url else '?'}errors={quote_plus(errors)}")
