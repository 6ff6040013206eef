"""What a Scalelite keeps, as specs of ours, or what of it an inventory could not say; reads and writes nothing.

Facts on its keys and columns: golden/README.md, and what it was recorded with (v1.8.5). In older data a server has no
state, and is enabled if it is in the set of the enabled ones.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import ValidationError

from scalelite.core.align import renamed
from scalelite.core.callbacks import ANALYTICS
from scalelite.core.commands import refusal, secrets_of
from scalelite.core.model import (
    NO_SECRET,
    SENTINEL_TENANT,
    Declared,
    Key,
    Kind,
    LrsSpec,
    Secret,
    ServerSpec,
    SettingSpec,
    TenantSpec,
    url_key,
)
from scalelite.core.params import voice_bridges
from scalelite.core.recording import RECORD_ID, PlaybackFormat, Recording, Thumbnail, kept_metadata, path_of, state_of
from scalelite.errors import RecordingInvalid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from scalelite.core.model import AnySpec

    Fields = Mapping[str, str]

# What it calls a client's callbacks, and the parameter of create that each was taken from.
HOOKS: Final = {"analytics_callback_url": ANALYTICS, "recording_ready_url": "meta_bn-recording-ready-url"}
_OIDC: Final = {
    "token_url": "kc_token_url", "client_id": "kc_client_id", "client_secret": "kc_client_secret",
    "username": "kc_username", "password": "kc_password",
}  # fmt: skip
_BASIC: Final = {"username": "lrs_username", "password": "lrs_password"}
_SECRETS: Final = frozenset({"client_secret", "password"})


@dataclass(frozen=True, slots=True)
class Kept:
    """What Scalelite's Redis holds, by id, as the texts that it wrote; `settings` are by tenant, then by id."""

    servers: Mapping[str, Fields] = field(default_factory=dict)
    enabled: frozenset[str] = frozenset()
    tenants: Mapping[str, Fields] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Fields]] = field(default_factory=dict)
    meetings: Mapping[str, Fields] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptMeeting:
    """A meeting that runs; `secret` signs what its client is called with."""

    tenant: UUID
    meeting_id: str
    server: str
    moderator_pw: Secret
    voice_bridge: str
    secret: Secret = NO_SECRET


@dataclass(frozen=True, slots=True)
class KeptHook:
    """What a client of a meeting wants to be called for; `name` is the parameter of create. Age in seconds."""

    tenant: UUID
    meeting_id: str
    server: str
    name: str
    url: str
    secret: Secret
    age_s: float


@dataclass(frozen=True, slots=True)
class Brought:
    """What a takeover brings. With problems, nothing may be written; `left` says what stays behind, and why.

    `secret` signs what clients are called with where there are no tenants.
    """

    objects: Mapping[Key, AnySpec]
    setting_ids: Mapping[Key, UUID]
    meetings: tuple[KeptMeeting, ...]
    problems: tuple[str, ...]
    left: tuple[str, ...]
    secret: Secret = NO_SECRET


def brought(kept: Kept, leave_out: Collection[str], secrets: Sequence[str], digits: int) -> Brought:
    """Make specs of what Scalelite keeps, without what is left out, by address.

    `secrets` are those of calls where there are no tenants, `digits` is how long voice bridges are.
    """
    return _Reading(kept, frozenset(leave_out)).read(Secret(next(iter(secrets), "")), digits)


