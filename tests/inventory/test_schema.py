"""The published schema says what the loader holds to: texts for editors, and the same mistakes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from scalelite.errors import InventoryInvalid
from scalelite.inventory.load import load_inventory
from scalelite.inventory.parse import parse
from scalelite.inventory.problems import Problem
from scalelite.inventory.schema import inventory_schema
from scalelite.inventory.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CASES = Path(__file__).parents[1] / "cases" / "schema" / "mistakes.yaml"
MISTAKES = [(case["code"], case["inventory"]) for case in YAML(typ="safe", pure=True).load(CASES)]
SCHEMA = inventory_schema()
VALIDATOR = Draft7Validator(SCHEMA)


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for owner, part in [("", schema), *schema["definitions"].items()]:
        yield from ((f"{owner}.{name}", field) for name, field in part.get("properties", {}).items())


def unexpected(code: str, path: object, message: str, mark: object, **how: object) -> None:
    pytest.fail(f"{code}: {message}")


def tree(text: str) -> Any:
    return json.loads(json.dumps(parse(Source("inv.yml", text.encode(), text), unexpected)))


@pytest.mark.shows("inventory: schema", "issue B: schemas")
def test_the_schema_is_one_of_draft_07() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"


@pytest.mark.shows("inventory: schema", "issue B: every field with a description and an example")
def test_every_field_has_a_description_and_examples_that_pass() -> None:
    found = dict(fields(SCHEMA))
    assert len(found) > 60
    for name, field in found.items():
        assert field["description"].strip(), name
        assert field["examples"], name
        here = Draft7Validator({**field, "definitions": SCHEMA["definitions"]})
        assert [error.message for example in field["examples"] for error in here.iter_errors(example)] == [], name
    assert all(part["description"].strip() for part in SCHEMA["definitions"].values())


@pytest.mark.shows("issue B: a mistake that the schema can express is found by both")
@pytest.mark.parametrize(("code", "text"), MISTAKES)
def test_a_mistake_is_found_by_both(code: str, text: str) -> None:
    with pytest.raises(InventoryInvalid) as caught:
        load_inventory(["-"], environment={}, stdin=io.BytesIO(text.encode()))
    assert code in {problem.code for problem in caught.value.problems if isinstance(problem, Problem)}
    assert not VALIDATOR.is_valid(tree(text))


@pytest.mark.shows("inventory: schema")
@pytest.mark.parametrize("value", ["{{ x }}", "{% if x %}1{% endif %}"])
@pytest.mark.parametrize(
    "path", ["servers.a.load_multiplier", "servers.a.enabled", "tenants.t.id", "cluster.load.min_user_count"]
)
def test_a_template_passes_the_schema_wherever_a_scalar_does(path: str, value: str) -> None:
    document: Any = value
    for part in reversed(path.split(".")):
        document = {part: document}
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []


@pytest.mark.shows("inventory: schema")
@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "inventories").rglob("*.yml")), ids=lambda path: path.name
)
def test_the_shipped_inventories_pass_the_schema(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(tree(path.read_text()))] == []


LRS = {"endpoint": "https://lrs/", "basic": {"username": "u", "password": "p"}}
# An entry of each kind in the smallest inventory that has one.
PLACES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "ServerEntry": lambda entry: {"servers": {"a": {"secret": "s", **entry}}},
    "TenantEntry": lambda entry: {"tenants": {"t": {"secrets": "s", **entry}}},
    "SettingEntry": lambda entry: {"tenants": {"t": {"secrets": "s", "settings": {"p": {"value": "x", **entry}}}}},
    "LrsEntry": lambda entry: {
        "tenants": {
            "t": {
                "secrets": "s",
                "lrs": {"endpoint": "https://l/", "basic": {"username": "u", "password": "p"}, **entry},
            }
        }
    },
    "Limits": lambda entry: {"tenants": {"t": {"secrets": "s", "limits": entry}}},
    "Retention": lambda entry: {"tenants": {"t": {"secrets": "s", "recordings": entry}}},
    "ClusterEntry": lambda entry: {"cluster": entry},
    "LoadSpec": lambda entry: {"cluster": {"load": entry}},
    "HealthSpec": lambda entry: {"cluster": {"health": entry}},
    "SizeHint": lambda entry: {"cluster": {"size_hint": entry}},
    "CallParamsEntry": lambda entry: {"cluster": {"create": entry}},
    "Safety": lambda entry: {"cluster": {}, "safety": entry},
    "GroupEntry": lambda entry: {"servers": {"a": {"secret": "s"}}, "groups": {"g": entry}},
}
VALUES: list[Any] = [
    None, True, 0, 1, 5, -1, 0.5, 1.5, 3_000_000_000, "", "a", "yes", "012", "a b", "ü", "a:b", "x.y", "A.b", "-a",
    "a\tb", "enabled", "cordoned", "SHA1", "sha1", "30%", "100.0%", "101%", "start", "create", "{{ 'a' }}", "x" * 300,
    "https://h/api", "HTTPS://H:443/api/", "https://h:1/x/api", "ftp://h/api", "https://u@h/api", "https://h/x",
    "9a870f45-ec23-4d29-828b-4673f3536d7b", "9A870F45-EC23-4D29-828B-4673F3536D7B", [], ["a"], ["create"], ["a", ""],
    [5], {}, {"a": "b"}, {"meetingID": "b"}, {"a": 1, "b": True}, {"value": 1}, {"record": {"value": 1, "calls": []}},
]  # fmt: skip
# What no schema of one file can know: of what other files say, who else there is, and which type a template gives.
BEYOND = {"SL115", "SL123", "SL142"}


@pytest.mark.shows("inventory: schema", "issue B: a mistake that the schema can express is found by both")
@pytest.mark.parametrize("entry", PLACES)
def test_loader_and_schema_take_the_same_values(entry: str) -> None:
    observed = {"load", "online", "bbb_version"} if entry == "ServerEntry" else set()  # ignored, whatever they are
    for name in SCHEMA["definitions"][entry]["properties"].keys() - observed:
        for value in VALUES:
            document = PLACES[entry]({name: value})
            codes: set[str] = set()
            try:
                load_inventory(["-"], environment={}, stdin=io.BytesIO(json.dumps(document).encode()))
            except InventoryInvalid as error:
                codes = {problem.code for problem in error.problems if isinstance(problem, Problem)}
            if value == "{{ 'a' }}" or (codes and codes <= BEYOND):
                continue
            assert VALIDATOR.is_valid(document) == (not codes), (document, codes)
