"""A trip is booked: seats and a room together, transfers as a saga of their own, and a person who must say yes."""
