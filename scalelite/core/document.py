"""A plan as a JSON document: a superset of Terraform's `show -json`, saved, shown and read back; holds no secret.

The models here are its published schema (schemas/plan.schema.json). Secrets are null, with fingerprints that are keyed
with the cluster's own key, so that a change shows and nothing can be guessed. Rules: spec/plan.md.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from scalelite.core.model import Key, Kind, Secret, has_secret
from scalelite.core.plan import Create, Remove, Update, owner
from scalelite.core.show import as_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalelite.core.guards import Guard
    from scalelite.core.model import AnySpec, Place
    from scalelite.core.plan import Change, Plan

FORMAT_VERSION: Final = "1.0"
# Terraform's viewers and policy rules refuse a plan without it; 1.9 is whose shape this is.
TERRAFORM_VERSION: Final = "1.9.0"
SCHEMA_URL: Final = "http://json-schema.org/draft-07/schema#"
Action = Literal["create", "update", "delete"]


class _Part(BaseModel):
    """Base of the document's parts: unknown keys are errors; built when first used."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Source(_Part):
    """Where in the inventory a value stands."""

    file: str = Field(description="Path of the file, as the command named it.", examples=["servers/eu.yml"])
    line: int = Field(description="From 1.", examples=[31])
    column: int = Field(description="From 1.", examples=[22])


class FieldChange(_Part):
    """One field of an update."""

    path: str = Field(description="Name of the field.", examples=["load_multiplier"])
    before: Any = Field(None, description="null where it is sensitive.", examples=[1.0])
    after: Any = Field(None, description="null where it is sensitive.", examples=[2.0])
    sensitive: bool = Field(False, description="Whether it is or holds a secret.", examples=[False])
    before_hmac: str | None = Field(None, description="Keyed fingerprint, for sensitive ones.", examples=[None])
    after_hmac: str | None = Field(None, description="Keyed fingerprint, for sensitive ones.", examples=[None])
    source: Source | None = Field(None, description="Where the new value stands.", examples=[None])


class ChangeBody(_Part):
    """Terraform's `change`."""

    actions: list[Action] = Field(description="One of them.", examples=[["update"]])
    before: dict[str, Any] | None = Field(description="null for a create.", examples=[{"tag": ""}])
    after: dict[str, Any] | None = Field(description="null for a delete.", examples=[{"tag": "gpu"}])
    after_unknown: dict[str, Any] = Field({}, description="Always empty: all is known.", examples=[{}])
    before_sensitive: dict[str, bool] = Field({}, description="Fields that are sensitive.", examples=[{"secret": True}])
    after_sensitive: dict[str, bool] = Field({}, description="Fields that are sensitive.", examples=[{"secret": True}])
    fields: list[FieldChange] = Field([], description="What differs, of an update.", examples=[[]])


class Impact(_Part):
    """What runs on a server, or is a tenant's, while the plan is made."""

    meetings: int = Field(0, description="Meetings.", examples=[3])
    recordings: int = Field(0, description="Recordings, of a tenant that is removed.", examples=[0])
    users: int = Field(0, description="People in them, as the last poll counted.", examples=[41])
    ends_meetings: bool = Field(False, description="Whether the plan ends them (mode force).", examples=[False])


class ResourceChange(_Part):
    """One change of one object."""

    address: str = Field(description="As in history and messages.", examples=["server/bbb03.example.com"])
    mode: Literal["managed"] = Field("managed", description="As Terraform has it.", examples=["managed"])
    type: str = Field(description="server, tenant, setting, lrs or cluster.", examples=["server"])
    name: str = Field(
        description="The server's id, the tenant's name or the parameter.", examples=["bbb03.example.com"]
    )
    provider_name: str = Field("scalelite", description="As Terraform has it.", examples=["scalelite"])
    source: Source | None = Field(None, description="Where the object is declared.", examples=[None])
    from_rev: int = Field(0, description="Revision that the live row is of; 0: there is none.", examples=[41])
    before_hash: str | None = Field(None, description="Keyed fingerprint of the whole object.", examples=[None])
    after_hash: str | None = Field(None, description="Keyed fingerprint of the whole object.", examples=[None])
    action_reason: str | None = Field(
        None, description="Why, where the inventory's own lines do not say it.", examples=["no longer in the inventory"]
    )
    change: ChangeBody = Field(description="Terraform's `change`.", examples=[{"actions": ["delete"]}])
    impact: Impact = Field(Impact(), description="Meetings and people.", examples=[{"meetings": 3, "users": 41}])


