"""What differs between the models and a database, said so that a person can judge it.

Alembic compares tables, columns, types, indexes and unique constraints. Three things that it passes over are looked at
here: primary keys, since "applied once" rests on them, the condition of a partial index, and whether SQLite gives ids
once only.
"""

from collections.abc import Iterator
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Inspector, MetaData, Table, inspect


def drift(connection: Connection, models: MetaData) -> list[str]:
    """One sentence for each difference."""
    differences = _flat(compare_metadata(MigrationContext.configure(connection), models))
    beyond = (*_beyond_alembic(inspect(connection), models), *_numbering(connection, models))
    return [*map(_sentence, differences), *beyond]


def _flat(differences: Any) -> Iterator[Any]:
    """Alembic puts what it found about one column into a list of its own."""
    for difference in differences:
        if isinstance(difference, list):
            yield from difference
        else:
            yield difference


def _sentence(difference: Any) -> str:
    match difference:
        case ("add_table", table):
            return f"the table {table.name} is missing"
        case ("remove_table", table):
            return f"the table {table.name} is unknown to this release"
        case ("add_column", _, table, column):
            return f"the column {table}.{column.name} is missing"
        case ("remove_column", _, table, column):
            return f"the column {table}.{column.name} is unknown to this release"
        case ("modify_type", _, table, column, _, found, wanted):
            return f"the column {table}.{column} has the type {found!r} and should have {wanted!r}"
        case ("modify_nullable", _, table, column, _, found, _):
            return f"the column {table}.{column} {'may' if found else 'may not'} be null and should be the other way"
        case (str() as kind, item) if hasattr(item, "table"):
            return _sentence_of_part(kind, item)
    return f"the database differs: {difference!r}"


def _sentence_of_part(kind: str, item: Any) -> str:
    action, _, noun = kind.partition("_")
    columns = ", ".join(column.name for column in item.columns)
    what = f"the {noun} {item.name} of {item.table.name} ({columns})"
    return f"{what} is missing" if action == "add" else f"{what} is unknown to this release"


def _beyond_alembic(found: Inspector, models: MetaData) -> Iterator[str]:
    present = set(found.get_table_names())
    for table in models.sorted_tables:
        if table.name in present:
            yield from _primary_key(found, table)
            yield from _conditions(found, table)


def _primary_key(found: Inspector, table: Table) -> Iterator[str]:
    wanted = [column.name for column in table.primary_key.columns]
    actual = found.get_pk_constraint(table.name)["constrained_columns"]
    if actual != wanted:
        yield f"the primary key of {table.name} is ({', '.join(actual)}) and should be ({', '.join(wanted)})"


def _conditions(found: Inspector, table: Table) -> Iterator[str]:
    """Whether the indexes that should be partial are, and the others not. (What the condition says is not compared.)"""
    dialect = found.dialect.name
    actual = {index["name"]: index.get("dialect_options", {}) for index in found.get_indexes(table.name)}
    for index in table.indexes:
        wanted = index.dialect_options[dialect]["where"] is not None
        if index.name in actual and wanted != (actual[index.name].get(f"{dialect}_where") is not None):
            yield f"the index {index.name} of {table.name} {'lacks its' if wanted else 'has a'} condition"


def _numbering(connection: Connection, models: MetaData) -> Iterator[str]:
    """SQLite gives an id again when its row was the last and is gone, unless a table was made with AUTOINCREMENT."""
    if connection.dialect.name != "sqlite":
        return
    found = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE sql NOT LIKE '%AUTOINCREMENT%'")
    reusing = set(found.scalars())
    for table in models.sorted_tables:
        if table.dialect_options["sqlite"]["autoincrement"] and table.name in reusing:
            yield f"the ids of {table.name} may be given again"
