"""Pools of messages, buffers and connections: bounded, thread-safe, counted, strict on request.

A pool pays where it saves more than its lock costs. Memory that the allocator hands out in 50 ns is
not worth one; a megabyte that the kernel has to map, or a connection that takes a handshake, is.
`perfkit.bench.goals.pools` measures each.
"""

from perfkit.pool.base import (
    DoubleRelease,
    ForeignRelease,
    NotReturned,
    PoolClosed,
    PoolError,
    PoolExhausted,
    PoolStats,
    StillInUse,
    UseAfterRelease,
)
from perfkit.pool.buffers import BufferPool, size_class
from perfkit.pool.connections import ConnectionPool
from perfkit.pool.messages import Message, MessagePool

__all__ = [
    "BufferPool",
    "ConnectionPool",
    "DoubleRelease",
    "ForeignRelease",
    "Message",
    "MessagePool",
    "NotReturned",
    "PoolClosed",
    "PoolError",
    "PoolExhausted",
    "PoolStats",
    "StillInUse",
    "UseAfterRelease",
    "size_class",
]
