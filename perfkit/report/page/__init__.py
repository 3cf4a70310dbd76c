"""Turns executed notebooks into self-contained pages and an index."""
