"""The saga engine. Read it in this order:

- `sagas.place_order`         what a definition looks like
- `steps`, `definition`       the words that it is written in, and which definitions are refused
- `machine`                   the state machine: the whole of it, and no I/O
- `testing`, `explorer`       the machine tried by hand, and in every way there is
- `door`, `store`, `engine`   batch in, lock, machine, write, commit
- `admission`, `commands`     who may begin, and the orchestrator as a participant
- `schedules`, `retention`    what begins by the clock, and what is pruned
- `graph`, `lint`             a definition drawn, and its hazards
- `verify`                    the proof, read from the databases
- `why`, `letters`, `health`  what keeps a saga, dead letters, how a process is
- `composition`               where everything is wired together
- `cli`                       the command `saga`
"""
