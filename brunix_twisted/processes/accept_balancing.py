"""
Balance the connections that several processes accept from one socket.

The system wakes every process that waits for the socket, and the first one accepts: often the same one for a while. So
each process writes its number of connections into shared memory. A process with more connections than another lets the
other accept first.
"""

from __future__ import annotations

import mmap
import os
from tempfile import TemporaryFile
from typing import Final

# Instead of a number of connections: this process does not accept.
_NOT_ACCEPTING: Final = -1
_BYTES: Final = 4


def shared_memory(processes: int) -> int:
    """Create the shared memory for N processes, of which none accepts yet; return its file descriptor."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("brunix-connection-counts")
    else:
        with TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, _NOT_ACCEPTING.to_bytes(_BYTES, "little", signed=True) * processes)
    return descriptor


class ConnectionCounts:
    """The shared memory, as one process reads and writes it."""

    def __init__(self, descriptor: int, number: int, processes: int) -> None:
        """
        Map the shared memory.

        :param number: the number of this process, from 0.
        :param processes: the number of processes that the memory was created for.
        """
        self._connections = memoryview(mmap.mmap(descriptor, processes * _BYTES)).cast("i")
        self._number = number

    def set(self, connections: int) -> None:
        """Publish the number of connections of this process, which accepts."""
        self._connections[self._number] = connections

    def withdraw(self) -> None:
        """Publish that this process does not accept."""
        self._connections[self._number] = _NOT_ACCEPTING

    def has_more(self) -> bool:
        """Whether an accepting process has fewer connections than this one."""
        own = self._connections[self._number]
        return any(_NOT_ACCEPTING < connections < own for connections in self._connections)
