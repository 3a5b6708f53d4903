"""
Assign engine sessions to conversations.

Most clients have no session id: they send the whole conversation with every request, or the end of it. The engine
receives one question and keeps the earlier turns itself. What a client sends back of a conversation leads to its
session, and only its caller gets there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList

from brunix_twisted import errors
from brunix_twisted.api.caller import owner_of
from brunix_twisted.api.conversations import (
    NO_TOKEN,
    NOTHING,
    Candidate,
    Digests,
    Presented,
    Record,
    record_of,
    select,
)
from brunix_twisted.api.mismatches import Unmatched
from brunix_twisted.api.session_ids import check_session_id, is_placeholder
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Choice, CompletionRequest, SessionOutcome
from brunix_twisted.runtime.coroutines import attempt, start, unless_cancelled
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import StateStore

# The engine's own session for calls without an id. Only the body of a request can name it.
_SHARED = "default"

# Maximum number of sessions that a store returns for a key. Many are alike where many callers cannot be told apart.
_MAX_FOUND: Final = 16
# Each attempt that fails means that another request got a session.
_MAX_ATTEMPTS: Final = 8
# How long to wait until another process has recorded an answer that the client has received.
_RECORDED_WAITS_S: Final = (0.005, 0.015, 0.03)


@attrs.define(eq=False)
class _Turn:
    """A question whose answer is to be recorded in its session."""

    session_id: str
    presented: Presented
    query: str
    before: bytes
    """See :attr:`brunix_twisted.api.conversations.Candidate.before`."""
    record: Record
    """As it was written last, or will be written."""
    version: int
    """The record's version in the store; 0 if it is not there yet."""
    token: bytes
    """Names this question in the record."""
    writing: Deferred[Any] | None = None
    """The latest write. The next one has to wait for it."""
    is_done: bool = False

    def asked(self, record: Record) -> Record:
        """Return the record while the question is being answered."""
        node = self.presented.asking(self.query, self.before)
        return attrs.evolve(record.with_nodes(node), asked=node.chain, token=self.token)

    def completed(self, text: str, record: Record) -> Record:
        """Return the record with the answer."""
        node = self.presented.answered(self.query, text, self.before)
        released = self.released(record.with_nodes(node, without=node.asked))
        # If a later question has taken the session over, its conversation is the complete one.
        return released if released.is_held else attrs.evolve(released, head=node.chain)

    def released(self, record: Record) -> Record:
        """Return the record when the question is no longer being answered."""
        if record.token != self.token:
            return record
        return attrs.evolve(record, asked=NOTHING, token=NO_TOKEN)


@attrs.frozen
class SessionAssignment:
    """The engine sessions of a request."""

    session_ids: tuple[str, ...]
    """One for each query, in order."""
    outcome: SessionOutcome
    caller: bytes
    """The digest of the caller."""
    turn: _Turn | None = None
    """None: no conversation leads to the session."""
    unmatched: Unmatched | None = None
    """The presented conversation, if it has led to no session."""


