"""What is printed is what was said."""

import io

import pytest
from rich.console import Console

from orchestrator.cli import console

ROWS = [
    ("01M8N3X8EMV4WSXB999W9D6QAA", "place-order", "compensated", "18 ms", "reserve-stock was refused: there is none")
]
COLUMNS = ("saga", "type", "status", "took", "reason")


@pytest.mark.parametrize(
    ("width", "shown"),
    [(120, COLUMNS), (81, COLUMNS), (80, ("saga", "type", "status", "reason")), (60, ("saga", "reason"))],
)
def test_a_narrow_terminal_sees_fewer_columns_and_all_of_each(width: int, shown: tuple[str, ...]) -> None:
    written = io.StringIO()
    table = console.table(COLUMNS, ROWS, spare=("took", "type", "status"))
    Console(file=written, width=width).print(table)
    lines = written.getvalue().splitlines()
    assert tuple(lines[0].split()) == shown
    words = " ".join(lines[1:]).split()
    assert words == " ".join(cell for name, cell in zip(COLUMNS, ROWS[0], strict=True) if name in shown).split()


def test_what_has_no_room_at_all_goes_on_in_the_next_line() -> None:
    written = io.StringIO()
    Console(file=written, width=20).print(console.table(("saga", "status"), [("01M8N3X8EMV4WSXB999W9D6QAA", "stuck")]))
    assert "".join(line[:14].strip() for line in written.getvalue().splitlines()[1:]).startswith("01M8N3X8EMV4WSXB999")


def test_text_of_users_is_not_taken_for_markup() -> None:
    written = io.StringIO()
    rows = [("[/x]", "there is no article [red]lamp[/red]")]
    Console(file=written, width=200).print(console.table(("sku", "reason"), rows))
    assert "[/x]" in written.getvalue()
    assert "[red]lamp[/red]" in written.getvalue()
