"""What one command changes: what is known and a wish in, Change values out, or one clear error; does nothing itself.

Commands, the management API and playbooks say their wish with these functions, so that whatever an inventory could not
say is refused in the same words (spec/cli.md). `flows/admin.py` carries wishes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from scalelite.core.balance import effective_state
from scalelite.core.holds import is_taken_over
from scalelite.core.model import (
    OF_TENANTS,
    SENTINEL_TENANT,
    Key,
    Kind,
    LrsSpec,
    Secret,
    ServerSpec,
    SettingSpec,
    Spec,
    TenantSpec,
    url_key,
)
from scalelite.core.plan import Change, Create, Facts, Hold, Remove, Update, in_order
from scalelite.core.show import counted
from scalelite.errors import AlreadyDeclared, Ambiguous, GuardRefused, NotDeclared, SpecRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from uuid import UUID

    from pydantic_core import ErrorDetails

    from scalelite.core.model import Declared, State

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, slots=True)
class Known:
    """What a wish is decided on: declared state, and what is so besides: holds, how many meetings there are."""

    declared: Declared
    facts: Facts = field(default_factory=Facts)


Wish = Callable[[Known], Iterable[Change | Hold]]


# --- who is meant ----------------------------------------------------------------------------------------------------


def servers(declared: Declared) -> list[ServerSpec]:
    """Return the servers, by id."""
    return [spec for _, spec in sorted(declared.of_kind(Kind.SERVER))]


def tenants(declared: Declared) -> list[TenantSpec]:
    """Return the tenants, by name; not the one that stands for all where there are none."""
    return [spec for _, spec in sorted(declared.of_kind(Kind.TENANT)) if spec.id != SENTINEL_TENANT]


def server_of(declared: Declared, server_id: str) -> ServerSpec:
    """Return the server of this id; raises NotDeclared."""
    spec = declared.objects.get(Key(Kind.SERVER, server_id))
    if not isinstance(spec, ServerSpec):
        raise NotDeclared("server", server_id)
    return spec


def state_in(known: Known, server_id: str) -> State:
    """Return the state of a server, the stricter of declared and held; one that is gone is disabled."""
    spec = known.declared.objects.get(Key(Kind.SERVER, server_id))
    hold = known.facts.holds.get(server_id)
    if not isinstance(spec, ServerSpec) or spec.state == "not enabled":
        return "disabled"
    return effective_state(spec.state, hold.state if hold else None)


def tenant_of(declared: Declared, name_or_id: str) -> TenantSpec:
    """Return the tenant of this id or name (in any letter case); raises NotDeclared."""
    for spec in tenants(declared):
        if name_or_id.lower() in {spec.name, str(spec.id)}:
            return spec
    raise NotDeclared("tenant", name_or_id)


def find_server(declared: Declared, text: str) -> ServerSpec:
    """Return the server that a person means: by id, host name, or a prefix of either; raises NotDeclared, Ambiguous."""
    every = servers(declared)
    names = {spec.id: {spec.id, urlsplit(spec.url).netloc, urlsplit(spec.url).hostname or ""} for spec in every}
    return server_of(declared, _the_one("server", text, names))


def find_tenant(declared: Declared, text: str) -> TenantSpec:
    """Return the tenant that a person means: by id, name, host, or a prefix; raises NotDeclared, Ambiguous."""
    names = {spec.name: {spec.name, str(spec.id), *spec.hosts} for spec in tenants(declared)}
    return tenant_of(declared, _the_one("tenant", text.lower(), names))


def _the_one(kind: str, text: str, names: Mapping[str, set[str]]) -> str:
    """Return the key whose own name, else one of its names, is `text`, else begins with it."""
    if text in names:
        return text
    exact = [key for key, known in names.items() if text in known]
    found = exact or [key for key, known in names.items() if text and any(name.startswith(text) for name in known)]
    if not found:
        raise NotDeclared(kind, text)
    if len(found) > 1:
        raise Ambiguous(kind, text, found)
    return found[0]


# --- servers ---------------------------------------------------------------------------------------------------------


def new_server_id(url: str, draw: Callable[[], UUID], *, is_hostname: bool) -> str:
    """Return the id of a server that is added without one (SERVER_ID_IS_HOSTNAME)."""
    host = urlsplit(url).hostname if is_hostname and "://" in url else None
    return host.lower() if host else str(draw())


def add_server(fields: Mapping[str, Any]) -> Wish:
    """Wish for a new server; one that is added by command starts disabled unless the fields say otherwise."""

    def decide(known: Known) -> Iterator[Change | Hold]:
        spec = _checked(ServerSpec, {"state": "disabled", **fields})
        if Key(Kind.SERVER, spec.id) in known.declared.objects:
            raise AlreadyDeclared(f"there is a server '{spec.id}' already")
        _refuse_server(known, spec)
        yield Create(Key(Kind.SERVER, spec.id), spec)

    return decide


def update_server(server_id: str, fields: Mapping[str, Any]) -> Wish:
    """Wish for other values of a server's fields; its state goes by `set_state`."""

    def decide(known: Known) -> Iterator[Change | Hold]:
        before = server_of(known.declared, server_id)
        after = _checked(ServerSpec, {**dict(before), **fields})
        _refuse_server(known, after, new_url=after.url != before.url)
        meetings = known.facts.server_meetings.get(server_id, 0)
        if url_key(after.url) != url_key(before.url) and meetings:
            raise GuardRefused(f"server '{server_id}' has {counted(meetings, 'meeting')}, lost by a new url", _EMPTY_IT)
        if after != before:
            yield Update(Key(Kind.SERVER, server_id), before, after)

    return decide


