"""One tree of exceptions; each class knows its exit status, its HTTP status and its BigBlueButton messageKey.

Raise with facts (`raise LockTimeout(holder=...)`); the words are made here, and never contain a secret.
Exit statuses: spec/plan.md. Keys and messages: spec/bbb-api.md, as Scalelite v1.8.5 answers them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class ScaleliteError(Exception):
    """Base of all errors that this program raises on purpose; `hint` says what to do about it."""

    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


# --- what commands run into ------------------------------------------------------------------------------------------


class UsageError(ScaleliteError):
    """The command line cannot be meant as it stands, or nobody is there to confirm it."""

    exit_status = 64
    http_status = 400


class SettingInvalid(UsageError):
    """An environment variable holds what it cannot mean."""

    def __init__(self, name: str, value: str, expected: str) -> None:
        super().__init__(f"{name}={value!r}: expected {expected}", hint="see docs/reference/settings.md")


class DatabaseAway(ScaleliteError):
    """Postgres does not answer, or not in time."""

    http_status = 503


class SourceAway(ScaleliteError):
    """What is to be taken over cannot be read: it does not answer, refuses, or is not what it was said to be."""


class SourceInvalid(ScaleliteError):
    """What is to be taken over has what an inventory could not say; each problem is a line of its own."""

    def __init__(self, problems: Sequence[str]) -> None:
        count = len(problems)
        super().__init__(
            f"{count} problem{'' if count == 1 else 's'} in what is to be taken over; nothing was written",
            hint="mend it in Scalelite with its tasks, or leave it out: --leave-out ADDRESS",
        )
        self.problems = tuple(problems)


class LeaseLost(ScaleliteError):
    """Another process has taken over what this one did."""

    def __init__(self, name: str) -> None:
        super().__init__(f"another {name} has taken over")


class SecretUnreadable(DatabaseAway):
    """A secret in Postgres cannot be opened with the keys at hand; a service goes on with what it remembers."""

    def __init__(self, identity: str, key_id: str, *, missing: bool) -> None:
        if missing:
            super().__init__(
                f"{identity} is sealed with key {key_id}, which SCALELITE_ENCRYPTION_KEY lacks",
                hint="add that key behind the present ones (':' between), then run scalelite db rotate-keys",
            )
        else:
            super().__init__(
                f"{identity} does not open with its key {key_id}: it was changed, or copied from another row",
                hint="set that secret anew with an apply",
            )


class EmbeddedPostgresError(ScaleliteError):
    """The embedded Postgres cannot be found or started."""


class PortTaken(ScaleliteError):
    """Something else listens where we want to."""

    def __init__(self, host: str, port: int | str, option: str = "--port") -> None:
        super().__init__(f"{host}:{port} is in use", hint=f"choose another with {option}")


class FileNotWritten(ScaleliteError):
    """A file that a command was told to write cannot be written; it is as it was."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} cannot be written: {reason}")


class InventoryInvalid(ScaleliteError):
    """An inventory has problems; each is a line of its own, sorted by place."""

    exit_status = 3
    http_status = 422
    what: ClassVar[str] = "inventory"

    def __init__(self, problems: Sequence[object]) -> None:
        count = len(problems)
        super().__init__(f"{count} problem{'' if count == 1 else 's'} in the {self.what}")
        self.problems = tuple(problems)


class SyncFileInvalid(ScaleliteError):
    """A file of servers cannot be meant; `old` are Scalelite's words for it, where they were others."""

    exit_status = 3
    http_status = 422

    def __init__(self, message: str, old: str = "") -> None:
        super().__init__(message)
        self.old = old or message


class PlaybookInvalid(InventoryInvalid):
    """A playbook has problems; each is a line of its own, sorted by place."""

    what = "playbook"


class TaskFailed(ScaleliteError):
    """A task of a playbook cannot do what it is told; the message says why."""


class VaultError(ScaleliteError):
    """A vault cannot be opened: no password, none that fits, or it is `damaged`; `label` is that of the vault."""

    exit_status = 3
    http_status = 422

    def __init__(self, reason: str, label: str = "", *, damaged: bool = False) -> None:
        about = f" (vault id {label})" if label else ""
        hint = "encrypt it anew" if damaged else "give --vault-password-file, --vault-id or --ask-vault-pass"
        super().__init__(f"{reason}{about}", hint=hint)

    @property
    def sentence(self) -> str:
        """What is wrong and what to do, as the end of a message."""
        return f"cannot be opened: {self.message}. {self.hint.capitalize()}."


