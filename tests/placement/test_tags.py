"""Which servers a create's tag allows; the rules are data, one more case is one more line of tests/cases/balance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from scalelite.core.balance import TagRule, eligible, no_server

GROUPS = YAML(typ="safe").load(Path(__file__).parents[1] / "cases" / "balance" / "tags.yaml")


@pytest.mark.shows("LB-12", "bbb-api: create 3")
@pytest.mark.parametrize(
    ("servers", "case"),
    [
        pytest.param(group["servers"], case, id=f"{'+'.join(group['servers']) or 'no servers'}-{case['wanted']!r}")
        for group in GROUPS
        for case in group["cases"]
    ],
)
def test_a_tag_allows_its_servers_or_falls_back_or_is_refused(servers: dict[str, str], case: dict[str, Any]) -> None:
    takers: dict[str, list[str]] = {}
    for server, tag in servers.items():
        takers.setdefault(tag, []).append(server)
    rule = TagRule.parse(case["wanted"])
    found = sorted(eligible(takers, rule))
    assert (found or no_server(rule).message_key) == case["found"]
