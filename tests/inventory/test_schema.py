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
    from collections.abc import Iterator

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