class Sessions:
    """
    Assigns an engine session to each query, and remembers to which conversation it belongs.

    A session continues only for its caller, and for one request at a time. A request that arrives while the session
    is answering another gets a new one, unless it presents the very question that is being answered: then its client
    has stopped that answer, or has received all of it.

    All methods belong to the reactor's thread. A store that does not work costs a conversation its session, and no
    request its answer.
    """

    def __init__(  # noqa: PLR0913 - what it is made of, and its settings
        self,
        reactor: Reactor,
        store: StateStore,
        digests: Digests,
        new_id: Callable[[], str],
        *,
        continuity: bool = True,
        exact: bool = False,
        shared: bool = False,
        is_working: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Use a store, which may have sessions of earlier and of other processes.

        :param new_id: returns an unguessable id.
        :param continuity: whether a conversation leads to its session.
        :param exact: whether only a complete conversation does; see :func:`brunix_twisted.api.conversations.select`.
        :param shared: whether other processes use the store at the same time.
        :param is_working: returns whether the store's latest answer is complete.
        """
        self._reactor = reactor
        self._store = store
        self._digests = digests
        self._new_id = new_id
        self._continuity = continuity
        self._exact = exact
        self._shared = shared
        self._is_working = is_working
        self._writing: set[Deferred[Any]] = set()

    async def assign(
        self, requested: CompletionRequest, named: str | None, caller: Iterable[bytes] = ()
    ) -> SessionAssignment:
        """
        Assign the sessions of a request.

        The id of a session leads to it, for its caller only, until a request gets the session by presenting its
        conversation: that may come from another client of the same caller, with an identical conversation. So do the
        ids of its responses. An id that the gateway does not know is the client's own, and passed to the engine.

        A query without a session never gets the engine's default session, which all such calls share. A placeholder
        names no session. Neither does ``default`` in a header, where it is probably a program's default value.

        :param named: the session that a header names. A chat client's side request carries the session of the
            conversation it is about, and must not become a part of it.
        :param caller: what distinguishes the caller; see :func:`brunix_twisted.api.caller.caller_of`.
        :raises GatewayError: INVALID_REQUEST for an unsafe session id, PREVIOUS_NOT_FOUND for an unknown or expired
            response to continue.
        """
        identity = self.identify(caller)
        count = len(requested.queries)
        is_side = requested.side_request is not None
        continued = await self._continued(requested.previous_response_id, identity)
        if requested.session_id is not None and await self._may_name(requested.session_id, identity):
            return SessionAssignment((requested.session_id,) * count, "named", identity)
        if continued is not None:
            await self._name(continued)
            return SessionAssignment((continued,) * count, "named", identity)
        if named is not None and not is_side and named.lower() != _SHARED and await self._may_name(named, identity):
            return SessionAssignment((named,) * count, "named", identity)
        if is_side or not self._continuity or requested.history is None or count != 1:
            session_ids = tuple(self._new_id() for _ in requested.queries)
            return SessionAssignment(session_ids, "side" if is_side else "new", identity)
        presented = Presented(self._digests, identity, owner_of(requested.editor), requested.history)
        claimed = await self._claim(presented, requested.queries[0])
        if isinstance(claimed, _Turn):
            return SessionAssignment((claimed.session_id,), "found", identity, claimed)
        session_id = self._new_id()
        record = Record(identity, nodes=tuple(presented.context()))
        turn = _Turn(session_id, presented, requested.queries[0], presented.chain, record, 0, self._token())
        return SessionAssignment((session_id,), "new", identity, turn, claimed)

    def identify(self, caller: Iterable[bytes]) -> bytes:
        """Return the digest of a caller."""
        return self._digests.caller(caller)

    async def _may_name(self, name: str, identity: bytes) -> bool:
        """Return whether an id leads to a session for a caller; from then on, no conversation leads there."""
        if is_placeholder(name):
            return False
        check_session_id(name)
        return await self._name(name, identity)

    async def _name(self, session_id: str, identity: bytes | None = None) -> bool:
        for _ in range(_MAX_ATTEMPTS):
            entry = await attempt(self._store.get, session_id)
            record = None if entry is None else record_of(entry)
            if entry is None:
                return True
            # A record that another release has written does not say whose session it is.
            if record is None:
                return False
            if identity is not None and (record.claimed or record.caller != identity):
                return False
            if record.named:
                return True
            # An answer in flight is not recorded any more: the session then contains more than its conversation.
            changed = attrs.evolve(record, named=True, nodes=(), head=NOTHING, asked=NOTHING, token=NO_TOKEN)
            if await unless_cancelled(self._put(session_id, changed, entry.version)) is not False:
                return True
        return False

    async def _continued(self, response_id: str | None, identity: bytes) -> str | None:
        if response_id is None:
            return None
        response = await attempt(self._store.get_response, response_id)
        if response is not None and response.caller == identity:
            entry = await attempt(self._store.get, response.session_id)
            record = None if entry is None else record_of(entry)
            if entry is None or (record is not None and not record.claimed):
                return response.session_id
        raise GatewayError(
            errors.PREVIOUS_NOT_FOUND,
            "The previous response is unknown or has expired. Send the whole conversation without it.",
            param="previous_response_id",
        )

    async def _claim(self, presented: Presented, query: str) -> _Turn | Unmatched | None:
        """Get the session that a conversation continues, and hold it; None if the conversation begins here."""
        keys = presented.keys(exact=self._exact)
        if not keys:
            return None
        is_read = True
        rejected: Sequence[Candidate] = ()
        waits_s = iter(_RECORDED_WAITS_S if self._shared else ())
        for number in range(_MAX_ATTEMPTS):
            entries = await attempt(self._store.find, keys, _MAX_FOUND)
            selection = select(presented, entries or (), exact=self._exact)
            is_read, rejected = entries is not None, selection.candidates or selection.rejected
            if selection.candidates:
                # The first was used last, so the engine is least likely to have dropped it. If another request got it
                # first, others may be after the next one too.
                several = selection.candidates
                candidate = several[number and self._token()[0] % len(several)]
                if (turn := await self._hold(candidate, presented, query)) is not None:
                    return turn
            elif selection.is_pending and (wait_s := next(waits_s, None)) is not None:
                await self._wait(wait_s)
            else:
                break
        return Unmatched(presented, rejected, is_read=is_read and self._is_working())

    async def _hold(self, candidate: Candidate, presented: Presented, query: str) -> _Turn | None:
        entry = candidate.entry
        before, record, version = candidate.before, candidate.record, entry.version + 1
        turn = _Turn(entry.session_id, presented, query, before, record, version, self._token())
        turn.record = attrs.evolve(turn.asked(candidate.record), claimed=True)
        turn.writing = self._put(entry.session_id, turn.record, entry.version)
        try:
            return turn if await unless_cancelled(turn.writing) else None
        except CancelledError:
            self._write(turn, turn.released)
            raise

    def _token(self) -> bytes:
        return self._digests.of(b"token", self._new_id().encode())[: len(NO_TOKEN)]

    def _wait(self, duration_s: float) -> Deferred[None]:
        waited: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._reactor.callLater(duration_s, waited.callback, None)
        return waited

    def began(self, assignment: SessionAssignment) -> None:
        """
        Remember that the client receives a part of the answer, and the session's id.

        If it stops the answer, its next request presents that part.
        """
        turn = assignment.turn
        if turn is not None and turn.writing is None:
            self._write(turn, turn.asked)

    async def settle(self, assignment: SessionAssignment) -> None:
        """
        Wait until other processes can find the question.

        Call it before the end of the answer: the client's next request may arrive at once, in another process.
        """
        if self._shared:
            self.began(assignment)
        if assignment.turn is not None and assignment.turn.writing is not None:
            await unless_cancelled(assignment.turn.writing)

    def completed(self, assignment: SessionAssignment, choices: Sequence[Choice]) -> None:
        """Remember a complete answer, as the client has received it."""
        turn = assignment.turn
        if turn is not None:
            turn.is_done = True
            self._write(turn, partial(turn.completed, choices[0].text))

    def release(self, assignment: SessionAssignment) -> None:
        """
        Let the next request of the conversation have its session. Does nothing after :meth:`completed`.

        If the answer failed, a client that repeats the request finds its conversation as it was.
        """
        turn = assignment.turn
        if turn is not None and not turn.is_done and turn.writing is not None:
            self._write(turn, turn.released)

    async def when_written(self) -> None:
        """Wait until everything has been written."""
        await DeferredList(list(self._writing), consumeErrors=True)

    def _put(self, session_id: str, record: Record, version: int) -> Deferred[bool | None]:
        return start(self._store.put, session_id, record.encode(), record.keys(), version=version, held=record.is_held)

    def _write(self, turn: _Turn, change: Callable[[Record], Record]) -> None:
        """Change the record of a turn's session, after the writes before."""
        turn.writing = writing = start(self._changed, turn, change, turn.writing)
        if not writing.called:
            self._writing.add(writing)
            writing.addBoth(self._written, writing)

    def _written(self, result: object, writing: Deferred[Any]) -> object:
        self._writing.discard(writing)
        return result

    async def _changed(self, turn: _Turn, change: Callable[[Record], Record], before: Deferred[Any] | None) -> None:
        if before is not None and not before.called:
            await unless_cancelled(before)
        for _ in range(_MAX_ATTEMPTS):
            record = change(turn.record)
            if record == turn.record:
                return
            written = await self._put(turn.session_id, record, turn.version)
            if written:
                turn.record, turn.version = record, turn.version + 1
                return
            entry = await start(self._store.get, turn.session_id) if written is False else None
            current = None if entry is None else record_of(entry)
            if entry is None or current is None or current.named or current.caller != turn.record.caller:
                return
            turn.record, turn.version = current, entry.version
