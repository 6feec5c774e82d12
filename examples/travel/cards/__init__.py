"""The cards service: what may be charged to a card, and what was."""
