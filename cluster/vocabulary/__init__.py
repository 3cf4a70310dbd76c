"""The types that every other part, and the wire, is written in."""