_EMPTY_IT = "cordon it until they have ended, or panic it"


def remove_server(server_id: str) -> Wish:
    """Wish for a server to be gone; one that has meetings or is protected stays."""

    def decide(known: Known) -> Iterator[Change | Hold]:
        spec = server_of(known.declared, server_id)
        if spec.protect:
            raise GuardRefused(f"server '{server_id}' is protected", "set protect to false first")
        if meetings := known.facts.server_meetings.get(server_id, 0):
            raise GuardRefused(f"server '{server_id}' has {counted(meetings, 'meeting')}", _EMPTY_IT)
        yield Remove(Key(Kind.SERVER, server_id), spec, "removed by command")

    return decide


def set_state(server_id: str, state: State, why: str = "", until: datetime | None = None) -> Wish:
    """Wish for a state: cordoned and disabled are held, whatever is declared; enabled lifts the hold (spec/data.md).

    What is declared changes only where it is stricter than the wish, since no hold can loosen it.
    """

    def decide(known: Known) -> Iterator[Change | Hold]:
        before = server_of(known.declared, server_id)
        key = Key(Kind.SERVER, server_id)
        if before.state != "not enabled" and effective_state(before.state, state) != state:
            yield Update(key, before, before.model_copy(update={"state": state}), reason=why)
        hold = known.facts.holds.get(server_id)
        held, wanted = hold.state if hold else None, None if state == "enabled" else state
        if held != wanted or (hold and is_taken_over(hold, why)):
            yield Hold(key, held, wanted, why, until)

    return decide


def _refuse_server(known: Known, spec: ServerSpec, *, new_url: bool = True) -> None:
    if not spec.secret:
        raise SpecRefused("secret: must not be empty")
    for other in servers(known.declared) if new_url else ():
        if other.id != spec.id and url_key(other.url) == url_key(spec.url):
            raise AlreadyDeclared(f"server '{other.id}' has the url {other.url} already")


# --- tenants ---------------------------------------------------------------------------------------------------------


def secrets_of(text: str) -> tuple[Secret, ...]:
    """Return the secrets that the guide's colon-separated text lists."""
    return tuple(Secret(part) for part in text.split(":") if part)


def add_tenant(fields: Mapping[str, Any]) -> Wish:
    """Wish for a new tenant."""

    def decide(known: Known) -> Iterator[Change | Hold]:
        spec = _checked(TenantSpec, fields)
        _refuse_tenant(known, spec)
        yield Create(Key(Kind.TENANT, spec.name), spec)

    return decide


def update_tenant(name_or_id: str, fields: Mapping[str, Any]) -> Wish:
    """Wish for other values of a tenant's fields; another name is a rename."""

    def decide(known: Known) -> Iterator[Change | Hold]:
        before = tenant_of(known.declared, name_or_id)
        after = _checked(TenantSpec, {**dict(before), **fields, "id": before.id})
        _refuse_tenant(known, after)
        if after != before:
            yield Update(Key(Kind.TENANT, after.name), before, after)

    return decide


