"""Sockets behind the system's poll: bounded, kept alive, waited on and woken."""
