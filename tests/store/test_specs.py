"""Specs that are made the short way, of rows and of usual urls, are those that the long way makes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from scalelite.core.model import (
    Declared,
    Key,
    Kind,
    Limits,
    Retention,
    Secret,
    ServerSpec,
    SettingSpec,
    TenantSpec,
    url_key,
)
from scalelite.core.plan import diff
from scalelite.store import db, specs
from scalelite.store.specs import Author

if TYPE_CHECKING:
    from scalelite.store.db import Connection


SPECS = (
    ServerSpec(id="a", url="https://a/api", secret=Secret("s"), previous_secret=Secret("p"), tag="gpu", max_users=5),
    ServerSpec(id="b", url="https://b/api", secret=Secret("s"), state="cordoned", checksum_algorithm="SHA512"),
    TenantSpec(
        id=uuid.UUID(int=7, version=4),
        name="acme",
        hosts=("b.example.com", "a.example.com"),
        secrets=(Secret("1"), Secret("2")),
        limits=Limits(max_users=3),
        recordings=Retention(keep_days=9),
        public_url="https://acme.example.com",
    ),
    SettingSpec(param="record", value="true", override=True, calls=("join",)),
)
KEYS = (
    Key(Kind.SERVER, "a"),
    Key(Kind.SERVER, "b"),
    Key(Kind.TENANT, "acme"),
    Key(Kind.SETTING, "acme", "record"),
)


@pytest.mark.shows("architecture: YAML and Postgres load the same specs", "issue C: speed")
async def test_a_spec_of_a_row_is_the_one_that_was_validated(connection: Connection) -> None:
    wanted = Declared(dict(zip(KEYS, SPECS, strict=True)))
    async with db.apply_lock(connection, 5):
        await specs.write(connection, diff(Declared({}), wanted).changes, Author("t"), uuid.uuid4)
    live = (await specs.load_live(connection)).declared.objects
    for key, spec in wanted.objects.items():
        read = live[key]
        assert (read, hash(read)) == (spec, hash(spec))
        assert list(read) == list(spec), "the same fields in the same order"
        assert read.model_dump() == spec.model_dump()
        assert read.model_fields_set == set(type(spec).model_fields)
        changed = read.model_copy(update={next(iter(type(spec).model_fields)): "other"})
        assert changed != read
        with pytest.raises(ValidationError):
            read.protect = True  # type: ignore[union-attr, misc]


@pytest.mark.shows("inventory: duplicate server urls", "issue C: speed")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["bbb1.example.com", "10.0.0.1", "b-1"])
@pytest.mark.parametrize("port", ["", ":80", ":443", ":8443", ":65535"])
@pytest.mark.parametrize("path", ["/api", "/api/", "/bigbluebutton/api", "/a~b/c_d/api/"])
def test_usual_urls_are_taken_apart_as_others_are(scheme: str, host: str, port: str, path: str) -> None:
    url, unusual = f"{scheme}://{host}{port}{path}", f"{scheme.upper()}://{host.upper()}{port}{path}"
    assert url_key(url) == url_key(unusual)
    made, other = (ServerSpec(id="a", url=each, secret=Secret("s")).url for each in (url, unusual))
    assert made.lower() == other.lower() == url.rstrip("/")
