"""The clearing house: what one bank owes the other."""
