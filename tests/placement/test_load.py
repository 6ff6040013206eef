"""The load formula, as pure values: one for polls and reservations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalelite.core.balance import Counted, Load, SeenMeeting, reservation
from scalelite.core.model import LoadWeights, SizeHint

NOW_MS = 1_790_000_000_000
OLD_MS = NOW_MS - 3_600_000
LOAD = Load(LoadWeights())
WEIGHTED = Load(LoadWeights(user=1, voice=0.5, video=2, meeting=5), min_user_count=10)


def load_of(load: Load, *meetings: SeenMeeting) -> float:
    return Counted.of(load, meetings, NOW_MS).load(load.weights)


@pytest.mark.shows("LB-3")
@given(
    st.builds(LoadWeights, **dict.fromkeys(LoadWeights.model_fields, st.floats(0, 100))),
    st.integers(0, 300),
    st.integers(0, 500),
)
def test_a_reservation_is_what_the_formula_gives_at_age_0(weights: LoadWeights, minimum: int, expected: int) -> None:
    load = Load(weights, minimum)
    assert reservation(load, expected) == load_of(load, SeenMeeting("m", NOW_MS, users=expected))


@pytest.mark.shows("LB-5")
@given(st.integers(1_000_000_000, 4_000_000_000), st.integers(0, 86_400 * 30))
def test_the_age_is_right_whether_a_server_tells_milliseconds_or_seconds(created_s: int, age_s: int) -> None:
    now_ms = (created_s + age_s) * 1000
    assert abs(SeenMeeting("m", created_s * 1000).age_s(now_ms) - age_s) <= 1
    assert abs(SeenMeeting("m", created_s).age_s(now_ms) - age_s) <= 1


@pytest.mark.shows("LB-7")
def test_a_moderator_counts_once() -> None:
    assert load_of(LOAD, SeenMeeting("m", OLD_MS, users=1)) == 1


@pytest.mark.shows("LB-8")
def test_weights_add_up() -> None:
    meeting = SeenMeeting("m", OLD_MS, users=4, voice=3, videos=2)
    assert load_of(WEIGHTED, meeting, SeenMeeting("n", OLD_MS)) == (5 + 4 + 1.5 + 4) + 5
    assert load_of(WEIGHTED, SeenMeeting("young", NOW_MS, users=4)) == 5 + 10


@pytest.mark.shows("LB-9")
def test_breakout_rooms_count_their_users_and_no_minimum() -> None:
    assert load_of(LOAD, SeenMeeting("m", NOW_MS, users=3, breakout=True)) == 3
    assert reservation(LOAD, breakout=True) == 0


@pytest.mark.shows("LB-10")
@pytest.mark.parametrize(
    ("hint", "users"), [("40", 40), ("9999999999999999999", 200), ("many", 0), ("-3", 0), ("1.5", 0), ("", 0), ("٣", 0)]
)
def test_a_size_hint_only_raises_the_reservation_up_to_its_cap(hint: str, users: int) -> None:
    believed = SizeHint().users({"meta_size-hint": hint})
    assert believed == users
    assert reservation(LOAD, believed) == max(15, users)


@pytest.mark.shows("operations: the clock stepping")
def test_a_server_whose_clock_is_ahead_has_young_meetings() -> None:
    assert load_of(LOAD, SeenMeeting("m", NOW_MS + 86_400_000)) == 15
