"""The page of a chaos run: what it says and draws is what the record says, and it is text, whatever it says."""

import hashlib
import itertools
import json
import re
from base64 import b64encode
from typing import Final

import pytest
from hypothesis import given, settings

from chaos.record import Fault, Record, Sample
from chaos.report import drawing, figures, page, timeline, words
from tests.support.chaos_runs import HOSTILE, an_hour, broken, calm, chaos_run, empty, records, unsettled
from tests.support.html_page import Element, parse

HOUR: Final = an_hour()
RUNS: Final = {
    "an hour": HOUR,
    "half a minute": chaos_run(9, duration=30.0, faults=12, sagas=400),
    "violations": broken(),
    "nothing fired": calm(),
    "never settled": unsettled(),
    "nothing at all": empty(),
}


@pytest.fixture(params=RUNS, scope="module")
def run(request: pytest.FixtureRequest) -> tuple[Record, Element]:
    record = RUNS[request.param]
    return record, parse(page.html(record))


# --- what it says -----------------------------------------------------------------------------------------------------


def test_the_page_begins_with_verdict_seed_and_command(run: tuple[Record, Element]) -> None:
    record, shown = run
    [header] = shown.all("header")
    assert header.by_id("verdict").text.lower() == record.verdict.lower()
    assert header.attributes["class"] == words.tone(record)
    assert header.by_id("seed").text == str(record.seed)
    assert header.by_id("reproduce").text == record.reproduce
    assert [doubt.text for doubt in header.all("p", class_="doubt")] == list(words.doubts(record))


def test_the_page_counts_sagas_as_the_record_does(run: tuple[Record, Element]) -> None:
    record, shown = run
    assert shown.by_id("sagas").text == f"{sum(record.sagas.values()):,}"
    listed = [re.split(r"\s+", item.text.strip())[:2] for item in shown.by_id("statuses").all("li")]
    assert listed == [[f"{count:,}", status] for status, count in record.sagas.items()]


def test_the_page_has_a_row_for_each_kind(run: tuple[Record, Element]) -> None:
    record, shown = run
    assert shown.by_id("fired").text == f"{len(record.faults):,}"
    rows = shown.table("kinds") if record.faults else []
    assert [[name, fired] for name, fired, *_ in rows] == [[kind, f"{n:,}"] for kind, n in record.fired.items()]
    for row, kind in zip(rows, figures.kinds(record.faults), strict=True):
        assert row[4:8] == [
            words.time(kind.recovery),
            words.time(kind.worst),
            words.time(kind.worst_after_its_end),
            str(kind.unrecovered or ""),
        ]


def test_the_page_lists_every_fault_with_its_recovery(run: tuple[Record, Element]) -> None:
    record, shown = run
    rows = shown.table("faults") if record.faults else []
    assert rows == [_row(fault) for fault in sorted(record.faults, key=lambda fault: fault.at)]
    slowest = shown.table("slowest") if record.faults else []
    assert slowest == [_row(fault) for fault in figures.slowest(record.faults)[: page.SLOWEST]]


def _row(fault: Fault) -> list[str]:
    times = (figures.lasted(fault), figures.recovery(fault), figures.after_its_end(fault))
    told = [words.clock(fault.at), fault.kind, fault.target, *map(words.time, times), fault.detail]
    return [words.printable(cell) for cell in told]


def test_the_page_shows_every_invariant_and_how_often_it_is_broken(run: tuple[Record, Element]) -> None:
    record, shown = run
    rows = shown.table("invariants") if record.invariants else []
    broken_by = [violation.invariant for violation in record.violations]
    assert [(checked, count) for _, _, checked, count in rows] == [
        (f"{one.checked:,}", str(broken_by.count(one.name))) for one in record.invariants
    ]
    assert [name for _, name, *_ in rows] == [one.name + one.sentence for one in record.invariants]


def test_the_page_shows_every_violation_with_its_saga_and_rows(run: tuple[Record, Element]) -> None:
    record, shown = run
    for article, violation in zip(shown.all("article"), record.violations, strict=True):
        assert next(article.all("p", class_="message")).text == violation.message
        sagas = [code.text for code in article.all("code", class_="saga")]
        assert sagas == ([violation.saga_id] if violation.saga_id else [])
        assert [line for pre in article.all("pre") for line in pre.text.splitlines()] == list(violation.rows)


# --- what it draws ----------------------------------------------------------------------------------------------------


def _heights(path: str, top: float) -> list[tuple[float, float]]:
    """The value and the end of each step of an area."""
    steps = re.findall(r"V([\d.]+)H([\d.]+)", path)
    return [((1 - float(y) / drawing.HEIGHT) * top, float(until)) for y, until in steps]


