"""Clients that read an answer slowly, leave early, or ask too much."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from typing import cast

import pytest
from twisted.internet import reactor
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from endpoints import (
    CHAT,
    PATHS,
    asking,
    busy_status,
    error_in,
    whole_text,
)
from fake_reactor import LIMIT_S
from gateways import Reply, RunningGateway, in_thread
from scripted_engine import Asked, ScriptedEngine, script

HANG = {"hang": True}


every_path = pytest.mark.parametrize("path", PATHS)


streamed_and_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor turn until something that it tells nobody about is so."""
    give_up_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_s, f"it does not happen; waiting: {running_reactor().getDelayedCalls()}"
        await deferLater(cast("IReactorTime", reactor), 0.001)


async def call(engine: ScriptedEngine, number: int = 0) -> Asked:
    """Wait for the engine's call of this number."""
    asked: Asked = await in_thread(engine.call, number)
    return asked


async def ended(asked: Asked) -> bool:
    """Wait until the engine's call has ended."""
    return bool(await in_thread(asked.ended.wait, LIMIT_S))


class Client:
    """A client with a socket of its own, which it can leave in every way there is."""

    def __init__(self, gateway: RunningGateway, *, receive_bytes: int = 0) -> None:
        """``receive_bytes``: how much the system takes from the gateway before anybody reads it, about."""
        self._socket = socket.socket()
        self._socket.settimeout(LIMIT_S)
        if receive_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        self._socket.connect((host, int(port)))
        self.received = b""

    def ask(self, path: str, body: dict[str, object], *, close: bool = True, key: str | None = None) -> Client:
        body_bytes = json.dumps(body).encode()
        connection = "close" if close else "keep-alive"
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._socket.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n{authorization}"
            f"Content-Length: {len(body_bytes)}\r\n\r\n".encode()
            + body_bytes
        )
        return self

    async def read(self, marker: bytes) -> None:
        """Read until this is there."""
        await in_thread(self._read, lambda: marker in self.received)

    async def read_all(self) -> bytes:
        """Read until the gateway closes the connection."""
        await in_thread(self._read, lambda: False)
        return self.received

    def _read(self, enough: Callable[[], bool]) -> None:
        while not enough():
            data_bytes = self._socket.recv(65536)
            if not data_bytes:
                return
            self.received += data_bytes

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)


async def expect_answer(gateway: RunningGateway) -> None:
    """Hold that a worker is free."""
    reply = await gateway.ask("POST", CHAT, json=asking(CHAT, script("free"), stream=False))
    assert whole_text(CHAT, reply.json()) == "free"


def unchunked(body_bytes: bytes) -> bytes:
    """Undo HTTP's chunks."""
    pieces = []
    while body_bytes:
        size, _, body_bytes = body_bytes.partition(b"\r\n")
        pieces.append(body_bytes[: int(size, 16)])
        body_bytes = body_bytes[int(size, 16) + 2 :]
    return b"".join(pieces)


def expect_busy(path: str, reply: Reply) -> None:
    """Hold that a question was turned away in the way its client knows to try again."""
    assert reply.status == busy_status(path)
    assert reply.headers["retry-after"] == "1"
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert "x-should-retry" not in reply.headers
    assert "Try again" in error_in(path, reply.json())


def running_reactor() -> ReactorBase:
    return cast("ReactorBase", reactor)
