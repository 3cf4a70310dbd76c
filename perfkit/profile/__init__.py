"""The instruments: where a process spends its time and memory, and a task its latency.

Nothing is imported here, so that a command line does not pay for profilers it does not start.
"""
