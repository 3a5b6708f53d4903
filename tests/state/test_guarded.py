"""The guard around a store: whatever happens to the store, every call is answered in time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import BUCKETS_S, SessionEntry, StateLimits, StateUnavailableError, StoredResponse
from brunix_twisted.state.guarded import CALL_S, GuardedStore
from brunix_twisted.state.memory import MemoryStore
from brunix_twisted.state.redis import RedisStore
from log_lines import LogLines, log_lines
from redis_servers import RedisServer, redis_server

T = TypeVar("T")

LIMITS = StateLimits(max_sessions=1000, max_age_s=3600.0, max_bodies=10, max_bytes=1_000_000)
KEY, OTHER = 16 * b"k", 16 * b"o"


class ScriptedStore(MemoryStore):
    """A store in memory that does as the test says: answer, fail, or answer late."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock.seconds, LIMITS)
        self.error: Exception | None = None
        self.calls = 0
        self.waiting: list[Deferred[None]] | None = None
        """The calls that wait; None if calls are answered at once."""
        self.works_late = True
        """Whether calls that wait are executed when they are released."""

    async def _turn(self) -> None:
        self.calls += 1
        if self.waiting is not None:
            released = Deferred[None]()
            self.waiting.append(released)
            await released
        if self.error is not None:
            raise self.error

    def release(self) -> None:
        """Let all calls continue that wait, and later ones too."""
        waiting, self.waiting = self.waiting or [], None
        for released in waiting:
            released.callback(None)

    async def find(self, keys: Sequence[bytes], limit: int) -> list[SessionEntry]:
        await self._turn()
        return await super().find(keys, limit)

    async def get(self, session_id: str) -> SessionEntry | None:
        return await super().get(session_id)

    async def put(self, session_id: str, record: bytes, keys: Collection[bytes], *, version: int, held: bool) -> bool:
        await self._turn()
        return await super().put(session_id, record, keys, version=version, held=held)

    async def put_response(self, response_id: str, response: StoredResponse) -> None:
        await self._turn()
        await super().put_response(response_id, response)

    async def get_response(self, response_id: str) -> StoredResponse | None:
        await self._turn()
        return await super().get_response(response_id)

    async def delete_response(self, response_id: str) -> None:
        await self._turn()
        await super().delete_response(response_id)

    async def start(self) -> None:
        await self._turn()

    async def check(self) -> None:
        await self._turn()

    async def close(self) -> None:
        await self._turn()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> ScriptedStore:
    return ScriptedStore(clock)


@pytest.fixture
def guarded(clock: Clock, store: ScriptedStore) -> GuardedStore:
    guarded = GuardedStore(cast("Reactor", clock), store, MemoryStore(clock.seconds, LIMITS))
    assert begun(guarded.start()).called
    return guarded


@pytest.fixture
def lines() -> Iterator[LogLines]:
    with log_lines() as lines:
        yield lines


def begun(call: Coroutine[Any, Any, T]) -> Deferred[T]:
    return ensureDeferred(call)


def now(call: Coroutine[Any, Any, T]) -> T:
    """Return the result of a call that takes no time, or raise its error."""
    results: list[T | Failure] = []
    ensureDeferred(call).addBoth(results.append)
    assert results, "it waits"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def late(clock: Clock, call: Coroutine[Any, Any, T]) -> T:
    """Return the result of a call to a store that does not answer, after exactly the time that it may take."""
    results: list[T] = []
    ensureDeferred(call).addCallback(results.append)
    clock.advance(CALL_S - 0.001)
    assert not results
    clock.advance(0.001)
    clock.advance(0)
    assert results
    return results[0]


def put(guarded: GuardedStore, name: str, *, version: int = 0, held: bool = False) -> Coroutine[Any, Any, bool]:
    return guarded.put(name, f"{name}{version}".encode(), [KEY], version=version, held=held)


def found(guarded: GuardedStore) -> list[tuple[str, int, bool]]:
    return [(entry.session_id, entry.version, entry.held) for entry in now(guarded.find([KEY], 10))]


def hang(store: ScriptedStore) -> None:
    store.waiting = []


def fail(store: ScriptedStore) -> None:
    store.error = StateUnavailableError("no route to host")


def recover(clock: Clock, store: ScriptedStore) -> None:
    """Let the store work again, and wait until the guard notices."""
    store.error = None
    store.release()
    for _ in range(100):
        clock.advance(0.1)


FAILURES = pytest.mark.parametrize(
    "error", [StateUnavailableError("no route to host"), KeyError("a bug"), OSError(28, "No space left on device")]
)


