"""Sockets, threads and clocks around the core and the protocol; no decisions are made here."""
