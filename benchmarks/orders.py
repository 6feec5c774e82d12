"""What is ordered: inputs spread evenly over a thousand articles and a thousand customers, who have enough of
everything; and the customers who are too poor, for the orders that are to be refused.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from benchmarks.options import Options
from orchestrator.composition import seed_accounts, seed_stock
from orchestrator.settings import Settings

SPREAD: Final = 1000
"""Articles, and accounts."""

STEP: Final = 7
"""From one order's article to the next order's; has nothing in common with SPREAD, so all get their turn."""

PLENTY: Final = 1_000_000_000
PRICE: Final = "1.00"
TOO_MUCH: Final = "10000000000.00"
"""More than anybody has."""


async def seed(settings: Settings) -> None:
    """Fill the shelves and the accounts."""
    await seed_stock(settings, {article(number): PLENTY for number in range(SPREAD)})
    rich = {customer(number): Decimal(PLENTY) for number in range(SPREAD)}
    poor = {poor_customer(number): Decimal(0) for number in range(SPREAD)}
    await seed_accounts(settings, rich | poor, "EUR")


def article(number: int) -> str:
    """An article's name."""
    return f"article-{number % SPREAD:04}"


def customer(number: int) -> str:
    """A customer's name."""
    return f"customer-{number % SPREAD:04}"


def poor_customer(number: int) -> str:
    """The name of a customer who has no money at all."""
    return f"poor-{number % SPREAD:04}"


def is_refused(number: int, percent: float) -> bool:
    """Whether this order is one of those that are to be refused: they come at even distances."""
    return int((number + 1) * percent / 100) > int(number * percent / 100)


def inputs(options: Options, prefix: str, count: int) -> Iterator[dict[str, Any]]:
    """So many inputs of the saga that is measured; the ids of their orders begin with `prefix`."""
    make = _order if options.steps is None else _link
    for number in range(count):
        yield make(f"{prefix}-{number}", number, is_refused(number, options.refused), options.payload)


def waiting_inputs(count: int) -> Iterator[dict[str, Any]]:
    """So many inputs of the saga that waits for a signal."""
    for number in range(count):
        yield _link(f"waiting-{number}", number, False, 0)


def _order(order_id: str, number: int, refused: bool, payload: int) -> dict[str, Any]:
    """Padded with lines. They are all of one article, so that only the message grows and not the work."""
    line = {"sku": article(number * STEP), "quantity": 1, "unit_price": PRICE}
    order = {
        "order_id": order_id,
        "customer_id": poor_customer(number) if refused else customer(number),
        "lines": [line],
        "currency": "EUR",
    }
    more = max(0, payload - size_of(order)) // (size_of(line) + 2)
    return order | {"lines": [line] * (1 + more)}


def _link(order_id: str, number: int, refused: bool, payload: int) -> dict[str, Any]:
    """Padded with a note, which travels in every command."""
    link = {"order_id": order_id, "customer_id": customer(number), "sku": article(number * STEP), "note": ""}
    if refused:
        link["last_amount"] = TOO_MUCH
    return link | {"note": "." * max(0, payload - size_of(link))}


def size_of(value: Any) -> int:
    """Bytes of JSON, as the orchestrator counts an input's."""
    return len(json.dumps(value))
