"""Rake's command line: tasks with arguments in brackets; knows the old tasks by name, and runs none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

_TASK: Final = re.compile(r"(?P<name>[^\[]+)\[(?P<arguments>.*)\]", re.DOTALL)
_ARGUMENT: Final = re.compile(r"((?:[^\\,]|\\.)*)(,|\Z)", re.DOTALL)


class Called(NamedTuple):
    """A task as it stands on the command line."""

    name: str
    arguments: tuple[str, ...] = ()


def parse_task(text: str) -> Called:
    """Read `name[first,second]`: blanks around arguments do not count, and a backslash takes a comma along."""
    found = _TASK.fullmatch(text)
    if not found:
        return Called(text)
    rest = found["arguments"]
    if not rest:
        return Called(found["name"])
    arguments: list[str] = []
    for argument in _ARGUMENT.finditer(rest):
        arguments.append(re.sub(r"\\(.)", r"\1", argument[1].strip(), flags=re.DOTALL))
        if not argument[2]:
            break
    return Called(found["name"], tuple(arguments))


@dataclass(frozen=True, slots=True)
class Arguments:
    """A task's arguments by name; one that is missing or empty is ''."""

    names: tuple[str, ...]
    values: tuple[str, ...]

    def __getitem__(self, name: str) -> str:
        place = self.names.index(name)
        return self.values[place] if place < len(self.values) else ""

    def given(self, name: str) -> bool:
        """Say whether an argument is there, if only empty."""
        return self.names.index(name) < len(self.values)

    def flag(self, name: str) -> bool:
        """Return an argument that is true unless it is empty or says no."""
        return self[name].lower() not in {"", "false", "no", "n"}

    def listed(self, name: str) -> list[str]:
        """Return what an argument lists, ':' between."""
        return [part for part in self[name].split(":") if part]


class Task(NamedTuple):
    """One of Scalelite's tasks: its arguments, and its line in `rake -T`."""

    arguments: tuple[str, ...]
    line: str


# The lines are those that Scalelite prints.
# fmt: off
TASKS: Final = {
    "liveness": Task((), "livenessProbe"),
    "meetings": Task(("meeting_ids",), "List all/specific meetings running in BigBlueButton servers"),
    "meetings:end": Task(("meeting_ids",), "End all/specific meetings running in BigBlueButton servers"),
    "meetings:info": Task(("meeting_id",), "Get meeting details running in BigBlueButton servers"),
    "meetings:list": Task(("meeting_ids",), "List all/specific meetings running in BigBlueButton servers"),
    "poll": Task(("interval",), "Run a polling process to continually monitor servers and meetings"),
    "poll:all": Task((), "Run all pollers once"),
    "poll:meetings": Task((), "Check all meetings to clear ended meetings"),
    "poll:servers": Task((), "Check all servers to update their online and load status"),
    "poll:versions": Task((), "Check the BBB version of all servers"),
    "recordings:addToTenant": Task(("tenant_id",), "Associate any existing recordings with a tenant"),
    "recordings:update": Task(
        (), "Search through the recordings and move unpublished recordings to the correct folder"
    ),
    "recordings:watch": Task(
        ("force_polling", "latency"), "Watch for new recordings in the spool directory and import them"
    ),
    "servers": Task((), "List configured BigBlueButton servers"),
    "servers:add": Task(
        ("url", "secret", "load_multiplier", "tag"), "Add a new BigBlueButton server (it will be added disabled)"
    ),
    "servers:addAll": Task(
        ("path",), "Adds multiple BigBlueButton servers defined in a YAML file passed as an argument"
    ),
    "servers:cordon": Task(
        ("id",), "Mark a BigBlueButton server as cordoned to stop scheduling new meetings but consider for"
    ),
    "servers:disable": Task(("id",), "Mark a BigBlueButton server as unavailable to stop scheduling new meetings"),
    "servers:enable": Task(("id",), "Mark a BigBlueButton server as available for scheduling new meetings"),
    "servers:loadMultiplier": Task(("id", "load_multiplier"), "Set the load-multiplier of a BigBlueButton server"),
    "servers:meeting_list": Task(("server_ids",), "List all meetings running in specific BigBlueButton servers"),
    "servers:panic": Task(
        ("id", "keep_state", "skip_end_calls"),
        "Mark a BigBlueButton server as unavailable, and clear all meetings from it",
    ),
    "servers:remove": Task(("id",), "Remove a BigBlueButton server"),
    "servers:sync": Task(("path", "mode", "dryrun"), "Sync cluster state with servers defined in a YAML file"),
    "servers:tag": Task(("id", "tag"), "Set the tag of a BigBlueButton server"),
    "servers:update": Task(("id", "secret", "load_multiplier", "tag"), "Update a BigBlueButton server"),
    "servers:yaml": Task(("verbose",), "Return a yaml compatible with servers:sync"),
    "status": Task((), "List all BigBlueButton servers and all meetings currently running"),
    "tenantSettings": Task((), "List all the TenantSettings for a given tenant"),
    "tenantSettings:add": Task(("tenant_id", "param", "value", "override"), "Add a new TenantSetting"),
    "tenantSettings:remove": Task(("id",), "Remove existing TenantSetting"),
    "tenants": Task((), "List all the Tenants"),
    "tenants:add": Task(("name", "secrets"), "Add a new Tenant"),
    "tenants:remove": Task(("id",), "Remove existing Tenant"),
    "tenants:update": Task(("id", "name", "secrets"), "Update an existing Tenant"),
    "tenants:update_lrs_basic": Task(
        ("id", "lrs_endpoint", "lrs_username", "lrs_password"),
        "Update an existing Tenants LRS credentials with basic authentication",
    ),
    "tenants:update_lrs_kc": Task(
        ("id", "lrs_endpoint", "kc_token_url", "kc_client_id", "kc_client_secret", "kc_username", "kc_password"),
        "Update an existing Tenants LRS credentials with Keycloak",
    ),
}
# fmt: on


def task_list(pattern: str = "") -> str:
    """Return what `rake -T` prints, of the tasks that a regular expression matches."""
    shown = {
        f"rake {name}[{','.join(task.arguments)}]" if task.arguments else f"rake {name}": task.line
        for name, task in sorted(TASKS.items())
    }
    width = max(map(len, shown))
    lines = [f"{call:<{width}}  # {line}\n" for call, line in shown.items() if re.search(pattern, call)]
    return "".join(lines)
