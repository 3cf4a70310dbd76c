"""Bare brokers: what plain pyzmq and msgspec do on this machine, without any guarantee.

They are the limit that the cluster is compared with, so they are written to win: no heartbeats,
leases, retries or bounds. A broker and its workers are processes on loopback TCP (`processes`);
their client is the calling process (`brokers`), like the cluster's. Every result is checked, as the
cluster's are.
"""

from perfkit.bench.bare.brokers import Forwarder, Messenger, PackedBroker, RawLink

__all__ = ["Forwarder", "Messenger", "PackedBroker", "RawLink"]
