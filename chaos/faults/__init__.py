"""What each kind of fault does. A fault returns what has really fired, or raises Missed: then it does not count."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from chaos.faults import disk, impostors, network, processes, store
from chaos.faults.world import World
from chaos.plan import Planned
from chaos.record import Fault

Strike = Callable[[World, Planned], Awaitable[list[Fault]]]

STRIKES: Final[Mapping[str, Strike]] = {
    "kill": processes.kill,
    "kill-broker": processes.kill,
    "kill-database": processes.kill,
    "pause": processes.pause,
    "pause-broker": processes.pause,
    "pause-database": processes.pause,
    "database-restart": processes.restart_database,
    "store-wipe": store.wipe,
    "store-delete": store.delete_store,
    "store-abandon": store.abandon,
    "store-rollback": store.roll_back,
    "stream-delete": store.delete_stream,
    "consumer-delete": store.delete_consumer,
    "cut": network.cut,
    "cut-one-way": network.cut_one_way,
    "delay": network.delay,
    "loss": network.lose,
    "reset": network.reset,
    "disk-full": disk.fill,
    "clock-skew": impostors.skew_clock,
    "rogue": impostors.go_rogue,
}
