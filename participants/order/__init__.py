"""The order service: orders with a semantic lock. A pending order is visible, and nobody may touch it."""
