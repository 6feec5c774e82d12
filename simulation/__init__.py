"""The simulation: all of Amends in one process, under a clock, a broker and databases that are as bad as a seed says.

The parts are the real ones: engine, store, outbox, relay, pump, admission, topology, the participants and their
processor, the verifier. What stands in is what is outside of them. Read it in this order:

- `virtual`             an event loop whose time jumps to whatever is due next
- `fate`                chance, out of one seed
- `boundary`, `process` a replica: what it is made of, and where it may be held up or die
- `server`, `engine`    a database server over SQLite in memory, and SQLAlchemy on it
- `broker`, `courier`   JetStream, and one process's way to it
- `rack`, `world`       what is kept from one schedule to the next, and everything that there is in one
- `sagas`, `people`     what is ordered, and who orders, interferes and helps
- `adversary`           what goes wrong at a moment
- `witness`, `judge`    who sees what is done wrong, and who says what is wrong in the end
- `schedule`, `runner`  one schedule, and many
- `sums`                what many runs have shown, for the page that tells of it
"""
