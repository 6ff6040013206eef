"""What was set up before a recorded request, beyond its own `env`: tenants, their settings, tags of servers.

The records say it in their notes and cases only; the program that made them says which (golden/driver/a_misc.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping

TENANTS: Final = {
    "tenant1": (UUID("11111111-1111-4111-8111-111111111111"), ("tenant1-secret",)),
    "tenant2": (UUID("22222222-2222-4222-8222-222222222222"), ("tenant2-secret-a", "tenant2-secret-b")),
}
_MULTI: Final = {"MULTITENANCY_ENABLED": "true"}
_GPU: Final = {"bbb3": "gpu"}
_VALUES: Final = {"override": "forced", "default": "deflt"}
# case → (parameter, value, override) of tenant1's only setting.
_ONE_SETTING: Final = (
    (r"server-tag (default|override) ([^:]+):.*", lambda found: ("meta_server-tag", found[2], found[1] == "override")),
    (r"(override|default) of ([^:]+)(:.*)?", lambda found: (found[2], _VALUES[found[1]], found[1] == "override")),
    (
        r"env server-tag, tenant (default|override) big",
        lambda found: ("meta_server-tag", "big", found[1] == "override"),
    ),
)
_FIRST_AFTER_A_RESET: Final = r"(override|default) of [^:]+|server-tag [^:]+: no tag given"


@dataclass(frozen=True)
class Situation:
    """What is declared beside the servers; `settings` are (parameter, value, override) of tenant1."""

    environment: Mapping[str, str]
    settings: tuple[tuple[str, str, bool], ...] = ()
    tags: Mapping[str, str] | None = None

    @property
    def with_tenants(self) -> bool:
        return "MULTITENANCY_ENABLED" in self.environment


def begins_anew(record: dict[str, Any]) -> bool:
    """Say whether everything was forgotten just before this record."""
    return record["id"].startswith("12-") and re.fullmatch(_FIRST_AFTER_A_RESET, record["case"]) is not None


def situation(record: dict[str, Any], noted: list[dict[str, Any]]) -> Situation:
    """Return what a record was made in; `noted` are the settings that the last note before it told."""
    environment = dict(record.get("env") or {})
    if not record.get("multitenancy"):
        return Situation(environment)
    for pattern, setting in _ONE_SETTING:
        if found := re.fullmatch(pattern, record["case"]):
            tags = {**_GPU, "bbb2": "big"} if "env" in record else _GPU if "server-tag" in record["case"] else {}
            return Situation({**_MULTI, **environment}, (setting(found),), tags)
    if "env server-tag" in record["case"]:
        return Situation({**_MULTI, **environment}, (), {**_GPU, "bbb2": "big"})
    settings = tuple((one["param"], one["value"], one["override"] == "true") for one in noted)
    return Situation({**_MULTI, **environment}, settings, _GPU)
