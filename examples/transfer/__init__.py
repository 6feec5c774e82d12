"""Money is moved between two banks: a pivot of which nobody may know whether it happened, and a deadline."""
