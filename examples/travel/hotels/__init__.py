"""The hotels service: rooms, and who stays in them."""
