"""What the participants share: register a few pure functions, and the runtime does the rest.

    inventory = Participant("inventory", metadata)

    @inventory.handles(ReserveStock, needs=stock_of_reservation)
    def reserve_stock(command: ReserveStock, work: Work) -> StockReserved:
        ...

- `participant`  the registration of handlers
- `work`         what a handler sees: the rows it asked for, and what it changes
- `rows`         rows of a whole batch, read with one query and written with one statement a table
- `processor`    a batch of commands in one transaction: inbox, handlers, rows, replies, events
"""

from participants.runtime.participant import Participant
from participants.runtime.work import Key, Work

__all__ = ["Key", "Participant", "Work"]
