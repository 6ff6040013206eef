"""What is declared (servers, tenants, settings, LRS, cluster) and what is observed; says nothing of where it is kept.

Declared values are frozen pydantic models: equality says whether something changed. Observed ones are plain frozen
dataclasses, so that neither can be written in place of the other. Fields: spec/inventory.md, spec/data.md.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, Self
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import core_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

    from scalelite.core.callbacks import Hook

MASK: Final = "********"

# The tenant that owns everything where there is no multitenancy, so that no key is ever NULL (spec/data.md).
SENTINEL_TENANT: Final = UUID(int=0)

RESERVED_PARAMS: Final = frozenset(
    {
        "meetingid", "checksum", "password", "moderatorpw", "attendeepw", "voicebridge",
        "meta_tenant-id", "meta_tenant-name", "meta_secret-lrs-payload",
    }
)  # fmt: skip


class Secret:
    """A text that prints as eight stars everywhere (in JSON as '' where it is empty); only `reveal()` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; call it only where it is used, and keep it in no message."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return MASK

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        text = core_schema.no_info_after_validator_function(
            lambda t: cls(_printable(t)), core_schema.str_schema(strict=True)
        )
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text], mode="left_to_right"),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda secret: MASK if secret else "", when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string"}


NO_SECRET: Final = Secret("")


def secrets_of(value: object) -> Iterator[Secret]:
    """Yield the secrets that a value is or holds."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from secrets_of(item)
    elif isinstance(value, BaseModel):
        for _, item in value:
            yield from secrets_of(item)


def has_secret(value: object) -> bool:
    """Say whether a value is or holds a secret, if only an empty one."""
    return next(secrets_of(value), None) is not None


# --- values ----------------------------------------------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_API_PATH = re.compile(r"/[^?#\s]*api/?|/api/?")
# What nearly all are: of these nothing needs to be taken apart, which takes five times as long.
_USUAL_URL = re.compile(r"(https?)://([a-z0-9.-]+)(?::([1-9][0-9]{0,3}))?((?:/[A-Za-z0-9._~-]+)*/api)/?")
_PORTS: Final = {"http": 80, "https": 443}


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must not hold control characters")
    return text


def _api_url(url: str) -> str:
    if _USUAL_URL.fullmatch(url):
        return url.removesuffix("/")
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValueError("must be a URL such as https://bbb1.example.com/bigbluebutton/api") from error
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname or not port_fits:
        raise ValueError("must begin with http:// or https:// and a host")
    if parts.username is not None or parts.query or parts.fragment or re.search(r"[\s\x00-\x1f\\]", url):
        raise ValueError("must hold neither user, query, fragment nor spaces")
    if not _API_PATH.fullmatch(parts.path) or not parts.path.rstrip("/").endswith("/api"):
        raise ValueError("must end with /api")
    return url.rstrip("/")


def _web_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname or re.search(r"[\s\x00-\x1f\\]", url):
        raise ValueError("must be a URL that begins with http:// or https:// and a host")
    return url


def _param(name: str) -> str:
    if name.lower() in RESERVED_PARAMS:
        raise ValueError(f"'{name}' is set by the load balancer and cannot be a setting")
    return name


def url_key(url: str) -> str:
    """Return the form that duplicates are found by: letter case, default port and last slash do not count."""
    if usual := _USUAL_URL.fullmatch(url):
        scheme, host, port, path = usual.groups()
        return f"{scheme}://{host}:{port or _PORTS[scheme]}{path}"
    parts = urlsplit(url)
    default_port = _PORTS[parts.scheme.lower()]
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme.lower()}://{host}:{parts.port or default_port}{parts.path.rstrip('/')}"


ServerId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=255)]
TenantName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
HostName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", max_length=253), AfterValidator(str.lower)
]
# Without an order, so that one that was written in another is no change.
HostNames = Annotated[tuple[HostName, ...], AfterValidator(lambda hosts: tuple(sorted(hosts)))]
ParamName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]*$", max_length=128), AfterValidator(_param)]
ApiUrl = Annotated[str, AfterValidator(_api_url)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
Text = Annotated[str, AfterValidator(_printable)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Multiplier = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Algorithm = Literal["SHA1", "SHA256", "SHA384", "SHA512"]
State = Literal["enabled", "cordoned", "disabled"]
# What `enabled: false` asks for: cordon an enabled server, leave the others, create a new one disabled (spec/plan.md).
WantedState = Literal["enabled", "cordoned", "disabled", "not enabled"]
Call = Literal["create", "join"]


class Spec(BaseModel):  # noqa: PLW1641 - pydantic makes the hash of what is frozen
    """Base of what is declared: frozen, strict, no unknown keys, no input in errors (it may be a secret).

    What validates them is built when it is first needed (40 ms): a command that lists needs none. So defaults are
    constructed, too.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    def __eq__(self, other: object) -> bool:
        """Compare the fields: pydantic's own, for models that may have more than these, takes three times as long."""
        return self.__class__ is other.__class__ and self.__dict__ == other.__dict__

    @classmethod
    def of_row(cls, row: dict[str, Any], fields: set[str]) -> Self:
        """Make one of a row that has all `fields`, validated when it was written; the row becomes its own.

        `model_construct` does the same, and looks for defaults and aliases: with 20,000 rows that takes 0.1 s.
        """
        spec = cls.__new__(cls)
        put = object.__setattr__
        put(spec, "__dict__", row)
        put(spec, "__pydantic_fields_set__", fields)
        put(spec, "__pydantic_extra__", None)
        put(spec, "__pydantic_private__", None)
        return spec