class Drift(_Part):
    """A field that was changed outside of the inventory since the last apply."""

    address: str = Field(description="As in history and messages.", examples=["server/bbb03.example.com"])
    path: str = Field(description="Name of the field; '' for the whole object.", examples=["tag"])
    before: Any = Field(None, description="What was applied last; null where it is sensitive.", examples=[""])
    after: Any = Field(None, description="What is live; null where it is sensitive.", examples=["gpu"])
    actor: str = Field("", description="Who did it.", examples=["ops@lb1"])
    at: str | None = Field(None, description="When.", examples=["2026-11-24T09:00:00+00:00"])
    revision: int = Field(0, description="The revision that did it.", examples=[18199])


class Kept(_Part):
    """An object that stays as it is, and why."""

    address: str = Field(description="As in history and messages.", examples=["server/bbb19.example.com"])
    reason: str = Field(description="Why.", examples=["held cordoned by ops@lb1"])


class GuardResult(_Part):
    """How one guard came out."""

    id: str = Field(description="Name of the guard, as --allow takes it.", examples=["removals"])
    status: Literal["ok", "allowed", "blocked"] = Field(description="Whether it stops the plan.", examples=["blocked"])
    subject: str = Field(description="A section or an address.", examples=["servers"])
    message: str = Field(description="What it found.", examples=["removals 11 of 20"])
    actual: int = Field(description="What it counted.", examples=[11])
    limit: str = Field(description="Its bound.", examples=["bound 30 %"])
    where: str = Field("", description="Where the bound is set.", examples=["cluster.yml:3:18"])
    override: str = Field("", description="The flag that allows exactly this.", examples=["--allow removals=11"])
    remedy: str = Field("", description="What to do instead.", examples=[""])


class Diagnostic(_Part):
    """A warning or an error, as Terraform has it."""

    severity: Literal["warning", "error"] = Field(description="Whether it stops.", examples=["warning"])
    summary: str = Field(description="What is so.", examples=["12 secrets stand in clear in servers.yml"])


class Target(_Part):
    """The cluster that the plan is for."""

    cluster: str = Field(description="Its name, or ''.", examples=["prod-eu"])
    cluster_uuid: str = Field(description="Its id.", examples=["9a870f45-ec23-4d29-828b-4673f3536d7b"])
    schema_revision: int = Field(description="The last migration of its database.", examples=[7])
    live_revision: int = Field(description="The revision that was live.", examples=[18204])


class InventoryFileRef(_Part):
    """One file of the inventory."""

    path: str = Field(description="Its path.", examples=["inventories/production/servers.yml"])
    sha256: str = Field(description="Its digest.", examples=["ab12"])


class Git(_Part):
    """The commit that the inventory is of."""

    sha: str = Field(description="The commit.", examples=["4b825dc642cb6eb9a060e54bf8d69288fbee4904"])
    dirty: bool = Field(description="Whether there were changes beside it.", examples=[False])


class InventoryRef(_Part):
    """What the plan was made of."""

    sources: list[str] = Field(description="The paths that the command named.", examples=[["inventories/production"]])
    files: list[InventoryFileRef] = Field(description="All files of it.", examples=[[]])
    git: Git | None = Field(None, description="null outside of a git checkout.", examples=[None])


