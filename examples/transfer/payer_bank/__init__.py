"""The payer's bank: accounts that money is taken from."""
