"""The inventory service: stock, and reservations against it."""
