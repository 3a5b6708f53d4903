"""
Which engine session holds which conversation.

Most clients know no session: they send the whole conversation with every request, while the engine takes one question
and keeps the rest itself. Matching the two needs nothing from the client: what it sends back is the key.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import attrs

from brunix_twisted import errors
from brunix_twisted.answers import Answers
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Ask, Choice, Turn

_SAFE_SESSION_ID = re.compile(r"[!-~]{1,256}")


def check_session_id(session_id: str) -> str:
    """
    The session id that a caller chose, if it may stand in a log line, an HTTP header and gRPC metadata as it is.

    Allowed are 1 to 256 printable ASCII characters, U+0021 to U+007E. A space is not among them, not even inside:
    headers lose it at the ends, and a log line's reader takes it for the end of the id.

    :raises GatewayError: INVALID_REQUEST for any other.
    """
    if not _SAFE_SESSION_ID.fullmatch(session_id):
        raise GatewayError(
            errors.INVALID_REQUEST,
            "Invalid value for 'session_id': it must be 1 to 256 printable ASCII characters without spaces",
            param="session_id",
        )
    return session_id


# How Open WebUI's requests for a title, tags or follow-up questions begin; other chat windows have taken it over.
_SIDE_REQUEST = "### Task:"


@attrs.frozen
class Chosen:
    """The sessions that a request is asked in."""

    session_ids: tuple[str, ...]
    """One for each question, in order."""
    history: tuple[Turn, ...] | None = None
    """The conversation that the session is to be remembered under once its answer is added; None: it is not to be."""
    taken: bool = False
    """Whether the session holds this conversation already."""


class Sessions:
    """
    Chooses the engine session of each question.

    To be called by one thread, the reactor's.
    """

    def __init__(self, continuity: Continuity | None, answers: Answers, new_id: Callable[[], str]) -> None:
        """
        Choose from what the caller names, from what is remembered, and otherwise a new one.

        :param continuity: None when conversations are not to be remembered.
        :param answers: those that a caller may continue by their ids.
        :param new_id: makes an id that nobody can guess.
        """
        self._continuity = continuity
        self._answers = answers
        self._new_id = new_id
        # Those that are with the engine and may be remembered; one whose answer fails is dropped with its request.
        self._under_way: WeakValueDictionary[str, Chosen] = WeakValueDictionary()

    def choose(self, ask: Ask, named: str | None, now_s: float) -> Chosen:
        """
        Choose for a request.

        An answer's id leads to its session as long as nobody has gone on there by presenting the conversation in it.
        Without a session of the caller's own a question never gets the engine's default one: everyone who names none
        shares it.

        :param named: the session that a header names. A chat window's side request carries that of the conversation
            it is about, and must not become a part of it, whether it names it or presents it.
        :raises GatewayError: INVALID_REQUEST for a session id that is not safe, PREVIOUS_NOT_FOUND for an answer to
            continue that is not known, or not any more.
        """
        continued = self._continued(ask)
        aside = any(map(_is_side_request, ask.queries))
        given = ask.session_id or continued or (None if aside else named)
        if given:
            check_session_id(given)
            if self._continuity is not None:
                self._continuity.forget(given)
            # Its answer may come after this question: the session then holds more than its conversation.
            self._under_way.pop(given, None)
            return Chosen((given,) * len(ask.queries))
        if self._continuity is None or ask.history is None or len(ask.queries) != 1:
            return Chosen(tuple(self._new_id() for _ in ask.queries))
        taken = None if aside else self._continuity.take(ask.history, now_s)
        if taken is not None:
            # Who presents a conversation is not for sure who was given its answers.
            self._answers.part(taken)
        chosen = Chosen((taken or self._new_id(),), ask.history, taken=taken is not None)
        self._under_way[chosen.session_ids[0]] = chosen
        return chosen

    def _continued(self, ask: Ask) -> str | None:
        if ask.continues is None:
            return None
        session_id = self._answers.session_of(ask.continues)
        if session_id is None:
            raise GatewayError(
                errors.PREVIOUS_NOT_FOUND,
                "The previous response is not known here, or no longer: send the whole conversation without it",
                param="previous_response_id",
            )
        return session_id

    def completed(self, chosen: Chosen, ask: Ask, choices: Sequence[Choice], now_s: float) -> None:
        """Remember the session of an answer that the engine has ended and the caller has been sent."""
        if self._continuity is None or chosen.history is None or choices[0].cut:
            return
        (session_id,) = chosen.session_ids
        if self._under_way.pop(session_id, None) is not None:
            self._continuity.remember((*chosen.history, Turn(ask.queries[0], choices[0].text)), session_id, now_s)

    def give_back(self, chosen: Chosen, now_s: float) -> None:
        """
        Remember a taken session as before, when nothing was asked in it after all.

        A caller that was turned away asks the same again, and then finds its conversation where it was.
        """
        if self._continuity is None or chosen.history is None or not chosen.taken:
            return
        (session_id,) = chosen.session_ids
        if self._under_way.pop(session_id, None) is not None:
            self._continuity.remember(chosen.history, session_id, now_s)


def _is_side_request(query: str) -> bool:
    return query.lstrip().startswith(_SIDE_REQUEST)


class Continuity:
    """
    Remembers, for answers that finished, which engine session holds exactly which conversation.

    A request *takes* the session of the conversation it presents, and when its answer is complete the session is
    *remembered* under that conversation and the new turn. Two things follow:

    - A session goes on only for a caller who presents every turn it contains. Whoever knows all of it learns nothing
      from it.
    - While a session is taken it is under no key at all, so two callers with the same opening never share one: the
      second gets a session of its own. So does one whose earlier request was broken off, because nobody knows then
      whether the engine kept that turn.

    Texts are compared without the white space at their ends, which clients trim as they like. They are not retained:
    the key is a digest. Every call costs O(1) amortised besides the digest of the conversation it is given.

    To be called by one thread, the reactor's: nothing here locks.

    :param max_sessions: how many are remembered; the one remembered longest ago goes first.
    :param max_age_s: how long one is remembered, in seconds. It should be no longer than the engine keeps a session.
    """

    def __init__(self, *, max_sessions: int, max_age_s: float) -> None:
        self._max_sessions = max_sessions
        self._max_age_s = max_age_s
        # Both in the order of remembering. An OrderedDict gives up its first item in O(1), a dict does not.
        self._remembered: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._session_ids: dict[bytes, dict[str, None]] = {}

    def __len__(self) -> int:
        """How many sessions are remembered."""
        return len(self._remembered)

    def take(self, history: tuple[Turn, ...], now_s: float) -> str | None:
        """
        The session that holds this conversation, which from now on is the caller's alone. None: a fresh one is due.

        Of several under the same conversation it is the one remembered last, as the engine is the least likely to
        have dropped it. An empty history, a conversation's first question, never matches.

        :param now_s: the time on any clock, in seconds, as it is given to :meth:`remember`.
        """
        self._expire(now_s)
        key = _digest(history)
        while session_ids := self._session_ids.get(key):
            session_id, _ = session_ids.popitem()
            _, remembered_s = self._remembered[session_id]
            self.forget(session_id)
            # Asked again, since a clock that was set back leaves younger entries behind the oldest of the order.
            if not self._is_old(remembered_s, now_s):
                return session_id
        return None

    def remember(self, history: tuple[Turn, ...], session_id: str, now_s: float) -> None:
        """
        Tell that the engine has completed an answer, and that the session now holds this conversation.

        Only for an answer that reached the caller whole. One that was cut short at a stop sequence or a length is
        another in the session than the caller knows, and is never to be remembered.

        :param history: the turns that the request presented *and* the new one. (A session begun in the middle of a
            conversation, because none matched, contains only the end of it; that changes nothing of the above.)
        :param session_id: whatever it was remembered under before no longer leads to it.
        """
        self.forget(session_id)
        if history:
            key = _digest(history)
            self._remembered[session_id] = (key, now_s)
            self._session_ids.setdefault(key, {})[session_id] = None
        self._expire(now_s)
        while len(self._remembered) > self._max_sessions:
            self.forget(next(iter(self._remembered)))

    def forget(self, session_id: str) -> None:
        """
        Tell that the session no longer holds what is remembered, if anything is.

        That is so when a caller names it: what is asked in it then is in no conversation known here.
        """
        if session_id not in self._remembered:
            return
        key, _ = self._remembered.pop(session_id)
        session_ids = self._session_ids[key]
        session_ids.pop(session_id, None)
        if not session_ids:
            del self._session_ids[key]

    def _expire(self, now_s: float) -> None:
        while self._remembered:
            session_id, (_, remembered_s) = next(iter(self._remembered.items()))
            if not self._is_old(remembered_s, now_s):
                return
            self.forget(session_id)

    def _is_old(self, remembered_s: float, now_s: float) -> bool:
        return now_s - remembered_s > self._max_age_s


def _digest(history: tuple[Turn, ...]) -> bytes:
    """
    A key that no two different conversations share.

    Each text comes after its own length, so no text can pass for the border between two.
    """
    digest = hashlib.blake2b(digest_size=32)
    for turn in history:
        for text in (turn.user, turn.assistant):
            text_bytes = text.strip().encode()
            digest.update(len(text_bytes).to_bytes(8, "big"))
            digest.update(text_bytes)
    return digest.digest()
