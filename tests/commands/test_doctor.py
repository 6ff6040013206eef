"""`scalelite doctor`: a line a check, and 1 if one fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalelite.flows import doctor
from scalelite.settings import ignored_settings

if TYPE_CHECKING:
    from scalelite.sim import RunningServer
    from tests.plan.conftest import Here


def verdicts(here: Here, status: int = 0) -> dict[str, tuple[str, str]]:
    found = here("doctor", "--format", "json", status=status).json
    return {one["subject"]: (one["level"], one["text"]) for one in found}


@pytest.mark.shows("cli: doctor")
def test_a_good_installation_has_no_failure(cluster: Here) -> None:
    cluster.environ("URL_HOST", "localhost")
    found = verdicts(cluster)
    assert {level for level, _ in found.values()} == {"ok", "warn"}
    assert found["secrets at rest"][0] == "warn"
    assert found["URL_HOST"] == ("ok", "localhost resolves")
    assert {subject for subject in found if subject.startswith("server ")} == {f"server bbb{n}" for n in (1, 2, 3)}


@pytest.mark.shows("cli: doctor")
def test_each_server_that_is_not_well_is_a_failure_of_its_own(cluster: Here, servers: list[RunningServer]) -> None:
    servers[0].fail("checksum_error")
    servers[1].fail("garbage")
    cluster("servers", "disable", "bbb3")
    servers[2].fail("close")
    cluster.environ("URL_HOST", "nowhere.invalid")
    found = verdicts(cluster, status=1)
    assert found["server bbb1"] == ("fail", "refuses the secret")
    assert found["server bbb2"][0] == "fail"
    assert found["server bbb3"][0] == "warn"
    assert found["URL_HOST"][0] == "fail"


@pytest.mark.shows("cli: doctor")
def test_a_database_that_is_away_or_behind_is_a_failure(here: Here) -> None:
    here.sql("DELETE FROM migration WHERE number = (SELECT max(number) FROM migration)")
    assert verdicts(here, status=1)["migrations"][0] == "fail"
    here.environ("DATABASE_URL", "postgresql://u:hidden@127.0.0.1:1/x")
    away = here("doctor", status=1)
    assert away.out.splitlines()[1].startswith("fail")
    assert "hidden" not in away.out


@pytest.mark.shows("cli: doctor: secrets at rest")
@pytest.mark.parametrize(
    ("used", "known", "level"),
    [
        ({}, (), "ok"),
        ({"clear": 1}, (), "warn"),
        ({"clear": 1}, ("a",), "warn"),
        ({"a": 1}, ("a",), "ok"),
        ({"b": 1}, ("a", "b"), "warn"),
        ({"b": 1}, ("a",), "fail"),
    ],
)
def test_secrets_at_rest(used: dict[str, int], known: tuple[str, ...], level: str) -> None:
    assert doctor.secrets_at_rest(used, known).level == level


@pytest.mark.shows("cli: doctor: stale poller")
@pytest.mark.parametrize(
    ("age_s", "servers", "level"),
    [(None, 0, "ok"), (None, 1, "fail"), (100, 1, "ok"), (200, 1, "fail"), (200, 0, "ok")],
)
def test_a_poller_that_stopped_is_a_failure(age_s: float | None, servers: int, level: str) -> None:
    assert doctor.poller(age_s, 60, servers).level == level


@pytest.mark.shows("settings: accepted and ignored")
def test_old_settings_without_effect_are_listed() -> None:
    environment = dict.fromkeys(
        ("REDIS_URL", "RAILS_ENV", "DB_HOST", "NGINX_SSL", "SCALELITE_TAG", "POLLER_THREADS", "DATABASE_URL",
         "SCALELITE_HOME", "RAILS_LOG_LEVEL", "RAILS_LOG_TO_STDOUT"), "x",
    )  # fmt: skip
    assert ignored_settings(environment) == (
        "DB_HOST", "NGINX_SSL", "POLLER_THREADS", "RAILS_ENV", "REDIS_URL", "SCALELITE_TAG",
    )  # fmt: skip


@pytest.mark.shows("settings: doctor warns where both say something")
def test_what_inventory_and_environment_both_say_is_a_warning(here: Here) -> None:
    here.write("cluster: {load: {min_user_count: 10}}\n")
    here("apply", "inv.yml", "-y")
    here.environ("LOAD_MIN_USER_COUNT", "20")
    assert verdicts(here)["settings"][0] == "warn"
