"""The recorded Scalelite, replayed: what differs is in differences.yaml with its reason, and nothing else differs."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.golden.management import load as load_management
from tests.golden.management import replaying_management
from tests.golden.replay import RECORDS, load, replaying
from tests.golden.rules import RULES, rule_of, unexpected

FILES = ("01-routes", "02-checksum", "03-create", "04-join", "05-meetings", "09-fsapi", "12-tenant-settings")


@pytest.mark.shows("issue D: golden, HTTP", "CR-13", "PO-15", "SE-5")
@pytest.mark.parametrize("file", FILES)
async def test_answers_and_requests_to_servers_are_as_recorded(database: str, file: str) -> None:
    problems: list[str] = []
    for environment, records in itertools.groupby(load(file), key=lambda record: record["situation"].environment):
        async with replaying(database, dict(environment)) as replay:
            for record in records:
                problems += unexpected(record, await replay.differences(record))
    assert not problems, "\n".join(problems)


@pytest.mark.shows("issue D: golden, HTTP", "bbb-api: management API")
async def test_the_management_api_answers_as_recorded(database: str) -> None:
    problems: list[str] = []
    async with replaying_management(database) as replay:
        for record in load_management():
            problems += unexpected(record, await replay.differences(record, rule_of(record).get("fields", {})))
    assert not problems, "\n".join(problems)


@pytest.mark.shows("issue D: golden, HTTP")
def test_each_difference_has_a_reason_and_a_record() -> None:
    texts = [path.read_text() for path in RECORDS.glob("*.jsonl")]
    known = {json.loads(line)["id"] for text in texts for line in text.splitlines()}
    for rule in RULES:
        assert rule["why"]
        assert rule.get("ours") or rule.get("fields"), rule["why"]
        assert set(rule.get("records", ())) <= known
        assert rule.get("records") or rule.get("pattern")
