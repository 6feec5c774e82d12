"""`saga seed`, `config`: what an operator does."""

import asyncio
import csv
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, settings_of
from orchestrator.composition import SeedRefused, seed_accounts, seed_stock
from orchestrator.settings import Settings
from outbox.numbers import counted

V = TypeVar("V")


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("seed")(seed)
    config = typer.Typer(no_args_is_help=True, help="The settings in force.")
    config.command("show")(config_show)
    app.add_typer(config, name="config")


def seed(
    stock: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV: sku,quantity")] = None,
    accounts: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV: customer_id,balance")] = None,
    currency: Annotated[str, typer.Option(help="The currency of the accounts.")] = "EUR",
    data_dir: DataDir = None,
) -> None:
    """Set how much stock there ever was, and how much money customers were ever given. Twice is as good as once."""
    if stock is None and accounts is None:
        raise Failure("nothing to seed: give --stock FILE, --accounts FILE, or both", Exit.USAGE)
    quantities = _read_csv(stock, ("sku", "quantity"), _quantity) if stock else {}
    balances = _read_csv(accounts, ("customer_id", "balance"), _balance) if accounts else {}
    asyncio.run(_seed(settings_of(data_dir), quantities, balances, currency))
    told = (counted(len(quantities), "article"), counted(len(balances), "account"))
    console.say(f"seeded {' and '.join(told)}")


async def _seed(settings: Settings, quantities: dict[str, int], balances: dict[str, Decimal], currency: str) -> None:
    try:
        if quantities:
            await seed_stock(settings, quantities)
        if balances:
            await seed_accounts(settings, balances, currency)
    except SeedRefused as error:
        raise Failure(str(error), Exit.CONFLICT) from error


def config_show(data_dir: DataDir = None, json: Json = False) -> None:
    """The settings in force, passwords hidden. Each can be set by the environment variable SAGA_<NAME>."""
    shown = settings_of(data_dir).shown()
    if json:
        console.print_json(shown)
        return
    fields = Settings.model_fields
    rows = ((f"SAGA_{name.upper()}", str(value), fields[name].description or "") for name, value in shown.items())
    console.out().print(console.table(("setting", "value", ""), rows))


def _read_csv(file: Path, columns: tuple[str, str], read: Callable[[str], V]) -> dict[str, V]:
    """`key,value` rows under a header. All of the file is checked before anything is written."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            return dict(_rows(stream, file, columns, read))
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(f"{file} is not UTF-8 text: {error.reason}") from error
    except csv.Error as error:
        raise Failure(f"{file} is not CSV: {error}") from error


def _rows(
    stream: Iterator[str], file: Path, columns: tuple[str, str], read: Callable[[str], V]
) -> Iterator[tuple[str, V]]:
    rows = csv.DictReader(stream)
    if not set(columns) <= set(rows.fieldnames or ()):
        raise Failure(f"{file} should begin with the line {','.join(columns)}")
    seen: set[str] = set()
    for row in rows:
        key, value = (row[columns[0]] or "").strip(), (row[columns[1]] or "").strip()
        try:
            if not key or len(key) > 100 or key in seen:
                raise ValueError(f"{columns[0]} {key!r} is empty, longer than 100 characters, or there twice")
            yield key, read(value)
        except (ValueError, InvalidOperation) as error:
            raise Failure(f"{file}, line {rows.line_num}: {error}") from error
        seen.add(key)


def _quantity(text: str) -> int:
    if not text.isdecimal() or int(text) > 10**9:
        raise ValueError(f"quantity {text!r} is no whole number from 0 to 1,000,000,000")
    return int(text)


def _balance(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"balance {text!r} is no decimal number") from None
    if not amount.is_finite() or amount < 0 or amount > 10**13 or amount != round(amount, 4):
        raise ValueError(f"balance {text!r} is negative, too large, or has more than 4 places")
    return amount
