"""`scalelite tenants` and `tenant-settings`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plan.conftest import Here


@pytest.fixture
def acme(here: Here) -> Here:
    here.environ("ACME_SECRETS", "first-secret:second-secret")
    here("tenants", "add", "acme", "env:ACME_SECRETS")
    return here


@pytest.mark.shows("cli: tenants", "cli: masks secrets")
def test_tenants_are_added_listed_renamed_and_removed(acme: Here) -> None:
    [tenant] = acme("tenants", "list", "--format", "json").json
    assert tenant["secrets"] == ["********", "********"]
    assert "secret" not in acme("tenants").out.replace("SECRETS", "").lower()
    [shown] = acme("tenants", "list", "--show-secrets", "--format", "json").json
    assert shown["secrets"] == ["first-secret", "second-secret"]
    acme("tenants", "update", tenant["id"][:8], "--name", "apex")
    assert [one["name"] for one in acme("tenants", "list", "--format", "json").json] == ["apex"]
    acme("tenants", "update", "apex", status=64)
    assert "already" in acme("tenants", "add", "apex", "env:ACME_SECRETS", status=1).err
    acme("tenants", "remove", "apex")
    assert acme("tenants", "list", "--format", "json").json == []


@pytest.mark.shows("cli: update-lrs-basic, update-lrs-kc, remove-lrs")
def test_one_way_to_the_lrs_clears_the_other(acme: Here) -> None:
    lrs = "https://lrs.example.com/data/"
    acme.environ("LRS_SECRET", "hidden")
    acme("tenants", "update-lrs-basic", "acme", lrs, "user", "env:LRS_SECRET")
    [tenant] = acme("tenants", "list", "--format", "json").json
    assert tenant["lrs"]["basic"] == {"username": "user", "password": "********"}
    token = "https://kc.example.com/token"
    acme("tenants", "update-lrs-kc", "acme", lrs, token, "bbb", "env:LRS_SECRET", "user", "env:LRS_SECRET")
    [tenant] = acme("tenants", "list", "--format", "json", "--show-secrets").json
    assert "basic" not in tenant["lrs"]
    assert tenant["lrs"]["oidc"]["client_secret"] == "hidden"
    acme("tenants", "remove-lrs", "acme")
    assert acme("tenants", "list", "--format", "json").json[0]["lrs"] is None
    acme("tenants", "remove-lrs", "acme", status=1)


@pytest.mark.shows("cli: tenant-settings")
def test_settings_are_put_listed_and_removed(acme: Here) -> None:
    acme("tenant-settings", "add", "acme", "record", "true")
    acme("tenant-settings", "add", "acme", "record", "false", "--override")
    acme("tenant-settings", "add", "acme", "welcome", "Hello")
    listed = acme("tenant-settings", "list", "--tenant", "ac", "--format", "json").json
    assert [(one["param"], one["value"], one["override"]) for one in listed] == [
        ("record", "false", True), ("welcome", "Hello", False),
    ]  # fmt: skip
    assert "WELCOME" not in acme("tenant-settings").out
    acme("tenant-settings", "remove", listed[0]["id"][:13])
    acme("tenant-settings", "remove", "acme/welcome")
    assert acme("tenant-settings", "list", "--format", "json").json == []
    acme("tenant-settings", "remove", "nope", status=1)