@FAILURES
def test_failing(clock: Clock, store: ScriptedStore, guarded: GuardedStore, error: Exception) -> None:
    """A store that fails, in whatever way, costs no answer, and is used again when it works."""
    assert now(put(guarded, "before"))
    store.error = error
    assert now(put(guarded, "during"))
    assert found(guarded) == [("during", 1, False)]
    now(guarded.put_response("r", StoredResponse("during", b"c", b"body")))
    assert now(guarded.get_response("r")) is not None
    with pytest.raises(StateUnavailableError):
        now(guarded.check())
    recover(clock, store)
    now(guarded.check())
    assert {name for name, _, _ in found(guarded)} == {"before", "during"}
    assert now(guarded.get_response("r")) is not None


def test_slow(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A store that does not answer costs one call 50 ms, and the next ones nothing."""
    hang(store)
    assert late(clock, guarded.find([KEY], 10)) == []
    assert now(put(guarded, "a"))
    assert found(guarded) == [("a", 1, False)]
    now(guarded.put_response("r", StoredResponse("a", b"", None)))
    now(guarded.delete_response("r"))
    assert now(guarded.get_response("r")) is None
    assert store.calls == 2  # with start
    assert guarded.readings.failures == 5


def test_many_at_once(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """Calls that wait at the same time end at the same time."""
    hang(store)
    calls = [begun(put(guarded, str(number))) for number in range(50)]
    clock.advance(CALL_S)
    clock.advance(0)
    assert all(call.called for call in calls)
    assert len(found(guarded)) == 10


class Iterations(Clock):
    """A clock that, like a reactor, runs what is due when an iteration begins, and later ones in the next."""

    def advance(self, amount: float) -> None:
        self.rightNow += amount
        for call in [call for call in self.calls if call.getTime() <= self.rightNow]:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


@pytest.mark.parametrize("answers", [True, False])
def test_slow_reactor(*, answers: bool) -> None:
    """A store is not blamed for a gateway that was busy itself: it still has the time to answer."""
    clock = Iterations()
    store = ScriptedStore(clock)
    guarded = GuardedStore(cast("Reactor", clock), store, MemoryStore(clock.seconds, LIMITS))
    now(put(guarded, "a"))
    hang(store)
    call = begun(guarded.find([KEY], 10))
    clock.advance(10 * CALL_S)
    # Now the reactor sends what was written, and reads what has arrived.
    for seconds in (0, 0, 0, 0, 0.01, 0):
        clock.advance(seconds)
        assert not call.called
    if answers:
        store.release()
    for _ in range(3):
        clock.advance(0)
    assert call.called
    assert guarded.readings.is_up is answers


def test_probing(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A store that stays away is tried every two seconds; one that returns is used again within as many."""
    fail(store)
    now(put(guarded, "a"))
    calls = store.calls
    for _ in range(600):
        clock.advance(0.1)
        now(guarded.find([KEY], 10))
    assert 25 < store.calls - calls < 40
    store.error = None
    for _ in range(20):
        clock.advance(0.1)
    assert guarded.readings.is_up


def test_flapping(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A store that passes its check and fails all calls is not tried all the time."""
    checks = 0

    async def check() -> None:
        nonlocal checks
        checks += 1

    store.check = check  # type: ignore[method-assign]
    fail(store)
    for _ in range(600):
        clock.advance(0.1)
        now(guarded.find([KEY], 10))
    assert checks < 40


def test_log(clock: Clock, store: ScriptedStore, guarded: GuardedStore, lines: LogLines) -> None:
    """One line a minute says that the store does not work and why, and one that it works again."""
    fail(store)
    for _ in range(1250):
        now(put(guarded, "a"))
        clock.advance(0.1)
    assert [line.split(": ")[0] for line in lines.texts] == ["The state store does not work"] * 3
    assert "no route to host. Conversations continue in memory" in lines.texts[0]
    recover(clock, store)
    clock.advance(60)
    assert len(lines.texts) == 4
    assert lines.texts[3] == "The state store works again."
    for _ in range(1200):
        clock.advance(0.1)
    assert len(lines.texts) == 4
    assert lines.errors == []


def test_slow_start(clock: Clock, store: ScriptedStore) -> None:
    """The first conversations after a restart would begin again because a file takes long to open."""
    guarded = GuardedStore(cast("Reactor", clock), store, MemoryStore(clock.seconds, LIMITS))
    hang(store)
    begun(guarded.start())
    written = begun(put(guarded, "one"))
    clock.advance(0.9)
    assert not written.called
    store.release()
    assert written.called
    assert [entry.session_id for entry in now(store.find([KEY], 1))] == ["one"]


def test_start_that_takes_too_long(clock: Clock, store: ScriptedStore) -> None:
    """Answers would wait for a store that does not start."""
    guarded = GuardedStore(cast("Reactor", clock), store, MemoryStore(clock.seconds, LIMITS))
    hang(store)
    begun(guarded.start())
    written = begun(put(guarded, "one"))
    clock.advance(1)
    clock.pump([CALL_S, 0, 0, 0])
    assert written.called
    assert [name for name, _, _ in found(guarded)] == ["one"]


def test_not_there_at_start(clock: Clock, lines: LogLines) -> None:
    """A gateway starts without its store, within five seconds, and uses it as soon as it can be used."""
    store = ScriptedStore(clock)
    hang(store)
    guarded = GuardedStore(cast("Reactor", clock), store, MemoryStore(clock.seconds, LIMITS))
    started = begun(guarded.start())
    clock.advance(5)
    clock.advance(0)
    assert started.called
    assert "no answer within 5000 ms" in lines.texts[0]
    assert now(put(guarded, "a"))
    recover(clock, store)
    assert guarded.readings.is_up
    assert now(store.get("a")) is not None


def test_closed(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A gateway stops with a store that does not work, and leaves no timer behind."""
    fail(store)
    now(put(guarded, "a"))
    store.error = None
    hang(store)
    closed = begun(guarded.close())
    clock.advance(2)
    clock.advance(0)
    assert closed.called
    now(guarded.close())
    assert clock.getDelayedCalls() == []


def test_writes_before_close(store: ScriptedStore, guarded: GuardedStore) -> None:
    """The last turns before a stop are written."""
    hang(store)
    writes = [begun(put(guarded, "a", held=True)), begun(put(guarded, "a", version=1))]
    begun(guarded.close())
    store.release()
    assert all(write.called for write in writes)
    assert now(store.get("a")) == SessionEntry("a", b"a1", 2, held=False)


# What happens to a session whose turn the failure meets.


def test_claim_is_refused(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A session of the store is not claimed in memory: another gateway may have it."""
    now(put(guarded, "a"))
    fail(store)
    assert not now(put(guarded, "a", version=1, held=True))
    recover(clock, store)
    assert found(guarded) == [("a", 1, False)]
    assert now(put(guarded, "a", version=1, held=True))


def test_late_claim(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A claim that succeeded too late is given back."""
    now(put(guarded, "a"))
    hang(store)
    assert not late(clock, put(guarded, "a", version=1, held=True))
    recover(clock, store)
    assert found(guarded) == [("a", 3, False)]


def test_late_refusal(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A claim that failed too late gives nothing back: the session is another's."""
    now(put(guarded, "a"))
    hang(store)
    assert not late(clock, put(guarded, "a", version=1, held=True))
    now(MemoryStore.put(store, "a", b"", [KEY], version=1, held=True))
    recover(clock, store)
    assert found(guarded) == [("a", 2, True)]


@pytest.mark.parametrize("failure", [hang, fail])
def test_end_of_an_answer(
    clock: Clock, store: ScriptedStore, guarded: GuardedStore, failure: Callable[[ScriptedStore], None]
) -> None:
    """The end of an answer that the store does not take is written when it works again."""
    now(put(guarded, "a", held=True))
    failure(store)
    end = begun(put(guarded, "a", version=1))
    clock.advance(CALL_S)
    clock.advance(0)
    assert end.called
    recover(clock, store)
    assert found(guarded) == [("a", 2, False)]
    assert now(store.get("a")) == SessionEntry("a", b"a1", 2, held=False)


def test_end_of_an_answer_is_void(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """It is not written over what another gateway has written since."""
    now(put(guarded, "a", held=True))
    fail(store)
    now(put(guarded, "a", version=1))
    now(MemoryStore.put(store, "a", b"other", [KEY], version=1, held=True))
    recover(clock, store)
    assert found(guarded) == [("a", 2, True)]


@pytest.mark.parametrize("failure", [hang, fail])
def test_begun_in_memory(
    clock: Clock, store: ScriptedStore, guarded: GuardedStore, failure: Callable[[ScriptedStore], None]
) -> None:
    """A conversation that begins during a failure continues in its session, during the failure and after it."""
    failure(store)
    for version in range(4):
        turn = begun(put(guarded, "a", version=version, held=version % 2 == 0))
        clock.advance(CALL_S)
        clock.advance(0)
        assert turn.called
    assert found(guarded) == [("a", 4, False)]
    recover(clock, store)
    ((name, version, held),) = found(guarded)
    assert (name, held) == ("a", False)
    assert now(put(guarded, "a", version=version, held=True))
    assert now(store.get("a")) == SessionEntry("a", f"a{version}".encode(), version + 1, held=True)


def test_answered_across_the_return(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A conversation whose first answer ends after the store's return is in the store from then on."""
    fail(store)
    now(put(guarded, "a", held=True))
    recover(clock, store)
    assert now(store.get("a")) is None
    assert now(guarded.get("a")) == SessionEntry("a", b"a0", 1, held=True)
    assert now(put(guarded, "a", version=1))
    assert now(store.get("a")) == SessionEntry("a", b"a1", 1, held=False)
    assert found(guarded) == [("a", 1, False)]


def test_first_turn_written_late(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A first turn that the store wrote too late does not hold the session after the answer."""
    hang(store)
    assert late(clock, put(guarded, "a", held=True))
    store.release()
    assert now(store.get("a")) == SessionEntry("a", b"a0", 1, held=True)
    recover(clock, store)
    assert now(put(guarded, "a", version=1))
    assert now(store.get("a")) == SessionEntry("a", b"a1", 2, held=False)


def test_order(store: ScriptedStore, guarded: GuardedStore) -> None:
    """An answer that ends before its beginning is written is written after it."""
    hang(store)
    begin, end = begun(put(guarded, "a", held=True)), begun(put(guarded, "a", version=1))
    other = begun(put(guarded, "b"))
    assert store.calls == 3  # with start; the second waits for the first
    store.release()
    assert (begin.called, end.called, other.called) == (True, True, True)
    assert now(store.get("a")) == SessionEntry("a", b"a1", 2, held=False)


def test_deleted_response(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """A response that is deleted during a failure does not return with the store."""
    now(guarded.put_response("r", StoredResponse("a", b"", b"body")))
    fail(store)
    now(guarded.delete_response("r"))
    recover(clock, store)
    assert now(guarded.get_response("r")) is None
    assert now(store.get_response("r")) is None


def test_readings(clock: Clock, store: ScriptedStore, guarded: GuardedStore) -> None:
    """Metrics say whether the store works, how long it takes, and how many calls were done without it."""
    hang(store)
    call = begun(guarded.find([KEY], 1))
    clock.advance(0.004)
    store.release()
    assert call.called
    now(guarded.find([KEY], 1))
    readings = guarded.readings
    assert (readings.is_up, readings.failures) == (True, 0)
    assert dict(zip(BUCKETS_S, readings.durations, strict=False)) == dict.fromkeys(BUCKETS_S, 0) | {0.0005: 1, 0.005: 1}
    assert readings.total_s == pytest.approx(0.004)
    fail(store)
    now(guarded.find([KEY], 1))
    assert (guarded.readings.is_up, guarded.readings.failures) == (False, 1)


# With a real server.


@pytest_twisted.async_yield_fixture
async def real(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, GuardedStore]]:
    """A guarded store in a Redis server that keeps what it has when it is killed."""
    with redis_server(tmp_path, "appendonly yes", "appendfsync always") as server:
        real_reactor = cast("Reactor", reactor)
        guarded = GuardedStore(
            real_reactor, RedisStore(real_reactor, server.url(), LIMITS), MemoryStore(real_reactor.seconds, LIMITS)
        )
        await guarded.start()
        yield server, guarded
        await guarded.close()


async def until_up(guarded: GuardedStore, *, is_up: bool = True) -> None:
    while guarded.readings.is_up is not is_up:
        await deferLater(cast("Any", reactor), 0.01)


async def turn(guarded: GuardedStore, name: str) -> None:
    """Do the calls of one turn of a conversation that has one."""
    keys = [name.encode()]
    for entry in await guarded.find(keys, 10):
        if not entry.held and await guarded.put(name, b"", keys, version=entry.version, held=True):
            await guarded.put(name, b"", keys, version=entry.version + 1, held=False)


@pytest.mark.parametrize("how", ["killed", "hanging"])
async def test_redis_dies(real: tuple[RedisServer, GuardedStore], how: str) -> None:
    """When Redis dies under 50 conversations no call fails, and all of them are there when it returns."""
    server, guarded = real
    names = [f"conversation {number}" for number in range(50)]
    for name in names:
        await guarded.put(name, b"", [name.encode()], version=0, held=False)
    stops = False

    async def converse(name: str) -> None:
        while not stops:
            await turn(guarded, name)
            await deferLater(cast("Any", reactor), 0)

    conversations: list[Deferred[None]] = [ensureDeferred(converse(name)) for name in names]
    if how == "killed":
        server.kill()
        await until_up(guarded, is_up=False)
        server.start()
    else:
        with server.paused():
            await until_up(guarded, is_up=False)
            await gatherResults([ensureDeferred(turn(guarded, name)) for name in names])
    await until_up(guarded)
    stops = True
    await gatherResults(conversations)

    async def is_kept(name: str) -> bool:
        return [entry.held for entry in await guarded.find([name.encode()], 10)] == [False]

    for name in names:
        while not await is_kept(name):
            await deferLater(cast("Any", reactor), 0.05)