class ScopeRef(_Part):
    """The options that the plan was made with."""

    mode: Literal["keep", "cordon", "force"] = Field("cordon", description="--mode", examples=["cordon"])
    limit: list[str] = Field([], description="--limit", examples=[["bbb*"]])
    exclude: list[str] = Field([], description="--exclude", examples=[[]])
    sections: list[str] = Field([], description="--sections", examples=[["servers"]])
    tenant_data: str = Field("", description="--tenant-data", examples=["keep"])
    release_holds: bool = Field(False, description="--release-holds", examples=[False])
    allow: dict[str, int] = Field({}, description="--allow", examples=[{"removals": 11}])


class Summary(_Part):
    """Totals."""

    create: int = Field(0, description="Objects that are created.", examples=[1])
    update: int = Field(0, description="Objects that are changed.", examples=[1])
    delete: int = Field(0, description="Objects that are removed.", examples=[1])
    keep: int = Field(0, description="Objects that are kept or held.", examples=[1])
    drift: int = Field(0, description="Fields that were changed outside.", examples=[0])
    no_op: int = Field(0, description="Objects that are as they shall be.", examples=[20682])
    unmanaged: int = Field(0, description="Objects of sections that the inventory does not have.", examples=[0])
    releases: int = Field(0, description="Holds that are lifted.", examples=[0])
    ends_meetings: int = Field(0, description="Meetings that are ended.", examples=[0])


class PlanDocument(_Part):
    """A plan of scalelite: what `apply` does, as a superset of Terraform's `show -json`."""

    format_version: Literal["1.0"] = Field("1.0", description="Of this document.", examples=["1.0"])
    terraform_version: str = Field(TERRAFORM_VERSION, description="Whose shape it has.", examples=["1.9.0"])
    scalelite_version: str = Field(description="What made it.", examples=["0.1.0"])
    plan_id: str = Field(description="Of this plan alone.", examples=["9a870f45-ec23-4d29-828b-4673f3536d7b"])
    digest: str = Field("", description="Keyed digest of all the rest.", examples=["hmac-sha256:ab12"])
    created_at: str = Field(description="When it was made.", examples=["2026-11-24T09:00:00+00:00"])
    expires_at: str = Field(description="Until when it can be applied.", examples=["2026-11-25T09:00:00+00:00"])
    applyable: bool = Field(description="false: a guard stops it.", examples=[True])
    target: Target = Field(description="The cluster.", examples=[{"cluster": "prod-eu"}])
    inventory: InventoryRef = Field(description="What it was made of.", examples=[{"files": []}])
    scope: ScopeRef = Field(description="The options it was made with.", examples=[{"mode": "cordon"}])
    summary: Summary = Field(description="Totals.", examples=[{"create": 1}])
    resource_changes: list[ResourceChange] = Field(description="All changes, in their order.", examples=[[]])
    resource_drift: list[Drift] = Field([], description="What was changed outside.", examples=[[]])
    kept: list[Kept] = Field([], description="What is kept, and why.", examples=[[]])
    releases: list[Kept] = Field([], description="Holds that are lifted.", examples=[[]])
    guards: list[GuardResult] = Field([], description="How the guards came out.", examples=[[]])
    diagnostics: list[Diagnostic] = Field([], description="Warnings.", examples=[[]])


def plan_schema() -> dict[str, Any]:
    """Return the published JSON Schema (draft-07) of plan documents."""
    schema = PlanDocument.model_json_schema(ref_template="#/definitions/{model}", mode="serialization")
    text = json.dumps({"$schema": SCHEMA_URL, "$id": "plan.schema.json", **schema})
    document: dict[str, Any] = json.loads(text.replace('"$defs"', '"definitions"'))
    return document


# --- fingerprints ----------------------------------------------------------------------------------------------------


def _revealed(value: object) -> Any:
    """Return a value as JSON has it with its secrets in clear: for fingerprints only."""
    match value:
        case Secret():
            return value.reveal()
        case BaseModel():
            return {name: _revealed(item) for name, item in value}
        case dict():
            return {name: _revealed(item) for name, item in value.items()}
        case tuple() | list():
            return [_revealed(item) for item in value]
        case UUID():
            return str(value)
    return value


