"""
Whose turn it is to accept a connection, where several processes could.

The system wakes all who wait for the socket, and who comes first accepts: often the same one for a while. So each
process says, in memory that all of them share, how many connections it has, and one that has more than another lets
that one go first.
"""

from __future__ import annotations

import mmap
import os
from tempfile import TemporaryFile
from typing import Final

# In the place of a number: this process does not accept.
_NOT_ACCEPTING: Final = -1
_BYTES: Final = 4


def shared_memory(processes: int) -> int:
    """Make memory for so many, and return its descriptor; so far, none of them accepts."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("brunix-turns")
    else:
        with TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, _NOT_ACCEPTING.to_bytes(_BYTES, "little", signed=True) * processes)
    return descriptor


class ConnectionCounts:
    """One process's place in that memory."""

    def __init__(self, descriptor: int, number: int, processes: int) -> None:
        """
        Take a place.

        :param processes: how many the memory was made for.
        """
        self._connections = memoryview(mmap.mmap(descriptor, processes * _BYTES)).cast("i")
        self._number = number

    def set(self, connections: int) -> None:
        """Tell how many connections this process has, now that it accepts them."""
        self._connections[self._number] = connections

    def withdraw(self) -> None:
        """Tell that it accepts none."""
        self._connections[self._number] = _NOT_ACCEPTING

    def has_more(self) -> bool:
        """Whether some process that accepts has fewer connections than this one."""
        own = self._connections[self._number]
        return any(_NOT_ACCEPTING < connections < own for connections in self._connections)
