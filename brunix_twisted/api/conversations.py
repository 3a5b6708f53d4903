"""
Recognise the engine session of a conversation by the turns that its client sends back. Pure.

A session's record has a node for each of its turns. A node names the conversation that ended with this turn by a
digest, its *chain*: of the caller, and of every turn in order. So a record holds all conversations that the session has
been part of, the abandoned ones too, like the branches of a tree. A request continues the session in which exactly its
conversation came last, or else the only one that it fits.

No text is kept: a turn, too, is named by its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import cached_property
from struct import Struct
from typing import Final

import attrs

from brunix_twisted.model import Turn
from brunix_twisted.state import SessionEntry

DIGEST_BYTES: Final = 16
NOTHING: Final = bytes(DIGEST_BYTES)
"""Stands for no digest."""

NO_TOKEN: Final = bytes(8)
"""Stands for no request."""

MAX_NODES: Final = 64
"""Maximum number of nodes in a record; the oldest goes first. Clients go back by a few turns only."""

WINDOW_NODES: Final = 8
"""How many of a session's latest turns lead to it without the turns before them."""

# Of the turns that a client presents when a session is started in the middle of its conversation.
_CONTEXT_TURNS: Final = 16

HEAD_KEY, NODE_KEY, TURN_KEY, ASKED_KEY = b"h", b"n", b"t", b"a"
"""
What keys begin with: then follows a session's complete conversation, any of its conversations, one of its last turns,
or the conversation up to the question of its latest turn.
"""

# So many equal turns in a row are no coincidence, however much comes before them in the request.
_CERTAIN_TURNS: Final = 3


class Digests:
    """Computes the digests by which conversations are known. A guess at a text cannot be tested without the key."""

    def __init__(self, secret: Callable[[], bytes]) -> None:
        """
        Read no secret yet.

        :param secret: returns a secret of any length; called once, for the first digest.
        """
        self._secret = secret

    @cached_property
    def _key(self) -> bytes:
        return hashlib.blake2b(self._secret(), digest_size=32).digest()

    def of(self, kind: bytes, *parts: bytes) -> bytes:
        """
        Return a digest that differs for different kinds and for different parts.

        Each part is preceded by its length, so that no part can imitate the boundary between two.
        """
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES, key=self._key, person=kind)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()

    def caller(self, parts: Iterable[bytes]) -> bytes:
        """Return the digest of a caller."""
        return self.of(b"caller", *parts)

    def turn(self, owner: bytes, turn: Turn) -> bytes:
        """Return the digest of a question and its answer."""
        return self.of(b"turn", owner, _canonical(turn.user), _canonical(turn.assistant))

    def question(self, owner: bytes, query: str) -> bytes:
        """Return the digest of a question whose answer is not complete."""
        return self.of(b"question", owner, _canonical(query))

    def chain(self, before: bytes, turn: bytes) -> bytes:
        """Return the digest of a conversation with one more turn."""
        return self.of(b"chain", before, turn)


def _canonical(text: str) -> bytes:
    """Return a text as it is compared: some clients trim texts, or change the line breaks."""
    return text.strip().replace("\r\n", "\n").encode()


class Kind(IntEnum):
    """What a node stands for."""

    TURN = 0
    """A complete turn."""
    QUESTION = 1
    """A question whose answer is in progress, or was never completed."""
    CONTEXT = 2
    """A turn from before the session. It is only compared, and never leads to the session."""


@attrs.frozen
class Node:
    """A turn of a session's record."""

    chain: bytes
    """The conversation up to this turn, as the client presents it."""
    turn: bytes
    before: bytes
    """The chain of the node before it."""
    kind: Kind = Kind.TURN
    asked: bytes = NOTHING
    """The conversation up to the turn's question, to explain a mismatch; NOTHING if it is not known."""


_HEAD: Final = Struct("!BB8s16s16s16s")
_NODE: Final = Struct("!16s16s16sB16s")
_FORMAT: Final = 1
_NAMED, _CLAIMED = 1, 2


