"""What every store of state does, wherever it keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast
from uuid import uuid4

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import SessionEntry, StateLimits, StateStore, StateUnavailableError, StoredResponse
from brunix_twisted.state.guarded import GuardedStore
from brunix_twisted.state.memory import BODY_OVERHEAD_BYTES, MemoryStore
from brunix_twisted.state.redis import RedisStore
from brunix_twisted.state.sqlite import SqliteStore
from redis_servers import RedisServer

LIMITS = StateLimits(max_sessions=4, max_age_s=100.0, max_bodies=2, max_bytes=10 * BODY_OVERHEAD_BYTES)
A, B, C = (letter * 16 for letter in (b"a", b"b", b"c"))

Open = Callable[..., StateStore]
"""Opens a new, empty store of the kind under test: with LIMITS, or with what is given of them."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "redis", "guarded"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_twisted.async_yield_fixture
async def open_store(kind: str, clock: Clock, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    opened: list[StateStore] = []

    def open_redis(limits: StateLimits) -> RedisStore:
        server: RedisServer = request.getfixturevalue("redis")
        url = server.url(query=f"?prefix={uuid4().hex}")
        store = RedisStore(cast("Reactor", reactor), url, limits, clock.seconds)
        # The first calls wait until it is connected.
        ensureDeferred(store.start()).addErrback(Failure.trap, StateUnavailableError)
        return store

    def open_one(**changes: int) -> StateStore:
        limits = attrs.evolve(LIMITS, **changes)
        store: StateStore = MemoryStore(clock.seconds, limits)
        if kind == "sqlite":
            store = SqliteStore(cast("Reactor", reactor), tmp_path / "state.sqlite", limits, clock.seconds)
        elif kind == "redis":
            store = open_redis(limits)
        elif kind == "guarded":
            store = GuardedStore(cast("Reactor", reactor), store, MemoryStore(clock.seconds, limits))
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


async def found(store: StateStore, *keys: bytes, limit: int = 10) -> list[str]:
    return [entry.session_id for entry in await store.find(keys, limit)]


async def put(store: StateStore, session_id: str, *keys: bytes, version: int = 0, held: bool = False) -> bool:
    return await store.put(session_id, session_id.encode(), keys, version=version, held=held)


async def test_found_by_each_key(open_store: Open) -> None:
    """A conversation would not be found by what its client presents."""
    store = open_store()
    assert await put(store, "one", A, B, held=True)
    for keys in ((A,), (B,), (A, B), (C, B)):
        assert await store.find(keys, 10) == [SessionEntry("one", b"one", 1, held=True)]
    assert await store.find([C], 10) == []
    assert await store.find([], 10) == []
    assert await store.get("one") == SessionEntry("one", b"one", 1, held=True)
    assert await store.get("two") is None


async def test_written_again(open_store: Open) -> None:
    """A conversation would be found by what it no longer is."""
    store = open_store()
    await put(store, "one", A, B)
    assert await store.put("one", b"\x00new", [B, C], version=1, held=False)
    assert await found(store, A) == []
    assert await store.find([B, C], 10) == [SessionEntry("one", b"\x00new", 2, held=False)]


async def test_claimed_once(open_store: Open) -> None:
    """Two callers who present the same conversation would both get its session."""
    store = open_store()
    assert await put(store, "one", A)
    assert not await put(store, "one", A)
    assert not await put(store, "one", A, version=2)
    assert not await put(store, "two", A, version=1)
    assert await put(store, "one", A, version=1, held=True)
    assert not await put(store, "one", B, version=1)
    assert await found(store, A, B) == ["one"]


async def test_the_latest_first(open_store: Open, clock: Clock) -> None:
    """A caller would get the session that the engine is most likely to have dropped."""
    store = open_store()
    for session_id in ("one", "two", "three"):
        await put(store, session_id, A)
        clock.advance(1)
    assert await found(store, A) == ["three", "two", "one"]
    await put(store, "one", A, version=1)
    assert await found(store, A) == ["one", "three", "two"]
    assert await found(store, A, limit=2) == ["one", "three"]
    await put(store, "other", B)
    assert set(await found(store, A, B, limit=1)) == {"one", "other"}


async def test_many_keys(open_store: Open, clock: Clock) -> None:
    """A long conversation would not be found, or in the wrong order."""
    store = open_store()
    keys = [b"%016d" % number for number in range(1000)]
    await store.put("first", b"", keys[::2], version=0, held=False)
    clock.advance(1)
    await store.put("last", b"", keys[-1:], version=0, held=False)
    assert await found(store, *keys) == ["last", "first"]
    assert await found(store, *keys[1::2]) == ["last"]


async def test_too_many_sessions(open_store: Open, clock: Clock) -> None:
    """Sessions would fill the memory, or a used one would go before one that nobody continues."""
    store = open_store()
    for number in range(4):
        await put(store, str(number), A)
        clock.advance(1)
    await put(store, "0", A, version=1)
    clock.advance(1)
    await put(store, "4", A)
    assert set(await found(store, A)) == {"0", "2", "3", "4"}
    assert await store.get("1") is None


async def test_age(open_store: Open, clock: Clock) -> None:
    """A conversation would continue in a session that the engine has dropped."""
    store = open_store()
    await put(store, "one", A)
    await store.put_response("r", StoredResponse("one", b"caller", b"body"))
    clock.advance(100)
    assert await found(store, A) == ["one"]
    assert await store.get_response("r") is not None
    clock.advance(1)
    assert await found(store, A) == []
    assert await store.get("one") is None
    assert await store.get_response("r") is None
    # As if it had never been there.
    assert not await put(store, "one", B, version=1)
    assert await put(store, "one", B)
    assert await found(store, A, B) == ["one"]


async def test_responses(open_store: Open) -> None:
    """A response could not be retrieved, or not deleted."""
    store = open_store()
    response = StoredResponse("one", b"\x00caller", "Grüße".encode())
    await store.put_response("r", response)
    await store.put_response("s", StoredResponse("one", b"other", None))
    assert await store.get_response("r") == response
    assert await store.get_response("s") == StoredResponse("one", b"other", None)
    assert await store.get_response("t") is None
    await store.delete_response("r")
    await store.delete_response("t")
    assert await store.get_response("r") is None
    assert await store.get_response("s") is not None


async def bodies(store: StateStore, *response_ids: str) -> list[int | None]:
    sizes: list[int | None] = []
    for response_id in response_ids:
        response = await store.get_response(response_id)
        sizes.append(None if response is None or response.body_bytes is None else len(response.body_bytes))
    return sizes


async def keep(store: StateStore, clock: Clock, response_id: str, size_bytes: int) -> None:
    await store.put_response(response_id, StoredResponse("one", b"caller", size_bytes * b"x"))
    clock.advance(1)


async def test_too_many_bodies(open_store: Open, clock: Clock) -> None:
    """Bodies would fill the memory; or the conversation could not continue without its body."""
    store = open_store()
    for number in range(3):
        await keep(store, clock, str(number), 10)
    assert await bodies(store, "0", "1", "2") == [None, 10, 10]
    assert await store.get_response("0") == StoredResponse("one", b"caller", None)
    for number in range(3, 5):
        await keep(store, clock, str(number), 10)
    assert await store.get_response("0") is None
    assert await bodies(store, "1", "2", "3", "4") == [None, None, 10, 10]


async def test_bodies_that_are_too_large(open_store: Open, clock: Clock) -> None:
    """Large bodies would take more memory than is allowed."""
    store = open_store(max_bodies=10)
    half_bytes = 5 * BODY_OVERHEAD_BYTES - BODY_OVERHEAD_BYTES
    await keep(store, clock, "0", half_bytes)
    await keep(store, clock, "1", half_bytes)
    assert await bodies(store, "0", "1") == [half_bytes, half_bytes]
    await keep(store, clock, "2", 10 * BODY_OVERHEAD_BYTES)
    assert await bodies(store, "0", "1", "2") == [half_bytes, half_bytes, None]
    await keep(store, clock, "3", 1)
    assert await bodies(store, "0", "1", "3") == [None, half_bytes, 1]
    await store.delete_response("1")
    await keep(store, clock, "4", half_bytes)
    assert await bodies(store, "3", "4") == [1, half_bytes]


async def test_no_bodies(open_store: Open, clock: Clock) -> None:
    """An operator who wants no text stored would have it stored."""
    store = open_store(max_bodies=0)
    await keep(store, clock, "0", 1)
    assert await store.get_response("0") == StoredResponse("one", b"caller", None)


async def test_works(open_store: Open) -> None:
    """A store that works would be reported as broken; or a second close would fail."""
    store = open_store()
    await store.start()
    await store.check()
    await store.close()
    await store.close()
