"""What the management API takes and gives, as models: they validate, and the OpenAPI document is made from them.

Names and forms are Scalelite's where it has the call, so that its clients go on unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime  # noqa: TC003 - pydantic reads it
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scalelite.core.model import LrsSpec, Secret, Text
from scalelite.errors import SpecRefused

# --- what is taken ---------------------------------------------------------------------------------------------------


class Params(BaseModel):
    """Parameters of a call, of its query and of its JSON body; what is not known is passed over, as Scalelite does."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True, hide_input_in_errors=True)


class ById(Params):
    """A call about one server or tenant."""

    id: Annotated[str, Field(description="Id of the server or tenant.", examples=["bbb1.example.com"])] = ""


class Wrapped(Params):
    """A body whose fields stand in an object of their own; Scalelite's clients may leave that object out."""

    wrapper: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if cls.wrapper in data:
            if not data[cls.wrapper]:
                raise SpecRefused(f"param is missing or the value is empty: {cls.wrapper}")
            return data
        if not data:
            raise SpecRefused(f"param is missing or the value is empty: {cls.wrapper}")
        return {**data, cls.wrapper: {name: value for name, value in data.items() if name != "id"}}


Multiplier = Annotated[float | str, Field(description="Weight of the server's load, above 0.", examples=[1.0])]
Reason = Annotated[Text, Field(description="Why, for the history and for who finds the server held.")]


class NewServer(Params):
    """A server to add; it starts disabled."""

    url: Annotated[str, Field(examples=["https://bbb1.example.com/bigbluebutton/api"])] = ""
    secret: Annotated[Secret, Field(examples=["the server's shared secret"])] = Secret("")
    load_multiplier: Multiplier | None = None
    tag: str | None = None


class AddServer(Wrapped):
    """Body of addServer."""

    wrapper = "server"
    server: NewServer


class ServerFields(NewServer):
    """Fields to change; those that are left out or empty stay, but the tag."""

    state: Annotated[str | None, Field(description="enable, cordon or disable.", examples=["cordon"])] = None
    reason: Reason = ""


class UpdateServer(ById, Wrapped):
    """Body of updateServer."""

    wrapper = "server"
    server: ServerFields


class Kept(Params):
    """Scalelite's documentation puts keep_state here, and its code at the top; both count."""

    keep_state: bool = False


class Panic(ById):
    """Body of panicServer."""

    keep_state: Annotated[bool, Field(description="End the meetings, but leave the server in its state.")] = False
    skip_end_calls: Annotated[bool, Field(description="Forget the meetings without asking the server.")] = False
    reason: Reason = ""
    server: Kept = Kept()


class TenantFields(Params):
    """A tenant's fields; secrets are a text with ':' between them."""

    name: Annotated[str | None, Field(description="The tenant's subdomain.", examples=["tenant1"])] = None
    secrets: Annotated[Secret | None, Field(examples=["secret1:secret2"])] = None
    enabled: bool | None = None


class AddTenant(Wrapped):
    """Body of addTenant."""

    wrapper = "tenant"
    tenant: TenantFields


class UpdateTenant(ById, AddTenant):
    """Body of updateTenant."""


class Lrs(ById):
    """Body of updateTenantLrs; lrs null removes it."""

    lrs: LrsSpec | None


class OfTenant(Params):
    """Settings of one tenant, or of all."""

    tenant: Annotated[str, Field(description="Id or name of a tenant; left out: all.")] = ""


class MeetingsOf(OfTenant):
    """Meetings of one tenant, or of all, on one server or on any."""

    server: Annotated[str, Field(description="Id of a server; left out: all.")] = ""


class NewSetting(Params):
    """A parameter that the tenant's calls get."""

    param: Annotated[str, Field(examples=["record"])]
    value: Annotated[str, Field(examples=["true"])]
    override: Annotated[bool, Field(description="Whatever the call says; else only where it does not say.")] = False
    calls: tuple[Literal["create", "join"], ...] = ("create", "join")


class AddSetting(Params):
    """Body of addTenantSetting; a parameter that the tenant has is replaced."""

    tenant: Annotated[str, Field(description="Id or name of the tenant.")]
    setting: NewSetting


class HistoryPage(Params):
    """Which revisions."""

    limit: Annotated[int, Field(ge=1, le=500, description="How many.")] = 50
    before: Annotated[int | None, Field(ge=1, le=1 << 62, description="Only those with a smaller number.")] = None


# --- what is given ---------------------------------------------------------------------------------------------------


class Error(BaseModel):
    """What is wrong, and what to do about it."""

    error: str
    hint: str | None = None


class Message(BaseModel):
    """A remark of Scalelite's in place of an answer."""

    message: str


class Success(BaseModel):
    """It is done."""

    success: str


class Server(BaseModel):
    """A server: declared, and as the poller last saw it."""

    id: str
    url: str
    secret: str | None = None
    tag: str
    bbb_version: str
    state: Literal["enabled", "cordoned", "disabled"]
    load: float | Literal["unavailable"]
    load_multiplier: str
    online: Literal["online", "offline"]


class MeetingEnd(BaseModel):
    """What became of a meeting; unknown: the server did not say, refused: it said no. It is asked again by a poll."""

    tenant_id: str
    meeting_id: str
    outcome: Literal["ended", "unknown", "refused"]


class Panicked(Success):
    """What a panic did."""

    meetings: list[MeetingEnd]


class TenantShort(BaseModel):
    """A tenant in a list."""

    id: str
    name: str
    secrets: str | None = None


class Tenant(BaseModel):
    """A tenant, in Scalelite's words."""

    new_record: bool = False
    destroyed: bool = False
    name: str
    secrets: str | None = None
    enabled: Literal[False] | None = None
    lrs_endpoint: str | None = None
    lrs_username: str | None = None
    lrs_password: str | None = None
    kc_token_url: str | None = None
    kc_client_id: str | None = None
    kc_client_secret: str | None = None
    kc_username: str | None = None
    kc_password: str | None = None
    id: str


class TenantWritten(BaseModel):
    """A tenant after a change."""

    tenant: Tenant


class Setting(BaseModel):
    """A parameter that a tenant's calls get."""

    id: str
    tenant_id: str
    tenant: str
    param: str
    value: str
    override: bool
    calls: list[Literal["create", "join"]]


class StatusOfServer(BaseModel):
    """A row of `scalelite status`; polled_at is the last good poll."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    hostname: str
    state: Literal["enabled", "cordoned", "disabled"]
    health: Literal["unknown", "online", "unhealthy", "offline"]
    meetings: int
    users: int
    largest_meeting: int
    videos: int
    load: float
    tag: str
    polled_at: str | None = None


class Meeting(BaseModel):
    """A meeting, and the server that it is on; silent: that did not answer in the last poll, so it may have ended."""

    model_config = ConfigDict(from_attributes=True)

    tenant: str
    meeting_id: str
    server: str
    phase: Literal["creating", "running", "ending"]
    users: int
    claimed_at: datetime
    silent: bool


class Stored(BaseModel):
    """An archive that waits to be imported."""

    archive: str


class Revision(BaseModel):
    """A change of declared state or of a hold: who, when, why, and what; no values."""

    number: int
    at: datetime
    actor: str
    message: str
    source: dict[str, Any]
    changes: list[dict[str, Any]]


class Polled(BaseModel):
    """A round of polls."""

    polled: int
    failed: list[str]
    suspect: bool
