"""When a schedule's times are: a cron expression in a time zone, and what becomes of times that were missed. No I/O but
the files of the time zones. Every answer is in UTC.

CronSim knows which days and minutes an expression means. What a time zone does with them twice a year is decided here,
in the way of Debian's cron:

- A time of day that the clocks leap over is not lost: it is moved to the first minute after the gap.
- A time of day that comes twice counts once, the first time.
- An expression whose minute or hour begins with `*` names no time of day but says how often. It goes by the time that
  really passes: it runs in both of two hours of the same name, and not in one that there isn't.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import islice, takewhile
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

LONGEST: Final = 100
"""Characters of an expression: the width of the column."""

LARGEST_SHIFT: Final = timedelta(hours=2)
"""So far clocks are set back at most; what is looked for after a moment may have an earlier time of day than it."""

TOLERANCE: Final = timedelta(seconds=60)
"""A time that is dealt with later than this is a missed one."""

AT_ONCE: Final = 100
"""Times of one schedule that are dealt with at once."""

INSTANT: Final = timedelta(microseconds=1)
MINUTE: Final = timedelta(minutes=1)


Missed = Literal["skip", "once", "all"]
"""What becomes of missed times: nothing, one run for all of them, or a run for each."""


class BadCron(Exception):
    """A cron expression or a time zone that cannot be read. Says how it should look."""


class Cron:
    """The times of one expression in one zone. Raises BadCron."""

    def __init__(self, text: str, timezone: str) -> None:
        self.text = " ".join(text.split())
        self.zone = _zone(timezone)
        self._repeats = _repeats(self.text)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """All that are later than `moment`, the earliest first, each once. There is no end to them."""
        last = moment.astimezone(UTC)
        for found in self._elapsing(last) if self._repeats else self._of_day(last):
            if found > last:
                last = found
                yield found

    def first_after(self, moment: datetime) -> datetime | None:
        """The next one; None when there is none within 50 years."""
        return next(self.after(moment), None)

    def between(self, begin: datetime, end: datetime) -> Iterator[datetime]:
        """Those from `begin` to `end`, both included."""
        last = end.astimezone(UTC)
        return takewhile(lambda at: at <= last, self.after(begin.astimezone(UTC) - INSTANT))

    def latest(self, begin: datetime, end: datetime) -> datetime | None:
        """The last one from `begin` to `end`, without a walk through all of them."""
        span = timedelta(hours=1)
        while end - begin > span:
            if found := deque(self.between(end - span, end), maxlen=1):
                return found[0]
            span *= 4
        return next(iter(deque(self.between(begin, end), maxlen=1)), None)

    def _of_day(self, moment: datetime) -> Iterator[datetime]:
        for wall in self._walls(moment):
            while (at := self._at(wall)) is None:
                wall += MINUTE
            yield at

    def _elapsing(self, moment: datetime) -> Iterator[datetime]:
        """A time that comes twice is kept for its second time, until what lies between has been told."""
        again: list[datetime] = []
        for wall in self._walls(moment):
            at = self._at(wall)
            if at is None:
                continue
            while again and again[0] < at:
                yield again.pop(0)
            yield at
            if (second := wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC)) != at:
                again.append(second)

    def _walls(self, moment: datetime) -> Iterator[datetime]:
        """What a clock on the wall shows at each time, whether it ever does or does so twice."""
        return CronSim(self.text, moment.astimezone(self.zone).replace(tzinfo=None) - LARGEST_SHIFT)

    def _at(self, wall: datetime) -> datetime | None:
        """The first moment at which the clocks show this; None when they leap over it."""
        at = wall.replace(tzinfo=self.zone).astimezone(UTC)
        return at if at.astimezone(self.zone).replace(tzinfo=None) == wall else None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; no name of a zone at all; a folder of them
        known = {zone.lower(): zone for zone in available_timezones()}
        near = [known[one] for one in get_close_matches(name.lower(), known, n=1)]
        hint = f"did you mean {near[0]}?" if near else "write it as in Europe/Berlin, or UTC"
        raise BadCron(f"there is no time zone {name!r}: {hint}") from None


def _repeats(text: str) -> bool:
    """Whether an expression says how often, rather than when in a day. Raises BadCron."""
    form = "write five fields, minute hour day month weekday, as in '0 3 * * *'"
    fields = text.split()
    if len(fields) != 5:
        raise BadCron(f"cron {text!r} has not five fields but {len(fields)}: {form}")
    if len(text) > LONGEST:
        raise BadCron(f"a cron expression has at most {LONGEST} characters, this one has {len(text)}")
    try:
        CronSim(text, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise BadCron(f"cron {text!r} cannot be read ({str(error).lower()}): {form}") from None
    return fields[0].startswith("*") or fields[1].startswith("*")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done about a schedule that is due: the times that are run, and the time to look at next."""

    times: tuple[datetime, ...]
    next_at: datetime | None


def plan(missed: Missed, cron: Cron, due: datetime, now: datetime) -> Plan:
    """What is done about the times from `due`, which has come, to `now`.

    A time is missed when the next one has come too, or when it is more than TOLERANCE ago. `once` runs the latest time,
    be it missed or not; `all` takes at most AT_ONCE of them, and leaves the others for the next look.
    """
    if missed == "all":
        times = (due, *islice(cron.between(due + INSTANT, now), AT_ONCE - 1))
        return Plan(times, cron.first_after(times[-1]))
    latest = cron.latest(due, now) or due
    too_late = missed == "skip" and now - latest > TOLERANCE
    return Plan(() if too_late else (latest,), cron.first_after(now))
