"""Redis as it is in operation: killed, restarted, slow, full, replaced, locked, and shared."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, cast
from uuid import uuid4

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import StateLimits, StateUnavailableError, StoredResponse
from brunix_twisted.state.redis import RedisStore
from certificates import Authority
from fake_reactor import LIMIT_S
from isolation import CLEAN
from paths import ROOT
from redis_servers import RedisServer, redis_server
from twistd import free_port

LIMITS = StateLimits(max_sessions=10_000, max_age_s=3600.0, max_bodies=10, max_bytes=1_000_000)
KEY = b"k" * 16

Connect = Callable[..., Awaitable[RedisStore]]


@pytest_twisted.async_yield_fixture
async def connect() -> AsyncIterator[Connect]:
    """Open stores, and close them at the end."""
    stores: list[RedisStore] = []

    async def connect(url: str, *, wait: bool = True) -> RedisStore:
        store = RedisStore(cast("Reactor", reactor), url, LIMITS)
        stores.append(store)
        started = ensureDeferred(store.start())
        if wait:
            await started
        else:
            started.addErrback(Failure.trap, StateUnavailableError)
        return store

    yield connect
    for store in stores:
        await store.close()


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until something is true and the store works."""
    deadline = Deferred[None]().addTimeout(LIMIT_S, cast("Any", reactor))
    deadline.addErrback(lambda _: None)
    while not deadline.called:
        try:
            if await condition():
                deadline.callback(None)
                return
        except StateUnavailableError:
            pass
        await deferLater(cast("Any", reactor), 0.01)
    raise AssertionError("it never happened")


async def works(store: RedisStore) -> bool:
    await store.check()
    return True


async def put(store: RedisStore, session_id: str, *, version: int = 0, held: bool = False) -> bool:
    return await store.put(session_id, b"record", [KEY], version=version, held=held)


async def found(store: RedisStore) -> dict[str, bool]:
    return {entry.session_id: entry.held for entry in await store.find([KEY], 100)}


def own(redis: RedisServer) -> str:
    """Return a URL that no other test uses."""
    return redis.url(query=f"?prefix={uuid4().hex}")


async def test_shared(redis: RedisServer, connect: Connect) -> None:
    """A conversation that one gateway answered continues in another, and bytes arrive as they were sent."""
    url = own(redis)
    one, other = await connect(url), await connect(url)
    record, key = bytes(range(256)) * 10, bytes(range(240, 256))
    assert await one.put("s", record, [key, b"1.5"], version=0, held=True)
    for entries in (await other.find([key], 1), await other.find([b"1.5"], 1), [await other.get("s")]):
        assert [(entry and entry.record, entry and entry.held) for entry in entries] == [(record, True)]
    await one.put_response("r", StoredResponse("s", b"\xff\x00", b"\x00\r\n\xff"))
    assert await other.get_response("r") == StoredResponse("s", b"\xff\x00", b"\x00\r\n\xff")
    assert await (await connect(own(redis))).find([key], 1) == []


async def test_claimed_once(redis: RedisServer, connect: Connect) -> None:
    """Of two gateways under load, one gets a session that both want, and no session is lost."""
    url = own(redis)
    stores = [await connect(url), await connect(url)]
    names = [str(number) for number in range(1000)]
    for name in names:
        assert await put(stores[0], name)
    claimed: list[str] = []

    async def claim(store: RedisStore) -> None:
        while free := [entry for entry in await store.find([KEY], 20) if not entry.held]:
            for entry in free:
                if await put(store, entry.session_id, version=entry.version, held=True):
                    claimed.append(entry.session_id)
                    # Out of the way of the others.
                    assert await store.put(entry.session_id, b"", [b"done"], version=entry.version + 1, held=True)

    await gatherResults([ensureDeferred(claim(store)) for store in stores for _ in range(10)])
    assert sorted(claimed) == sorted(names)


