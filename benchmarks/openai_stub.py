"""
An OpenAI-compatible server that costs next to nothing: for a proxy to stand before, and to see how fast the client is.

The question is the same script as the engine's, and the tokens look the same; ``stream`` is always flat out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

CHUNKS = 64
"""Tokens in one write of a stream."""
DONE = b"data: [DONE]\n\n"


def part(name: bytes, inner: bytes, finish_reason: bytes) -> bytes:
    """Write what answers and chunks have in common."""
    return (
        b'{"id":"chatcmpl-1","object":"chat.completion' + name + b'","created":1700000000,"model":"brunix","choices":'
        b'[{"index":0,' + inner + b',"logprobs":null,"finish_reason":' + finish_reason + b"}]"
    )


def token() -> bytes:
    """One token with the time of now, as the engine writes it."""
    return b"~%012x " % int(time.monotonic() * 1e6)


def whole(tokens: int) -> bytes:
    """A whole answer's body."""
    message = b'"message":{"role":"assistant","content":"' + token() * tokens + b'"}'
    usage = b',"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}' % (tokens, tokens + 1)
    return part(b"", message, b'"stop"') + usage


def chunk(text: bytes) -> bytes:
    """One event of a stream."""
    return b"data: " + part(b".chunk", b'"delta":{"content":"' + text + b'"}', b"null") + b"}\n\n"


def chunked(data: bytes) -> bytes:
    """One chunk of HTTP's."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One connection, one request after another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing received."""
        self.transport = cast("asyncio.Transport", transport)
        self._received = b""
        self._left = 0
        self._writable = True

    def pause_writing(self) -> None:
        """Wait: the client reads more slowly."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self._stream()

    def data_received(self, data: bytes) -> None:
        """Answer the request once all of it is there."""
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        lower = head.lower()
        length = 0
        if (at := lower.find(b"\r\ncontent-length:")) >= 0:
            length = int(lower[at + 17 :].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._received = body[length:]
        self._answer(json.loads(body[:length] or b"{}"), close=b"\r\nconnection: close" in lower)

    def _answer(self, asked: dict[str, object], *, close: bool) -> None:
        messages = cast("list[dict[str, str]]", asked.get("messages") or [{"content": "whole 1"}])
        form, tokens = messages[-1]["content"].split()[:2]
        if form == "stream":
            self._left = int(tokens)
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            self._stream()
            return
        body = whole(int(tokens))
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)
        if close:
            self.transport.close()

    def _stream(self) -> None:
        while self._left and self._writable:
            now = min(self._left, CHUNKS)
            self._left -= now
            data = chunked(chunk(token())) * now
            if not self._left:
                data += chunked(DONE) + b"0\r\n\r\n"
            self.transport.write(data)


async def main() -> None:
    """Serve until standard input ends; prints the port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
