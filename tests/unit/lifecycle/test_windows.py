"""The windows in which a connection submits: hours over midnight, changes of the clocks, maintenance, and nonsense."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export_worker.contract.model import epoch_ms
from export_worker.lifecycle.windows import Closings, Windows, minutes_of

SHANGHAI, NEW_YORK = "Asia/Shanghai", "America/New_York"


def windows_of(*opened: str, closed: tuple[str, ...] = (), zone: str = "UTC") -> Windows:
    return Windows.read(zone, opened, closed)


def opening(windows: Windows, local: str, fold: int = 0) -> str | None:
    """Returns when submits are allowed again after a time of the wall clock, as the wall clock has it."""
    now = datetime.fromisoformat(local).replace(tzinfo=windows.zone, fold=fold)
    until = windows.closed_until(now.astimezone(UTC))
    return None if until is None else until.astimezone(windows.zone).strftime("%Y-%m-%dT%H:%M%z")


@pytest.mark.parametrize(
    ("opened", "local", "expected"),
    [
        ("06:00-23:00", "2026-12-01T05:59:59.999", "2026-12-01T06:00+0800"),
        ("06:00-23:00", "2026-12-01T06:00", None),
        ("06:00-23:00", "2026-12-01T22:59:59", None),
        ("06:00-23:00", "2026-12-01T23:00", "2026-12-02T06:00+0800"),
        ("22:00-06:00", "2026-12-01T05:59", None),
        ("22:00-06:00", "2026-12-01T06:00", "2026-12-01T22:00+0800"),
        ("22:00-24:00", "2026-12-02T00:00", "2026-12-02T22:00+0800"),
        # Hours over midnight belong to the day on which they begin: 2026-12-04 is a Friday.
        ("fri 22:00-06:00", "2026-12-05T05:00", None),
        ("fri 22:00-06:00", "2026-12-04T05:00", "2026-12-04T22:00+0800"),
        ("fri 22:00-06:00", "2026-12-05T06:00", "2026-12-11T22:00+0800"),
        ("sun 22:00-06:00", "2026-12-07T05:00", None),
        ("sat-mon,wed 00:00-24:00", "2026-12-08T00:00", "2026-12-09T00:00+0800"),
        ("sat-mon,wed 00:00-24:00", "2026-12-07T23:59", None),
    ],
)
def test_submits_wait_for_the_next_hours_of_the_wall_clock(opened: str, local: str, expected: str | None) -> None:
    assert opening(windows_of(opened, zone=SHANGHAI), local) == expected


@pytest.mark.parametrize(
    ("opened", "local", "fold", "expected"),
    [
        # On 2026-03-08, 02:00 to 03:00 do not exist in New York.
        ("02:30-05:00", "2026-03-08T01:59", 0, "2026-03-08T03:00-0400"),
        ("02:15-02:45", "2026-03-08T01:59", 0, "2026-03-09T02:15-0400"),
        ("sun 02:15-02:45", "2026-03-08T01:59", 0, "2026-03-15T02:15-0400"),
        ("sun 12:00-13:00", "2026-03-02T12:00", 0, "2026-03-08T12:00-0400"),
        # On 2026-11-01, 01:00 to 02:00 exist twice.
        ("01:30-06:00", "2026-11-01T01:00", 0, "2026-11-01T01:30-0400"),
        ("01:30-06:00", "2026-11-01T01:45", 0, None),
        ("01:30-06:00", "2026-11-01T01:15", 1, "2026-11-01T01:30-0500"),
        ("06:00-07:00", "2026-11-01T00:30", 0, "2026-11-01T06:00-0500"),
    ],
)
def test_hours_follow_the_clocks_when_these_change(opened: str, local: str, fold: int, expected: str | None) -> None:
    assert opening(windows_of(opened, zone=NEW_YORK), local, fold) == expected


def test_maintenance_closes_hours_that_are_open() -> None:
    closed = ("2026-12-24T00:00/2026-12-26T00:00", "2026-12-25T12:00/2026-12-26T07:30", "sun 02:00-04:00")
    windows = windows_of("06:00-23:00", "sun 00:00-24:00", closed=closed, zone=SHANGHAI)
    assert opening(windows, "2026-12-23T22:59") is None
    assert opening(windows, "2026-12-24T00:00") == "2026-12-26T07:30+0800"
    assert opening(windows, "2026-12-26T07:30") is None
    assert opening(windows, "2026-12-27T03:00") == "2026-12-27T04:00+0800"


def test_maintenance_covers_both_hours_that_the_clocks_repeat() -> None:
    windows = windows_of(closed=("2026-11-01T01:00/2026-11-01T01:30",), zone=NEW_YORK)
    assert opening(windows, "2026-11-01T01:00") == "2026-11-01T01:30-0500"


@pytest.mark.parametrize(
    "hours",
    [
        "6:00-23:00",
        "06:00-25:00",
        "24:00-06:00",
        "06:60-07:00",
        "06:00-06:00",
        "06:00",
        "",
        "mon-xyz 06:00-07:00",
        "foo 06:00-07:00",
        "mon- 06:00-07:00",
        "06:00-07:00\n",
    ],
)
def test_hours_that_make_no_sense_are_refused(hours: str) -> None:
    with pytest.raises(ValueError, match="must"):
        windows_of(hours)


@pytest.mark.parametrize(
    "text",
    [
        "2026-12-26T00:00/2026-12-24T00:00",
        "2026-12-24T00:00/2026-12-24T00:00",
        "2026-02-30T00:00/2026-03-01T00:00",
        "2026-12-24/2026-12-26",
        "2026-12-24T00:00Z/2026-12-26T00:00Z",
        "9999-12-24T00:00/9999-12-26T00:00",
        "soon",
    ],
)
def test_maintenance_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        windows_of(closed=(text,))


@pytest.mark.parametrize("zone", ["Asia/Nowhere", "", "..", "/etc/passwd", "Asia", "a\0b"])
def test_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        windows_of("06:00-23:00", zone=zone)


@pytest.mark.parametrize("closed", ["00:00-24:00", "05:00-23:30"])
def test_windows_that_never_open_are_refused(closed: str) -> None:
    with pytest.raises(ValueError, match="must leave a minute"):
        windows_of("06:00-23:00", closed=(closed,))


moments = st.integers(0, 400 * 24 * 60).map(
    lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)
hours_texts = st.builds(
    "{} {:02}:{:02}-{:02}:{:02}".format,
    st.sampled_from(["mon-fri", "sat,sun", "wed", "fri-mon"]),
    st.integers(0, 23),
    st.sampled_from([0, 15, 59]),
    st.integers(0, 23),
    st.sampled_from([1, 30]),
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(hours_texts, min_size=1, max_size=3),
    moments,
    st.sampled_from([NEW_YORK, SHANGHAI, "Australia/Lord_Howe"]),
    st.lists(st.floats(0, 1, exclude_max=True), max_size=20),
)
def test_opening_is_the_first_minute_whose_wall_clock_is_in_a_window(
    opened: list[str], now: datetime, zone: str, places: list[float]
) -> None:
    windows = windows_of(*opened, zone=zone)
    allowed = frozenset[int]().union(*map(minutes_of, opened))

    def is_open(at: datetime) -> bool:
        local = at.astimezone(windows.zone)
        return local.weekday() * 1440 + local.hour * 60 + local.minute in allowed

    until = windows.closed_until(now)
    end = now if until is None else until
    assert is_open(end)
    minutes = int((end - now).total_seconds() // 60)
    closed = {minutes - 1, *(int(place * minutes) for place in places)} if minutes else ()
    assert not any(is_open(now + timedelta(minutes=each)) for each in closed)


def test_closings_follow_the_time_in_both_directions() -> None:
    closings = Closings({"gio": windows_of("06:00-23:00"), "ta": windows_of("00:00-12:00")})
    morning, noon = datetime(2026, 12, 1, 5, 59, 59, tzinfo=UTC), datetime(2026, 12, 1, 12, tzinfo=UTC)
    six, midnight = datetime(2026, 12, 1, 6, tzinfo=UTC), datetime(2026, 12, 2, tzinfo=UTC)
    for now, expected in [(morning, {"gio": six}), (six, {}), (noon, {"ta": midnight}), (morning, {"gio": six})]:
        assert closings.closed_ms(now) == {name: epoch_ms(until) for name, until in expected.items()}