@attrs.frozen
class Record:
    """What is known of a session."""

    caller: bytes
    """The digest of the caller, without editor state."""
    head: bytes = NOTHING
    """The chain of the conversation that was continued last."""
    nodes: tuple[Node, ...] = ()
    """In the order of adding."""
    asked: bytes = NOTHING
    """The chain of the question that is being answered."""
    token: bytes = NO_TOKEN
    """Names the request that is being answered."""
    named: bool = False
    """Whether a client has named the session. It then contains turns that are in no known conversation."""
    claimed: bool = False
    """Whether a request got the session by presenting its conversation. Its id then no longer leads to it."""

    @cached_property
    def by_chain(self) -> dict[bytes, Node]:
        """The nodes, by the conversation that they name."""
        return {node.chain: node for node in self.nodes}

    @property
    def is_held(self) -> bool:
        """Whether a request is being answered in the session."""
        return self.token != NO_TOKEN

    def encode(self) -> bytes:
        """Return it as bytes."""
        flags = _NAMED * self.named | _CLAIMED * self.claimed
        nodes = (_NODE.pack(node.chain, node.turn, node.before, node.kind, node.asked) for node in self.nodes)
        return b"".join((_HEAD.pack(_FORMAT, flags, self.token, self.caller, self.head, self.asked), *nodes))

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """
        Read it from bytes.

        :raises ValueError: the bytes are not a record of this release.
        """
        try:
            version, flags, token, caller, head, asked = _HEAD.unpack_from(data)
            nodes = tuple(
                Node(chain, turn, before, Kind(kind), asked)
                for chain, turn, before, kind, asked in _NODE.iter_unpack(data[_HEAD.size :])
            )
        except Exception as fault:
            raise ValueError("not a session's record") from fault
        if version != _FORMAT:
            raise ValueError(f"a session's record in the unknown format {version}")
        return cls(caller, head, nodes, asked, token, named=bool(flags & _NAMED), claimed=bool(flags & _CLAIMED))

    def with_nodes(self, *added: Node, without: bytes = NOTHING) -> Record:
        """Add nodes at the end, in place of earlier ones with the same chains."""
        gone = {node.chain for node in added} | {without}
        kept = [node for node in self.nodes if node.chain not in gone]
        return attrs.evolve(self, nodes=(*kept, *added)[-MAX_NODES:])

    def keys(self) -> list[bytes]:
        """Return the keys by which requests find the session."""
        if self.named:
            return []
        nodes = [node for node in self.nodes if node.kind is not Kind.CONTEXT]
        # A session that is held cannot be had by its complete conversation.
        keys = [] if self.is_held or self.head == NOTHING else [HEAD_KEY + self.head]
        keys += [NODE_KEY + node.chain for node in nodes]
        keys += [TURN_KEY + node.turn for node in nodes[-WINDOW_NODES:]]
        return list(dict.fromkeys(keys + [ASKED_KEY + node.asked for node in nodes[-1:] if node.asked != NOTHING]))


class Presented:
    """The conversation that a request presents: the turns before its question."""

    def __init__(self, digests: Digests, caller: bytes, owner: bytes, history: Sequence[Turn]) -> None:
        """
        Compute the digests that every request needs.

        :param caller: the digest of the caller.
        :param owner: see :func:`brunix_twisted.api.caller.owner_of`.
        """
        self._digests = digests
        self._history = history
        self.caller = caller
        self._owner = digests.of(b"owner", caller, owner)
        self.turns = [digests.turn(self._owner, turn) for turn in history]
        chains = [digests.of(b"root", self._owner)]
        for turn in self.turns:
            chains.append(digests.chain(chains[-1], turn))
        self.chains = chains
        """One for each turn, and before them one for no turn."""

    @property
    def chain(self) -> bytes:
        """The whole conversation."""
        return self.chains[-1]

    @cached_property
    def last(self) -> int:
        """The index of the last turn that has a question; -1 if none has, as in a greeting."""
        return next((index for index in reversed(range(len(self.turns))) if self._history[index].user.strip()), -1)

    def question(self, index: int) -> bytes:
        """Return the digest of a turn's question."""
        return self._digests.question(self._owner, self._history[index].user)

    def asked(self, index: int) -> bytes:
        """Return the conversation up to a turn's question."""
        return self._digests.chain(self.chains[index], self.question(index))

    @cached_property
    def unanswered(self) -> bytes:
        """The conversation up to its last question, if its answer counts for nothing; NOTHING if that is not last."""
        if self.last < 0 or self.last != len(self.turns) - 1:
            return NOTHING
        return self.asked(self.last)

    def asking(self, query: str, before: bytes) -> Node:
        """
        Return the node of the request's question.

        :param before: the chain of the node that it follows; see :attr:`Candidate.before`.
        """
        turn = self._digests.question(self._owner, query)
        return Node(self._digests.chain(self.chain, turn), turn, before, Kind.QUESTION)

    def answered(self, query: str, text: str, before: bytes) -> Node:
        """Return the node of the request's question with its answer; see :meth:`asking`."""
        turn = self._digests.turn(self._owner, Turn(query, text))
        return Node(self._digests.chain(self.chain, turn), turn, before, asked=self.asking(query, before).chain)

    def context(self) -> list[Node]:
        """Return the nodes of the presented turns, for a session that begins after them."""
        count = len(self.turns)
        return [
            Node(self.chains[index + 1], self.turns[index], self.chains[index], Kind.CONTEXT)
            for index in range(max(0, count - _CONTEXT_TURNS), count)
        ]

    def keys(self, *, exact: bool) -> list[bytes]:
        """Return the keys of the sessions that the request may continue; none if it begins a conversation."""
        if self.last < 0:
            return []
        keys = [HEAD_KEY + self.chain]
        if self.unanswered != NOTHING:
            keys.append(NODE_KEY + self.unanswered)
        # A session that is held has no key for its complete conversation.
        keys.append(NODE_KEY + self.chain)
        if not exact:
            keys += [TURN_KEY + self.turns[self.last], TURN_KEY + self.question(self.last)]
        return keys