class _Reading:
    """Goes through what is kept, once, and notes what it finds."""

    def __init__(self, kept: Kept, leave_out: frozenset[str]) -> None:
        self.kept = kept
        self.leave_out = leave_out
        self.objects: dict[Key, AnySpec] = {}
        self.setting_ids: dict[Key, UUID] = {}
        self.problems: list[str] = []
        self.left: list[str] = []
        self.met: set[str] = set()

    def read(self, secret: Secret, digits: int) -> Brought:
        for server_id in sorted(self.kept.servers):
            self._server(server_id)
        self._refuse_shared_urls()
        names = self._tenants()
        for tenant in sorted(self.kept.settings):
            self._settings(names, tenant)
        meetings = tuple(self._meetings(names, secret, digits))
        for address in sorted(self.leave_out - self.met):
            self.problems.append(f"{address}: Scalelite has no such thing to leave out")
        return Brought(self.objects, self.setting_ids, meetings, tuple(self.problems), tuple(self.left), secret)

    def _add(self, key: Key, model: type[Any], fields: Mapping[str, Any]) -> bool:
        """Keep an object, unless it is left out or cannot be meant; says whether it was kept."""
        if self._is_left_out(key.address):
            return False
        try:
            self.objects[key] = model.model_validate(fields)
        except ValidationError as error:
            self.problems.append(f"{key.address}: {refusal(error)}")
            return False
        return True

    def _is_left_out(self, address: str) -> bool:
        if address in self.leave_out:
            self.met.add(address)
            return True
        return False

    def _half(self, address: str) -> None:
        """Note what is in a list, and has no data."""
        if not self._is_left_out(address):
            self.problems.append(f"{address}: it is in the list, and has no data: it is half removed")

    # --- servers -----------------------------------------------------------------------------------------------------

    def _server(self, server_id: str) -> None:
        kept = self.kept.servers[server_id]
        fields: dict[str, Any] = {
            "id": server_id,
            "url": kept.get("url", ""),
            "secret": kept.get("secret", ""),
            "tag": kept.get("tag", ""),
            "state": kept.get("state") or ("enabled" if server_id in self.kept.enabled else "disabled"),
            "load_multiplier": _number(kept.get("load_multiplier") or "1"),
        }
        key = Key(Kind.SERVER, server_id)
        if not kept:
            self._half(key.address)
        elif not fields["secret"] and key.address not in self.leave_out:
            self.problems.append(f"{key.address}: secret: must not be empty")
        else:
            self._add(key, ServerSpec, fields)

    def _refuse_shared_urls(self) -> None:
        sharing = defaultdict(list)
        for key, spec in self.objects.items():
            if isinstance(spec, ServerSpec):
                sharing[url_key(spec.url)].append(key.address)
        for addresses in sharing.values():
            self.problems += [f"{address}: {addresses[0]} has this url, too" for address in addresses[1:]]

    # --- tenants -----------------------------------------------------------------------------------------------------

    def _tenants(self) -> dict[str, str]:
        """Keep the tenants with their LRS; returns their names, by id."""
        names: dict[str, str] = {}
        for tenant, kept in sorted(self.kept.tenants.items()):
            name = kept.get("name", "").lower()
            key = Key(Kind.TENANT, name)
            if not kept:
                self._half(f"tenant/{tenant}")
            elif key in self.objects:
                self.problems.append(f"{key.address}: two tenants have this name, {self._id_of(key)} and {tenant}")
            elif self._tenant(key, tenant, kept):
                names[tenant] = name
                self._lrs(name, kept)
        return names

    def _id_of(self, key: Key) -> UUID | None:
        spec = self.objects[key]
        return spec.id if isinstance(spec, TenantSpec) else None

    def _tenant(self, key: Key, tenant: str, kept: Fields) -> bool:
        secrets = secrets_of(kept.get("secrets", ""))
        if not secrets and key.address not in self.leave_out:
            self.problems.append(f"{key.address}: secrets: needs at least one")
            return False
        return self._add(key, TenantSpec, {"id": _uuid(tenant), "name": key.name, "secrets": secrets})

    def _lrs(self, name: str, kept: Fields) -> None:
        fields: dict[str, Any] = {"endpoint": kept.get("lrs_endpoint", "")}
        for way, columns in (("basic", _BASIC), ("oidc", _OIDC)):
            given = {ours: kept[theirs] for ours, theirs in columns.items() if kept.get(theirs)}
            if given:
                fields[way] = {ours: Secret(text) if ours in _SECRETS else text for ours, text in given.items()}
        if any(fields.values()):
            self._add(Key(Kind.LRS, name), LrsSpec, fields)

    def _settings(self, names: Mapping[str, str], tenant: str) -> None:
        kept = self.kept.settings[tenant]
        if tenant not in names:
            self.left.append(f"{len(kept)} settings of the tenant {tenant}, which is not brought")
            return
        for setting, fields in sorted(kept.items()):
            if fields:
                self._setting(Key(Kind.SETTING, names[tenant], fields.get("param", "")), setting, fields)
            else:
                self._half(f"tenant/{names[tenant]}/setting/{setting}")

    def _setting(self, key: Key, setting: str, fields: Fields) -> None:
        override = fields.get("override") == "true"
        before = self.objects.get(key)
        if not isinstance(before, SettingSpec):
            given = {"param": key.param, "value": fields.get("value", ""), "override": override}
            if self._add(key, SettingSpec, given) and (drawn := _uuid(setting)):
                self.setting_ids[key] = drawn
        elif (before.value, before.override) != (fields.get("value", ""), override):
            self.problems.append(f"{key.address}: it is there twice with other values; {setting} is the second")

    # --- meetings ----------------------------------------------------------------------------------------------------

    def _meetings(self, names: Mapping[str, str], secret: Secret, digits: int) -> Iterable[KeptMeeting]:
        bridges = {fields["voice_bridge"] for fields in self.kept.meetings.values() if fields.get("voice_bridge")}
        for meeting_id, fields in sorted(self.kept.meetings.items()):
            server, tenant = fields.get("server_id", ""), fields.get("tenant_id", "")
            if not fields:
                self.left.append(f"meeting {meeting_id!r}: it is in the list of meetings, and has no data")
            elif Key(Kind.SERVER, server) not in self.objects:
                self.left.append(f"meeting {meeting_id!r}: its server {server!r} is not brought")
            elif tenant and tenant not in names:
                self.left.append(f"meeting {meeting_id!r}: its tenant {tenant!r} is not brought")
            else:
                bridge = fields.get("voice_bridge") or _free_bridge(meeting_id, digits, bridges)
                owner = self.objects.get(Key(Kind.TENANT, names.get(tenant, "")))
                signing = owner.secrets[0] if isinstance(owner, TenantSpec) else secret
                yield KeptMeeting(
                    UUID(tenant) if tenant else SENTINEL_TENANT,
                    meeting_id,
                    server,
                    Secret(fields.get("moderator_pw", "")),
                    bridge,
                    signing,
                )


