"""
State in Redis or Valkey, shared by any number of gateways.

All names of keys begin with a prefix and the version of their format, ``brunix:1:`` unless the URL sets another prefix:

======= ========== =====================================================================================
``s:``  hash       a session: record ``r``, version ``v``, holder ``h``, time ``w``, keys ``k`` and when they were
                   extended ``x``
``k:``  sorted set the sessions of a key, by time
``all`` sorted set all sessions, by time
``p:``  string     a process that is alive; expires when it no longer announces itself
``r:``  hash       a response: session ``s``, caller ``c``, body ``b`` and time ``w``
``rs``  sorted set all responses, by time
``bs``  sorted set the responses that have a body, by time
``bz``  hash       the sizes of the bodies, and their sum under the empty name
======= ========== =====================================================================================

Each method is one script, which Redis runs as a whole. Times are in microseconds of the server's clock, so that
gateways whose clocks differ agree. Every key also expires natively. Scripts use keys that they find in other keys,
which Redis Cluster does not allow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final, cast

from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from brunix_twisted.config.redis_url import parse
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import SessionEntry, StateLimits, StateUnavailableError, StoredResponse
from brunix_twisted.state.memory import BODY_OVERHEAD_BYTES
from brunix_twisted.state.redis_connection import RedisConnection, ReplyLostError

_ANNOUNCE_S: Final = 5.0
_SILENT_S: Final = 15.0
"""A process that has not announced itself for this long is considered dead."""

_MAX_UNCERTAIN: Final = 10_000
_FORMAT: Final = "1"

# What every script begins with. ARGV: prefix, time or "", maximum age, maximum number, then the script's own from 5 on.
_BEGIN: Final = b"""
local P, now, max_age, max = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local oldest, time_text = now - max_age, string.format('%.0f', now)
local ttl_ms = string.format('%.0f', max_age * 1.1 / 1000 + 1000)

local function expire(key)
  redis.call('PEXPIRE', key, ttl_ms)
end
local function is_live(written)
  return written and tonumber(written) >= oldest
end
local function add(name, id)
  redis.call('ZADD', name, time_text, id)
  expire(name)
end
-- Remove the expired ones, and the oldest of too many. A later call continues where there are very many.
local function trim(name, remove)
  local before = '(' .. string.format('%.0f', oldest)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', name, '-inf', before, 'LIMIT', 0, 100)) do remove(id) end
  local excess = math.min(redis.call('ZCARD', name) - max, 100)
  if excess > 0 then
    for _, id in ipairs(redis.call('ZRANGE', name, 0, excess - 1)) do remove(id) end
  end
end
"""

_SESSION: Final = (
    _BEGIN
    + b"""
local function entry(id)
  local fields = redis.call('HMGET', P .. 's:' .. id, 'r', 'v', 'h', 'w')
  if not is_live(fields[4]) then return nil end
  local held = 0
  if fields[3] ~= '' then held = redis.call('EXISTS', P .. 'p:' .. fields[3]) end
  return {id, fields[1], fields[2], held}, tonumber(fields[4])
end
local function forget(id)
  local keys = redis.call('HGET', P .. 's:' .. id, 'k')
  if keys then
    for _, key in ipairs(cmsgpack.unpack(keys)) do redis.call('ZREM', P .. 'k:' .. key, id) end
  end
  redis.call('DEL', P .. 's:' .. id)
  redis.call('ZREM', P .. 'all', id)
end
"""
)

# ARGV: limit, keys…
_FIND: Final = (
    _SESSION
    + b"""