def test_the_areas_that_are_drawn_are_what_has_ended(run: tuple[Record, Element]) -> None:
    record, shown = run
    if not record.samples:
        assert [area.attributes["d"] for area in shown.all("path", class_="area")] == ["", "", ""]
        return
    top = timeline.round_up(max(window.ended for window in timeline.windows(record.samples)))
    last = record.samples[-1]
    for name, ended in (("completed", last.completed), ("compensated", last.completed + last.compensated)):
        [area] = (one for one in shown.all("path", class_="area") if one.has({"class_": name}))
        before, drawn = 0.0, 0.0
        for rate, until in _heights(area.attributes["d"], top):
            drawn, before = drawn + rate * (until - before), until
        assert drawn == pytest.approx(ended, rel=0.02)


def test_the_most_in_flight_is_not_averaged_away(run: tuple[Record, Element]) -> None:
    record, shown = run
    most = max((sample.in_flight for sample in record.samples), default=0)
    top = timeline.round_up(most)
    [area] = shown.all("path", class_="flying")
    assert max((value for value, _ in _heights(area.attributes["d"], top)), default=0) == pytest.approx(most, abs=0.5)


def test_each_kind_has_a_lane_and_each_fault_its_mark(run: tuple[Record, Element]) -> None:
    record, shown = run
    lanes = [lane for lane in shown.all("div", class_="lane") if list(lane.all("svg"))]
    assert [next(lane.all("b")).text for lane in lanes] == list(record.fired)
    for lane, kind in zip(lanes, figures.kinds(record.faults), strict=True):
        if kind.fired <= timeline.MARKS:
            marks = list(lane.all("g"))
            assert [next(mark.all("title")).text for mark in marks] == [words.fault(one) for one in kind.faults]
            for mark, fault in zip(marks, kind.faults, strict=True):
                _check_mark(mark, fault, record)


def _check_mark(mark: Element, fault: Fault, record: Record) -> None:
    tail, struck = (_span(path.attributes["d"]) for path in mark.all("path"))
    assert struck == pytest.approx((fault.at, fault.until), abs=0.02)
    end = max(fault.until, fault.recovered_at) if fault.recovered_at else figures.last_moment(record)
    assert tail == pytest.approx((fault.at, end), abs=0.02)
    assert next(mark.all("path", class_="t")).has({"class_": "u"}) is (fault.recovered_at is None)


def _span(path: str) -> tuple[float, float]:
    found = re.match(r"M([\d.]+) [\d.]+h([\d.]+)v", path)
    assert found, path
    return float(found[1]), float(found[1]) + float(found[2])


def test_marks_of_a_crowded_lane_stand_for_all_of_its_faults() -> None:
    lane = next(lane for lane in timeline.lanes(HOUR) if lane.kind.fired > timeline.MARKS)
    assert len(lane.marks) <= timeline.MARKS + 1
    assert [fault for mark, _ in lane.marks for fault in mark.faults] == list(lane.kind.faults)
    crowded = next(mark for mark, _ in lane.marks if len(mark.faults) > 1)
    assert f"{len(crowded.faults)} times" in crowded.told


def test_marks_of_a_row_cover_each_other_only_when_no_row_is_free() -> None:
    hits = [Fault(kind="cut", target="x", at=at, until=at + 2, recovered_at=at + 4) for at in (0.0, 1.0, 3.0, 5.0, 5.5)]
    [lane] = timeline.lanes(chaos_run(faults=0).model_copy(update={"faults": tuple(hits)}))
    assert [row for _, row in lane.marks] == [0, 1, 2, 0, 1]


def test_what_stands_under_the_pointer_is_what_is_drawn() -> None:
    series = json.loads(parse(page.html(HOUR)).by_id("series").text)
    assert len(series) == len(timeline.windows(HOUR.samples)) <= timeline.WINDOWS
    ended = sum((until - at) * (completed + compensated) for at, until, completed, compensated, _ in series)
    assert ended == pytest.approx(sum(HOUR.sagas.values()), rel=0.01)


# --- windows, ticks ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(records)
def test_windows_follow_each_other_and_lose_nothing(record: Record) -> None:
    found = timeline.windows(record.samples, 5)
    assert len(found) <= 5
    assert all(one.until == another.at for one, another in itertools.pairwise(found))
    if found:
        assert (found[0].at, found[-1].until) == (0, max(sample.at for sample in record.samples))


def test_samples_at_the_same_moment_make_no_rate() -> None:
    twice = [Sample(at=1.0, started=1, completed=0, compensated=0, stuck=0)] * 2
    assert [(window.at, window.until, window.started) for window in timeline.windows(twice)] == [(0, 1, 1)]


def test_a_sample_at_the_very_beginning_makes_no_infinite_rate() -> None:
    """Found by Hypothesis, as a page that was never done: its axis had no end."""
    [window] = timeline.windows([Sample(at=5e-324, started=2, completed=1, compensated=0, stuck=0)])
    assert (window.started, timeline.round_up(window.ended)) == (2000, 1000)