# --- declared --------------------------------------------------------------------------------------------------------


class ServerSpec(Spec):
    """One BigBlueButton server."""

    id: ServerId
    url: ApiUrl
    secret: Secret
    previous_secret: Secret = Secret("")
    load_multiplier: Multiplier = 1.0
    tag: Text = ""
    state: WantedState = "enabled"
    max_meetings: Count = 0
    max_users: Count = 0
    checksum_algorithm: Algorithm | None = None
    protect: bool = False


class Limits(Spec):
    """Bounds of a tenant; they stop new meetings only, never a join. 0: none."""

    max_meetings: Count = Field(0, description="Meetings at the same time; 0 for no limit.", examples=[50])
    max_users: Count = Field(0, description="Users at the same time; 0 for no limit.", examples=[1000])

    def reached(self, meetings: int, users: int) -> str:
        """Return what of so many the tenant has as many as it may, or ''."""
        if 0 < self.max_meetings <= meetings:
            return "meetings"
        return "users" if 0 < self.max_users <= users else ""


class Retention(Spec):
    """How long a tenant's recordings are kept."""

    keep_days: Count = Field(
        0, description="Days after which recordings may be pruned; 0 to keep them.", examples=[365]
    )


class TenantSpec(Spec):
    """One tenant; its settings and its LRS are objects of their own."""

    id: UUID | None = None
    name: TenantName
    enabled: bool = True
    hosts: HostNames = ()
    secrets: tuple[Secret, ...] = ()
    limits: Limits = Limits.model_construct()
    recordings: Retention = Retention.model_construct()
    public_url: WebUrl | None = None
    external_voice_bridge: bool = False
    protect: bool = False


class SettingSpec(Spec):
    """A parameter that a tenant's create and join calls get."""

    param: ParamName
    value: Text
    override: bool = False
    calls: tuple[Call, ...] = ("create", "join")


class LrsBasic(Spec):
    """Credentials for HTTP basic authentication."""

    username: Text = Field(description="User name at the LRS.", examples=["lrs-user"])
    password: Secret = Field(description="Password at the LRS.", examples=["{{ lookup('env', 'LRS_PASSWORD') }}"])