local limit, found, known = tonumber(ARGV[5]), {}, {}
for i = 6, #ARGV do
  local offset, live, ids = 0, 0, nil
  repeat
    -- Redis may have evicted the latest sessions of a key, so one range may not be enough.
    ids = redis.call('ZREVRANGE', P .. 'k:' .. ARGV[i], offset, offset + limit - 1)
    for _, id in ipairs(ids) do
      if known[id] == nil then
        local session, written = entry(id)
        known[id] = session ~= nil
        if session then found[#found + 1] = {session, written} end
      end
      if known[id] then live = live + 1 end
      if live == limit then break end
    end
    offset = offset + limit
  until live == limit or #ids < limit or offset >= 1000
end
table.sort(found, function(one, other) return one[2] > other[2] end)
for i, each in ipairs(found) do found[i] = each[1] end
return found
"""
)

# ARGV: session id
_GET: Final = _SESSION + b"return entry(ARGV[5]) or false"

# ARGV: session id, record, version, holder or "", milliseconds for which the holder counts as alive, keys…
_PUT: Final = (
    _SESSION
    + b"""
local id, version, holder = ARGV[5], tonumber(ARGV[7]), ARGV[8]
local name = P .. 's:' .. id
local before = redis.call('HMGET', name, 'v', 'w', 'k', 'x')
if version ~= (is_live(before[2]) and tonumber(before[1]) or 0) then return 0 end
-- Extending the life of a key costs as much as adding the session to it. So a key lives a tenth longer than needed.
local extended = tonumber(before[4] or 0)
local extends = now < extended or now > extended + max_age / 10
if extends then extended = now end
local keys, had, has = {}, {}, {}
for i = 10, #ARGV do
  keys[#keys + 1] = ARGV[i]
  has[ARGV[i]] = true
end
-- First, because Redis checks only the first write of a script for a full memory.
redis.call('HSET', name, 'r', ARGV[6], 'v', version + 1, 'h', holder, 'w', time_text, 'k', cmsgpack.pack(keys),
  'x', string.format('%.0f', extended))
expire(name)
for _, key in ipairs(before[3] and cmsgpack.unpack(before[3]) or {}) do
  had[key] = true
  if not has[key] then redis.call('ZREM', P .. 'k:' .. key, id) end
end
for _, key in ipairs(keys) do
  redis.call('ZADD', P .. 'k:' .. key, time_text, id)
  if extends or not had[key] then expire(P .. 'k:' .. key) end
end
add(P .. 'all', id)
if holder ~= '' then redis.call('SET', P .. 'p:' .. holder, '', 'PX', ARGV[9]) end
trim(P .. 'all', forget)
return 1
"""
)

# ARGV: session id, version, holder. A claim whose reply was lost: nobody answers in the session.
_RELEASE: Final = (
    _SESSION
    + b"""
local fields = redis.call('HMGET', P .. 's:' .. ARGV[5], 'v', 'h')
if fields[1] == ARGV[6] and fields[2] == ARGV[7] then
  if ARGV[6] == '1' then forget(ARGV[5]) else redis.call('HSET', P .. 's:' .. ARGV[5], 'h', '') end
end
"""
)

# ARGV: holder, milliseconds for which it counts as alive
_ANNOUNCE: Final = _BEGIN + b"redis.call('SET', P .. 'p:' .. ARGV[5], '', 'PX', ARGV[6])"

# ARGV: the holder
_LEAVE: Final = _BEGIN + b"redis.call('DEL', P .. 'p:' .. ARGV[5])"

_RESPONSE: Final = (
    _BEGIN
    + b"""
local function drop_body(id)
  local size = redis.call('HGET', P .. 'bz', id)
  if size then
    redis.call('HDEL', P .. 'bz', id)
    redis.call('HINCRBY', P .. 'bz', '', -size)
  end
  redis.call('ZREM', P .. 'bs', id)
  redis.call('HDEL', P .. 'r:' .. id, 'b')
end
local function forget(id)
  drop_body(id)
  redis.call('DEL', P .. 'r:' .. id)
  redis.call('ZREM', P .. 'rs', id)
end
"""
)

# ARGV: response id, session id, caller, maximum number of bodies, maximum size, size of the body, body if there is one
_PUT_RESPONSE: Final = (
    _RESPONSE
    + b"""
local id, max_bodies, max_bytes = ARGV[5], tonumber(ARGV[8]), tonumber(ARGV[9])
local name = P .. 'r:' .. id
redis.call('HSET', name, 's', ARGV[6], 'c', ARGV[7], 'w', time_text)
expire(name)
drop_body(id)
add(P .. 'rs', id)
if ARGV[11] then
  redis.call('HSET', name, 'b', ARGV[11])
  add(P .. 'bs', id)
  redis.call('HSET', P .. 'bz', id, ARGV[10])
  redis.call('HINCRBY', P .. 'bz', '', ARGV[10])
  expire(P .. 'bz')
end
trim(P .. 'rs', forget)
while redis.call('ZCARD', P .. 'bs') > max_bodies or tonumber(redis.call('HGET', P .. 'bz', '') or 0) > max_bytes do
  local first = redis.call('ZRANGE', P .. 'bs', 0, 0)[1]
  if not first then
    redis.call('DEL', P .. 'bz')
    break
  end
  drop_body(first)
end
"""
)

# ARGV: response id
_GET_RESPONSE: Final = (
    _RESPONSE
    + b"""
local fields = redis.call('HMGET', P .. 'r:' .. ARGV[5], 's', 'c', 'b', 'w')
return is_live(fields[4]) and fields or false
"""
)

# ARGV: response id
_DELETE_RESPONSE: Final = _RESPONSE + b"forget(ARGV[5])"


class RedisStore:
    """Keeps everything in Redis or Valkey; see :class:`brunix_twisted.state.StateStore`."""

    def __init__(
        self, reactor: Reactor, url: str, limits: StateLimits, seconds: Callable[[], float] | None = None
    ) -> None:
        """
        Do nothing yet.

        :param url: see :func:`brunix_twisted.config.redis_url.parse`.
        :param seconds: returns the time on any clock that all gateways share; None for the server's clock.
        :raises ValueError: the URL is malformed.
        """
        address = parse(url)
        self._reactor = reactor
        self._limits = limits
        self._seconds = seconds
        self._prefix = f"{address.prefix}:{_FORMAT}:"
        self._holder = token_hex(8)
        """Identifies this process."""
        self._uncertain: dict[str, int] = {}
        """Claims whose reply was lost, and the version that they wrote."""
        self._sessions = RedisConnection(reactor, address, self._prepare)
        # Bodies are large, so that a claim would wait behind them on the same connection.
        self._responses = RedisConnection(reactor, address, self._announce_on)
        self._announcement: IDelayedCall | None = None

    def _args(self, *args: bytes | str | int) -> list[bytes | str | int]:
        now = "" if self._seconds is None else round(self._seconds() * 1_000_000)
        return [self._prefix, now, round(self._limits.max_age_s * 1_000_000), self._limits.max_sessions, *args]

    async def find(self, keys: Sequence[bytes], limit: int) -> list[SessionEntry]:
        """Return the sessions that were written with any of the keys."""
        reply = await self._sessions.eval(_FIND, self._args(limit, *keys))
        return [_entry(fields) for fields in reply]

    async def get(self, session_id: str) -> SessionEntry | None:
        """Return a session."""
        reply = await self._sessions.eval(_GET, self._args(session_id))
        return None if reply is None else _entry(reply)

    async def put(self, session_id: str, record: bytes, keys: Collection[bytes], *, version: int, held: bool) -> bool:
        """Write a session, unless it has been written since it was read."""
        holder = self._holder if held else ""
        try:
            reply = await self._sessions.eval(
                _PUT, self._args(session_id, record, version, holder, round(_SILENT_S * 1000), *keys)
            )
        except ReplyLostError:
            # Otherwise the session would be held as long as this process lives.
            if held and len(self._uncertain) < _MAX_UNCERTAIN:
                self._uncertain[session_id] = version + 1
            raise
        return bool(reply)

    async def put_response(self, response_id: str, response: StoredResponse) -> None:
        """Store a response."""
        limits, body_bytes = self._limits, response.body_bytes
        size_bytes = 0 if body_bytes is None else len(body_bytes) + BODY_OVERHEAD_BYTES
        stored = [] if body_bytes is None or size_bytes > limits.max_bytes or not limits.max_bodies else [body_bytes]
        args = (response_id, response.session_id, response.caller, limits.max_bodies, limits.max_bytes, size_bytes)
        await self._responses.eval(_PUT_RESPONSE, self._args(*args, *stored))

    async def get_response(self, response_id: str) -> StoredResponse | None:
        """Return a response."""
        reply = await self._responses.eval(_GET_RESPONSE, self._args(response_id))
        return None if reply is None else StoredResponse(reply[0].decode(), reply[1], reply[2])

    async def delete_response(self, response_id: str) -> None:
        """Remove a response."""
        await self._responses.eval(_DELETE_RESPONSE, self._args(response_id))

    async def start(self) -> None:
        """Connect."""
        if self._announcement is None:
            self._announcement = self._reactor.callLater(_ANNOUNCE_S, self._announce_again)
        both = (ensureDeferred(connection.start()) for connection in (self._sessions, self._responses))
        for succeeded, result in await DeferredList(both, consumeErrors=True):
            if not succeeded:
                cast("Failure", result).raiseException()

    async def _prepare(self, protocol: Any) -> None:  # noqa: ANN401 - txredisapi has no types
        """Announce this process on a new connection, and release what the previous one left behind."""
        await self._announce_on(protocol)
        for session_id, version in list(self._uncertain.items()):
            await protocol.eval(_RELEASE, [], self._args(session_id, version, self._holder))
            self._uncertain.pop(session_id, None)

    async def _announce_on(self, protocol: Any) -> None:  # noqa: ANN401 - txredisapi has no types
        await protocol.eval(_ANNOUNCE, [], self._args(self._holder, round(_SILENT_S * 1000)))

    def _announce_again(self) -> None:
        self._announcement = self._reactor.callLater(_ANNOUNCE_S, self._announce_again)
        _in_background(self.check())

    async def check(self) -> None:
        """Return if the store can be written to."""
        for connection in (self._sessions, self._responses):
            await connection.eval(_ANNOUNCE, self._args(self._holder, round(_SILENT_S * 1000)))

    async def close(self) -> None:
        """Disconnect after the calls in progress; what this process holds is no longer held."""
        if self._announcement is not None and self._announcement.active():
            self._announcement.cancel()
            await self._responses.close()
            _in_background(self._sessions.eval(_LEAVE, self._args(self._holder)))
            await self._sessions.close()


def _entry(fields: Sequence[Any]) -> SessionEntry:
    session_id, record, version, held = fields
    return SessionEntry(session_id.decode(), record, int(version), held=bool(held))


def _in_background(call: Awaitable[None]) -> None:
    """Run a call that may fail because the store is unavailable."""

    async def run() -> None:
        with suppress(StateUnavailableError):
            await call

    ensureDeferred(run())