async def test_closed(redis: RedisServer, connect: Connect) -> None:
    """What a gateway held when it stopped is free at once, and what it was writing is written."""
    url = own(redis)
    one, other = await connect(url), await connect(url)
    await put(one, "a", held=True)
    last = ensureDeferred(put(one, "b", held=True))
    await one.close()
    assert await last
    assert await found(other) == {"a": False, "b": False}
    with pytest.raises(StateUnavailableError, match="closed"):
        await one.check()


KILLED = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from brunix_twisted.state import StateLimits
from brunix_twisted.state import redis

redis._SILENT_S, redis._ANNOUNCE_S = 0.5, 0.05


async def run():
    store = redis.RedisStore(reactor, sys.argv[1], StateLimits(10, 100.0, 0, 0))
    await store.start()
    await store.put("s", b"", [16 * b"k"], version=0, held=True)
    print("held", flush=True)


ensureDeferred(run())
reactor.run()
"""


@pytest.fixture
def killed(redis: RedisServer) -> Iterator[tuple[str, Popen[bytes]]]:
    """A process that holds a session in the store with this URL."""
    url = own(redis)
    with Popen([sys.executable, "-c", KILLED, url], stdout=PIPE, env=CLEAN) as process:  # noqa: S603 - this Python
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield url, process
        process.kill()


async def test_killed_gateway(killed: tuple[str, Popen[bytes]], connect: Connect) -> None:
    """A gateway that is killed releases its conversations some seconds later, and no sooner while it lives."""
    url, process = killed
    store = await connect(url)
    # Longer than it may be silent: it announces itself.
    for _ in range(10):
        assert await found(store) == {"s": True}
        await deferLater(cast("Any", reactor), 0.1)
    process.kill()

    async def is_released() -> bool:
        return await found(store) == {"s": False}

    await until(is_released)


async def test_restarted(tmp_path: Path, connect: Connect) -> None:
    """After a restart of Redis the gateway connects again, and finds what Redis has kept."""
    with redis_server(tmp_path, "appendonly yes", "appendfsync always") as server:
        store = await connect(server.url())
        await put(store, "a")
        server.kill()
        with pytest.raises(StateUnavailableError, match=r"redis://127\.0\.0\.1:\d+/0: "):
            await put(store, "b")
        server.start()
        await until(lambda: works(store))
        assert await found(store) == {"a": False}
        assert await put(store, "a", version=1)
        server.command("SCRIPT", "FLUSH")
        assert await put(store, "a", version=2)


async def test_not_there_yet(tmp_path: Path, connect: Connect) -> None:
    """A gateway that starts before Redis says so, and connects when Redis is there."""
    with redis_server(tmp_path) as server:
        server.kill()
        store = await connect(server.url(), wait=False)
        with pytest.raises(StateUnavailableError, match="refused"):
            await store.start()
        server.start()
        await until(lambda: works(store))


async def test_no_reply(redis: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to a server that hangs ends, and the connection is replaced."""
    monkeypatch.setattr("brunix_twisted.state.redis_connection._REPLY_S", 0.2)
    store = await connect(own(redis))
    with redis.paused(), pytest.raises(StateUnavailableError, match=r"0\.2 seconds"):
        await put(store, "a")
    await until(lambda: works(store))
    assert await put(store, "b")


async def test_full(redis: RedisServer, connect: Connect) -> None:
    """A full server is reported, changes nothing, and still finds conversations."""
    store = await connect(own(redis))
    await put(store, "a")
    redis.command("CONFIG", "SET", "maxmemory", "1")
    try:
        for call in (put(store, "a", version=1), put(store, "b"), store.check()):
            with pytest.raises(StateUnavailableError, match="OOM"):
                await call
        with pytest.raises(StateUnavailableError, match="OOM"):
            await store.put_response("r", StoredResponse("a", b"", b"body"))
        assert [(entry.session_id, entry.version) for entry in await store.find([KEY], 10)] == [("a", 1)]
    finally:
        redis.command("CONFIG", "SET", "maxmemory", "0")
    assert await put(store, "a", version=1)


