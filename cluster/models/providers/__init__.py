"""Providers beside the CPU: which cards are really there, and the proof that one did the work."""
