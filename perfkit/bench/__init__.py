"""Measurements of the cluster: experiments, goals, counts per task and leak checks.

Nothing is imported here, so that a command that only loads a saved result starts quickly.
"""
