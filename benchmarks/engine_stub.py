"""
An engine that costs next to nothing, so that what is measured is what stands before it.

It speaks gRPC as it is on the wire, HTTP/2, and no more of it than gRPC's own clients need: all its streams together
are paced by one timer, and whatever is due goes out in one write. A server made with the gRPC library costs some 30 µs
a message, as much as a gateway does; this one costs a few.

The question is a script, ``whole 60`` or ``stream 60 20``: how much is answered, in tokens, and how many tokens a
second each stream gets, where 0 is as many as the connection takes. A token is ``~``, the time at which it was sent, in
microseconds of the monotonic clock as 12 hexadecimal digits, and a blank; the last one of a stream adds ``^`` and, in
the same form, how long after the stream's first token it was due. The first token comes at once; where in the pause
between two tokens the second falls differs from stream to stream.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import cast

from brunix_twisted._pb import brunix_pb2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Frame types and flags of RFC 9113.
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 4
DEFAULT_WINDOW_BYTES = 65_535
FRAME_HEAD_BYTES = 9
# So much may wait in the transport before a stream that is sent flat out has to wait.
BURST_BYTES = 64 * 1024
TICK_S = 0.001
GOLDEN = 0.618033988749895


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Write one frame."""
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


def field(name: bytes, value: bytes) -> bytes:
    """Write one header field that is not to be remembered (RFC 7541, 6.2.2), both parts as they are."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


RESPONSE_FIELDS = field(b":status", b"200") + field(b"content-type", b"application/grpc")
TRAILER_FIELDS = field(b"grpc-status", b"0")


def message(payload: bytes) -> bytes:
    """Put gRPC's five bytes before a message."""
    return b"\x00" + struct.pack(">I", len(payload)) + payload


def answer(text: bytes, *, is_final: bool = False) -> bytes:
    """Serialise an ``AgentResponse`` as a gRPC message."""
    return message(brunix_pb2.AgentResponse(text=text.decode(), is_final=is_final).SerializeToString())


STAMP = b"0" * 12
# Serialised beforehand: what stands before and after the token's time.
TOKEN_HEAD, TOKEN_TAIL = answer(b"~" + STAMP + b" ").split(STAMP)
TOKEN_BYTES = len(TOKEN_HEAD) + len(STAMP) + len(TOKEN_TAIL)
FINAL = answer(b"", is_final=True)
# What the health service answers to its empty question: SERVING.
SERVING = message(b"\x08\x01")


def stamp(at_s: float) -> bytes:
    """Write a time as tokens carry it."""
    return b"%012x" % int(at_s * 1e6)


class Stream:
    """One answer on its way."""

    def __init__(self, connection: Connection, stream_id: int, window_bytes: int) -> None:
        """Begin with the question still to come."""
        self.connection = connection
        self.id = stream_id
        self.window_bytes = window_bytes
        self.question = b""
        self.left = 0
        """How many tokens are still to be sent."""
        self.pause_s = 0.0
        self.span_s = 0.0
        """From the first token to the last."""
        self.due_s = 0.0
        self.gone = False
        self._token_head = frame(DATA, 0, stream_id, TOKEN_HEAD + STAMP + TOKEN_TAIL)[
            : FRAME_HEAD_BYTES + len(TOKEN_HEAD)
        ]

    def send_token(self, stamped: bytes) -> None:
        """Send the next token, and after the last one the end; the caller has seen to the windows."""
        connection = self.connection
        self.left -= 1
        if self.left:
            connection.out.append(self._token_head + stamped + TOKEN_TAIL)
            self.window_bytes -= TOKEN_BYTES
            connection.window_bytes -= TOKEN_BYTES
        else:
            last = answer(b"~" + stamped + b" ^" + stamp(self.span_s) + b" ")
            self.end(last + FINAL)

    def end(self, payload: bytes) -> None:
        """Send the last bytes and the status, as the windows allow: the answer's end is small."""
        connection = self.connection
        for start in range(0, len(payload), 16_384):
            connection.out.append(frame(DATA, 0, self.id, payload[start : start + 16_384]))
        connection.window_bytes -= len(payload)
        connection.out.append(frame(HEADERS, END_STREAM | END_HEADERS, self.id, TRAILER_FIELDS))
        connection.forget(self)

    @property
    def room(self) -> bool:
        """Whether the windows let another token through."""
        return self.window_bytes > 2 * TOKEN_BYTES and self.connection.window_bytes > 2 * TOKEN_BYTES


class Pacer:
    """The one timer of all streams."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start with nothing to do."""
        self._loop = loop
        self._heap: list[tuple[float, int, Stream]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Stream) -> None:
        """Send the next token of this stream when it is due."""
        heappush(self._heap, (stream.due_s, next(self._order), stream))
        if self._timer is None:
            self._wait()

    def _wait(self) -> None:
        pause_s = self._heap[0][0] - time.monotonic()
        self._timer = self._loop.call_later(max(pause_s, TICK_S), self._tick)

    def _tick(self) -> None:
        heap, order = self._heap, self._order
        dirty: set[Connection] = set()
        now_s = time.monotonic()
        stamped = stamp(now_s)
        while heap and heap[0][0] <= now_s:
            stream = heappop(heap)[2]
            if stream.gone:
                continue
            if stream.room:
                stream.send_token(stamped)
                dirty.add(stream.connection)
                stream.due_s += stream.pause_s
            else:
                # Its schedule stays: what is late is sent as soon as there is room.
                heappush(heap, (now_s + TICK_S, next(order), stream))
                continue
            if not stream.gone:
                heappush(heap, (stream.due_s, next(order), stream))
        for connection in dirty:
            connection.flush()
        if heap:
            self._wait()
        else:
            self._timer = None


