"""HTTP as it stands on the wire: requests that no client library would send, and what comes back."""

from __future__ import annotations

from typing import Final

from gateways import Reply, RunningGateway
from received import connect

CLOSE: Final = b"Host: localhost\r\nConnection: close\r\n\r\n"
LIVE: Final = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST: Final = b"GET /health/live HTTP/1.1\r\n" + CLOSE


def replies(data: bytes | bytearray) -> list[Reply]:
    """
    Read everything that came over a connection as whole answers.

    :raises AssertionError: it is not a row of whole answers.
    """
    found, data = [], bytes(data)
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"half an answer: {head!r}"
        first, *fields = head.decode("ascii").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version in {"HTTP/1.1", "HTTP/1.0"}
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while (size := int((parts := data.partition(b"\r\n"))[0], 16)) or not parts[2].startswith(b"\r\n"):
                body, data = body + parts[2][:size], parts[2][size + 2 :]
            data = parts[2][2:]
        elif length := int(headers.get("content-length", "0")):
            body, data = data[:length], data[length:]
            assert len(body) == length, "half a body"
        found.append(Reply(int(status), headers, body))
    return found


async def say(gateway: RunningGateway, data: bytes) -> list[Reply]:
    """Send this over a connection of its own, and read until the gateway closes it."""
    received = await connect(gateway.url, data)
    await received.ended
    return replies(received.data)


async def pass_time(gateway: RunningGateway) -> None:
    """Return when the gateway has read whatever was sent to it before."""
    assert [reply.status for reply in await say(gateway, LAST)] == [200]
