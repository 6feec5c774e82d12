"""The services that carry out what sagas ask for. Each has its own database, and knows neither the other services
nor the orchestrator.

`runtime` is what they share. In each of them read `contracts` (its published language), `models` (its rows),
`handlers` (what it does), and `audit` (the proof that its books balance).
"""
