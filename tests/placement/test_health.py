"""A server's health as a score, and what becomes of meetings that a poll missed; pure."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalelite.core.balance import (
    Condition,
    Thresholds,
    after_poll,
    effective_state,
    poller_suspects_itself,
    verdict_on_missing,
)

# What polls say (`.` good, `x` failed), and the first letter of the health after each; thresholds 2 and 1.
SEQUENCES = {
    ".": "o",
    "x": "u",
    "xx": "uf",
    "x.": "uu",
    "x..": "uuo",
    "xx.": "ufu",
    "xx....": "ufuuuo",
    "xx.x": "ufuf",
    "x.x.x.": "uuuufu",
    "..x..": "oouuo",
}
LETTERS = {"online": "o", "unhealthy": "u", "offline": "f", "unknown": "?"}


def healths(polls: str, thresholds: Thresholds) -> list[Condition]:
    conditions = [Condition()]
    for poll in polls:
        conditions.append(after_poll(conditions[-1], answered=poll == ".", thresholds=thresholds))
    return conditions[1:]


@pytest.mark.shows("PO-7", "operations: health")
@pytest.mark.parametrize(("polls", "expected"), SEQUENCES.items())
def test_failures_weigh_more_than_successes(polls: str, expected: str) -> None:
    assert "".join(LETTERS[condition.health] for condition in healths(polls, Thresholds(2, 1))) == expected


@pytest.mark.shows("PO-7")
def test_a_server_that_flaps_is_never_online_when_it_fails() -> None:
    found = healths("x." * 20, Thresholds(3, 1))
    assert all(condition.health != "online" for condition in found)


@pytest.mark.shows("operations: health")
def test_an_offline_server_needs_good_polls_in_a_row_before_it_begins_to_recover() -> None:
    found = healths("xx..x...", Thresholds(2, 3))
    assert "".join(LETTERS[condition.health] for condition in found) == "uffffffu"


@pytest.mark.shows("PO-7", "operations: health")
@given(st.text(".x", max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_scores_stay_within_bounds_and_say_the_health(polls: str, unhealthy: int, healthy: int) -> None:
    found = healths(polls, Thresholds(unhealthy, healthy))
    for poll, condition in zip(polls, found, strict=True):
        assert 0 <= condition.score <= 2 * unhealthy
        assert (condition.health == "online") == (condition.score == 0)
        assert condition.health != "online" or poll == "."
    if polls.endswith("x" * unhealthy):
        assert found[-1].health == "offline"
    for before, after in pairwise(found):
        assert after.score - before.score in {-1, 0, 1, 2}


@pytest.mark.shows("PO-10")
@given(st.text("x", min_size=1, max_size=9), st.integers(1, 4))
def test_nobody_goes_offline_while_the_poller_suspects_itself(polls: str, unhealthy: int) -> None:
    condition = Condition("online")
    for _ in polls:
        condition = after_poll(condition, answered=False, thresholds=Thresholds(unhealthy), suspect=True)
        assert condition.health == "unhealthy"
    dead = Condition("offline", 2 * unhealthy)
    assert after_poll(dead, answered=False, thresholds=Thresholds(unhealthy), suspect=True).health == "offline"


@pytest.mark.shows("PO-10")
@pytest.mark.parametrize(
    ("polled", "failed", "suspect"),
    [
        (10, 5, True),
        (10, 4, False),
        (3, 2, True),
        (3, 1, False),
        (2, 2, True),
        (2, 1, False),
        (1, 1, False),
        (0, 0, False),
    ],
)
def test_half_of_the_servers_failing_is_the_pollers_own_fault(polled: int, failed: int, suspect: bool) -> None:
    assert poller_suspects_itself(polled, failed, 0.5) == suspect


@pytest.mark.shows("PO-1", "PO-2", "operations: orphaned claims")
@pytest.mark.parametrize(
    ("phase", "missed_before", "age_s", "gone"),
    [
        ("running", 0, 9999, False),
        ("running", 1, 9999, True),
        ("running", 5, 29, False),
        ("creating", 0, 31, False),
        ("creating", 1, 31, True),
        ("creating", 9, 29, False),
        ("ending", 0, 1, True),
    ],
)
def test_a_meeting_goes_when_two_good_polls_missed_it_and_it_is_no_longer_young(
    phase: str, missed_before: int, age_s: float, gone: bool
) -> None:
    verdict = verdict_on_missing(phase, missed_before, age_s)  # type: ignore[arg-type]
    assert (verdict == "remove") == gone


@pytest.mark.shows("data: hold", "operations: a cordoned server that a good poll found empty")
def test_the_stricter_state_counts_and_a_cordoned_server_that_was_emptied_is_disabled() -> None:
    assert effective_state("enabled", "cordoned") == "cordoned"
    assert effective_state("disabled", "cordoned") == "disabled"
    assert effective_state("cordoned", None, drained=True) == "disabled"
    assert effective_state("enabled", "cordoned", drained=True) == "disabled"
    assert effective_state("enabled", None, drained=True) == "enabled"
