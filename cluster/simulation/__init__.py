"""The production core under a virtual clock, with faults drawn from a seed."""
