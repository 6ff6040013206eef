"""Declared state as calls need it: tenants by host, their parameters, servers; renewed by what changed, never whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from scalelite.core.balance import Load, Thresholds, reservation
from scalelite.core.model import (
    SENTINEL_TENANT,
    CallParams,
    ClusterSpec,
    Key,
    Kind,
    Limits,
    LrsSpec,
    ServerSpec,
    SettingSpec,
    SizeHint,
    TenantSpec,
)
from scalelite.core.params import Layers
from scalelite.errors import ChecksumError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from scalelite.core.model import AnySpec, Call
    from scalelite.settings import Params, Settings
    from scalelite.store.specs import Delta


NO_LIMITS: Final = Limits.model_construct()


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as calls see it: its secrets in clear, and what its create and join calls get.

    `public_url` begins the links that are handed out; '' where nobody has said it.
    """

    id: UUID
    name: str
    secrets: tuple[str, ...]
    create: Layers
    join: Layers
    public_url: str = ""
    lrs: LrsSpec | None = None
    external_voice_bridge: bool = False
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class ClusterView:
    """Settings of the whole cluster: the inventory's where it says so, else the environment's."""

    load: Load
    thresholds: Thresholds
    max_meeting_duration: int
    algorithm: str
    create: CallParams
    join: CallParams
    size_hint: SizeHint

    def reservation(self, wanted: Mapping[str, str]) -> float:
        """Return what a meeting created with these parameters adds to its server's load, before the multiplier."""
        breakout = wanted.get("isBreakout", "").lower() == "true"
        return reservation(self.load, self.size_hint.users(wanted), breakout=breakout)


def cluster_view(spec: ClusterSpec, settings: Settings) -> ClusterView:
    """Merge the cluster's declared settings over the environment's."""
    load, health = spec.load, spec.health
    buffer_minutes = _first(load.join_buffer_minutes, settings.join_buffer_minutes)
    return ClusterView(
        Load(load.weights, _first(load.min_user_count, settings.min_user_count), buffer_minutes * 60.0),
        Thresholds(
            _first(health.unhealthy_threshold, settings.unhealthy_threshold),
            _first(health.healthy_threshold, settings.healthy_threshold),
            health.suspect_fraction,
        ),
        _first(spec.max_meeting_duration, settings.max_meeting_duration),
        spec.checksum_algorithm or settings.upstream_algorithm,
        _params(spec.create, settings.default_create_params, settings.override_create_params),
        _params(spec.join, settings.default_join_params, settings.override_join_params),
        spec.size_hint,
    )


def _first(declared: int | None, environment: int) -> int:
    return environment if declared is None else declared


def _params(declared: CallParams, default: Params, override: Params) -> CallParams:
    return CallParams.model_construct(
        default=declared.default or dict(default), override=declared.override or dict(override)
    )


_OF_TENANTS: Final = frozenset({Kind.TENANT, Kind.SETTING, Kind.LRS})


