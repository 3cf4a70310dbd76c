"""Clients' and workers' side of the protocol, and how messages become frames: sans-IO."""
