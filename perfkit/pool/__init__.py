"""Pools of messages, buffers and connections: bounded, thread-safe, counted, strict on request.

Whether a pool pays is a question of what it saves: memory that the allocator hands out in 50 ns is
not worth a lock, a megabyte that the kernel has to map or a connection that takes a handshake is.
`perfkit.bench.goals.pools` measures which is which; the optimised cluster uses what wins there.
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