class LrsOidc(Spec):
    """Credentials for a token that is fetched from an OpenID Connect provider (grant type password)."""

    token_url: WebUrl = Field(
        description="Where the token is fetched.",
        examples=["https://kc.example.com/realms/r/protocol/openid-connect/token"],
    )
    client_id: Text = Field(description="Client id at the provider.", examples=["bbb"])
    client_secret: Secret = Field(
        description="Client secret at the provider.", examples=["{{ lookup('env', 'KC_SECRET') }}"]
    )
    username: Text = Field(description="User name at the provider.", examples=["bbb-service"])
    password: Secret = Field(description="Password at the provider.", examples=["{{ lookup('env', 'KC_PASSWORD') }}"])


class LrsSpec(Spec):
    """Where a tenant's xAPI statements go; exactly one way of authentication."""

    endpoint: WebUrl = Field(description="URL of the LRS.", examples=["https://lrs.example.com/data/"])
    on_error: Literal["start", "fail"] = Field(
        "start", description="What a create does when no token can be had.", examples=["start"]
    )
    basic: LrsBasic | None = Field(
        None, description="HTTP basic authentication.", examples=[{"username": "u", "password": "p"}]
    )
    oidc: LrsOidc | None = Field(None, description="A token from an OpenID Connect provider.", examples=[None])

    @model_validator(mode="after")
    def _exactly_one(self) -> LrsSpec:
        if (self.basic is None) == (self.oidc is None):
            raise ValueError("needs exactly one of 'basic' and 'oidc'")
        return self


class CallParams(Spec):
    """Parameters that every call of a kind gets: before the call's own, or over them."""

    default: dict[ParamName, Text] = Field(
        {}, description="Used where the call does not say.", examples=[{"logo": "https://example.com/logo.png"}]
    )
    override: dict[ParamName, Text] = Field(
        {}, description="Used whatever the call says.", examples=[{"record": "false"}]
    )


class LoadWeights(Spec):
    """What one of each adds to a server's load."""

    user: Weight = Field(1.0, description="A participant.", examples=[1.0])
    voice: Weight = Field(0.0, description="A participant with audio.", examples=[0.5])
    video: Weight = Field(0.0, description="A camera.", examples=[2.0])
    meeting: Weight = Field(0.0, description="A meeting, whatever is in it.", examples=[5.0])


class LoadSpec(Spec):
    """How load is reckoned (spec/bbb-api.md, create 3)."""

    min_user_count: Count | None = Field(None, description="Users that a young meeting counts at least.", examples=[15])
    join_buffer_minutes: Count | None = Field(None, description="Minutes for which a meeting is young.", examples=[15])
    weights: LoadWeights = Field(
        LoadWeights.model_construct(), description="What one of each adds.", examples=[{"user": 1.0}]
    )


class HealthSpec(Spec):
    """When a server counts as offline and as online again (spec/operations.md)."""

    unhealthy_threshold: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Failed polls in a row until offline.", examples=[2]
    )
    healthy_threshold: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Good polls in a row until an offline server recovers.", examples=[1]
    )
    suspect_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of failing servers, two at least, at which the poller suspects itself.", examples=[0.5]
    )


class SizeHint(Spec):
    """A metadata parameter with which a create says how many users it expects."""

    metadata: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")] = Field(
        "size-hint", description="Name, without meta_.", examples=["size-hint"]
    )
    cap: Count = Field(200, description="The most that is believed.", examples=[200])

    def users(self, params: Mapping[str, str]) -> int:
        """Return how many users a create expects, as far as it is believed; 0 for what is no number."""
        text = params.get(f"meta_{self.metadata}", "").strip()
        return min(int(text[:18]), self.cap) if text.isascii() and text.isdigit() else 0


