"""The saga engine. Read it in this order:

- `sagas.place_order`  what a definition looks like
- `definition`         what a definition is, and which ones are refused
- `machine`            the state machine: the whole of it, and no I/O
- `store`, `engine`    batch in, lock, machine, write, commit
- `verify`             the proof, read from the databases
- `composition`        where everything is wired together
- `cli`                the command `saga`
"""