async def test_evicted(redis: RedisServer, connect: Connect) -> None:
    """Where Redis evicts what it likes, the rest is found, and limits still apply."""
    prefix = uuid4().hex
    store = await connect(redis.url(query=f"?prefix={prefix}"))
    for number in range(30):
        await put(store, str(number))
    for number in range(3, 30):
        redis.command("DEL", f"{prefix}:1:s:{number}")
    assert [entry.session_id for entry in await store.find([KEY], 3)] == ["2", "1", "0"]
    for name in ("all", "bs", "bz", "rs"):
        await store.put_response(name, StoredResponse("2", b"", b"body"))
        redis.command("DEL", f"{prefix}:1:{name}")
    assert await put(store, "2", version=1)
    assert await store.get_response("rs") is not None
    assert await store.get_response("none") is None


async def test_nothing_stays(redis: RedisServer, connect: Connect) -> None:
    """Everything in Redis has a time at which Redis removes it."""
    prefix = uuid4().hex
    store = await connect(redis.url(query=f"?prefix={prefix}"))
    await put(store, "a", held=True)
    await store.put_response("r", StoredResponse("a", b"", b"body"))
    names = redis.command("KEYS", f"{prefix}:*").split("\r\n")[2::2]
    assert len(names) == 8
    for name in names:
        assert 0 < int(redis.command("TTL", name)[1:]) <= 1.1 * LIMITS.max_age_s + 1


async def test_read_only(redis: RedisServer, tmp_path: Path, connect: Connect) -> None:
    """A replica is not mistaken for a store that works."""
    with redis_server(tmp_path, f"replicaof 127.0.0.1 {redis.port}") as replica:
        store = await connect(replica.url(), wait=False)
        with pytest.raises(StateUnavailableError, match="READONLY"):
            await store.start()
        replica.command("REPLICAOF", "NO", "ONE")
        await until(lambda: works(store))
        # It becomes a replica while the gateway is connected, as after a failover.
        replica.command("REPLICAOF", "127.0.0.1", str(redis.port))
        before = clients(replica)
        with pytest.raises(StateUnavailableError, match="READONLY"):
            await put(store, "a")
        # The name may lead to another server by now, so it connects again.
        replica.command("REPLICAOF", "NO", "ONE")
        await until(lambda: works(store))
        assert clients(replica) - before


def clients(server: RedisServer) -> set[str]:
    """Return the ids of the connections of gateways."""
    return set(re.findall(r"id=([0-9]+) .* cmd=eval", server.command("CLIENT", "LIST")))


async def test_password(tmp_path: Path, connect: Connect) -> None:
    """A wrong password is reported without the password, and the gateway tries again until it is right."""
    with redis_server(tmp_path, "requirepass right") as server:
        for url, message in ((server.url(), "NOAUTH"), (server.url(login=":wrong"), "WRONGPASS")):
            store = await connect(url, wait=False)
            with pytest.raises(StateUnavailableError, match=message) as caught:
                await store.start()
            assert "wrong@" not in str(caught.value)
        await connect(server.url(login=":right"))
        server.command("CONFIG", "SET", "requirepass", "wrong", login="right")
        await until(lambda: works(store))


