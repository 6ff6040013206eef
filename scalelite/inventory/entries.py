"""The YAML of an inventory itself, as models: what may be written where; the JSON schema and its texts come from here.

What the values must be is said once, by the specs of core, which the loader validates with; a test holds the two
together. Every value may also be a template (schema.py adds that).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from scalelite.core.model import (
    RESERVED_PARAMS,
    Algorithm,
    Call,
    Count,
    HealthSpec,
    HostName,
    Limits,
    LoadSpec,
    LrsBasic,
    LrsOidc,
    Multiplier,
    ParamName,
    Retention,
    SizeHint,
    State,
    TenantName,
)
from scalelite.inventory.problems import SECRET_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable


class Entry(BaseModel):
    """Base of what is written: unknown keys are errors; built when first used, since most commands need no schema."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


_HTTP: Final = "^[Hh][Tt][Tt][Pp][Ss]?://"
_URL: Final[dict[str, Any]] = {"pattern": f"{_HTTP}[^\\s?#/@]+(/[^\\s?#]*)?/api/?$"}
_WEB_URL: Final[dict[str, Any]] = {"pattern": f"{_HTTP}\\S+$"}
_TEXT_OR_NUMBER: Final[dict[str, Any]] = {"type": ["string", "number", "boolean"]}
_RESERVED: Final = "|".join(
    "".join(f"[{letter}{letter.upper()}]" if letter.isalpha() else letter for letter in name)
    for name in sorted(RESERVED_PARAMS)
)
NotEmpty = Annotated[str, Field(min_length=1)]
ParamValue = Annotated[str, WithJsonSchema(_TEXT_OR_NUMBER)]
SettingName = Annotated[ParamName, Field(json_schema_extra={"not": {"pattern": f"^({_RESERVED})$"}})]
# An id, or a range of them.
ServerName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]|\[[A-Za-z0-9]*:[A-Za-z0-9]+(:[0-9]+)?\])+$")]


def _with_observed(schema: dict[str, Any]) -> None:
    """Add what `export --verbose` and `servers yaml --verbose` write, and loading ignores."""
    observed = {
        "load": ("number", "Observed; ignored.", 12.5),
        "online": ("boolean", "Observed; ignored.", True),
        "bbb_version": ("string", "Observed; ignored.", "3.0.4"),
    }
    for name, (kind, description, example) in observed.items():
        schema["properties"][name] = {"type": kind, "description": description, "examples": [example]}
    # With one of them, `state` was observed too; else it contradicts `enabled`.
    schema["not"] = {"required": ["enabled", "state"], "not": {"anyOf": [{"required": [name]} for name in observed]}}


def _with_observed_and_url(schema: dict[str, Any]) -> None:
    _with_observed(schema)
    schema["allOf"] = [{"required": ["url"]}]


class ServerEntry(Entry):
    """One BigBlueButton server. A new one gets meetings as soon as it is applied, unless `enabled` is false."""

    model_config = ConfigDict(json_schema_extra=_with_observed)

    secret: str = Field(
        "",
        description="The server's shared secret (`bbb-conf --secret`). Required.",
        examples=["{{ lookup('env', 'BBB1_SECRET') }}"],
        min_length=1,
    )
    previous_secret: str = Field(
        "",
        description="The secret that is tried once when the server answers checksumError, while its secret is changed.",
        examples=["{{ lookup('env', 'BBB1_OLD_SECRET', default='') }}"],
    )
    url: str = Field(
        "",
        description="URL of the server's API; ends with /api. Default: https://ID/bigbluebutton/api",
        examples=["https://bbb1.example.com/bigbluebutton/api"],
        json_schema_extra=_URL,
    )
    enabled: bool = Field(
        True,
        description="false: cordoned if it is enabled, else left as it is. Not together with `state`.",
        examples=[True],
    )
    state: State = Field(
        "enabled",
        description="Instead of `enabled`, exactly: enabled, cordoned (no new meetings) or disabled (no calls at all).",
        examples=["cordoned"],
    )
    load_multiplier: Multiplier = Field(
        1.0,
        description="Its load counts times this: 2.0 for a server half as strong as the others. Above 0.",
        examples=[1.0],
    )
    tag: str = Field("", description="Only creates that ask for this tag get the server; '' for all.", examples=["gpu"])
    max_meetings: Count = Field(0, description="Meetings at the same time; 0 for no limit.", examples=[50])
    max_users: Count = Field(0, description="Users at the same time; 0 for no limit.", examples=[400])
    checksum_algorithm: Algorithm = Field(
        "SHA256",
        description="How calls to this server are signed. Default: the cluster's.",
        examples=["SHA256"],
    )
    protect: bool = Field(False, description="true: no plan may remove the server.", examples=[False])