class Connection(asyncio.Protocol):
    """One HTTP/2 connection of a gRPC client."""

    def __init__(self, pacer: Pacer) -> None:
        """Prepare for a connection."""
        self.pacer = pacer
        self.window_bytes = DEFAULT_WINDOW_BYTES
        self.out: list[bytes] = []
        self._stream_window_bytes = DEFAULT_WINDOW_BYTES
        self.streams: dict[int, Stream] = {}
        self._flat_out: dict[int, Stream] = {}
        self._numbers = count(1)
        self._received = b""
        self._preface = True
        self._consumed = 0
        self._writable = True
        self._takers: dict[int, Callable[[int, int, bytes], None]] = {
            DATA: self._take_data,
            HEADERS: self._take_headers,
            RST_STREAM: self._take_reset,
            SETTINGS: self._take_settings,
            PING: self._take_ping,
            GOAWAY: self._take_goaway,
            WINDOW_UPDATE: self._take_window_update,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say the settings first, as a server must: none differs from the default."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=BURST_BYTES)
        self.transport.write(frame(SETTINGS, 0, 0))

    def connection_lost(self, error: Exception | None) -> None:
        """Let every stream go."""
        del error
        for stream in list(self.streams.values()):
            self.forget(stream)

    def pause_writing(self) -> None:
        """Take breath: the client reads more slowly than this sends flat out."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self._pump()

    def forget(self, stream: Stream) -> None:
        """Let a stream go that has ended, however it did."""
        stream.gone = True
        self.streams.pop(stream.id, None)
        self._flat_out.pop(stream.id, None)

    def flush(self) -> None:
        """Write what has gathered, in one piece."""
        if self.out:
            self.transport.write(b"".join(self.out))
            self.out = []

    def data_received(self, data: bytes) -> None:
        """Take the frames that are complete."""
        received = self._received + data if self._received else data
        at = 0
        if self._preface:
            if len(received) < len(PREFACE):
                self._received = received
                return
            self._preface = False
            at = len(PREFACE)
        end = len(received)
        while end - at >= FRAME_HEAD_BYTES:
            length = int.from_bytes(received[at : at + 3], "big")
            begin = at + FRAME_HEAD_BYTES
            if end - begin < length:
                break
            stream_id = int.from_bytes(received[at + 5 : begin], "big") & 0x7FFFFFFF
            if take := self._takers.get(received[at + 3]):
                take(received[at + 4], stream_id, received[begin : begin + length])
            at = begin + length
        self._received = received[at:]
        self._pump()
        self.flush()

    def _take_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        more_bytes = int.from_bytes(payload, "big")
        if stream_id == 0:
            self.window_bytes += more_bytes
        elif stream := self.streams.get(stream_id):
            stream.window_bytes += more_bytes

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        # Which fields they are does not matter: the question says all.
        del flags, payload
        self.streams[stream_id] = Stream(self, stream_id, self._stream_window_bytes)

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._consumed += len(payload)
        if self._consumed > DEFAULT_WINDOW_BYTES // 4:
            self.out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._consumed)))
            self._consumed = 0
        if stream := self.streams.get(stream_id):
            stream.question += payload
            if flags & END_STREAM:
                self._begin(stream)

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        del stream_id
        if flags & ACK:
            return
        for name, value in struct.iter_unpack(">HI", payload):
            if name == INITIAL_WINDOW_SIZE:
                for stream in self.streams.values():
                    stream.window_bytes += value - self._stream_window_bytes
                self._stream_window_bytes = value
        self.out.append(frame(SETTINGS, ACK, 0))

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        del stream_id
        if not flags & ACK:
            self.out.append(frame(PING, ACK, 0, payload))

    def _take_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags, payload
        if stream := self.streams.get(stream_id):
            self.forget(stream)

    def _take_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags, stream_id, payload
        self.transport.close()

    def _begin(self, stream: Stream) -> None:
        self.out.append(frame(HEADERS, END_HEADERS, stream.id, RESPONSE_FIELDS))
        query = brunix_pb2.AgentRequest.FromString(stream.question[5:]).query
        if not query:
            stream.end(SERVING)
            return
        form, tokens, *rate = query.split()
        now_s = time.monotonic()
        stamped = stamp(now_s)
        if form == "whole":
            stream.end(answer((b"~" + stamped + b" ") * int(tokens), is_final=True))
            return
        stream.left = int(tokens)
        per_second = float(rate[0])
        if per_second == 0:
            self._flat_out[stream.id] = stream
            return
        phase = next(self._numbers) * GOLDEN % 1
        stream.pause_s = 1 / per_second
        stream.span_s = stream.pause_s * (stream.left - 2 + phase)
        stream.due_s = now_s + phase * stream.pause_s
        stream.send_token(stamped)
        if not stream.gone:
            self.pacer.add(stream)

    def _pump(self) -> None:
        """Send flat out: every stream in its turn, until the connection or every window is full."""
        while self._flat_out and self._writable:
            stamped = stamp(time.monotonic())
            waiting = [stream for stream in self._flat_out.values() if stream.room]
            if not waiting:
                break
            for stream in waiting:
                if stream.room:
                    stream.send_token(stamped)
            if len(self.out) > BURST_BYTES // TOKEN_BYTES or not self._flat_out:
                self.flush()
        self.flush()


async def main() -> None:
    """Serve until standard input ends; prints the port."""
    loop = asyncio.get_running_loop()
    pacer = Pacer(loop)
    server = await loop.create_server(lambda: Connection(pacer), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
