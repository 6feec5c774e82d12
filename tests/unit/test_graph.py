"""What is drawn of a saga is what it is: all of it, in the right place, whatever its texts contain."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from docs.draw import DOCS, PAGES, PICTURES, drawn
from orchestrator.definition import (
    Saga,
    SagaData,
    Signal,
    child,
    delay,
    parallel,
    reversible,
    reversible_each,
    step,
    step_each,
    wait_for,
)
from orchestrator.graph import Picture, mermaid, picture, svg, text
from orchestrator.graph.machine import by_hand, phases, steps
from orchestrator.graph.palette import COLOURS
from orchestrator.graph.picture import LOUDEST_FIRST
from orchestrator.machine import PHASES, TRANSITIONS
from orchestrator.model import Phase, StepState, StepStatus
from orchestrator.model import Saga as State
from outbox.contracts import Command, Reply

HOSTILE = 'bank says <b>"no"</b> & #35; `;-->\n]]>\x00\ud800'


class Ok(Reply):
    pass


class Book(Command[Ok], participant="agency"):
    pass


class Trip(SagaData):
    rooms: tuple[str, ...] = ()
    abroad: bool = False


class Approval(Signal):
    pass


def open_trip(trip: Trip) -> Book:
    return Book()


def reject_trip(trip: Trip) -> Book:
    return Book()


def book_car(trip: Trip) -> Book:
    return Book()


def cancel_car(trip: Trip) -> Book:
    return Book()


def book_room(trip: Trip, room: str) -> Book:
    return Book()


def cancel_room(trip: Trip, room: str) -> Book:
    return Book()


def ask_for_visa(trip: Trip) -> Book:
    return Book()


def withdraw_visa(trip: Trip) -> Book:
    return Book()


def pay(trip: Trip) -> Book:
    return Book()


def tell_hotel(trip: Trip, room: str) -> Book:
    return Book()


def close_trip(trip: Trip) -> Book:
    return Book()


def needs_visa(trip: Trip) -> bool:
    return trip.abroad


def wanted_rooms(trip: Trip) -> tuple[str, ...]:
    return trip.rooms


GET_VISA = Saga(
    name="get-visa",
    data=Trip,
    reversible=(reversible(ask_for_visa, undo=withdraw_visa),),
    pivot=None,
)
BOOK_TRIP = Saga(
    name="book-trip",
    data=Trip,
    deadline=timedelta(days=3),
    max_in_flight=50,
    reversible=(
        reversible(open_trip, undo=reject_trip),
        wait_for(Approval, timeout=timedelta(days=2)),
        parallel(
            reversible(book_car, undo=cancel_car, if_unknown="stick"),
            reversible_each(wanted_rooms, book_room, undo=cancel_room, limit=3),
            child(GET_VISA, lambda trip: trip, when=needs_visa),
        ),
        delay("cooling-off", timedelta(hours=1)),
    ),
    pivot=step(pay),
    retriable=(
        parallel(
            step_each(lambda trip: trip.rooms, tell_hotel),
            step(close_trip),
        ),
    ),
)
STEPS = list(BOOK_TRIP.steps)


def a_trip(**states: StepState) -> State:
    """A saga whose steps are pending, but for these. `book_room_1` is the instance `book-room[1]`."""
    found = {re.sub(r"-(\d)$", r"[\1]", name.replace("_", "-")): state for name, state in states.items()}
    expanded = {name.partition("[")[0] for name in found if "[" in name}
    names = [one for name in STEPS for one in (sorted(found) if name in expanded else [name])]
    kept = {name: found.get(name, StepState()) for name in dict.fromkeys(names)}
    return State("01TRIP", "book-trip", 1, BOOK_TRIP.fingerprint, {}, kept)


# --- what there is to see ------------------------------------------------------------------------------------------


def test_a_definition_is_a_tree_with_its_undos_and_conditions_beside_it() -> None:
    assert text(picture(BOOK_TRIP)) == (
        "book-trip v1\n"
        "turns back after 3 d; 50 in flight at most\n"
        "\n"
        "  ○ begins\n"
        "  ├─── open-trip      agency      ↶ reject-trip\n"
        "  ├─── ◇ approval     signal                       waits 2 d, then turns back\n"
        "  ├─┬─ book-car       agency      ↶ cancel-car     a person decides when no answer comes\n"
        "  │ ├─ book-room      agency      ↶ cancel-room    for each of wanted rooms, 3 at a time\n"
        "  │ └─ ▣ get-visa     child saga  ↶ undo get-visa  when needs visa\n"
        "  ├─── ◷ cooling-off  time                         lasts 1 h\n"
        "  ╪═══ pay            agency                       the point of no return\n"
        "  ├─┬─ tell-hotel     agency                       for each of rooms, all at once\n"
        "  │ └─ close-trip     agency\n"
        "  ● completed\n"
    )


def test_a_saga_shows_how_far_it_has_come() -> None:
    states = {
        "open_trip": StepState(StepStatus.DONE),
        "approval": StepState(StepStatus.DONE, by_hand=True),
        "book_car": StepState(StepStatus.ASKED, attempt=3),
        "get_visa": StepState(StepStatus.SKIPPED),
    }
    rows = text(picture(BOOK_TRIP, a_trip(**states))).splitlines()
    assert rows[0] == "book-trip v1  01TRIP  running"
    shown = [re.split(r"  +", row.strip()) for row in rows[4:-1]]
    assert [row[:3:2] if row[0] == "│" else row[:2] for row in shown] == [
        ["├─── open-trip", "done"],
        ["├─── ◇ approval", "done by hand"],
        ["├─┬─ book-car", "asked, attempt 3"],
        ["│ ├─ book-room", "pending"],
        ["│ └─ ▣ get-visa", "skipped"],
        ["├─── ◷ cooling-off", "pending"],
        ["╪═══ pay", "pending"],
        ["├─┬─ tell-hotel", "pending"],
        ["│ └─ close-trip", "pending"],
    ]
    assert rows[-1] == "  ○ completed"


def test_what_is_wrong_stands_under_its_step() -> None:
    refused = a_trip(pay=StepState(StepStatus.REFUSED, refusal="no money"))
    assert "  │      no money\n" in text(picture(BOOK_TRIP, refused))
    stuck = text(picture(BOOK_TRIP, a_trip(book_car=StepState(StepStatus.ASKED, attempt=6, stuck="nobody answers"))))
    assert stuck.startswith("book-trip v1  01TRIP  stuck\nbook-car: nobody answers\n")
    assert "stuck: asked, attempt 6" in stuck
    assert "  │ │    nobody answers\n" in stuck


def test_a_refusal_that_was_got_over_is_not_shown_as_trouble() -> None:
    seen = picture(BOOK_TRIP, a_trip(close_trip=StepState(StepStatus.DONE, refusal="not yet")))
    assert "not yet" not in text(seen)


def test_a_compensated_saga_ends_where_it_began() -> None:
    undone = replace(a_trip(open_trip=StepState(StepStatus.UNDONE)), phase=Phase.COMPENSATED, failure="approval: no")
    rows = text(picture(BOOK_TRIP, undone)).splitlines()
    assert rows[:2] == ["book-trip v1  01TRIP  compensated", "approval: no"]
    assert ("  ● compensated" in rows, "  ○ completed" in rows) == (True, True)


def test_a_paused_saga_says_who_paused_it() -> None:
    seen = picture(BOOK_TRIP, replace(a_trip(), paused="ada"))
    assert (seen.status, seen.reason) == ("paused", "paused by ada")


def test_the_instances_of_a_step_are_one_node_that_counts_them() -> None:
    done, asked = StepState(StepStatus.DONE), StepState(StepStatus.ASKED, attempt=1)
    seen = picture(BOOK_TRIP, a_trip(book_room_0=done, book_room_1=asked, book_room_2=done))
    node = next(node for node in seen.nodes if node.name == "book-room")
    assert node.progress is not None
    assert (node.progress.status, node.progress.words) == (StepStatus.ASKED, "1 asked, 2 done")
    assert [one.name for one in seen.nodes] == STEPS


def test_a_first_attempt_is_not_counted() -> None:
    assert "asked, attempt" not in text(picture(BOOK_TRIP, a_trip(pay=StepState(StepStatus.ASKED, attempt=1))))
    assert "asked, attempt 2" in text(picture(BOOK_TRIP, a_trip(pay=StepState(StepStatus.ASKED, attempt=2))))


def test_the_loudest_status_stands_for_the_instances_and_every_status_has_its_place() -> None:
    assert set(LOUDEST_FIRST) == set(StepStatus)
    for louder, quieter in [(StepStatus.UNDO_REFUSED, StepStatus.UNDOING), (StepStatus.REFUSED, StepStatus.DONE)]:
        seen = picture(BOOK_TRIP, a_trip(book_room_0=StepState(quieter), book_room_1=StepState(louder)))
        assert [node.progress.status for node in seen.nodes if node.progress and node.name == "book-room"] == [louder]


def test_a_saga_whose_definition_is_not_loaded_shows_the_names_of_its_steps() -> None:
    seen = picture(None, a_trip(book_room_0=StepState(StepStatus.DONE), book_room_1=StepState(StepStatus.DONE)))
    assert [node.name for node in seen.nodes] == STEPS
    assert seen.facts == (
        f"its definition {BOOK_TRIP.fingerprint} is not loaded here: only the names of its steps are known",
    )
    for shown in (text(seen), mermaid(seen), svg(seen)):
        assert "2 done" in shown


def test_there_is_no_picture_of_nothing() -> None:
    with pytest.raises(ValueError, match="a definition, a saga, or both"):
        picture(None)


def test_every_kind_and_status_has_a_colour() -> None:
    kinds = {spec.kind.value for spec in BOOK_TRIP.steps.values()}
    statuses = {*StepStatus, *Phase, "stuck", "paused"}
    assert kinds | {str(status) for status in statuses} <= set(COLOURS)


# --- mermaid -------------------------------------------------------------------------------------------------------


def test_a_mermaid_flowchart_goes_forward_and_names_the_undos_on_the_way_back() -> None:
    arrows = [line.strip() for line in mermaid(picture(BOOK_TRIP)).splitlines() if "->" in line]
    assert arrows == [
        "begins --> s0",
        "s0 --> s1",
        "s1 --> s2 & s3 & s4",
        "s2 & s3 & s4 --> j2",
        "j2 --> s5",
        "s5 --> s6",
        "s6 --> s7 & s8",
        "s7 & s8 --> j5",
        "j5 --> completed",
        's0 -. "reject-trip" .-> compensated',
        's2 -. "cancel-car" .-> s1',
        's3 -. "cancel-room" .-> s1',
        's4 -. "undo get-visa" .-> s1',
    ]


def test_only_what_can_be_undone_has_a_way_back() -> None:
    no_undo = Saga(name="pay-debt", data=Trip, reversible=(), pivot=step(pay))
    assert "compensated" in mermaid(picture(BOOK_TRIP))
    assert "compensated" not in mermaid(picture(no_undo)) + svg(picture(no_undo))


def test_a_mermaid_flowchart_gives_each_step_its_shape_and_each_group_its_frame() -> None:
    lines = [line.strip() for line in mermaid(picture(BOOK_TRIP)).splitlines()]
    assert [line for line in lines if line.startswith("s0[")] == ['s0["<b>open-trip</b><br/>agency"]']
    shapes = {name: next(line for line in lines if f"<b>{name}</b>" in line) for name in STEPS}
    assert (shapes["approval"][2:5], shapes["approval"][-3:]) == ('{{"', '"}}')
    assert (shapes["cooling-off"][2:5], shapes["cooling-off"][-3:]) == ('(["', '"])')
    assert (shapes["get-visa"][2:5], shapes["get-visa"][-3:]) == ('[["', '"]]')
    assert "the point of no return" in shapes["pay"]
    groups = "\n".join(lines).split("subgraph ")[1:]
    assert [re.findall("<b>(.*?)</b>", group.split("\nend")[0]) for group in groups] == [STEPS[2:5], STEPS[7:]]


def test_what_a_participant_says_cannot_break_out_of_a_mermaid_label() -> None:
    state = a_trip(pay=StepState(StepStatus.REFUSED, refusal=HOSTILE))
    label = next(line for line in mermaid(picture(BOOK_TRIP, state)).splitlines() if "<b>pay</b>" in line)
    said = label.split("refused<br/>")[1].removesuffix('"]')
    assert not set(said) & set('<>"&`\n[]{}|\x00')
    assert re.sub(r"#(\d+);", lambda entity: chr(int(entity[1])), said) == HOSTILE


# --- svg -----------------------------------------------------------------------------------------------------------

LONG = "-".join(["letters"] * 7) + "-more"
LONG_SAGA = Saga(name=LONG, data=Trip, reversible=(delay(LONG, timedelta(days=400)),), pivot=step(pay))
PICTURES_OF_ALL_SORTS = {
    "a definition": picture(BOOK_TRIP),
    "without a pivot": picture(GET_VISA),
    "long names": picture(LONG_SAGA),
    "progress": picture(BOOK_TRIP, a_trip(pay=StepState(StepStatus.ASKED, attempt=12, stuck="nobody answers " * 40))),
    "names only": picture(None, a_trip()),
    "hostile": picture(BOOK_TRIP, replace(a_trip(pay=StepState(StepStatus.REFUSED, refusal=HOSTILE)), failure=HOSTILE)),
}
SVG = "{http://www.w3.org/2000/svg}"


def elements(seen: Picture, tag: str) -> Iterator[ElementTree.Element]:
    return ElementTree.fromstring(svg(seen)).iter(f"{SVG}{tag}")


@pytest.mark.parametrize("seen", PICTURES_OF_ALL_SORTS.values(), ids=PICTURES_OF_ALL_SORTS)
def test_an_svg_names_everything_that_there_is(seen: Picture) -> None:
    shown = [element.text for element in elements(seen, "text")]
    for node in seen.nodes:
        assert shown.count(node.name) == 1
        assert set(node.notes) <= set(shown)
        assert node.undo is None or node.undo in shown
        assert node.progress is None or node.progress.words in shown or node.progress.stuck


@pytest.mark.parametrize("seen", PICTURES_OF_ALL_SORTS.values(), ids=PICTURES_OF_ALL_SORTS)
def test_everything_in_an_svg_lies_on_its_sheet(seen: Picture) -> None:
    root = ElementTree.fromstring(svg(seen))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    for box in (one.attrib for one in root.iter(f"{SVG}rect") if "x" in one.attrib):
        assert 0 <= float(box["x"]) < float(box["x"]) + float(box["width"]) <= width
        assert 0 <= float(box["y"]) < float(box["y"]) + float(box["height"]) <= height
    for words in root.iter(f"{SVG}text"):
        length = len(words.text or "") * float(words.attrib["font-size"]) * 0.5
        left = float(words.attrib["x"]) - (length / 2 if "text-anchor" in words.attrib else 0)
        assert 0 <= left < left + length <= width, words.text
        assert 0 < float(words.attrib["y"]) < height


def test_no_two_cards_of_an_svg_overlap() -> None:
    cards = [one.attrib for one in elements(picture(BOOK_TRIP), "rect") if one.attrib.get("stroke-width")]
    spans = sorted((float(box["x"]), float(box["y"]), float(box["y"]) + float(box["height"])) for box in cards)
    assert len(spans) == len(STEPS) - 1 + 4  # a wait is no rectangle, and four steps have an undo
    for (x, _, bottom), (x_below, top, _) in pairwise(spans):
        assert x != x_below or bottom < top


def test_the_way_back_of_an_svg_begins_where_a_step_may_say_no() -> None:
    shown = [element.text for element in elements(picture(BOOK_TRIP), "text")]
    assert shown.count("refused") == 2  # the wait and the pivot; whatever has an undo is bound to that
    paths = [one.attrib["d"] for one in elements(picture(BOOK_TRIP), "path") if "stroke-dasharray" in one.attrib]
    turns = [path.count("L") for path in paths]
    assert sorted(turns) == [1] * 7 + [2]  # four undos, two stages of them, the wait; the pivot goes around a corner


def test_an_undo_that_is_under_way_is_drawn_solid() -> None:
    def dashes(status: StepStatus) -> list[str]:
        boxes = elements(picture(BOOK_TRIP, a_trip(open_trip=StepState(status))), "rect")
        return [one.attrib["stroke-dasharray"] for one in boxes if one.attrib.get("stroke-width") == "1.5"
                and "stroke-dasharray" in one.attrib]  # fmt: skip

    assert dashes(StepStatus.DONE) == ["5 4"] * 4
    assert sorted(dashes(StepStatus.UNDOING)) == ["5 4"] * 3 + ["none"]


def test_what_a_participant_says_stays_text_in_an_svg() -> None:
    shown = " ".join(element.text or "" for element in elements(PICTURES_OF_ALL_SORTS["hostile"], "text"))
    assert '<b>"no"</b> & #35;' in shown
    assert not list(elements(PICTURES_OF_ALL_SORTS["hostile"], "b"))


# --- the state machine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_what_the_code_does(page: object) -> None:
    content = (DOCS / str(page)).read_text(encoding="utf-8")
    assert content == drawn(content), f"{page} and the code differ: run `make docs`"


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.name)
def test_a_picture_shows_what_the_code_does(file: object) -> None:
    content = (DOCS / str(file)).read_text(encoding="utf-8")
    assert [content == draw() for known, draw in PICTURES.items() if known == file] == [True], "run `make docs`"


def test_every_transition_is_drawn_once() -> None:
    entries = [entry for line in steps().splitlines() if ": " in line for entry in line.split(": ")[1].split(" or ")]
    ours = [entry for _, entry in TRANSITIONS if "by-hand" not in entry]
    assert sorted(entries) == sorted(ours)
    assert phases().count(": ") == len(PHASES)
    by_person = [(before, after) for (before, entry), after in TRANSITIONS.items() if "by-hand" in entry]
    rows = [row.split("|")[1:] for row in by_hand().splitlines()[2:]]
    shown = [(before, row[2].strip()) for row in rows for before in row[0].strip().split(", ")]
    assert sorted(shown) == sorted(by_person)


def test_another_table_makes_another_drawing() -> None:
    more = {**TRANSITIONS, (StepStatus.DONE, "forgotten"): StepStatus.PENDING}
    assert set(steps(more).splitlines()) - set(steps().splitlines()) == {"    done --> pending: forgotten"}
    both = {**PHASES, (Phase.RUNNING, "abandoned"): Phase.COMPLETED}
    assert "    running --> completed: completed or abandoned" in phases(both).splitlines()


def test_the_page_explains_every_phase_and_every_status() -> None:
    page = (DOCS / "state-machine.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| ([a-z-]+) \| ", page, flags=re.MULTILINE))
    assert {*Phase, *StepStatus} <= explained
    for words in ("stuck", "paused"):
        assert f"- **{words}**:" in page
