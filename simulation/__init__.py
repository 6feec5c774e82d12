"""The simulation: all of Amends in one process, under a clock and a broker that are as bad as a seed says."""
