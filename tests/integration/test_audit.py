"""What the auditors of the services find of a saga that has several rows with a service: one answer, by an index."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import pytest
from sqlalchemy import Column, Table, event, insert, text

from outbox.database import Database
from participants.inventory.audit import InventoryAuditor
from participants.inventory.models import Reservation
from participants.order.audit import OrderAuditor
from participants.order.models import Order
from participants.payment.audit import PaymentAuditor
from participants.payment.models import Hold
from participants.runtime.audit import Auditor
from tests.support.servers import DatabaseUrls, Role

MANY: Final = 5000


@dataclass(frozen=True, slots=True)
class Service:
    """A service, its rows, and what their statuses are called: done, under way, undone."""

    role: Role
    auditor: Callable[[Database], Auditor]
    table: Table
    reference: Column[str]
    applied: str
    partial: str
    none: str

    def row(self, reference: str, status: str) -> dict[str, Any]:
        """One row under this reference."""
        none = Decimal(0)
        own: dict[str, dict[str, Any]] = {
            "order": {"order_id": f"order-{reference}", "customer_id": "ada", "lines": [], "total": none},
            "inventory": {"lines": {}},
            "payment": {"customer_id": "ada", "amount": none},
        }
        row = own[self.role] if self.role == "inventory" else own[self.role] | {"currency": "EUR"}
        return row | {self.reference.name: reference, "status": status}


SERVICES: Final = (
    Service("order", OrderAuditor, Order.table, Order.table.c.placement_id, "confirmed", "pending", "rejected"),
    Service(
        "inventory", InventoryAuditor, Reservation.table, Reservation.table.c.reservation_id, "sold", "held", "released"
    ),
    Service("payment", PaymentAuditor, Hold.table, Hold.table.c.hold_id, "captured", "held", "voided"),
)


@pytest.fixture(params=SERVICES, ids=lambda service: service.role)
def service(request: pytest.FixtureRequest) -> Service:
    """Each service in turn."""
    found: Service = request.param
    return found


@pytest.fixture
async def database(database_urls: DatabaseUrls, service: Service) -> AsyncIterator[Database]:
    """The service's tables, empty."""
    database = Database(database_urls(service.role))
    async with database.transaction() as connection:
        await connection.run_sync(service.table.metadata.create_all)
    yield database
    await database.close()


async def put(database: Database, service: Service, rows: Mapping[str, str]) -> None:
    """reference -> status"""
    async with database.transaction() as connection:
        await connection.execute(insert(service.table), [service.row(*row) for row in rows.items()])


async def test_all_rows_of_a_saga_answer_together(database: Database, service: Service) -> None:
    rows = {
        "01A": service.applied,
        "01B": service.applied,
        "01B/4": service.applied,
        "01C": service.applied,
        "01C/30": service.none,
        "01D/4": service.none,
        "01D/a-step": service.none,
        "01E": service.partial,
        "01E/zz": service.partial,
        "01F": "what is this",
        "01G/4": service.applied,
    }
    await put(database, service, rows)
    auditor = service.auditor(database)
    assert await auditor.effects(["01A", "01B", "01C", "01D", "01E", "01F", "01H"]) == {
        "01A": "applied",
        "01B": "applied",
        "01C": "partial",
        "01D": "none",
        "01E": "partial",
        "01F": "partial",
    }
    assert await auditor.effects([]) == {}


async def test_a_saga_does_not_answer_for_one_whose_id_begins_like_its_own(
    database: Database, service: Service
) -> None:
    await put(database, service, {"01A0": service.applied, "01A0/4": service.applied, "01A/4": service.none})
    auditor = service.auditor(database)
    assert await auditor.effects(["01A"]) == {"01A": "none"}
    assert await auditor.effects(["01A0", "01A"]) == {"01A0": "applied", "01A": "none"}
    assert await auditor.effects(["01"]) == {}


async def test_holders_are_sagas_each_once_in_a_batch(database: Database, service: Service) -> None:
    rows = {"01A": service.applied, "01A/4": service.partial, "01B": service.none, "01C/5": service.partial}
    await put(database, service, rows)
    assert [batch async for batch in service.auditor(database).holders()] == [["01A", "01C"]]


async def test_effects_are_found_by_the_index_among_many(database: Database, service: Service) -> None:
    references = [f"01K{number:05}{part}" for number in range(MANY) for part in ("", "/4", "/5")]
    await put(database, service, dict.fromkeys(references, service.applied))
    async with database.transaction() as connection:
        await connection.execute(text("ANALYZE"))
    seen: list[tuple[str, Any]] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        seen.append((statement, parameters))

    wanted = [f"01K{number:05}" for number in range(100, 600)]
    assert await service.auditor(database).effects(wanted) == dict.fromkeys(wanted, "applied")
    [(statement, parameters)] = [one for one in seen if service.table.name in one[0]]
    assert "Seq Scan" not in (plan := await explain(database, statement, parameters))
    assert f"SCAN {service.table.name}" not in plan
    assert "Index" in plan or "INDEX" in plan, plan


async def explain(database: Database, statement: str, parameters: Any) -> str:
    """The plan as the database tells it."""
    how = "EXPLAIN" if database.dialect == "postgresql" else "EXPLAIN QUERY PLAN"
    async with database.reading() as connection:
        rows = (await connection.exec_driver_sql(f"{how} {statement}", parameters)).all()
    return "\n".join(str(row[-1]) for row in rows)
