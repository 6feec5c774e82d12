"""The payment service: accounts, holds on them, and a double-entry ledger."""
