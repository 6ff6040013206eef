"""What create passes on, by data files: tests/cases/params/*.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from ruamel.yaml import YAML

from scalelite.core.params import Layers, Placement, for_create, merged

CASES = sorted((Path(__file__).parent.parent / "cases" / "params").glob("*.yaml"))
TENANT = UUID(int=7)


@pytest.mark.shows("TS-1", "TS-2", "CR-1", "bbb-api: create 5", "bbb-api: create 2")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_create_passes_on_what_the_case_says(path: Path) -> None:
    case: dict[str, Any] = YAML(typ="safe").load(path)
    wanted = merged(case["call"], Layers(**case.get("layers", {})), case.get("excluded", ()))
    sent = for_create(
        wanted,
        Placement(case.get("tag", ""), "12345", "drawn-pw", case.get("new", True)),
        tenant=(TENANT, case["tenant"]) if "tenant" in case else None,
        max_duration=case.get("max_duration", 0),
    )
    assert sent == case["sent"]


@pytest.mark.shows("bbb-api: create 3", "TS-1")
def test_the_first_tag_that_is_not_empty_counts() -> None:
    levels = ("tenant_override", "cluster_override", "call", "tenant_default", "cluster_default")
    for place, level in enumerate(levels):
        said = {name: {"meta_server-tag": name if place <= number else ""} for number, name in enumerate(levels)}
        call = said.pop("call")
        assert Layers(**said).tag(call) == level
