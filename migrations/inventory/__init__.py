"""The history of the inventory database."""