class DeclaredView:
    """Servers by id and tenants by host; `renew` takes what a revision changed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._specs: dict[str, TenantSpec] = {}
        self._names: dict[UUID | None, str] = {}
        self._params: dict[str, dict[str, SettingSpec]] = {}
        self._lrs: dict[str, LrsSpec] = {}
        self._tenants: dict[str, Tenant] = {}
        self._hosts: dict[str, str] = {}
        public_url = f"https://{settings.url_host}" if settings.url_host else ""
        self._single = Tenant(
            SENTINEL_TENANT,
            "",
            settings.call_secrets,
            Layers(),
            Layers(),
            public_url,
            external_voice_bridge=settings.use_external_voice_bridge,
        )
        self.servers: dict[str, ServerSpec] = {}
        self.cluster = cluster_view(ClusterSpec(), settings)

    def tenant_of(self, host: str) -> Tenant:
        """Return the tenant that a host name (lower case, no port) stands for; raises ChecksumError for none."""
        if not self._settings.multitenancy:
            return self._single
        tenant = self._tenants.get(self._name_of(host))
        if tenant is None:
            raise ChecksumError
        return tenant

    def dialin_tenant(self, host: str) -> UUID | None:
        """Return the tenant whose meetings can be dialled in at this host, None for all; raises ChecksumError."""
        if not self._settings.multitenancy or host == self._settings.url_host:
            return None
        return self.tenant_of(host).id

    def _name_of(self, host: str) -> str:
        """The tenant that declares the host, or the first label under URL_HOST; without one, of any domain."""
        if declared := self._hosts.get(host):
            return declared
        name, _, domain = host.partition(".")
        return name if domain == (self._settings.url_host or domain) else ""

    def serves(self, host: str) -> bool:
        """Say whether calls to this host are answered at all: with URL_HOST set, others must be declared."""
        url_host = self._settings.url_host
        if not url_host or host == url_host or host in self._hosts:
            return True
        return self._settings.multitenancy and host.endswith("." + url_host)

    def renew(self, delta: Delta) -> None:
        """Take over what changed; only the tenants that it touches are built anew."""
        touched = {key.name for key in (*delta.changed, *delta.gone) if key.kind in _OF_TENANTS}
        for spec in delta.changed.values():
            if isinstance(spec, TenantSpec):
                touched |= self._rename(spec)
        for key in delta.gone:
            self._drop(key)
        for key, spec in delta.changed.items():
            if self._put(key, spec):
                touched |= self._specs.keys()
        for name in touched:
            self._build(name)
        self._single = replace(self._single, create=self._layers("create", ()), join=self._layers("join", ()))

    def _rename(self, spec: TenantSpec) -> set[str]:
        """Move a renamed tenant's settings to its new name; returns the names that this touches.

        Its LRS comes anew with it, if it still has one.
        """
        old = self._names.get(spec.id, spec.name)
        if old != spec.name:
            self._lrs.pop(old, None)
            self._params[spec.name] = self._params.pop(old, {}) | self._params.get(spec.name, {})
            self._specs.pop(old, None)
        return {old, spec.name}

    def _drop(self, key: Key) -> None:
        match key.kind:
            case Kind.SERVER:
                self.servers.pop(key.name, None)
            case Kind.TENANT:
                self._specs.pop(key.name, None)
            case Kind.SETTING:
                self._params.get(key.name, {}).pop(key.param, None)
            case Kind.LRS:
                self._lrs.pop(key.name, None)
            case Kind.CLUSTER:
                pass

    def _put(self, key: Key, spec: AnySpec) -> bool:
        """Keep a spec; says whether all tenants must be built anew."""
        match spec:
            case ServerSpec():
                self.servers[spec.id] = spec
            case TenantSpec():
                self._specs[spec.name] = spec
                self._names[spec.id] = spec.name
            case SettingSpec():
                self._params.setdefault(key.name, {})[spec.param] = spec
            case ClusterSpec():
                self.cluster = cluster_view(spec, self._settings)
                return True
            case LrsSpec():
                self._lrs[key.name] = spec
        return False

    def _build(self, name: str) -> None:
        old = self._tenants.pop(name, None)
        self._hosts = {host: owner for host, owner in self._hosts.items() if owner != name} if old else self._hosts
        spec = self._specs.get(name)
        if spec is None:
            self._params.pop(name, None)
            self._lrs.pop(name, None)
        elif spec.enabled and name:
            settings = tuple(self._params.get(name, {}).values())
            secrets = tuple(secret.reveal() for secret in spec.secrets if secret)
            self._tenants[name] = Tenant(
                id=spec.id or SENTINEL_TENANT,
                name=name,
                secrets=secrets,
                create=self._layers("create", settings),
                join=self._layers("join", settings),
                public_url=self._public_url(spec),
                lrs=self._lrs.get(name),
                external_voice_bridge=spec.external_voice_bridge or self._settings.use_external_voice_bridge,
                limits=spec.limits,
            )
            self._hosts.update(dict.fromkeys(spec.hosts, name))

    def _public_url(self, spec: TenantSpec) -> str:
        """The declared address, or the name under URL_HOST, or the first host that is declared."""
        if spec.public_url:
            return spec.public_url.rstrip("/")
        host = f"{spec.name}.{self._settings.url_host}" if self._settings.url_host else next(iter(spec.hosts), "")
        return f"https://{host}" if host else ""

    def _layers(self, call: Call, settings: tuple[SettingSpec, ...]) -> Layers:
        mine = [setting for setting in settings if call in setting.calls]
        cluster = self.cluster.create if call == "create" else self.cluster.join
        return Layers(
            cluster.default,
            {setting.param: setting.value for setting in mine if not setting.override},
            cluster.override,
            {setting.param: setting.value for setting in mine if setting.override},
        )
