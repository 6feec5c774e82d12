"""Chaos: real processes, real servers, and faults that really happen, while orders come in."""
