"""When a schedule's times are: an expression means what a clock on the wall shows, and no change of it loses or doubles
a run.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cron import AT_ONCE, TOLERANCE, BadCron, Cron, Missed, Plan, plan

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def utc(text: str) -> datetime:
    """`03-29 01:00`, in 2026."""
    return datetime.fromisoformat(f"2026-{text}+00:00")


def times(cron: str, zone: str, begin: str, end: str) -> list[str]:
    """The times of a stretch of 2026, all in UTC."""
    found = Cron(cron, zone).between(utc(begin), utc(end))
    return [f"{at:%m-%d %H:%M}" for at in found]


# --- what is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "first", "second"),
    [
        ("0 3 * * *", "01-02 03:00", "01-03 03:00"),
        ("*/20 * * * *", "01-01 12:20", "01-01 12:40"),
        ("0 9 * * MON-FRI", "01-02 09:00", "01-05 09:00"),
        ("30 6 L * *", "01-31 06:30", "02-28 06:30"),
        ("0 0 1 2,8 *", "02-01 00:00", "08-01 00:00"),
        ("0 0 13 * 5", "01-02 00:00", "01-09 00:00"),  # the 13th *or* a Friday
        ("  0   3  * *   * ", "01-02 03:00", "01-03 03:00"),
    ],
)
def test_five_fields_mean_what_they_mean_to_cron(cron: str, first: str, second: str) -> None:
    assert list(islice(Cron(cron, "UTC").after(utc("01-01 12:00")), 2)) == [utc(first), utc(second)]


def test_an_expression_that_comes_once_in_four_years_is_found() -> None:
    assert Cron("0 0 29 2 *", "UTC").first_after(utc("03-01 00:00")) == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("", "has not five fields but 0: write five fields, minute hour day month weekday, as in '0 3 * * *'"),
        ("* * * *", "has not five fields but 4"),
        ("0 0 3 * * *", "has not five fields but 6"),
        ("61 * * * *", "cannot be read (bad minute)"),
        ("* 24 * * *", "cannot be read (bad hour)"),
        ("* * 30 2 *", "cannot be read (bad day-of-month)"),
        ("* * * * MONDAY", "cannot be read (bad day-of-week)"),
        ("* */0 * * *", "cannot be read (bad hour)"),
        (",".join("1" * 90) + " * * * *", "at most 100 characters"),
    ],
)
def test_an_expression_that_cannot_be_read_is_refused_with_its_form(cron: str, said: str) -> None:
    with pytest.raises(BadCron) as refused:
        Cron(cron, "UTC")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Europe/Berln", "did you mean Europe/Berlin?"),
        ("Europe", "there is no time zone 'Europe'"),
        ("", "write it as in Europe/Berlin, or UTC"),
        ("../etc/passwd", "there is no time zone"),
        ("/etc/localtime", "there is no time zone"),
        ("Europe/Berlin\0", "there is no time zone"),
        ("x" * 300, "write it as in Europe/Berlin, or UTC"),
    ],
)
def test_a_zone_that_is_none_is_refused_with_a_hint(zone: str, said: str) -> None:
    with pytest.raises(BadCron) as refused:
        Cron("0 3 * * *", zone)
    assert said in str(refused.value)


# --- when the clocks are changed -----------------------------------------------------------------------------------


def test_a_time_of_day_follows_its_zone_through_the_year() -> None:
    assert times("0 3 * * *", "Europe/Berlin", "03-28 00:00", "03-30 23:00") == [
        "03-28 02:00",  # CET
        "03-29 01:00",  # CEST
        "03-30 01:00",
    ]


def test_a_time_that_the_clocks_leap_over_comes_right_after_the_gap_and_once() -> None:
    assert times("30 2 * * *", "Europe/Berlin", "03-28 12:00", "03-30 12:00") == ["03-29 01:00", "03-30 00:30"]
    assert times("15,45 2 * * *", "Europe/Berlin", "03-29 00:00", "03-29 12:00") == ["03-29 01:00"]
    assert times("0 2,3 * * *", "Europe/Berlin", "03-29 00:00", "03-29 12:00") == ["03-29 01:00"]
    assert times("0 0 * * *", "Africa/Cairo", "04-23 12:00", "04-24 12:00") == ["04-23 22:00"]  # there is no midnight


def test_a_time_that_comes_twice_counts_once_wherever_we_begin_to_look() -> None:
    assert times("30 2 * * *", "Europe/Berlin", "10-25 00:00", "10-26 12:00") == ["10-25 00:30", "10-26 01:30"]
    within_the_second = utc("10-25 01:10")
    assert Cron("30 2 * * *", "Europe/Berlin").first_after(within_the_second) == utc("10-26 01:30")


def test_what_says_how_often_goes_by_the_time_that_really_passes() -> None:
    assert times("0 * * * *", "Europe/Berlin", "03-29 00:00", "03-29 02:00") == [
        "03-29 00:00",
        "03-29 01:00",
        "03-29 02:00",
    ]
    assert times("*/30 2 * * *", "Europe/Berlin", "03-29 00:00", "03-29 12:00") == []
    assert times("*/30 2 * * *", "Europe/Berlin", "10-25 00:00", "10-25 12:00") == [
        "10-25 00:00",
        "10-25 00:30",
        "10-25 01:00",
        "10-25 01:30",
    ]


CHANGES = (
    ("Europe/Berlin", utc("03-29 01:00")),
    ("Europe/Berlin", utc("10-25 01:00")),
    ("Africa/Cairo", utc("04-23 22:00")),  # at midnight
    ("America/Havana", utc("11-01 05:00")),  # back to midnight
    ("Australia/Lord_Howe", utc("04-04 15:00")),  # half an hour
    ("Australia/Lord_Howe", utc("10-03 15:30")),
    ("Antarctica/Troll", utc("03-29 01:00")),  # two hours
    ("Antarctica/Troll", utc("10-25 01:00")),
    ("Asia/Kathmandu", utc("01-01 00:00")),  # never, and with an odd offset
)


def on_the_wall(zone: str, begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Every minute, and what the clock on the wall shows."""
    at = begin
    while at <= end:
        yield at, at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        at += MINUTE


