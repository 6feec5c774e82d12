"""The work of one step, the same for every peer: one small durable transaction in a participant's database.

Step k works in database k % 3. It notes the message in an inbox, so that asking again changes nothing, adds 1 to
one of 1,000 accounts, and writes an effect. All of it is one statement, and so one round trip and one commit:
no peer waits for more of PostgreSQL than the work needs.

`check` afterwards proves that no step was lost or done twice: a fast wrong run is a failed run.
"""

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

PARTICIPANTS: Final = ("order", "inventory", "payment")
ACCOUNTS: Final = 1_000

_SCHEMA: Final = """
CREATE TABLE inbox (message_id text PRIMARY KEY);
CREATE TABLE accounts (id integer PRIMARY KEY, amount bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE effects (id text PRIMARY KEY, saga_id text NOT NULL, step integer NOT NULL, status text NOT NULL);
"""
CARRY_OUT: Final = """
WITH fresh AS (INSERT INTO inbox (message_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING message_id),
added AS (UPDATE accounts SET amount = amount + 1 FROM fresh WHERE accounts.id = $2)
INSERT INTO effects (id, saga_id, step, status) SELECT message_id, $3, $4, 'done' FROM fresh
"""
UNDO: Final = """
WITH barred AS (INSERT INTO inbox (message_id) VALUES ($1) ON CONFLICT DO NOTHING),
undone AS (UPDATE effects SET status = 'undone' WHERE id = $1 AND status = 'done' RETURNING id)
UPDATE accounts SET amount = amount - 1 FROM undone WHERE accounts.id = $2
"""
_COUNTS: Final = """
SELECT saga_id, count(*) AS effects, count(DISTINCT step) AS steps, bool_and(status = 'done') AS done
FROM effects GROUP BY saga_id
"""


class WrongRunError(Exception):
    """The participants' databases are not what the sagas should have left; the message says what is wrong."""


async def open_pools(urls: Mapping[str, str], *, size: int = 10) -> list[asyncpg.Pool]:
    """A pool of at most `size` connections for each participant, in the order that `carry_out` expects.

    What a pool does to a connection that comes back would cost a second round trip; the work leaves nothing to undo.
    """
    return [await asyncpg.create_pool(urls[name], min_size=1, max_size=size, reset=_nothing) for name in PARTICIPANTS]


async def close_pools(pools: Sequence[asyncpg.Pool]) -> None:
    """Close what `open_pools` opened."""
    await asyncio.gather(*(pool.close() for pool in pools))


async def prepare(urls: Mapping[str, str]) -> None:
    """Make the tables and the accounts in the participants' databases, which must be empty."""
    for name in PARTICIPANTS:
        connection = await asyncpg.connect(urls[name])
        try:
            await connection.execute(_SCHEMA)
            await connection.execute(
                "INSERT INTO accounts SELECT id, 0 FROM generate_series(0, $1::integer - 1) AS id", ACCOUNTS
            )
        finally:
            await connection.close()


async def carry_out(pools: Sequence[asyncpg.Pool], saga_id: str, step: int) -> None:
    """Do step `step` of a saga. Doing it again changes nothing, and so does doing it after its undo."""
    pool = pools[step % len(pools)]
    await pool.execute(CARRY_OUT, message_id(saga_id, step), account_of(saga_id), saga_id, step)


async def undo(pools: Sequence[asyncpg.Pool], saga_id: str, step: int) -> None:
    """Take step `step` of a saga back, if it was done, and bar it from being done later."""
    await pools[step % len(pools)].execute(UNDO, message_id(saga_id, step), account_of(saga_id))


async def check(urls: Mapping[str, str], sagas: int, steps: int) -> None:
    """Raise WrongRunError unless `sagas` sagas or more were done, each with exactly one effect of every step."""
    for index, name in enumerate(PARTICIPANTS):
        expected = len(range(index, steps, len(PARTICIPANTS)))
        connection = await asyncpg.connect(urls[name])
        try:
            rows = await connection.fetch(_COUNTS)
            total: int = await connection.fetchval("SELECT sum(amount)::bigint FROM accounts")
        finally:
            await connection.close()
        _judge(name, rows, total, sagas if expected else 0, expected)


def message_id(saga_id: str, step: int) -> str:
    """What identifies a step of a saga: the key of its inbox row and of its effect."""
    return f"{saga_id}/{step}"


def account_of(saga_id: str) -> int:
    """Which account a saga touches: spread evenly, and the same in every process."""
    return zlib.crc32(saga_id.encode()) % ACCOUNTS


async def _nothing(connection: object) -> None:
    pass


def _judge(name: str, rows: Sequence[asyncpg.Record], total: int, sagas: int, expected: int) -> None:
    """`expected` is how many steps of each saga this participant does."""
    wrong = [
        row["saga_id"] for row in rows if (row["effects"], row["steps"], row["done"]) != (expected, expected, True)
    ]
    if wrong:
        raise WrongRunError(
            f"{name}: {len(wrong)} of {len(rows)} sagas do not have exactly one effect of each of their {expected}"
            f" steps here, {wrong[0]} for one."
        )
    if len(rows) < sagas:
        raise WrongRunError(f"{name}: {len(rows)} sagas left effects, and {sagas} should have.")
    if total != len(rows) * expected:
        raise WrongRunError(f"{name}: the accounts hold {total}, and {len(rows) * expected} effects were written.")
