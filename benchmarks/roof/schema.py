"""The tables of the roof, and the SQL that does a whole batch of work in one statement.

One statement is one transaction and one round trip. What may be done is decided inside it: which replies are news,
which commands were never seen.
"""

from typing import Final

ACCOUNTS: Final = 1000
"""As many as PARTICIPANT_TABLES fills in."""

OUTBOX_TABLE: Final = """
CREATE TABLE roof_outbox (
    row_id text PRIMARY KEY,
    subject text NOT NULL,
    body bytea STORAGE EXTERNAL NOT NULL  -- no time is spent on compressing what is deleted in a moment
)
"""

ORCHESTRATOR_TABLES: Final = """
CREATE TABLE roof_sagas (
    id text PRIMARY KEY,
    step integer NOT NULL,  -- the one that is awaited; all are done when it is the number of steps
    state json NOT NULL,
    due_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX roof_sagas_due_at ON roof_sagas (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE roof_saga_log (
    saga_id text NOT NULL,
    revision integer NOT NULL,
    at timestamptz NOT NULL,
    entry text NOT NULL,
    PRIMARY KEY (saga_id, revision)
)
"""

PARTICIPANT_TABLES: Final = """
CREATE TABLE roof_inbox (message_id text PRIMARY KEY, answer text NOT NULL, received_at timestamptz NOT NULL);
CREATE TABLE roof_effects (saga_id text NOT NULL, step integer NOT NULL, account integer NOT NULL,
    PRIMARY KEY (saga_id, step));
CREATE TABLE roof_accounts (id integer PRIMARY KEY, amount bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO roof_accounts SELECT id, 0 FROM generate_series(0, 999) AS id
"""

DROP: Final = """
DROP TABLE IF EXISTS
    roof_outbox, roof_sagas, roof_saga_log, roof_inbox, roof_effects, roof_accounts
"""

CONNECTION_SETTINGS: Final = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}
"""Each statement is planned once, and by index: at first the tables are empty, and a scan would look cheaper."""

ADVANCE: Final = """
WITH reply AS (SELECT * FROM unnest($1::text[], $2::integer[], $3::text[]) AS reply (saga_id, step, state)),
moved AS (
    UPDATE roof_sagas SET
        step = reply.step + 1,
        state = reply.state::json,
        due_at = CASE WHEN reply.step + 1 < $4 THEN now() + interval '30 seconds' END
    FROM reply WHERE roof_sagas.id = reply.saga_id AND roof_sagas.step = reply.step
    RETURNING roof_sagas.id, roof_sagas.step, reply.state
),
begun AS (
    INSERT INTO roof_sagas (id, step, state, due_at)
    SELECT id, 0, state::json, now() + interval '30 seconds'
    FROM unnest($5::text[], $6::text[]) AS new (id, state)
),
logged AS (
    INSERT INTO roof_saga_log (saga_id, revision, at, entry)
    SELECT id, step, now(), state FROM moved
    UNION ALL SELECT id, 0, now(), state FROM unnest($5::text[], $6::text[]) AS new (id, state)
),
posted AS (INSERT INTO roof_outbox SELECT * FROM unnest($7::text[], $8::text[], $9::bytea[]) ON CONFLICT DO NOTHING),
cleaned AS (DELETE FROM roof_outbox WHERE row_id = ANY ($10::text[]))
SELECT id FROM moved WHERE step = $4
"""
"""A reply to another step than the awaited one moves nothing. The command that it leads to is sent all the same: the
inbox of the participant knows it. Returns the sagas that have ended.
"""

READ_STATE: Final = "SELECT id, state FROM roof_sagas WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE"

CARRY_OUT: Final = """
WITH fresh AS (
    INSERT INTO roof_inbox (message_id, answer, received_at)
    SELECT message_id, 'done', now() FROM unnest($1::text[]) AS message_id
    ON CONFLICT DO NOTHING RETURNING message_id
),
command AS (
    SELECT DISTINCT saga_id, step, account
    FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[]) AS command (message_id, saga_id, step, account)
    JOIN fresh USING (message_id)
),
effected AS (INSERT INTO roof_effects SELECT * FROM command),
booked AS (
    UPDATE roof_accounts SET amount = amount + times
    FROM (SELECT account, count(*) AS times FROM command GROUP BY account) AS booking
    WHERE id = account
),
posted AS (INSERT INTO roof_outbox SELECT * FROM unnest($5::text[], $6::text[], $7::bytea[]) ON CONFLICT DO NOTHING)
DELETE FROM roof_outbox WHERE row_id = ANY ($8::text[])
"""
"""A command that was seen before has no effect, and is answered again."""

CLEAN: Final = "DELETE FROM roof_outbox WHERE row_id = ANY ($1::text[])"

ORCHESTRATOR_SUMS: Final = """
SELECT
    (SELECT count(*) FROM roof_sagas WHERE step = $1 AND due_at IS NULL),
    (SELECT count(*) FROM roof_saga_log),
    (SELECT count(*) FROM roof_outbox)
"""
"""Sagas that have ended, decisions in the log, rows left to send."""

PARTICIPANT_SUMS: Final = """
SELECT
    (SELECT count(*) FROM roof_inbox),
    (SELECT count(*) FROM roof_effects),
    (SELECT sum(amount) FROM roof_accounts),
    (SELECT count(*) FROM roof_outbox)
"""
"""Commands seen, effects, bookings, rows left to send."""