def remove_tenant(name_or_id: str) -> Wish:
    """Wish for a tenant to be gone, with its settings and LRS; one that has meetings or is protected stays."""

    def decide(known: Known) -> Iterable[Change | Hold]:
        spec = tenant_of(known.declared, name_or_id)
        if spec.protect:
            raise GuardRefused(f"tenant '{spec.name}' is protected", "set protect to false first")
        if meetings := known.facts.tenant_meetings.get(spec.name, 0):
            raise GuardRefused(
                f"tenant '{spec.name}' has {counted(meetings, 'meeting')}", "set enabled to false until they end"
            )
        if recordings := known.facts.tenant_recordings.get(spec.name, 0):
            raise GuardRefused(
                f"tenant '{spec.name}' has {counted(recordings, 'recording')}",
                "set enabled to false, or take it out of the inventory with --tenant-data keep|delete|move:TENANT",
            )
        gone = [
            Remove(key, old, "removed by command")
            for key, old in known.declared.objects.items()
            if key.kind in OF_TENANTS and key.name == spec.name
        ]
        return in_order(gone)

    return decide


def put_setting(tenant: str, fields: Mapping[str, Any]) -> Wish:
    """Wish for a parameter of a tenant's calls; one that is there is replaced."""
    return _put(tenant, SettingSpec, fields, lambda name, spec: Key(Kind.SETTING, name, spec.param))


def remove_setting(tenant: str, param: str) -> Wish:
    """Wish for a tenant's setting to be gone."""
    return _drop(tenant, lambda name: Key(Kind.SETTING, name, param), NotDeclared("setting", param))


def put_lrs(tenant: str, fields: Mapping[str, Any]) -> Wish:
    """Wish for a tenant's LRS; one way of authentication clears the other."""
    return _put(tenant, LrsSpec, fields, lambda name, _: Key(Kind.LRS, name))


def remove_lrs(tenant: str) -> Wish:
    """Wish for a tenant to have no LRS."""
    return _drop(tenant, lambda name: Key(Kind.LRS, name), NotDeclared("LRS of tenant", tenant))


def _put(tenant: str, model: type[S], fields: Mapping[str, Any], key_of: Callable[[str, S], Key]) -> Wish:
    def decide(known: Known) -> Iterator[Change | Hold]:
        after: Any = _checked(model, fields)
        key = key_of(tenant_of(known.declared, tenant).name, after)
        before = known.declared.objects.get(key)
        if before is None:
            yield Create(key, after)
        elif before != after:
            yield Update(key, before, after)

    return decide


def _drop(tenant: str, key_of: Callable[[str], Key], unknown: NotDeclared) -> Wish:
    def decide(known: Known) -> Iterator[Change | Hold]:
        key = key_of(tenant_of(known.declared, tenant).name)
        if key not in known.declared.objects:
            raise unknown
        yield Remove(key, known.declared.objects[key], "removed by command")

    return decide


def _refuse_tenant(known: Known, spec: TenantSpec) -> None:
    if not spec.secrets or not all(spec.secrets):
        raise SpecRefused("secrets: needs at least one, and none that is empty")
    for other in tenants(known.declared):
        if other.id == spec.id:
            continue
        if other.name == spec.name:
            raise AlreadyDeclared(f"there is a tenant '{spec.name}' already")
        if shared := set(other.hosts) & set(spec.hosts):
            raise AlreadyDeclared(f"tenant '{other.name}' has the host {min(shared)} already")


# --- validation ------------------------------------------------------------------------------------------------------


def _checked(model: type[S], fields: Mapping[str, Any]) -> S:
    """Validate by the model that inventories are validated by; raises SpecRefused, which holds no value."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise SpecRefused(refusal(error)) from None


# pydantic's names for the ways in which a value may be one.
_OF_UNIONS: Final = re.compile(r"(?:is-instance|function-(?:after|before|plain|wrap))\[.*\]")


def refusal(error: ValidationError) -> str:
    """Return what a model found wrong, field by field, without the values, which may be secrets."""
    found = error.errors(include_input=False, include_context=False, include_url=False)
    told = [one for one in found if one["type"] != "is_instance_of"] or found  # of Secret, which nobody sends
    return "; ".join(_said(one) for one in told)


def _said(error: ErrorDetails) -> str:
    place = ".".join(text for part in error["loc"] if not _OF_UNIONS.fullmatch(text := str(part)))
    what = error["msg"].removeprefix("Value error, ")
    return f"{place}: {what[:1].lower()}{what[1:]}" if place else what
