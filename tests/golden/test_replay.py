"""The recorded Scalelite, replayed: what differs is in differences.yaml with its reason, and nothing else differs."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from tests.golden.management import load as load_management
from tests.golden.management import replaying_management
from tests.golden.replay import load, replaying

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.golden.replay import Replay

FILES = ("01-routes", "02-checksum", "03-create", "04-join", "05-meetings", "09-fsapi", "12-tenant-settings")
RULES: list[dict[str, Any]] = YAML(typ="safe").load(Path(__file__).parent / "differences.yaml")


def differs_on_purpose(record: dict[str, Any]) -> bool:
    name = f"{record['id']} {record['case']}"
    return any(
        record["id"] in rule.get("records", ()) or re.fullmatch(rule.get("pattern", "^$"), name) for rule in RULES
    )


@pytest.mark.shows("issue D: golden, HTTP", "CR-13", "PO-15", "SE-5")
@pytest.mark.parametrize("file", FILES)
async def test_answers_and_requests_to_servers_are_as_recorded(database: str, file: str) -> None:
    unexpected: list[str] = []
    for environment, records in itertools.groupby(load(file), key=lambda record: record["situation"].environment):
        async with replaying(database, dict(environment)) as replay:
            unexpected += await unexpected_differences(replay, records)
    assert not unexpected, "\n".join(unexpected)


async def unexpected_differences(replay: Replay, records: Iterable[dict[str, Any]]) -> list[str]:
    """What differs without a rule, and rules for what does not differ."""
    unexpected: list[str] = []
    for record in records:
        differences = await replay.differences(record)
        pattern_only = not any(record["id"] in rule.get("records", ()) for rule in RULES)
        if differences and not differs_on_purpose(record):
            unexpected += [f"{record['id']} {record['case']}: {difference}" for difference in differences]
        if not differences and differs_on_purpose(record) and not pattern_only:
            unexpected.append(f"{record['id']} {record['case']}: is listed in differences.yaml, but does not differ")
    return unexpected


@pytest.mark.shows("issue D: golden, HTTP", "bbb-api: management API")
async def test_the_management_api_answers_as_recorded(database: str) -> None:
    unexpected: list[str] = []
    async with replaying_management(database) as replay:
        for record in load_management():
            rules = [rule for rule in RULES if record["id"] in rule.get("records", ())]
            fields = {name for rule in rules for name in rule.get("fields", ())}
            differences = await replay.differences(record, fields)
            if differences and (not rules or fields):
                unexpected += [f"{record['id']} {record['case']}: {difference}" for difference in differences]
            if not differences and rules and not fields:
                unexpected.append(f"{record['id']} {record['case']}: is listed, but does not differ")
    assert not unexpected, "\n".join(unexpected)


@pytest.mark.shows("issue D: golden, HTTP")
def test_each_difference_has_a_reason() -> None:
    assert all(rule["why"] and (rule.get("records") or rule.get("pattern")) for rule in RULES)
