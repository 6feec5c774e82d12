"""Chaos: real processes, real servers, and faults that really happen, while orders come in. Read it in this order:

- `scenarios`        what is tried
- `plan`             which fault hits whom, and when: from a seed, no I/O
- `run`              one run, from empty databases to its record
- `site`, `fleet`    the servers, the wires between everybody, and the processes
- `wire`             a TCP proxy that can be cut, slow, lossy or broken
- `injector`         lets the faults happen at their times
- `faults`           what each fault does, and how it knows that it has happened
- `rogue`, `skewed`  participants that answer as they like, and processes whose clock jumps
- `load`, `watch`    orders come in; once a second somebody looks how many have ended
- `settle`           the faults are over: wait until every saga has ended
- `proof`, `recovery` what must hold in the end, and how soon sagas ended again
- `record`, `report` all of it, and how it is shown
- `guard`            ends what is left when a run is killed
"""
