"""The roof: the durable work of one saga by hand. What Amends reaches is told as a part of it.

One orchestrator and three participants, each a process with a database of its own; raw asyncpg, raw nats-py. For each
step, durably: the saga's row updated (state, due time), a log row, an outbox row, the command published and stored by
JetStream, the outbox row removed; an inbox row, a business row, an account updated, an outbox row for the reply, which
is published and removed likewise. A batch is what is already waiting, one transaction, one statement; many events
travel in one message; a message is acknowledged after the commit.

What was tried, on 2 cores, three steps, 1,000 sagas in flight (runs differ by a tenth):

|                                                                        |   sagas/s |
|------------------------------------------------------------------------|-----------|
| `bare`: as above, one outbox row for each packet of events             |    13,500 |
| … events of a saga's id and step alone, no order in them               |    14,200 |
| … five statements between BEGIN and COMMIT instead of one              |     -17 % |
| … the saga's row read and locked before it is written                  |     -15 % |
| … an outbox row for each event                                         |     -26 % |
| … one event in a message                                               |     -64 % |
| … batches of at most 100, 250 or 1,000 events instead of 500           | no change |
| … uvloop                                                               | no change |
| … 4,000 in flight                                                      |     +10 % |
| `amends`: an outbox row for each event, CloudEvents, rows read first   |     8,500 |

Five steps: 8,200 `bare`, 4,900 `amends`. PostgreSQL takes about 60 % of the CPU that is used; of the rest, two fifths
are the orchestrator's. About a third of the two cores is idle: a batch waits for its commit, and the next for it.
"""

from benchmarks.roof.checking import RoofFailed
from benchmarks.roof.measuring import Roof, measure

__all__ = ["Roof", "RoofFailed", "measure"]