class PasswordUnavailable(UsageError):
    """A vault's password cannot be had from where it should come from; what was read is not shown."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"the vault password of {source} {reason}", hint="see --vault-password-file and --vault-id")


class FileUnusable(ScaleliteError):
    """A file cannot be read or written."""

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"{path}: {(error.strerror or type(error).__name__).lower()}")


class StalePlan(ScaleliteError):
    """The cluster is no longer what the plan was made for."""

    exit_status = 4
    http_status = 409


class GuardRefused(ScaleliteError):
    """A guard stops the plan: it would do more harm than was allowed."""

    exit_status = 5
    http_status = 409


class LockTimeout(ScaleliteError):
    """Another apply holds the lock."""

    exit_status = 6
    http_status = 409

    def __init__(self, waited_s: float, holder: str) -> None:
        super().__init__(
            f"the lock was not had within {waited_s:g} s; it is held by {holder}",
            hint="wait for it, or give a longer --lock-timeout",
        )


class ServersBusy(LockTimeout):
    """Another playbook works on a server."""

    def __init__(self, server: str, holder: str) -> None:
        ScaleliteError.__init__(
            self, f"another playbook works on server {server}: {holder}", hint="wait until it has ended, or end it"
        )


class NotDeclared(ScaleliteError):
    """A command is about an object that is not there; `kind` is server, tenant, setting, token …"""

    http_status = 404

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} '{name}'")
        self.kind, self.name = kind, name


class AlreadyDeclared(ScaleliteError):
    """A command would make a second object where there can be one: an id, a url, a tenant's name, a host."""

    http_status = 409


class SpecRefused(ScaleliteError):
    """A command says what an inventory could not say."""

    http_status = 400


class Ambiguous(UsageError):
    """A name on the command line stands for several objects."""

    def __init__(self, kind: str, name: str, matches: Sequence[str]) -> None:
        super().__init__(f"'{name}' stands for several {kind}s: {', '.join(matches)}", hint="give more of the id")


class Unauthenticated(ScaleliteError):
    """A request to the management API does not say by whom it is, or not so that it can be believed."""

    http_status = 401


class ScopeTooNarrow(ScaleliteError):
    """A token may not do what the request asks for."""

    http_status = 403

    def __init__(self, needed: str) -> None:
        super().__init__(f"this needs a token of the scope {needed}")


class UpdateImpossible(ScaleliteError):
    """An inventory cannot be edited so that it says what is live; it was left as it is."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"nothing was written: {reason}", hint="edit the inventory by hand, and look at its plan")


class ApplyFailed(ScaleliteError):
    """An apply ran into an error and was rolled back: nothing was written."""

    exit_status = 7


class RecordingInvalid(ScaleliteError):
    """An archive or a part of it can never be imported as it is."""

    http_status = 422


class ArchiveIncomplete(ScaleliteError):
    """The end of an archive is missing: it is still being written, or that was broken off."""

    def __init__(self) -> None:
        super().__init__("the end of the archive is missing")


class NotPlayable(ScaleliteError):
    """There is no such recording, or it may not be played: nobody learns which."""

    http_status = 404

    def __init__(self) -> None:
        super().__init__("there is no such recording")


class StorageAway(ScaleliteError):
    """The files of recordings cannot be read now."""

    http_status = 503

    def __init__(self, message: str) -> None:
        super().__init__(f"the files of recordings cannot be read: {message}")


class NotStored(ScaleliteError):
    """An archive that was sent could not be written to the spool; the sender keeps it and tries again."""

    http_status = 507

    def __init__(self) -> None:
        super().__init__("the archive could not be stored", hint="send it again later")


class RecordingBusy(ScaleliteError):
    """A recording is being deleted; its archive waits."""

    def __init__(self, record_id: str) -> None:
        super().__init__(f"recording {record_id} is being deleted")


class RecordingOvertaken(ScaleliteError):
    """Somebody else changed a recording's files while they were read or brought: it is to be done again."""

    def __init__(self, record_id: str) -> None:
        super().__init__(f"recording {record_id} was changed meanwhile", hint="do it again")


