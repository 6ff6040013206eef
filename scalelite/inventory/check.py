"""A rendered tree to specs, or every problem of it; the rules themselves are those of the specs in core."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from scalelite.core.model import (
    SENTINEL_TENANT,
    AnySpec,
    ClusterSpec,
    Key,
    Kind,
    LrsSpec,
    ServerSpec,
    SettingSpec,
    TenantSpec,
    url_key,
)
from scalelite.inventory.entries import (
    ClusterEntry,
    GroupEntry,
    LrsEntry,
    Safety,
    ServerEntry,
    SettingEntry,
    TenantEntry,
)
from scalelite.inventory.groups import ALL, UNGROUPED, read_groups
from scalelite.inventory.merge import copied
from scalelite.inventory.places import Places, flat
from scalelite.inventory.render import Scope, is_template
from scalelite.inventory.rules import OBSERVED, Owner, Rules, Taken, Where
from scalelite.inventory.tree import BROKEN, NOTHING, Map, Seq

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalelite.inventory.groups import Groups
    from scalelite.inventory.problems import Path, Report
    from scalelite.inventory.render import Renderer
    from scalelite.inventory.source import Mark

_STATES: Final = ("enabled", "cordoned", "disabled")
_GROUP: Final = re.compile(r"[A-Za-z0-9_.-]+")


class Checker:
    """Checks one tree; what is right goes to `objects` and `places`, what is wrong is reported."""

    def __init__(self, renderer: Renderer, variables: Map, report: Report) -> None:
        self._renderer = renderer
        self._report = report
        self._rules = Rules(report)
        self._variables = Scope(renderer, ("vars",), NOTHING, variables, called="vars")
        self._rules.scopes = (self._variables,)
        self._names: dict[str, Any] = {"vars": self._variables}
        self._common = NOTHING
        self.objects: dict[Key, AnySpec] = {}
        self.places = Places()
        self.safety = Safety()
        self.safety_places: dict[str, str] = {}
        self._urls = Taken("SL120", "url")
        self._ids = Taken("SL122", "id")
        self._hosts = Taken("SL123", "host")

    # --- sections -------------------------------------------------------------------------------------------------

    def variables(self) -> None:
        """Check the section `vars`."""
        self._variables.render_all()

    def groups(self, tree: Map, paths: dict[Mark, Path]) -> Groups:
        """Check the section `groups`, and join it with the variables of groups and hosts."""
        entries: dict[str, GroupEntry] = {}
        for name, written in tree.get("groups", NOTHING).items():
            mark, path = tree["groups"].marks[name], ("groups", name)
            if self._rules.is_map(written, path, mark) and self._is_group_name(name, written, path, mark):
                members = copied(written)
                variables = {"vars": members.pop("vars")} if "vars" in members else {}
                members = self._renderer.value(members, path, mark, self._names)
                where = Where(path, written, mark)
                entry = self._rules.checked(GroupEntry, GroupEntry, {**members, **variables}, where)
                entries[name] = entry or _members(members)
        groups = read_groups(tree, entries, self._report, paths)
        self._common = groups.common()
        self._names["groups"] = groups.members
        return groups

    def _is_group_name(self, name: str, written: Map, path: Path, mark: Mark) -> bool:
        if not _GROUP.fullmatch(name):
            message = "may have only letters, digits, '_', '.' and '-'. Rename the group."
            self._report("SL118", path, message, mark, at_key=True)
        elif name in {ALL, UNGROUPED} and (other := next((key for key in written if key != "vars"), None)):
            message = f"who is in {name} is never written. Remove this key; only vars may stand here."
            self._report("SL119", (*path, other), message, written.marks[other], at_key=True)
        else:
            return True
        return False

    def servers(self, tree: Map, groups: Groups, ranges: Mapping[str, str]) -> None:
        """Check the section `servers`; of one that a range made, the path is that of the range."""
        for name, entry in tree.items():
            mark, path = tree.marks[name], ("servers", ranges.get(name, name))
            if self._rules.is_map(entry, path, mark):
                keys, free = groups.resolve(name, entry, of_range=name in ranges)
                names = self._enter(keys, free, path, {"id": name}, "server", group_names=groups.of(name))
                self._server(name, self._renderer.value(keys, path, mark, names), mark, path)

    def unused(self, groups: Groups) -> None:
        """Check what is written for groups that no server is in; of templates, whose values nobody knows, the form."""
        for keys in groups.unused():
            tree, path = copied(keys), ("groups", "unused")
            for key, value in keys.items():
                if not isinstance(value, bool | int | float | str) or is_template(value):
                    self._renderer.check(value, (*path, key), keys.marks[key])
                    del tree[key]
            data = {"url": "https://unused/api", "secret": "unused", **tree}
            if "enabled" in tree or "state" in tree:
                self._state(data, tree, path)
            self._rules.checked(ServerSpec, ServerEntry, {**data, "id": "unused"}, Where(path, tree, tree.mark))

    def tenants(self, tree: Map) -> None:
        """Check the section `tenants`."""
        for name, entry in tree.items():
            mark, path = tree.marks[name], ("tenants", name)
            if self._rules.is_map(entry, path, mark):
                names = self._enter(entry, self._common, path, {"name": name}, "tenant")
                self._tenant(name, self._renderer.value(entry, path, mark, names), mark)

    def cluster(self, tree: Map, mark: Mark) -> None:
        """Check the section `cluster`."""
        path = ("cluster",)
        names = self._enter(tree, self._common, path, {})
        tree = self._renderer.value(tree, path, mark, names)
        data: dict[str, Any] = dict(tree)
        for call in ("create", "join"):
            if isinstance(tree.get(call), Map):
                data[call] = {key: self._rules.texts(value, (*path, call, key)) for key, value in tree[call].items()}
        if spec := self._rules.checked(ClusterSpec, ClusterEntry, data, Where(path, tree, mark)):
            self._keep(Key(Kind.CLUSTER), spec, mark, flat(tree))

    def guards(self, tree: Map, mark: Mark) -> None:
        """Check the section `safety`."""
        tree = self._renderer.value(tree, ("safety",), mark, self._names)
        self.safety_places = {name: str(found.place) for name, found in tree.marks.items()}
        self.safety = self._rules.checked(Safety, Safety, dict(tree), Where(("safety",), tree, mark)) or self.safety

    def _enter(
        self, keys: Map, free: Map, path: Path, fixed: Mapping[str, Any], called: str = "own", **more: Any
    ) -> Mapping[str, Any]:
        """Return what the templates of one object may use."""
        scope = Scope(self._renderer, path, keys, free, fixed=fixed, names={**self._names, **more}, called=called)
        self._rules.scopes = scope, self._variables
        return scope.names

    # --- servers --------------------------------------------------------------------------------------------------

    def _server(self, name: str, tree: Map, mark: Mark, path: Path) -> None:
        data = {"url": f"https://{name}/bigbluebutton/api", **tree}
        if "enabled" in tree or "state" in tree:
            self._state(data, tree, path)
        if not OBSERVED.isdisjoint(tree):
            data = {key: value for key, value in data.items() if key not in OBSERVED}
        self._rules.own_name("id", data, tree, path)
        data["id"] = name
        spec = self._rules.checked(ServerSpec, ServerEntry, data, Where(path, tree, mark))
        self._rules.not_empty("secret", tree, path)
        if key := _url_key(spec.url if spec is not None else data["url"]):
            written = "url" in tree
            owner = Owner(name, tree.marks["url"] if written else mark, at_key=not written)
            self._rules.unique(self._urls, key, (*path, "url"), owner)
        if spec is not None:
            self._keep(Key(Kind.SERVER, name), spec, mark, tree.marks)

    def _state(self, data: dict[str, Any], tree: Map, path: Path) -> None:
        """Make one state of `enabled` and `state`."""
        state, enabled = data.pop("state", None), data.pop("enabled", None)
        if "enabled" not in tree:
            if state in _STATES:
                data["state"] = state
            elif state is not BROKEN and state is not None:
                what = f"must be one of {', '.join(_STATES)}"
                self._rules.wrong("SL116", (*path, "state"), what, tree.marks["state"], " Choose one of them.")
            return
        if "state" in tree and OBSERVED.isdisjoint(tree):
            message = "`enabled` beside it says whether the server is enabled, too. Keep one of the two."
            self._report("SL119", (*path, "state"), message, tree.marks["state"], at_key=True)
        if isinstance(enabled, bool):
            data["state"] = "enabled" if enabled else "not enabled"
        elif enabled is not BROKEN and enabled is not None:
            remedy = " Write it without quotes (in a template: | bool)."
            self._rules.wrong("SL114", (*path, "enabled"), "must be true or false", tree.marks["enabled"], remedy)

    # --- tenants --------------------------------------------------------------------------------------------------

    def _tenant(self, name: str, tree: Map, mark: Mark) -> None:
        path = ("tenants", name)
        data = {key: value for key, value in tree.items() if key not in {"settings", "lrs"}}
        for field in ("secrets", "hosts"):
            if isinstance(tree.get(field), Seq):
                data[field] = tuple(tree[field])
        if isinstance(tree.get("secrets"), str):
            data["secrets"] = tuple(tree["secrets"].split(":"))
        self._id(data, tree, path)
        self._secrets(data, tree, path, mark)
        self._rules.own_name("name", data, tree, path)
        data["name"] = name
        spec = self._rules.checked(TenantSpec, TenantEntry, data, Where(path, tree, mark))
        self._unique_tenant(data, tree, path)
        if spec is not None:
            self._keep(Key(Kind.TENANT, name), spec, mark, flat(tree))
        if "settings" in tree and self._rules.is_map(tree["settings"], (*path, "settings"), tree.marks["settings"]):
            self._settings(name, tree["settings"])
        if "lrs" in tree and self._rules.is_map(tree["lrs"], (*path, "lrs"), tree.marks["lrs"]):
            lrs, at = tree["lrs"], tree.marks["lrs"]
            if found := self._rules.checked(LrsSpec, LrsEntry, dict(lrs), Where((*path, "lrs"), lrs, at)):
                self._keep(Key(Kind.LRS, name), found, at, flat(lrs))

    def _id(self, data: dict[str, Any], tree: Map, path: Path) -> None:
        written = tree.get("id")
        if written is None or written is BROKEN:
            return
        try:
            data["id"] = UUID(written) if isinstance(written, str) and len(written) == 36 else SENTINEL_TENANT
        except ValueError:
            data["id"] = SENTINEL_TENANT
        if data["id"] == SENTINEL_TENANT:
            message = "must be a UUID such as 9a870f45-ec23-4d29-828b-4673f3536d7b. Remove it to get one."
            self._report("SL118", (*path, "id"), message, tree.marks["id"])

    def _secrets(self, data: dict[str, Any], tree: Map, path: Path, mark: Mark) -> None:
        found = data.get("secrets")
        where = tree.marks.get("secrets", mark)
        if "secrets" not in tree:
            self._report("SL115", (*path, "secrets"), "is required. Give at least one secret.", where, at_key=True)
        elif found == () or (isinstance(found, tuple) and "" in found):
            self._report("SL115", (*path, "secrets"), "holds no secret, or an empty one. Give each a value.", where)

    def _settings(self, tenant: str, tree: Map) -> None:
        for param, value in tree.items():
            mark, path = tree.marks[param], ("tenants", tenant, "settings", param)
            entry = value if isinstance(value, Map) else _short(value, mark)
            data: dict[str, Any] = dict(entry)
            if "value" in data:
                where = (*path, "value") if entry is value else path
                data["value"] = self._rules.text(data["value"], where, entry.marks["value"])
            broken = data.get("value") is BROKEN
            if broken:
                data["value"] = ""  # so that the rest is checked
            if isinstance(data.get("calls"), Seq):
                data["calls"] = tuple(data["calls"])
            self._rules.own_name("param", data, entry, path)
            data["param"] = param
            tree_of = entry if entry is value else Map(mark)
            spec = self._rules.checked(SettingSpec, SettingEntry, data, Where(path, tree_of, mark))
            if spec is not None and not broken:
                self._keep(Key(Kind.SETTING, tenant, param), spec, mark, entry.marks)

    def _unique_tenant(self, data: dict[str, Any], tree: Map, path: Path) -> None:
        if isinstance(data.get("id"), UUID) and data["id"] != SENTINEL_TENANT:
            mark = tree.marks["id"]
            self._rules.unique(self._ids, data["id"], (*path, "id"), Owner(data["name"], mark, at_key=False))
        hosts = tree.get("hosts")
        if not isinstance(hosts, Seq):
            return
        for at, host in enumerate(hosts):
            if isinstance(host, str):
                mark = hosts.marks[at]
                owner = Owner(data["name"], mark, at_key=False)
                self._rules.unique(self._hosts, host.lower(), (*path, "hosts", at), owner)

    def _keep(self, key: Key, spec: AnySpec, mark: Mark, fields: Mapping[str, Mark]) -> None:
        self.objects[key] = spec
        self.places.put(key, mark, fields)


def _members(written: Mapping[str, Any]) -> GroupEntry:
    """Return whom a group with mistakes names, so that its servers are checked with what it says."""
    named = {key: written[key] for key in ("servers", "children") if isinstance(written.get(key), Seq)}
    return GroupEntry(**{key: names for key, names in named.items() if all(isinstance(name, str) for name in names)})


def _url_key(url: Any) -> str:
    """Return the key that duplicates are found by; nothing for what is no URL (reported)."""
    try:
        return url_key(url)
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""


def _short(value: Any, mark: Mark) -> Map:
    """Return the long form of a setting."""
    entry = Map(mark)
    entry.put("value", value, mark)
    return entry
