"""How each service's database came to its shape: Alembic, one history per database.

    from migrations.runner import check, upgrade

    await upgrade(database, "order")        # ["order_0001"]; again: []
    await check(database, "order")          # []: the database is what the models say

- `registry`   the roles, and which models each one is held against
- `history`    the revisions of a role, read from `<role>/versions`
- `runner`     up, down, where are we
- `drift`      what differs between the models and the database, in sentences
- `pieces`     column types and tables that revisions share, frozen

A new revision is a file `<role>/versions/0002_what_it_does.py`. Its id starts with the role (`order_0002`), so that a
database tells whose it is. It is a record of what was done once: it imports SQLAlchemy, Alembic and `pieces`, and no
live code, which will have moved on by the time that the revision runs on somebody's database. `tests/integration/
test_migrations.py` fails as long as the models and the revisions disagree.
"""
