"""Which times a schedule has, which is due, and which were missed."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.schedules.cron import Cron, check_expression
from export_worker.schedules.firings import MISSED_MAX, Due, Schedule, due

BERLIN, SHANGHAI = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Shanghai")
ZONES = ("Europe/Berlin", "Asia/Shanghai", "America/New_York", "Africa/Cairo", "UTC")
EXPRESSIONS = (
    "30 2 * * *",
    "0 0 * * *",
    "*/20 * * * *",
    "15 */2 * * *",
    "0 6 * * mon-fri",
    "0,30 1-3 * * *",
    "5 0 1 * *",
)


def times(expression: str, zone: ZoneInfo, start: str, count: int) -> list[str]:
    found = islice(Cron(expression, zone).after(datetime.fromisoformat(start)), count)
    return [time.isoformat(timespec="minutes").removesuffix("+00:00") for time in found]


def schedule(expression: str = "0 * * * *", *, jitter_s: float = 0, catch_up_s: float = 3600) -> Schedule:
    return Schedule("nightly", Cron(expression, ZoneInfo("UTC")), jitter_s, catch_up_s)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-12-01T{text}+00:00")


def test_times_are_those_of_the_zone() -> None:
    assert times("0 6 * * *", SHANGHAI, "2026-03-27T12:00+00:00", 3) == [
        "2026-03-27T22:00",
        "2026-03-28T22:00",
        "2026-03-29T22:00",
    ]
    assert times("0 6 * * *", BERLIN, "2026-03-27T12:00+00:00", 3) == [
        "2026-03-28T05:00",
        "2026-03-29T04:00",  # summer time has begun
        "2026-03-30T04:00",
    ]


def test_fixed_time_in_skipped_hour_fires_once_after_the_gap() -> None:
    found = times("30 2 * * *", BERLIN, "2026-03-28T12:00+00:00", 2)
    assert found == ["2026-03-29T01:00", "2026-03-30T00:30"]


@pytest.mark.parametrize("start", ["2026-10-24T12:00", "2026-10-25T00:29"])
def test_fixed_time_in_repeated_hour_fires_once(start: str) -> None:
    assert times("30 2 * * *", BERLIN, f"{start}+00:00", 2) == ["2026-10-25T00:30", "2026-10-26T01:30"]


def test_restart_within_repeated_hour_does_not_fire_again() -> None:
    # 02:10 for the second time.
    assert times("30 2 * * *", BERLIN, "2026-10-25T01:10+00:00", 1) == ["2026-10-26T01:30"]


def test_interval_follows_the_time_that_passes() -> None:
    found = times("*/30 * * * *", BERLIN, "2026-10-25T00:00+00:00", 4)
    assert found == ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"]


@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001 - the zone follows
    st.floats(0, 0.99),
)
def test_workers_that_start_at_different_moments_find_the_same_times(
    expression: str, zone: str, start: datetime, share: float
) -> None:
    cron = Cron(expression, ZoneInfo(zone))
    first, second = islice(cron.after(start.replace(tzinfo=UTC)), 2)
    assert start.replace(tzinfo=UTC) < first < second
    assert cron.next_after(first + (second - first) * share) == second


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("99 * * * *", "the field minute is wrong: 99"),
        ("0 24 * * *", "the field hour is wrong: 24"),
        ("0 6 L/x * *", "the field day-of-month is wrong: L/x"),
        ("0 6 * foo *", "the field month is wrong: foo"),
        ("0 6 * * 8", "the field day-of-week is wrong: 8"),
        ("0 6 * * 1#2/3", "the field day-of-week is wrong"),
        ("*/0 * * * *", "the field minute is wrong"),
        ("0 6 30 2 *", "no date matches"),
        ("@daily", "must have 5 fields"),
        ("0 0 6 * * *", "not 6"),
        ("", "not 0"),
        ("0," * 200 + "0 6 * * *", "at most 200 characters"),
    ],
)
def test_wrong_expression_is_refused_with_its_field(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_expression(expression)


def test_time_is_due_once_it_has_come() -> None:
    assert due(schedule(), at("05:00"), at("05:59:59")) is None
    assert due(schedule(), at("05:00"), at("06:00")) == Due(at("06:00"), fires=True)


def test_only_the_newest_missed_time_is_fired() -> None:
    assert due(schedule(), at("02:00"), at("05:30")) == Due(at("05:00"), fires=True, missed=(at("03:00"), at("04:00")))


def test_time_that_is_missed_for_longer_is_not_fired() -> None:
    assert due(schedule("0 6 * * *"), at("05:00"), at("07:00")) == Due(at("06:00"), fires=True)
    assert due(schedule("0 6 * * *"), at("05:00"), at("07:00:01")) == Due(at("06:00"), fires=False)


def test_long_outage_of_frequent_schedule_is_bounded() -> None:
    now = at("06:00")
    found = due(schedule("* * * * *"), now - timedelta(days=400), now)
    assert found is not None
    assert (found.time, found.fires, len(found.missed)) == (now, True, 59)
    rare = due(schedule("* * * * *", catch_up_s=86400), now - timedelta(days=400), now)
    assert rare is not None
    assert (rare.time, rare.fires, len(rare.missed)) == (now, True, MISSED_MAX)


def test_jitter_is_the_same_everywhere_and_ends_before_the_next_time() -> None:
    delays = {schedule("* * * * *", jitter_s=600).due_at(at(f"05:{minute:02}")) for minute in range(60)}
    assert len(delays) == 60
    assert all(at("05:00") <= each < at("06:00") for each in delays)
    assert sorted(delays) == [schedule("* * * * *", jitter_s=600).due_at(at(f"05:{minute:02}")) for minute in range(60)]
    assert len({each.second for each in delays}) > 20


def test_time_with_jitter_is_due_after_its_delay() -> None:
    late = schedule(jitter_s=600)
    due_at = late.due_at(at("06:00"))
    assert at("06:00") < due_at
    assert due(late, at("05:00"), due_at - timedelta(seconds=1)) is None
    assert due(late, at("05:00"), due_at) == Due(at("06:00"), fires=True)
