"""The XML answers about meetings, field for field in BigBlueButton's order (bigbluebutton-web's templates)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalelite.sim.markup import element, elements, failed, flag, success, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalelite.sim.meetings import Meeting, User


class Failed(Exception):
    """A call that BigBlueButton answers with FAILED, a messageKey and a message."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.message = message


def failure(error: Failed) -> str:
    """The usual shape of an error."""
    return failed(elements({"messageKey": error.key, "message": error.message}))


def voice_bridge_taken() -> str:
    """The other shape of an error, without messageKey."""
    problem = {"key": "nonUniqueVoiceBridge", "message": "The selected voice bridge is already in use."}
    return failed("<errors>", "<error>", elements(problem), "</error>", "</errors>")


def creation(meeting: Meeting, key: str = "", message: str = "") -> str:
    """Create's answer."""
    return success(
        elements(
            {
                "meetingID": meeting.id,
                "internalMeetingID": meeting.internal_id,
                "parentMeetingID": "bbb-none",
                "attendeePW": meeting.attendee_password,
                "moderatorPW": meeting.moderator_password,
                "createTime": str(meeting.created_ms),
                "voiceBridge": meeting.voice_bridge,
                "dialNumber": meeting.dial_number,
                "createDate": meeting.created_on,
                "hasUserJoined": flag(meeting.has_user_joined),
                "duration": str(meeting.duration_minutes),
                "hasBeenForciblyEnded": "false",
                "messageKey": key,
                "message": message,
            }
        )
    )


def joined(meeting: Meeting, user: User, token: str, auth_token: str, url: str) -> str:
    """Join's answer with redirect=false."""
    return success(
        elements(
            {
                "messageKey": "successfullyJoined",
                "message": "You have joined successfully.",
                "meeting_id": meeting.internal_id,
                "user_id": user.id,
                "auth_token": auth_token,
                "session_token": token,
                "guestStatus": "ALLOW",
                "url": url,
            }
        )
    )


def meeting_info(meeting: Meeting) -> str:
    """GetMeetingInfo's answer: those in the meeting are its attendees."""
    return success(description(meeting, meeting.users.values()))


def meeting_list(meetings: list[Meeting]) -> str:
    """GetMeetings' answer: those who left within the last minute are attendees, too."""
    if not meetings:
        return success("<meetings/>", none_found("noMeetings", "no meetings were found on this server"))
    listed = [f"<meeting>\n{description(each, everybody(each))}\n</meeting>" for each in meetings]
    return success("<meetings>", *listed, "</meetings>")


def session_list(meetings: list[Meeting]) -> str:
    """GetSessions' answer: one entry for each user in a meeting; its meetingID is the internal one."""
    sessions = [
        {"meetingID": meeting.internal_id, "meetingName": meeting.name, "userName": user.name}
        for meeting in meetings
        for user in meeting.users.values()
    ]
    if not sessions:
        return success("<sessions/>", none_found("noSessions", "no sessions were found on this serverr"))
    return success("<sessions>", *(f"<meeting>\n{elements(each)}\n</meeting>" for each in sessions), "</sessions>")


def none_found(key: str, message: str) -> str:
    """The two lines that explain an empty list."""
    return elements({"messageKey": key, "message": message})


def everybody(meeting: Meeting) -> list[User]:
    """Those in the meeting and those who left it less than a minute ago."""
    return [*meeting.users.values(), *(user for user, _ in meeting.left.values())]


def description(meeting: Meeting, users: Iterable[User]) -> str:
    """The fields of a meeting as lines. One f-string: this is what a cluster's poller reads all day."""
    attendees = "".join([f"{attendee(user)}\n" for user in users])
    metadata = "".join([f"{element(key, value)}\n" for key, value in meeting.metadata.items()])
    return f"""\
<meetingName>{text(meeting.name)}</meetingName>
<meetingID>{text(meeting.id)}</meetingID>
<internalMeetingID>{meeting.internal_id}</internalMeetingID>
<createTime>{meeting.created_ms}</createTime>
<createDate>{meeting.created_on}</createDate>
<voiceBridge>{meeting.voice_bridge}</voiceBridge>
<dialNumber>{text(meeting.dial_number)}</dialNumber>
<attendeePW>{text(meeting.attendee_password)}</attendeePW>
<moderatorPW>{text(meeting.moderator_password)}</moderatorPW>
<running>{flag(meeting.running)}</running>
<duration>{meeting.duration_minutes}</duration>
<hasUserJoined>{flag(meeting.has_user_joined)}</hasUserJoined>
<recording>{flag(meeting.record)}</recording>
<hasBeenForciblyEnded>false</hasBeenForciblyEnded>
<startTime>{meeting.created_ms}</startTime>
<endTime>0</endTime>
<participantCount>{len(meeting.users)}</participantCount>
<listenerCount>{meeting.count("listening_only")}</listenerCount>
<voiceParticipantCount>{meeting.count("voice")}</voiceParticipantCount>
<videoCount>{meeting.count("video")}</videoCount>
<maxUsers>{meeting.max_users}</maxUsers>
<moderatorCount>{meeting.moderator_count}</moderatorCount>
<attendees>
{attendees}</attendees>
<metadata>
{metadata}</metadata>
<isBreakout>{flag(meeting.breakout)}</isBreakout>"""


def attendee(user: User) -> str:
    """One person as lines; customdata only where the join URL brought some."""
    custom = "".join([f"{element(key, value)}\n" for key, value in user.custom])
    return f"""\
<attendee>
<userID>{text(user.external_id)}</userID>
<fullName>{text(user.name)}</fullName>
<role>{user.role}</role>
<isPresenter>{flag(user.presenter)}</isPresenter>
<isListeningOnly>{flag(user.listening_only)}</isListeningOnly>
<hasJoinedVoice>{flag(user.voice)}</hasJoinedVoice>
<hasVideo>{flag(user.video)}</hasVideo>
<clientType>HTML5</clientType>
{f"<customdata>{chr(10)}{custom}</customdata>{chr(10)}" if custom else ""}</attendee>"""
