"""What is printed is what was said."""

import io

from rich.console import Console

from orchestrator.cli import console


def test_text_of_users_is_not_taken_for_markup() -> None:
    written = io.StringIO()
    rows = [("[/x]", "there is no article [red]lamp[/red]")]
    Console(file=written, width=200).print(console.table(("sku", "reason"), rows))
    assert "[/x]" in written.getvalue()
    assert "[red]lamp[/red]" in written.getvalue()
