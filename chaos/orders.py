"""What is ordered, and what has to become of it. From the number of the order alone.

Most orders can be filled. Of twenty, two ask for an article that is sold out, and two come from a customer without
money: they must be undone, and no others.
"""

from decimal import Decimal
from typing import Any, Final, Literal

ARTICLES: Final = 50
CUSTOMERS: Final = 200
PLENTY: Final = 100_000_000
SOLD_OUT: Final = "sold-out"
POOR: Final = "poor"
CURRENCY: Final = "EUR"

Refusal = Literal["out-of-stock", "payment-refused"]


def key(seed: int, number: int) -> str:
    """The key that an order is started with: however often it is sent, there is one saga."""
    return f"chaos-{seed}-{number}"


def refusal(number: int) -> Refusal | None:
    """Why this order must be refused; None when it can be filled."""
    if number % 10 == 3:
        return "out-of-stock"
    return "payment-refused" if number % 10 == 7 else None


def order(number: int) -> dict[str, Any]:
    """The input of `place-order`."""
    refused = refusal(number)
    lines = [{"sku": f"article-{(number * step) % ARTICLES}", "quantity": 1, "unit_price": "2.50"} for step in (1, 7)]
    if refused == "out-of-stock":
        lines.append({"sku": SOLD_OUT, "quantity": 1, "unit_price": "1.00"})
    return {
        "order_id": f"order-{number}",
        "customer_id": POOR if refused == "payment-refused" else f"customer-{number % CUSTOMERS}",
        "lines": lines,
        "currency": CURRENCY,
    }


def stock() -> dict[str, int]:
    """What is on the shelves."""
    return {f"article-{number}": PLENTY for number in range(ARTICLES)} | {SOLD_OUT: 0}


def accounts() -> dict[str, Decimal]:
    """What the customers have."""
    return {f"customer-{number}": Decimal(PLENTY) for number in range(CUSTOMERS)} | {POOR: Decimal(0)}
