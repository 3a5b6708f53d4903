"""A DNS server that knows one name, whose addresses a test may change."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Final, Self

from threads import Threads

_A: Final = 1
_ANSWER_FLAGS: Final = 0x8180
_HEADER_BYTES: Final = 12


class NameServer:
    """Answers every lookup with the same IPv4 addresses, and with no IPv6 address."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._threads = Threads()
        self._threads.start(self._serve)

    def __enter__(self) -> Self:
        """Serve already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread, and close the socket."""
        # An empty datagram ends the thread: closing a socket does not wake a thread that reads from it.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self._threads.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            question = query[_HEADER_BYTES : query.index(b"\0", _HEADER_BYTES) + 5]
            (kind,) = struct.unpack(">H", question[-4:-2])
            addresses = self.addresses if kind == _A else ()
            header = query[:2] + struct.pack(">5H", _ANSWER_FLAGS, 1, len(addresses), 0, 0)
            # Each record points to the name in the question.
            records = b"".join(
                b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 0, 4) + socket.inet_aton(address) for address in addresses
            )
            self._socket.sendto(header + question + records, client)