def _free_bridge(meeting_id: str, digits: int, taken: set[str]) -> str:
    found = next(number for number in voice_bridges(meeting_id, digits) if number not in taken)
    taken.add(found)
    return found


def _number(text: str) -> float | str:
    """Return a number, or the text, which the model refuses."""
    try:
        return float(text)
    except ValueError:
        return text


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


# --- beside what is here ---------------------------------------------------------------------------------------------


def beside(live: Declared, objects: Mapping[Key, AnySpec]) -> tuple[Declared, tuple[str, ...]]:
    """Return the live state with what is brought, and what of it clashes with what is here.

    Of an object that is here, what Scalelite has no word for stays.
    """
    clashes = tuple(_clashes(live, objects))
    before = renamed(live, Declared(objects))
    merged = dict(before.objects)
    for key, spec in objects.items():
        here = before.objects.get(key)
        merged[key] = spec if here is None else here.model_copy(update=_told(spec))
    return replace(live, objects=merged, sections=frozenset({"servers", "tenants"})), clashes


def _told(spec: AnySpec) -> dict[str, Any]:
    """Return the fields that Scalelite tells; of an LRS the other way goes."""
    told = {name: getattr(spec, name) for name in spec.model_fields_set}
    return {**told, "basic": spec.basic, "oidc": spec.oidc} if isinstance(spec, LrsSpec) else told


