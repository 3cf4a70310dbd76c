"""Bare brokers: what plain pyzmq and msgspec do on this machine, with nothing promised.

They are the limit that the cluster is held against, so they are written to win: no heartbeats, no
leases, no retries, no bounds, nobody is ever lost. A broker and its workers are processes of their
own on loopback TCP (`perfkit.bench.bare.processes`); their client is the calling process
(`perfkit.bench.bare.brokers`), as the cluster's is. What they carry is checked like the cluster's:
a broken limit would be an easy one to beat.
"""

from perfkit.bench.bare.brokers import Forwarder, PackedBroker, RawLink

__all__ = ["Forwarder", "PackedBroker", "RawLink"]