async def test_user_with_few_rights(tmp_path: Path, connect: Connect) -> None:
    """The rights that the documentation gives to the gateway's user are enough, and no more than needed."""
    (line,) = re.findall(r"^user brunix .*", (ROOT / "docs" / "state.md").read_text("utf-8"), re.MULTILINE)
    with redis_server(tmp_path, line.replace("PASSWORD", "secret"), "user default off") as server:
        store = await connect(server.url(login="brunix:secret"))
        assert await put(store, "a", held=True)
        assert await found(store) == {"a": True}
        await store.put_response("r", StoredResponse("a", b"", b"body"))
        await store.delete_response("r")
        store = await connect(server.url(login="brunix:secret", query="?prefix=other"), wait=False)
        with pytest.raises(StateUnavailableError, match=r"NOPERM|can't"):
            await store.start()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def tls(authority: Authority, name: str = "127.0.0.1", *lines: str) -> list[str]:
    party = authority.sign(name)
    return [
        "port 0", "tls-port {port}", f"tls-cert-file {party.certificate}", f"tls-key-file {party.key}",
        f"tls-ca-cert-file {authority.party.certificate}", *lines,
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL .* objects:DeprecationWarning")  # Twisted passes them
async def test_tls(tmp_path: Path, authority: Authority, connect: Connect) -> None:
    """The connection is encrypted, with certificates on both sides as Debian configures Redis."""
    client = authority.sign("client")
    with redis_server(tmp_path / "redis", *tls(authority)) as server:
        trust = f"rediss://127.0.0.1:{server.port}/0?ca={authority.party.certificate}"
        store = await connect(f"{trust}&cert={client.certificate}&key={client.key}")
        assert await put(store, "a")
        store = await connect(trust, wait=False)
        with pytest.raises(StateUnavailableError, match="certificate"):
            await store.start()
        for query, message in (
            (f"&cert={client.certificate}&key={authority.party.key}", "KEY_VALUES_MISMATCH"),
            (f"&cert={tmp_path}/none.pem", "none.pem"),
        ):
            store = await connect(trust + query, wait=False)
            with pytest.raises(StateUnavailableError, match=message):
                await store.start()


@pytest.mark.parametrize("what", ["authority", "name", "system"])
async def test_wrong_certificate(tmp_path: Path, authority: Authority, connect: Connect, what: str) -> None:
    """A server that another authority has certified, or under another name, gets no password."""
    other = Authority(tmp_path, "other")
    lines = tls(authority, "elsewhere" if what == "name" else "127.0.0.1", "tls-auth-clients no")
    with redis_server(tmp_path / "redis", *lines) as server:
        trusted = (other if what == "authority" else authority).party.certificate
        query = "" if what == "system" else f"?ca={trusted}"
        store = await connect(f"rediss://:secret@127.0.0.1:{server.port}/0{query}", wait=False)
        with pytest.raises(StateUnavailableError, match=r"certificate|[vV]erif"):
            await store.start()


async def test_no_tls(redis: RedisServer, tmp_path: Path, authority: Authority, connect: Connect) -> None:
    """TLS to a server without it fails with a message, and so does the other way round."""
    with redis_server(tmp_path / "redis", *tls(authority)) as server:
        for url in (f"rediss://127.0.0.1:{redis.port}", f"redis://127.0.0.1:{server.port}"):
            store = await connect(url, wait=False)
            with pytest.raises(StateUnavailableError):
                await store.start()


async def test_failover(tmp_path: Path, connect: Connect) -> None:
    """When the primary server dies, the gateway follows Sentinel to the new one, with the conversations on it."""
    auth = ("requirepass secret", "masterauth secret")
    with (
        redis_server(tmp_path / "one", *auth) as one,
        redis_server(tmp_path / "two", *auth, f"replicaof 127.0.0.1 {one.port}", "repl-diskless-sync-delay 0") as two,
        redis_server(
            tmp_path / "sentinel",
            f"sentinel monitor main 127.0.0.1 {one.port} 1",
            "sentinel auth-pass main secret",
            "sentinel down-after-milliseconds main 300",
            "sentinel failover-timeout main 1000",
            sentinel=True,
        ) as sentinel,
    ):
        # The first Sentinel does not answer; the second one does.
        store = await connect(f"redis+sentinel://:secret@127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main")
        await put(store, "a")

        async def is_copied() -> bool:
            # Sentinel promotes only a replica that it knows.
            return "a" in two.command(
                "ZRANGE", "brunix:1:all", "0", "-1", login="secret"
            ) and f"{two.port}" in sentinel.command("SENTINEL", "REPLICAS", "main")

        await until(is_copied)
        one.kill()
        await until(lambda: put(store, "b"))
        assert await found(store) == {"a": False, "b": False}


async def test_sentinel_errors(redis: RedisServer, tmp_path: Path, connect: Connect) -> None:
    """What Sentinel does not know or refuses is reported."""
    lines = (f"sentinel monitor main 127.0.0.1 {redis.port} 1", "requirepass secret")
    with redis_server(tmp_path, *lines, sentinel=True) as sentinel:
        base = f"redis+sentinel://127.0.0.1:{sentinel.port}"
        for url, message in (
            (f"{base}/main", "NOAUTH"),
            (f"{base}/main?sentinel_password=wrong", "WRONGPASS"),
            (f"{base}/other?sentinel_password=secret", "knows no service other"),
            (f"redis+sentinel://127.0.0.1:{free_port()}/main", "refused"),
        ):
            store = await connect(url, wait=False)
            with pytest.raises(StateUnavailableError, match=message):
                await store.start()
        await connect(f"{base}/main?sentinel_password=secret")


class Relay(Protocol):
    """One side of a connection through a proxy that can cut it in the middle of a reply."""

    transport: ITransport

    def __init__(self, proxy: CuttingProxy) -> None:
        self.proxy = proxy
        self.peer: Relay | None = None
        self.waiting = b""
        self.is_server = False

    def dataReceived(self, data: bytes) -> None:
        if self.is_server and self.proxy.cuts:
            self.proxy.cuts = False
            assert self.peer is not None
            self.peer.transport.write(data[:1])
            self.peer.transport.loseConnection()
            self.transport.loseConnection()
        elif self.peer is None:
            self.waiting += data
        else:
            self.peer.transport.write(data)

    def connectionLost(self, _: Failure) -> None:  # type: ignore[override] # its caller passes the reason by position
        if self.peer is not None:
            self.peer.transport.loseConnection()


class CuttingProxy(Factory):
    """Relays connections to a server."""

    noisy = False
    cuts = False

    def __init__(self, port: int) -> None:
        self._server = TCP4ClientEndpoint(cast("Any", reactor), "127.0.0.1", port)

    def buildProtocol(self, addr: object) -> Relay:  # noqa: ARG002 - Twisted's
        client = Relay(self)

        def connected(server: Any) -> None:  # noqa: ANN401 - a Relay
            server.is_server, server.peer, client.peer = True, client, server
            server.transport.write(client.waiting)

        server = Factory.forProtocol(lambda: Relay(self))
        server.noisy = False
        self._server.connect(server).addCallback(connected)
        return client


async def test_reply_lost(redis: RedisServer, connect: Connect) -> None:
    """A claim that Redis executed and the gateway did not learn of does not hold the session."""
    proxy = CuttingProxy(redis.port)
    port = await TCP4ServerEndpoint(cast("Any", reactor), 0, interface="127.0.0.1").listen(proxy)
    prefix = uuid4().hex
    direct = await connect(redis.url(query=f"?prefix={prefix}"))
    store = await connect(f"redis://127.0.0.1:{port.getHost().port}/0?prefix={prefix}")
    try:
        assert await put(direct, "old")
        for session_id, version in (("old", 1), ("new", 0)):
            proxy.cuts = True
            with pytest.raises(StateUnavailableError):
                await put(store, session_id, version=version, held=True)
            await until(lambda: works(store))
        # The other was never used, and its caller uses another.
        assert await found(direct) == {"old": False}
        assert await put(direct, "old", version=2, held=True)
    finally:
        await store.close()
        await port.stopListening()


async def test_server_clock(redis: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway whose clock is wrong neither loses its conversations nor removes those of the others."""
    url = own(redis)
    store = await connect(url)
    assert await put(store, "a")
    for wrong_s in (0.0, 1e12):
        monkeypatch.setattr("time.time", lambda wrong_s=wrong_s: wrong_s)
        assert await put(await connect(url), f"at {wrong_s}")
    assert set(await found(store)) == {"a", "at 0.0", "at 1000000000000.0"}