@attrs.frozen
class Candidate:
    """A session that a request may continue."""

    entry: SessionEntry
    record: Record
    before: bytes
    """The chain of the node that the request's question follows."""
    run: int = 0
    """How many of the last presented turns are the session's, in a row."""


@attrs.frozen
class Selection:
    """The sessions that a request may continue, the best first. All of them are equally right."""

    candidates: Sequence[Candidate] = ()
    is_pending: bool = False
    """Whether a session answers the last question that the request presents, and may soon have answered it."""
    rejected: Sequence[Candidate] = ()
    """The sessions that fit, but that the request may not continue."""


def select(presented: Presented, entries: Iterable[SessionEntry], *, exact: bool) -> Selection:
    """
    Select the session that a request continues.

    A session whose complete conversation is presented comes first, and there may be several: their callers look
    the same, and each session is given once. Otherwise the request continues a session only if it fits no other: one
    that contains the presented conversation as an earlier state or up to an unanswered question, or else one that
    contains its last turns.

    :param entries: the sessions that a store found by :meth:`Presented.keys`.
    :param exact: only a session whose complete conversation is presented.
    """
    complete: list[Candidate] = []
    anchored: list[Candidate] = []
    windows: list[Candidate] = []
    for entry in entries:
        record = record_of(entry)
        # The keys contain the caller. A store that is wrong must not hand out a session all the same.
        if record is None or record.named or record.caller != presented.caller:
            continue
        nodes = record.by_chain
        if record.head == presented.chain and not entry.held:
            complete.append(Candidate(entry, record, presented.chain))
        elif presented.chain in nodes and nodes[presented.chain].kind is not Kind.CONTEXT:
            anchored.append(Candidate(entry, record, presented.chain))
        elif presented.unanswered in nodes:
            anchored.append(Candidate(entry, record, presented.unanswered))
        elif (window := window_of(presented, entry, record)) is not None and _is_enough(presented, window):
            windows.append(window)
    if complete:
        return Selection(complete)
    is_pending = any(_takes_over(presented, candidate) for candidate in anchored)
    best = anchored or _longest(windows)
    if exact:
        return Selection(is_pending=is_pending, rejected=best)
    if len(best) == 1 and (not best[0].entry.held or _takes_over(presented, best[0])):
        return Selection(best)
    return Selection(is_pending=is_pending, rejected=best)


def _takes_over(presented: Presented, candidate: Candidate) -> bool:
    """
    Return whether the request comes after the question that the session is answering.

    Its client has stopped that answer, or has received all of it, and the gateway does not know yet.
    """
    return candidate.entry.held and candidate.record.asked == presented.unanswered != NOTHING


def record_of(entry: SessionEntry) -> Record | None:
    """Return the record of a session; None if another release has written it."""
    try:
        return Record.decode(entry.record)
    except ValueError:
        return None


def window_of(presented: Presented, entry: SessionEntry, record: Record) -> Candidate | None:
    """Return a session with the number of the last presented turns that are its own; None if it has not the last."""
    candidates = (
        Candidate(entry, record, node.chain, _run(presented, node, record.by_chain))
        for node in record.nodes
        if node.kind is not Kind.CONTEXT
    )
    best = max(candidates, key=lambda candidate: candidate.run, default=None)
    return None if best is None or best.run == 0 else best


def _is_enough(presented: Presented, window: Candidate) -> bool:
    """Return whether enough of the last presented turns are the session's."""
    # A client that shortens a conversation may put a summary before it.
    return presented.last + 1 - window.run <= 1 or window.run >= _CERTAIN_TURNS


def _run(presented: Presented, node: Node, nodes: dict[bytes, Node]) -> int:
    """Count the presented turns that are also in a session, in a row, backwards from the last and from a node."""
    run = 0
    current: Node | None = node
    for index in range(presented.last, -1, -1):
        if current is None:
            break
        same = presented.question(index) if current.kind is Kind.QUESTION else presented.turns[index]
        if current.turn != same:
            break
        run += 1
        current = nodes.get(current.before)
    return run


def _longest(candidates: Sequence[Candidate]) -> list[Candidate]:
    longest = max((candidate.run for candidate in candidates), default=0)
    return [candidate for candidate in candidates if candidate.run == longest]
