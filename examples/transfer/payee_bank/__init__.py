"""The payee's bank: accounts that money is paid into."""
