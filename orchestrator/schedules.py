"""Schedules: sagas that begin by the clock, each of them once.

Every time of a schedule has one saga, whose key is `<name>@<the time>`. So two replicas, a crash, a trigger that is sent
twice and a backfill over times that have run all meet the saga that is there already. A saga is started in the
transaction that moves the schedule on. How it dies: before the commit nothing has happened and the time is still
due; after it, the time has been dealt with.

A time is missed when another one of the schedule has come since, or when it is more than `TOLERANCE` ago. What becomes of
missed times is the schedule's to say: `skip` them, run `once` for all of them (the latest), or run `all`, in order. What
comes while a schedule is paused is not missed but left out; `backfill` makes up for it.
"""

