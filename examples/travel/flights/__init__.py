"""The flights service: seats, and who has them."""