def watched(
    minutes: set[int], hours: set[int], zone: str, begin: datetime, end: datetime, *, how_often: bool
) -> list[datetime]:
    """What somebody writes down who watches the clock on the wall from a day before."""

    def is_meant(wall: datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours

    found, shown = [], set()
    before: datetime | None = None
    for at, wall in on_the_wall(zone, begin - DAY, end):
        first = wall not in shown
        shown.add(wall)
        leapt = 0 if before is None else max(0, int((wall - before) / MINUTE) - 1)
        leapt_over = any(is_meant(wall - n * MINUTE) for n in range(1, leapt + 1))
        if (is_meant(wall) if how_often else (is_meant(wall) and first) or leapt_over) and at >= begin:
            found.append(at)
        before = wall
    return found


@given(
    change=st.sampled_from(CHANGES),
    minutes=st.one_of(st.none(), st.sets(st.integers(0, 59), min_size=1, max_size=4)),
    hours=st.one_of(st.none(), st.sets(st.integers(0, 4), min_size=1, max_size=3)),
    offset=st.integers(-300, 300),
)
@settings(max_examples=150, deadline=None)
def test_it_agrees_with_somebody_who_watches_the_clock(
    change: tuple[str, datetime], minutes: set[int] | None, hours: set[int] | None, offset: int
) -> None:
    zone, moment = change
    fields = [",".join(map(str, sorted(chosen))) if chosen is not None else "*" for chosen in (minutes, hours)]
    begin = moment + offset * MINUTE
    expected = watched(
        minutes or set(range(60)), hours or set(range(24)), zone, begin, begin + DAY, how_often="*" in fields
    )
    cron = Cron(f"{' '.join(fields)} * * *", zone)

    assert list(cron.between(begin, begin + DAY)) == expected
    assert cron.latest(begin, begin + DAY) == (expected[-1] if expected else None)


# --- looking -------------------------------------------------------------------------------------------------------


def test_after_is_later_and_between_has_both_ends() -> None:
    cron = Cron("0 * * * *", "Europe/Berlin")
    assert cron.first_after(utc("01-01 10:00")) == utc("01-01 11:00")
    assert cron.first_after(utc("01-01 09:59") + timedelta(seconds=59.5)) == utc("01-01 10:00")
    assert list(cron.between(utc("01-01 10:00"), utc("01-01 11:00"))) == [utc("01-01 10:00"), utc("01-01 11:00")]
    assert list(cron.between(utc("01-01 10:01"), utc("01-01 10:59"))) == []


def test_a_stretch_may_be_given_on_the_clock_of_any_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    right_after_the_gap = datetime(2026, 3, 29, 3, 0, tzinfo=berlin)
    assert list(Cron("0 3 * * *", "Europe/Berlin").between(right_after_the_gap, right_after_the_gap)) == [
        utc("03-29 01:00")
    ]


def test_the_latest_of_many_years_is_found_at_once() -> None:
    begin, end = datetime(1990, 1, 1, tzinfo=UTC), utc("06-15 12:00")
    assert Cron("* * * * *", "UTC").latest(begin, end) == end
    assert Cron("0 0 29 2 *", "UTC").latest(begin, end) == datetime(2024, 2, 29, tzinfo=UTC)
    assert Cron("0 0 * * *", "UTC").latest(utc("06-15 01:00"), utc("06-15 23:00")) is None


# --- what becomes of missed times ------------------------------------------------------------------------------------

HOURLY = Cron("0 * * * *", "UTC")
DUE = utc("01-01 10:00")


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
@pytest.mark.parametrize("late", [timedelta(0), TOLERANCE])
def test_a_time_that_is_not_missed_is_run(missed: Missed, late: timedelta) -> None:
    assert plan(missed, HOURLY, DUE, DUE + late) == Plan((DUE,), DUE + HOUR)


@pytest.mark.parametrize(
    ("missed", "now", "run"),
    [
        ("skip", "10:02", []),
        ("skip", "13:30", []),
        ("skip", "13:01", ["13:00"]),  # the last of them is not missed
        ("once", "10:02", ["10:00"]),
        ("once", "13:30", ["13:00"]),
        ("once", "13:01", ["13:00"]),
        ("all", "10:02", ["10:00"]),
        ("all", "13:30", ["10:00", "11:00", "12:00", "13:00"]),
    ],
)
def test_missed_times_are_skipped_or_run_once_or_all(missed: Missed, now: str, run: list[str]) -> None:
    planned = plan(missed, HOURLY, DUE, utc(f"01-01 {now}"))
    expected = tuple(utc(f"01-01 {time}") for time in run)
    assert planned == Plan(expected, utc(f"01-01 {now[:2]}:00") + HOUR)


def test_all_takes_a_bounded_number_and_comes_back_for_the_others() -> None:
    now = DUE + (AT_ONCE + 1) * HOUR
    first = plan("all", HOURLY, DUE, now)
    assert first == Plan(tuple(DUE + n * HOUR for n in range(AT_ONCE)), DUE + AT_ONCE * HOUR)
    assert first.next_at is not None
    assert plan("all", HOURLY, first.next_at, now) == Plan((now - HOUR, now), now + HOUR)


def test_a_time_that_the_expression_no_longer_has_is_run_all_the_same() -> None:
    between_two = DUE + 20 * MINUTE  # the rules of a zone have changed since it was written down
    assert plan("once", HOURLY, between_two, between_two + MINUTE) == Plan((between_two,), DUE + HOUR)
    assert plan("all", HOURLY, between_two, DUE + HOUR) == Plan((between_two, DUE + HOUR), DUE + 2 * HOUR)