class ClusterSpec(Spec):
    """Settings of the whole cluster; None: the environment decides (spec/settings.md)."""

    name: Text = ""
    create: CallParams = CallParams.model_construct()
    join: CallParams = CallParams.model_construct()
    max_meeting_duration: Count | None = None
    load: LoadSpec = LoadSpec.model_construct()
    health: HealthSpec = HealthSpec.model_construct()
    size_hint: SizeHint = SizeHint.model_construct()
    checksum_algorithm: Algorithm | None = None


AnySpec = ServerSpec | TenantSpec | SettingSpec | LrsSpec | ClusterSpec


class Kind(StrEnum):
    """Kinds of declared objects, as they stand in addresses."""

    CLUSTER = "cluster"
    SERVER = "server"
    TENANT = "tenant"
    SETTING = "setting"
    LRS = "lrs"


class Key(NamedTuple):
    """Names one declared object; `name` is the server's id or the tenant's name."""

    kind: Kind
    name: str = ""
    param: str = ""

    @property
    def address(self) -> str:
        """The address in plans, history and messages (spec/inventory.md)."""
        match self.kind:
            case Kind.CLUSTER:
                return "cluster"
            case Kind.SERVER | Kind.TENANT:
                return f"{self.kind}/{self.name}"
            case Kind.SETTING:
                return f"tenant/{self.name}/setting/{self.param}"
            case Kind.LRS:
                return f"tenant/{self.name}/lrs"

    @classmethod
    def of_address(cls, address: str) -> Key | None:
        """Return the key of an address, or None for what is none."""
        match address.split("/"):
            case ["cluster"]:
                return cls(Kind.CLUSTER)
            case ["server" | "tenant" as kind, name]:
                return cls(Kind(kind), name)
            case ["tenant", name, "lrs"]:
                return cls(Kind.LRS, name)
            case ["tenant", name, "setting", param]:
                return cls(Kind.SETTING, name, param)
        return None


# Kinds whose keys go by the name of a tenant.
OF_TENANTS: Final = frozenset({Kind.TENANT, Kind.SETTING, Kind.LRS})

Section = Literal["servers", "tenants", "cluster"]
SECTION_OF: Final[Mapping[Kind, Section]] = {
    Kind.CLUSTER: "cluster",
    Kind.SERVER: "servers",
    Kind.TENANT: "tenants",
    Kind.SETTING: "tenants",
    Kind.LRS: "tenants",
}


class Place(NamedTuple):
    """Where in an inventory a value stands; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Declared:
    """A declared state: live as Postgres has it, or wanted as an inventory says it."""

    objects: Mapping[Key, AnySpec]
    sections: frozenset[Section] = frozenset({"servers", "tenants", "cluster"})
    places: Mapping[tuple[Key, str], Place] = field(default_factory=dict)

    def of_kind(self, kind: Kind) -> Iterable[tuple[Key, Any]]:
        """Yield the objects of one kind."""
        return ((key, spec) for key, spec in self.objects.items() if key.kind is kind)


# --- observed --------------------------------------------------------------------------------------------------------

Health = Literal["unknown", "online", "unhealthy", "offline"]
Phase = Literal["creating", "running", "ending"]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What the poller last saw of a server; `load` is before the server's multiplier.

    `drained`: a good poll found it empty while it was cordoned. `counted_users`: as the load counts them.
    """

    server: str
    health: Health = "unknown"
    score: int = 0
    good_polls: int = 0
    meetings: int = 0
    users: int = 0
    largest_meeting: int = 0
    videos: int = 0
    load: float = 0.0
    bbb_version: str = ""
    polled_at: datetime | None = None
    drained: bool = False
    counted_users: int = 0
    voice: int = 0


@dataclass(frozen=True, slots=True)
class Meeting:
    """A meeting as Postgres knows it; `generation` tells two meetings of one id apart."""

    tenant: UUID
    meeting_id: str
    server: str
    generation: int
    phase: Phase = "creating"
    moderator_pw: Secret = NO_SECRET
    voice_bridge: str = ""
    hooks: tuple[Hook, ...] = ()  # those that this worker knows to be kept
    hook_token: str = field(default="", repr=False)
