"""The answers of tools: how one is run, and what it printed."""
