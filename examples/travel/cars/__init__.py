"""The cars service: rides with a driver."""