@pytest.mark.parametrize("end", [0.3, 1, 30, 299, 3600, 90_000, 1e7])
def test_ticks_are_few_and_within_the_run(end: float) -> None:
    ticks = timeline.ticks(end)
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 8
    assert ticks[-1] <= end


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.2, 1), (1, 1), (3, 4), (5.5, 8), (81, 100), (100, 100), (101, 200)]
)
def test_an_axis_ends_at_a_round_number(value: float, top: float) -> None:
    assert timeline.round_up(value) == top


# --- anything ---------------------------------------------------------------------------------------------------------


def test_an_hour_with_1500_faults_is_a_small_page() -> None:
    assert len(HOUR.faults) == 1500
    assert len(HOUR.samples) >= 3600
    assert len(page.html(HOUR).encode()) < 1_000_000


def test_a_page_has_an_end_however_much_happened() -> None:
    much = HOUR.model_copy(update={"faults": HOUR.faults * 4, "violations": broken().violations * 1000})
    shown = parse(page.html(much))
    assert len(shown.table("faults")) == page.FAULTS
    assert len(list(shown.all("article"))) == page.VIOLATIONS
    assert "the JSON has all 3,000" in shown.by_id("violations").text
    assert len(page.html(much).encode()) < 1_500_000


def test_the_page_needs_nothing_from_elsewhere(run: tuple[Record, Element]) -> None:
    _, shown = run
    assert not list(shown.all("link")) + list(shown.all("img")) + list(shown.all("iframe"))
    for element in shown.all("*"):
        assert not {name for name in element.attributes if name.startswith("on") or name in ("src", "href", "srcset")}
    [style] = shown.all("style")
    assert not re.search(r"url\(|@import|@font-face", style.text)


def test_the_page_allows_its_own_script_and_no_other(run: tuple[Record, Element]) -> None:
    _, shown = run
    [script] = (one for one in shown.all("script") if "type" not in one.attributes)
    digest = b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    [policy] = (meta.attributes["content"] for meta in shown.all("meta", **{"http-equiv": "Content-Security-Policy"}))
    assert "default-src 'none'" in policy
    assert re.findall(r"script-src ([^;]+)", policy) == [f"'sha256-{digest}'"]


@settings(deadline=None, max_examples=25)
@given(records)
def test_whatever_a_record_says_is_text(record: Record) -> None:
    shown = parse(page.html(record))
    assert shown.by_id("scenario").text == words.printable(record.scenario)
    assert shown.by_id("reproduce").text == words.printable(record.reproduce)
    if record.faults:
        assert shown.table("faults") == [_row(one) for one in sorted(record.faults, key=lambda one: one.at)]
    assert [next(one.all("p", class_="message")).text for one in shown.all("article")] == [
        words.printable(violation.message) for violation in record.violations
    ]
    assert not list(shown.all("img"))
    assert len(list(shown.all("script"))) == 2


def test_hostile_text_stays_what_it_is() -> None:
    hostile = Fault(kind=HOSTILE, target=HOSTILE, at=1, until=2, detail=HOSTILE)
    record = broken().model_copy(update={"scenario": HOSTILE, "faults": (hostile,), "processes": {HOSTILE: 1}})
    html = page.html(record)
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert next(parse(html).all("g")).text == words.fault(hostile)


# --- to be read by everybody ------------------------------------------------------------------------------------------


def test_every_picture_says_what_it_is_and_every_control_what_it_does(run: tuple[Record, Element]) -> None:
    _, shown = run
    assert all(svg.attributes["aria-label"] and svg.attributes["role"] == "img" for svg in shown.all("svg"))
    assert all(button.attributes.get("aria-label") or button.text for button in shown.all("button"))
    assert all(list(label.all("input")) for label in shown.all("label"))
    [html] = shown.all("html")
    assert html.attributes["lang"] == "en"


def _palettes() -> list[dict[str, str]]:
    css = (page.TEMPLATES / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,8});", block)) for block in blocks]


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) > 4 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", _palettes(), ids=["light", "dark", "print"])
def test_text_stands_out_from_its_ground(palette: dict[str, str]) -> None:
    """WCAG AA asks for 4.5 of text."""
    texts = [(ink, ground) for ink in ("ink", "soft") for ground in ("paper", "card")]
    texts += [(tone, ground) for tone in ("good", "doubtful", "bad") for ground in ("paper", f"{tone}-paper")]
    texts += [("soft", f"{tone}-paper") for tone in ("good", "doubtful", "bad")]
    for ink, ground in texts:
        dark, light = sorted((_luminance(palette[ink]), _luminance(palette[ground])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {ground}"
