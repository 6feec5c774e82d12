"""One HTML page about a run. It needs nothing else: no server, no network, and no script to be read.

Whatever a record says is text: the template engine escapes it, what cannot be seen is shown as its escape, and the page
forbids itself every resource and every script but its own.
"""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from chaos.record import Fault, Record
from chaos.report import drawing, figures, timeline, words
from chaos.report.timeline import Window
from outbox.numbers import counted

TEMPLATES: Final = Path(__file__).parent / "templates"
SLOWEST: Final = 10
FAULTS: Final = 2000
VIOLATIONS: Final = 200
"""So many are listed on the page; the JSON has them all."""

ROUGH: Final = 60
"""Windows in the table that stands for the plots."""

BANDS: Final = 40
"""More faults than that are not drawn behind the plots as well: they would cover everything."""


def html(record: Record) -> str:
    """The page."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return _ENVIRONMENT.get_template("page.html").render(
        record=record,
        script=Markup(script),  # ours, and so is its hash
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        tone=words.tone(record),
        **_tables(record),
        **_timeline(record),
    )


def _tables(record: Record) -> dict[str, Any]:
    kinds = figures.kinds(record.faults)
    between = drawing.decades(kinds)
    return {
        "kinds": kinds,
        "everything": figures.Kind("all", record.faults),
        "between": between,
        "decades": [f"{10.0**power:g} s" for power in range(between[0], between[1] + 1)],
        "held": figures.held(record),
        "sagas": figures.total(record.sagas),
        "slowest": figures.slowest(record.faults)[:SLOWEST],
        "listed": _listed(record.faults),
        "violations": record.violations[:VIOLATIONS],
        "rough": timeline.windows(record.samples, ROUGH),
    }


def _timeline(record: Record) -> dict[str, Any]:
    windows = timeline.windows(record.samples)
    end = figures.last_moment(record) or 1.0
    return {
        "end": end,
        "windows": windows,
        "ended_top": timeline.round_up(max((window.ended for window in windows), default=0)),
        "flying_top": timeline.round_up(max((window.in_flight for window in windows), default=0)),
        "most_in_flight": max((sample.in_flight for sample in record.samples), default=None),
        "lanes": timeline.lanes(record),
        "bands": [timeline.Mark((fault,)) for fault in record.faults] if len(record.faults) <= BANDS else [],
        "ticks": timeline.ticks(end),
        "ended": attrgetter("ended"),
        "completed": attrgetter("completed"),
        "in_flight": attrgetter("in_flight"),
        "series": [_numbers(window) for window in windows],
    }


def _numbers(window: Window) -> list[float]:
    """For the script, which shows them under the pointer."""
    rates = (window.completed, window.compensated)
    return [round(window.at, 2), round(window.until, 2), *(round(rate, 2) for rate in rates), window.in_flight]


def _listed(faults: Sequence[Fault]) -> list[Fault]:
    """In the order of time; of very many the slowest to recover from."""
    chosen = faults if len(faults) <= FAULTS else figures.slowest(faults)[:FAULTS]
    return sorted(chosen, key=lambda fault: fault.at)


def _shown(value: Any) -> Any:
    """What the page shows of a value: of text, nothing that hides."""
    return words.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"clock": words.clock, "time": words.time, "n": drawing.number}
    found.globals |= {"counted": counted, "words": words, "figures": figures, "drawing": drawing}
    return found


_ENVIRONMENT: Final = _environment()