def fingerprint(value: object, key: bytes) -> str:
    """Return the keyed fingerprint of a value; equal for equal values, and telling nothing without the key."""
    text = json.dumps(_revealed(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def digest(document: PlanDocument, key: bytes) -> str:
    """Return the keyed digest of a document without its own."""
    return "hmac-sha256:" + fingerprint(document.model_dump(mode="json", exclude={"digest"}), key)


def same_digest(document: PlanDocument, key: bytes) -> bool:
    """Say whether nobody has changed the document since it was made."""
    return hmac.compare_digest(document.digest, digest(document, key))


# --- plan to document ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Context:
    """What a document needs besides the plan: the cluster's key, places of fields, the rows' revisions."""

    key: bytes
    places: Mapping[tuple[Key, str], Place]
    revisions: Mapping[Key, int]


def resource_changes(plan: Plan, context: Context) -> list[ResourceChange]:
    """Return the changes of a plan as the document has them."""
    ending = {item.key for item in plan.endings}
    return [_resource_change(change, plan, context, ends=change.key in ending) for change in plan.changes]


def summary(plan: Plan, drift: int = 0) -> Summary:
    """Return the totals of a plan."""
    return Summary(
        create=plan.count(Create),
        update=plan.count(Update),
        delete=plan.count(Remove),
        keep=len(plan.keeps),
        drift=drift,
        no_op=sum(plan.unchanged.values()),
        unmanaged=len(plan.unmanaged),
        releases=len(plan.releases),
        ends_meetings=sum(item.meetings for item in plan.endings),
    )


def guard_results(guards: Sequence[Guard]) -> list[GuardResult]:
    """Return the guards as the document has them."""
    return [GuardResult(**{name: getattr(guard, name) for name in GuardResult.model_fields}) for guard in guards]


def _resource_change(change: Change, plan: Plan, context: Context, *, ends: bool) -> ResourceChange:
    before = None if isinstance(change, Create) else change.before
    after = None if isinstance(change, Remove) else change.after
    place = None if isinstance(change, Remove) else change.place
    action: Action = "create" if before is None else "delete" if after is None else "update"
    fields = [_field(change, name, context) for name in change.fields] if isinstance(change, Update) else []
    return ResourceChange(
        address=change.key.address,
        type=str(change.key.kind),
        name=change.key.param or change.key.name,
        source=_source(place),
        from_rev=context.revisions.get(change.key, 0),
        before_hash=None if before is None else fingerprint(before, context.key),
        after_hash=None if after is None else fingerprint(after, context.key),
        action_reason=None if isinstance(change, Create) else change.reason or None,
        change=ChangeBody(
            actions=[action],
            before=as_json(before),
            after=as_json(after),
            before_sensitive=_sensitive(before),
            after_sensitive=_sensitive(after),
            fields=fields,
        ),
        impact=_impact(change, plan, ends=ends),
    )


def _field(change: Update, name: str, context: Context) -> FieldChange:
    before, after = getattr(change.before, name), getattr(change.after, name)
    secret = has_secret(before) or has_secret(after)
    return FieldChange(
        path=name,
        before=as_json(before),
        after=as_json(after),
        sensitive=secret,
        before_hmac=fingerprint(before, context.key) if secret else None,
        after_hmac=fingerprint(after, context.key) if secret else None,
        source=_source(context.places.get((change.key, name))),
    )


def _source(place: Place | None) -> Source | None:
    return Source(file=place.file, line=place.line, column=place.column) if place else None


def _sensitive(spec: AnySpec | None) -> dict[str, bool]:
    return {} if spec is None else {name: True for name, item in spec if has_secret(item)}


def _impact(change: Change, plan: Plan, *, ends: bool) -> Impact:
    of, facts = owner(change.key), plan.facts
    return Impact(
        meetings=facts.meetings_of(of),
        recordings=facts.recordings_of(change.key),
        users=facts.server_users.get(of.name, 0) if of.kind is Kind.SERVER else 0,
        ends_meetings=ends,
    )