# --- what front ends are told, as BigBlueButton XML ------------------------------------------------------------------


class ApiError(ScaleliteError):
    """Base of the answers FAILED; status 200 as BigBlueButton gives them."""

    http_status = 200
    message_key: ClassVar[str] = "internalError"
    text: ClassVar[str] = "An internal error occurred."

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.text)


class ChecksumError(ApiError):
    """The call is not signed with a secret of its tenant."""

    message_key = "checksumError"
    text = "You did not pass the checksum security check"


class MissingMeetingId(ApiError):
    """The call names no meeting."""

    message_key = "missingParamMeetingID"
    text = "You must specify a meeting ID for the meeting."


class InvalidParameter(ApiError):
    """A parameter's value cannot be used."""

    message_key = "validationError"
    text = "A parameter is not valid."


class MeetingNotFound(ApiError):
    """No such meeting, or not this tenant's: the same answer for both."""

    message_key = "notFound"
    text = "We could not find a meeting with that meeting ID - perhaps the meeting is not yet running?"


class MissingRecordId(ApiError):
    """The call names no recording."""

    message_key = "missingParamRecordID"
    text = "You must specify a recordID."


class MissingPublish(ApiError):
    """The call does not say whether to publish."""

    message_key = "missingParamPublish"
    text = "You must specify a publish value true or false."


class RecordingNotFound(ApiError):
    """One of the recordings is not there, or not this tenant's: the same answer for both."""

    message_key = "notFound"
    text = "We could not find recordings"


class RecordingNotMoved(ApiError):
    """The files of a recording could not be published or unpublished; its row says what it said before."""

    text = "Unable to publish/unpublish recording."


class UnfilteredRecordings(ApiError):
    """getRecordings must name meetings or recordings here (GET_RECORDINGS_API_FILTERED)."""

    message_key = "missingParameters"
    text = "param meetingID or recordID must be included."


class ServerUnavailable(ApiError):
    """The meeting's server is offline or disabled."""

    message_key = "serverUnavailable"
    text = "The server for this meeting is disabled/offline."


class NoServer(ApiError):
    """No server may take a new meeting."""

    text = "Could not find any available servers."


class TenantFull(ApiError):
    """A bound of the tenant stops new meetings; those that there are go on."""

    message_key = "maxConcurrent"

    def __init__(self, bound: str) -> None:
        super().__init__(f"The limit of {bound} at the same time is reached.")


class ServersFull(ApiError):
    """All servers that could take the meeting have as many meetings or users as they may."""

    message_key = "serversFull"
    text = "All servers are full."


class ServerTagUnavailable(ApiError):
    """The call requires a tag that no server that could take the meeting has."""

    message_key = "serverTagUnavailable"

    def __init__(self, tag: str) -> None:
        super().__init__(f"There is no available server with the required tag={tag}.")


class UpstreamFailed(ApiError):
    """A server gave no answer that can be passed on; names neither it nor the reason to the caller."""

    text = "Unable to access meeting on server."
    reason = ""

    @property
    def cause(self) -> str:
        """What operators are told."""
        return self.reason or f"{self.message_key}: {self.message}"


class ServerUnreachable(UpstreamFailed):
    """No connection was made, so that the server cannot have acted on the call; `reason` is for operators."""

    def __init__(self, reason: str = "") -> None:
        super().__init__()
        self.reason = reason


class UselessAnswer(UpstreamFailed):
    """A server answered something that is no BigBlueButton answer: HTML, garbage, cut off, with a DTD, too large."""

    text = "Response did not include returncode"


class CreateFailed(UpstreamFailed):
    """A server did not create the meeting; the claim is taken back."""

    text = "Unable to create meeting on server."


class UnsupportedRequest(ApiError):
    """No such call, or not with this method."""

    message_key = "unsupportedRequest"
    text = "This request is not supported."


class UnsupportedContentType(ApiError):
    """A POST whose body is of a type that this call does not take."""

    message_key = "unsupportedContentType"
    text = "POST request Content-Type is missing or unsupported"


class Overloaded(ApiError):
    """More calls wait for the same server, or for Postgres, than can be answered in time."""

    http_status = 503
    text = "Too many calls at once; try again."


class ServiceNotReady(ApiError):
    """Postgres is away and the answer is not in memory."""

    http_status = 503
    text = "The service is not ready."