def _clashes(live: Declared, objects: Mapping[Key, AnySpec]) -> Iterable[str]:
    urls = {url_key(spec.url): spec.id for _, spec in live.of_kind(Kind.SERVER)}
    names = {spec.name: spec.id for _, spec in live.of_kind(Kind.TENANT)}
    for key, spec in objects.items():
        if isinstance(spec, ServerSpec) and urls.get(url_key(spec.url), spec.id) != spec.id:
            yield f"{key.address}: server '{urls[url_key(spec.url)]}' here has the url {spec.url} already"
        if isinstance(spec, TenantSpec) and names.get(spec.name, spec.id) != spec.id:
            yield f"{key.address}: a tenant of this name is here already, with the id {names[spec.name]}"


# --- callbacks -------------------------------------------------------------------------------------------------------


def hooks_in(
    rows: Iterable[Mapping[str, Any]], found: Brought, tenants: Mapping[UUID, TenantSpec]
) -> tuple[list[KeptHook], list[str]]:
    """Return what clients want to be called for, and what is left: of meetings of which nobody knows the tenant.

    Scalelite keeps no tenant with it: that of the meeting counts, if it runs, else that of its recordings.
    """
    running = {meeting.meeting_id: meeting for meeting in found.meetings}
    hooks, left = [], []
    for row in rows:
        meeting_id, meeting = row["meeting_id"], running.get(row["meeting_id"])
        owner = meeting.tenant if meeting else _uuid(row["tenant"] or "") or SENTINEL_TENANT
        if owner not in tenants or (owner == SENTINEL_TENANT and not meeting and len(tenants) > 1):
            left.append(f"callbacks of the meeting {meeting_id!r}: it has ended, and whose it was is not known")
            continue
        secret = meeting.secret if meeting else next(iter(tenants[owner].secrets), found.secret)
        server = meeting.server if meeting else ""
        for name, url in _hook_urls(row["attributes"]):
            if meeting or name != ANALYTICS:
                hooks.append(KeptHook(owner, meeting_id, server, name, url, secret, max(row["age_s"], 0.0)))
    return hooks, left


def _hook_urls(attributes: str) -> Iterable[tuple[str, str]]:
    """Read Ruby's YAML, whatever classes it names, as texts."""
    from ruamel.yaml import YAML, YAMLError  # noqa: PLC0415 - only here

    try:
        found = YAML(typ="base").load(attributes)
    except YAMLError:
        found = None
    for key, url in found.items() if isinstance(found, dict) else ():
        name = HOOKS.get(str(key).removeprefix(":"))
        if name and isinstance(url, str) and url.strip():
            yield name, url.strip()


# --- recordings ------------------------------------------------------------------------------------------------------


def recording_of(row: Mapping[str, Any], tenants: Collection[UUID]) -> Recording:
    """Make a recording of a row of Scalelite's, with its details; raises RecordingInvalid.

    It belongs to the tenant that its metadata name, if that is one of `tenants`, else to nobody.
    """
    if not RECORD_ID.fullmatch(row["record_id"] or ""):
        raise RecordingInvalid(f"{row['record_id']!r} is no id of a recording")
    metadata = kept_metadata({key: value or "" for key, value in row["metadata"] or () if key})
    tenant = _uuid(metadata.get("tenant-id", ""))
    published = row["published"] and row["state"] != "deleted"
    return Recording(
        record_id=row["record_id"],
        meeting_id=row["meeting_id"] or "",
        name=row["name"] or "",
        state=state_of(row["state"] or "", published=published),
        published=published,
        start_ms=row["start_ms"] or 0,
        end_ms=row["end_ms"] or 0,
        participants=row["participants"],
        protected=row["protected"],
        tenant=tenant if tenant and tenant in tenants else SENTINEL_TENANT,
        metadata=metadata,
        formats=tuple(_formats(row["formats"] or ())),
    )


def _formats(rows: Iterable[Sequence[Any]]) -> Iterable[PlaybackFormat]:
    for name, url, length, processing_ms, images in rows:
        if not name:
            continue
        thumbnails = tuple(
            Thumbnail(path_of(image or ""), width, height, alt or "") for image, width, height, alt in images or ()
        )
        yield PlaybackFormat(name, path_of(url or ""), length or 0, processing_ms, thumbnails=thumbnails)
