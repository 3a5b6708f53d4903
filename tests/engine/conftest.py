"""Fixtures of both engine clients."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine_clients import CLIENTS, Client, Connect
from fake_reactor import LIMIT_S


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    """A thread that may block."""
    with ThreadPoolExecutor(1) as worker:
        yield worker


@pytest.fixture(params=CLIENTS)
def connect(request: pytest.FixtureRequest, worker: ThreadPoolExecutor) -> Iterator[Connect]:  # noqa: ARG001 - a client that closes lets the worker go
    """Makes clients of either kind, and closes them afterwards."""
    clients: list[Client] = []

    def connect(target: str, timeout_s: float = LIMIT_S, **more: Any) -> Client:  # noqa: ANN401 - a client's arguments
        clients.append(CLIENTS[request.param](target, timeout_s, **more))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()
