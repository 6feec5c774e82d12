"""Worked examples, to be read and copied: `travel` books a trip, `transfer` moves money between two banks.

Each has a saga (`saga.py`), the services that take part (one folder each, with a database of its own), what must be
true in the end (`audit.py`), and some stories that are played on real parts (`python -m examples.travel`). `stage`,
`audit` and `playbill` are the theatre: a service that runs for itself needs none of them.
"""
