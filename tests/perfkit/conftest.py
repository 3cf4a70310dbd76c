"""What holds for all tests of perfkit: how busy the machine is, each test process asks once.

Every result says it, and to look at all processes takes longer than most results do.
"""

from functools import cache

from perfkit.evidence import environment

environment.measure_disturbance = cache(environment.measure_disturbance)  # type: ignore[assignment]