class ListedServer(ServerEntry):
    """An entry of the list form (`servers:addAll`); its id is the host of its url."""

    model_config = ConfigDict(json_schema_extra=_with_observed_and_url)

    url: str = Field(
        "",
        description="Host name, which means https://HOST/bigbluebutton/api, or the URL of the server's API. Required.",
        examples=["bbb1.example.com"],
        min_length=1,
    )


class SettingEntry(Entry):
    """A parameter with its mode; a bare value is the same as `{value: ...}`."""

    value: ParamValue = Field("", description="Any scalar; kept and compared as text.", examples=["ASK_MODERATOR"])
    override: bool = Field(
        False,
        description="true: wins over what the call says; false: used where the call does not say.",
        examples=[True],
    )
    calls: list[Call] = Field(["create", "join"], description="The calls that get it.", examples=[["create"]])


class LrsEntry(Entry):
    """Where the tenant's xAPI statements go; exactly one of `basic` and `oidc`."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["basic", "oidc"]}})

    endpoint: str = Field(
        "",
        description="URL of the learning record store. Required.",
        examples=["https://lrs.example.com/xapi"],
        json_schema_extra=_WEB_URL,
    )
    on_error: Literal["start", "fail"] = Field(
        "start", description="What a create does when the token cannot be had.", examples=["start"]
    )
    basic: LrsBasic = Field(
        default=...,
        description="HTTP basic authentication.",
        examples=[{"username": "lrs-user", "password": "{{ lookup('env', 'LRS_PASSWORD') }}"}],
    )
    oidc: LrsOidc = Field(
        default=...,
        description="A token from an OpenID Connect provider.",
        examples=[
            {
                "token_url": "https://kc.example.com/realms/r/protocol/openid-connect/token",
                "client_id": "bbb",
                "client_secret": "{{ lookup('env', 'KC_SECRET') }}",
                "username": "bbb-service",
                "password": "{{ lookup('env', 'KC_PASSWORD') }}",
            }
        ],
    )


class TenantEntry(Entry):
    """One tenant; its name is its subdomain: lower case letters, digits and '-'."""

    id: str = Field(
        "",
        description="UUID of the tenant; with it, a changed name is a rename.",
        examples=["9a870f45-ec23-4d29-828b-4673f3536d7b"],
        json_schema_extra={"pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
    )
    enabled: bool = Field(True, description="false: all calls of the tenant fail; its data stay.", examples=[True])
    hosts: list[HostName] = Field(
        [], description="Further host names that are the tenant's.", examples=[["meet.school.example"]]
    )
    secrets: Annotated[list[NotEmpty], Field(min_length=1)] | NotEmpty = Field(
        [],
        description="Secrets in the order of their rotation: a list, or the guide's text with ':' between. Required.",
        examples=[["{{ lookup('env', 'TENANT1_SECRET') }}"]],
    )
    settings: dict[SettingName, SettingEntry | ParamValue] = Field(
        {},
        description="Parameters of create and join: name to value, or to {value, override, calls}.",
        examples=[{"record": True, "welcome": {"value": "Welcome", "override": True}}],
    )
    lrs: LrsEntry = Field(
        default=...,
        description="Where the tenant's xAPI statements go.",
        examples=[{"endpoint": "https://lrs.example.com/xapi", "basic": {"username": "u", "password": "p"}}],
    )
    limits: Limits = Field(
        Limits(), description="Bounds of new meetings; a join is never stopped.", examples=[{"max_meetings": 50}]
    )
    recordings: Retention = Field(
        Retention(), description="How long recordings are kept.", examples=[{"keep_days": 365}]
    )
    public_url: str = Field(
        "",
        description="URL in links to recordings. Default: https://NAME.URL_HOST",
        examples=["https://tenant1.sl.example.com"],
        json_schema_extra=_WEB_URL,
    )
    external_voice_bridge: bool = Field(
        False, description="true: voice bridges are the front end's, and no number is made.", examples=[False]
    )
    protect: bool = Field(False, description="true: no plan may remove the tenant.", examples=[False])


class CallParamsEntry(Entry):
    """Parameters that every call of a kind gets."""

    default: dict[SettingName, ParamValue] = Field(
        {}, description="Used where the call does not say.", examples=[{"logo": "https://example.com/logo.png"}]
    )
    override: dict[SettingName, ParamValue] = Field(
        {}, description="Used whatever the call says.", examples=[{"record": False}]
    )


class ClusterEntry(Entry):
    """Settings of the whole cluster, read live by every service; what is absent is left to the environment."""

    name: str = Field("", description="Name of the cluster, in plans and pages.", examples=["prod-eu"])
    create: CallParamsEntry = Field(
        CallParamsEntry(),
        description="Parameters of create, for all tenants.",
        examples=[{"default": {"record": True}}],
    )
    join: CallParamsEntry = Field(
        CallParamsEntry(), description="Parameters of join, for all tenants.", examples=[{"default": {}}]
    )
    max_meeting_duration: Count = Field(
        0, description="Minutes that a meeting may last; 0 for no limit.", examples=[480]
    )
    load: LoadSpec = Field(LoadSpec(), description="How load is reckoned.", examples=[{"min_user_count": 15}])
    health: HealthSpec = Field(
        HealthSpec(), description="When a server counts as offline.", examples=[{"unhealthy_threshold": 2}]
    )
    size_hint: SizeHint = Field(
        SizeHint(), description="How a create says how many users it expects.", examples=[{"metadata": "size-hint"}]
    )
    checksum_algorithm: Algorithm = Field("SHA256", description="How calls to servers are signed.", examples=["SHA256"])


_PERCENT: Final = re.compile(r"(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%")


def percent(value: object) -> float:
    """Return the number of `30%`; raises ValueError for everything else."""
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        return float(value[:-1])
    raise ValueError("must be a share from 0% to 100%. Write it as 30%")


Percent = Annotated[
    float,
    BeforeValidator(percent),
    WithJsonSchema({"type": "string", "pattern": f"^{_PERCENT.pattern}$"}),
]


class Safety(Entry):
    """Guards of plans, in percent of what is there."""

    max_removals: Percent = Field(
        30.0, description="The most of the servers, or tenants, that one plan may remove.", examples=["30%"]
    )
    max_updates: Percent = Field(
        100.0, description="The most of the servers, or tenants, that one plan may change.", examples=["100%"]
    )
    min_capacity: Percent = Field(
        0.0, description="The least of the enabled servers that a plan must leave enabled.", examples=["50%"]
    )


class GroupEntry(Entry):
    """A group of servers, as in Ansible. `all` and `ungrouped` may have `vars` alone."""

    servers: list[str] = Field(
        [],
        description="Its servers: ids, ranges, globs, or ~ and a regular expression.",
        examples=[["bbb[01:05].example.com", "~^big-.*"]],
    )
    children: list[str] = Field([], description="Groups whose servers are in it, too.", examples=[["huge"]])
    vars: dict[str, Any] = Field(
        {},
        description="Defaults for its servers' keys, and free variables for their templates.",
        examples=[{"load_multiplier": 0.5, "tag": "large"}],
    )
    priority: int = Field(1, description="Of groups of one level, the variables of the highest count.", examples=[10])


class InventoryFile(Entry):
    """An inventory of a BigBlueButton cluster. A section that is absent is not managed; `{}` asks for none."""

    vars: dict[str, Any] = Field(
        {},
        description="Free variables for templates: {{ vars.domain }} or {{ domain }}.",
        examples=[{"domain": "example.com"}],
    )
    cluster: ClusterEntry = Field(
        ClusterEntry(), description="Settings of the whole cluster.", examples=[{"name": "prod-eu"}]
    )
    safety: Safety = Field(Safety(), description="Guards of plans.", examples=[{"max_removals": "30%"}])
    servers: dict[ServerName, ServerEntry] | list[ListedServer] = Field(
        {},
        description="All servers: id to entry (servers:sync), or a list of url and secret (servers:addAll).",
        examples=[{"bbb1.example.com": {"secret": "{{ lookup('env', 'BBB1_SECRET') }}"}}],
    )
    groups: dict[str, GroupEntry] = Field(
        {},
        description="Groups of servers, whose variables are defaults for the servers' keys.",
        examples=[{"large": {"servers": ["bbb[01:05].example.com"], "vars": {"load_multiplier": 0.5}}}],
    )
    tenants: dict[TenantName, TenantEntry] = Field(
        {},
        description="All tenants: name to entry.",
        examples=[{"tenant1": {"secrets": ["{{ lookup('env', 'TENANT1_SECRET') }}"]}}],
    )


def _field_names(models: Iterable[type[BaseModel]]) -> frozenset[str]:
    return frozenset(name for model in models for name in model.model_fields)


# Keys whose values are known to hold no secret.
OPEN_KEYS: Final = (
    _field_names(
        [
            ServerEntry, SettingEntry, TenantEntry, LrsEntry, LrsBasic, LrsOidc, Limits, Retention, CallParamsEntry,
            ClusterEntry, LoadSpec, type(LoadSpec().weights), HealthSpec, SizeHint, Safety, GroupEntry, InventoryFile,
        ]
    )
    - SECRET_KEYS
    - {"vars"}
)  # fmt: skip
