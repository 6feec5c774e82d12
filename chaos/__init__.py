"""Chaos: real processes, real servers, and faults that really happen, while orders come in. Read it in this order:

- `scenarios`        what is tried
- `plan`             which fault hits whom, and when: from a seed, no I/O
- `run`              one run, from empty databases to its record
- `site`, `fleet`    the servers, the wires between everybody, and the processes
- `wire`             a TCP proxy that can be cut, slow, lossy or broken
- `faults`           what each fault does, and how it knows that it has happened
- `load`, `watch`    orders come in; once a second somebody looks how many have ended
- `proof`, `recovery` what must hold in the end, and how soon sagas ended again
- `record`           all of it, for the report
- `guard`            ends what is left when a run is killed
"""
