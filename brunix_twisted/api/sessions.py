"""
Which engine session holds which conversation.

Most clients know no session: they send the whole conversation with every request, while the engine takes one question
and keeps the rest itself. Matching the two needs nothing from the client: what it sends back is the key.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from urllib.parse import unquote
from weakref import WeakValueDictionary

import attrs

from brunix_twisted import errors
from brunix_twisted.api.response_store import ResponseStore
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Choice, CompletionRequest, EditorContext, Turn

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


_PLACEHOLDERS = frozenset(
    {
        # A missing value written as text, in the languages that clients are made with.
        *("", "null", "(null)", "undefined", "none", "nil", "nan", "n/a", "false", "true", "unknown"),
        # What documentation browsers put into a field of text.
        "string",
    }
)
# An unset UUID, in both of its spellings.
_ZEROS = re.compile(r"0{8}-?(0{4}-?){3}0{12}")
# A variable's name that was sent in place of its value, such as {{CHAT_ID}}, chat-${session} or $CHAT_ID.
_UNFILLED = re.compile(r"\{\{.*\}\}|[$#]\{.*\}|\A(\{.*\}|<.*>|\$[a-z_]\w*|%s|%\(?[a-z_]+[%)]s?)\Z")


def is_placeholder(session_id: str) -> bool:
    """
    Whether an id names no session, although something was sent.

    Such ids are the same for many callers, who would meet in one session. ``local`` and ``local:…`` are Open WebUI's,
    for every temporary chat: the first for all users, the second with the number of a browser's connection behind it,
    or ``undefined``, and the same for one chat after the other.
    """
    # Some clients encode what they put into a header, as JSON or for a URL.
    name = unquote(session_id).lower().strip("\"'")
    parts = name.split(":")
    if parts[0] == "local" or all(part in _PLACEHOLDERS for part in parts):
        return True
    return _ZEROS.fullmatch(name) is not None or _UNFILLED.search(name) is not None


_MAX_HANDED_OVER = 50_000
"""How many sessions' names are refused at most; those handed over longest ago become usable again."""

# The engine's own session for everyone who names none. It is reached on purpose only, by the body of a request.
_SHARED = "default"

# How Open WebUI's requests for a title, tags or follow-up questions begin; other chat windows have taken it over.
_SIDE_REQUEST = "### Task:"


@attrs.frozen
class SessionAssignment:
    """The sessions that a request is asked in."""

    session_ids: tuple[str, ...]
    """One for each question, in order."""
    history: tuple[Turn, ...] | None = None
    """The conversation that the session is to be remembered under once its answer is added; None: it is not to be."""
    owner: bytes = b""
    """Who may go on in it; see :func:`owner_of`."""
    taken: bool = False
    """Whether the session holds this conversation already."""


class Sessions:
    """
    Chooses the engine session of each question.

    To be called by one thread, the reactor's.
    """

    def __init__(
        self, conversations: ConversationIndex | None, answers: ResponseStore, new_id: Callable[[], str]
    ) -> None:
        """
        Choose from what the caller names, from what is remembered, and otherwise a new one.

        :param continuity: None when conversations are not to be remembered.
        :param answers: those that a caller may continue by their ids.
        :param new_id: makes an id that nobody can guess.
        """
        self._conversations = conversations
        self._answers = answers
        self._new_id = new_id
        # Those that are with the engine and may be remembered; one whose answer fails is dropped with its request.
        self._under_way: WeakValueDictionary[str, SessionAssignment] = WeakValueDictionary()
        # Those that a caller has taken by presenting the conversation, the last one at the end.
        self._handed_over: OrderedDict[str, None] = OrderedDict()

    def assign(self, requested: CompletionRequest, named: str | None, now_s: float) -> SessionAssignment:
        """
        Choose for a request.

        A session's name and the ids of its answers lead to it until a caller takes it by presenting its conversation.
        That caller may be another than the one who was sent the name and the ids: two who began alike hold equal
        conversations, and either may get either session. From then on only the conversation leads there.

        Without a session of the caller's own a question never gets the engine's default one: everyone who names none
        shares it. An id that is a placeholder names no session; nor does ``default`` in a header, where it is more
        likely to be some program's default than a caller's choice.

        :param named: the session that a header names. A chat window's side request carries that of the conversation
            it is about, and must not become a part of it, whether it names it or presents it.
        :raises GatewayError: INVALID_REQUEST for a session id that is not safe, PREVIOUS_NOT_FOUND for an answer to
            continue that is not known, or not any more.
        """
        continued = self._continued(requested)
        aside = any(map(_is_side_request, requested.queries))
        if named is not None and (aside or named.lower() == _SHARED):
            named = None
        given = self._usable(requested.session_id) or continued or self._usable(named)
        if given:
            check_session_id(given)
            if self._conversations is not None:
                self._conversations.forget(given)
            # Its answer may come after this question: the session then holds more than its conversation.
            self._under_way.pop(given, None)
            return SessionAssignment((given,) * len(requested.queries))
        if self._conversations is None or requested.history is None or len(requested.queries) != 1:
            return SessionAssignment(tuple(self._new_id() for _ in requested.queries))
        owner = owner_of(requested.editor)
        taken = None if aside else self._conversations.claim(requested.history, now_s, owner)
        if taken is not None:
            self._hand_over(taken)
        assignment = SessionAssignment((taken or self._new_id(),), requested.history, owner, taken=taken is not None)
        self._under_way[assignment.session_ids[0]] = assignment
        return assignment

    def _usable(self, name: str | None) -> str | None:
        return None if name is None or is_placeholder(name) or name in self._handed_over else name

    def _hand_over(self, session_id: str) -> None:
        self._answers.part(session_id)
        self._handed_over[session_id] = None
        self._handed_over.move_to_end(session_id)
        if len(self._handed_over) > _MAX_HANDED_OVER:
            self._handed_over.popitem(last=False)

    def _continued(self, requested: CompletionRequest) -> str | None:
        if requested.previous_response_id is None:
            return None
        session_id = self._answers.session_of(requested.previous_response_id)
        if session_id is None:
            raise GatewayError(
                errors.PREVIOUS_NOT_FOUND,
                "The previous response is not known here, or no longer: send the whole conversation without it",
                param="previous_response_id",
            )
        return session_id

    def completed(
        self, assignment: SessionAssignment, requested: CompletionRequest, choices: Sequence[Choice], now_s: float
    ) -> None:
        """Remember the session of an answer that the engine has ended and the caller has been sent."""
        if self._conversations is None or assignment.history is None or choices[0].cut:
            return
        (session_id,) = assignment.session_ids
        if self._under_way.pop(session_id, None) is not None:
            history = (*assignment.history, Turn(requested.queries[0], choices[0].text))
            self._conversations.remember(history, session_id, now_s, assignment.owner)

    def release(self, assignment: SessionAssignment, now_s: float) -> None:
        """
        Remember a taken session as before, when nothing was asked in it after all.

        A caller that was turned away asks the same again, and then finds its conversation where it was.
        """
        if self._conversations is None or assignment.history is None or not assignment.taken:
            return
        (session_id,) = assignment.session_ids
        if self._under_way.pop(session_id, None) is not None:
            self._conversations.remember(assignment.history, session_id, now_s, assignment.owner)


def owner_of(editor: EditorContext) -> bytes:
    """
    What a caller must present beside the conversation, to go on in a session that was sent an editor's state.

    The engine's session holds what was in the editor at each turn, and no request carries that of earlier turns again.
    So the session goes on for the same person in the same project: a ``user_info`` with a ``dev_id`` must be the same,
    and what is in the editor may change. Without one, the editor's state must be the same in all turns. Empty: no
    editor's state was sent.
    """
    if editor == EditorContext():
        return b""
    if person := _person(editor.user_info):
        return b"person" + person
    texts = (editor.editor_content, editor.selected_text, editor.extra_context, editor.user_info)
    return b"editor" + hashlib.blake2b(json.dumps(texts).encode()).digest()


def _person(user_info: str | None) -> bytes | None:
    """Read whom a ``user_info`` names, in one spelling; None for no one in particular."""
    try:
        info: dict[str, object] = json.loads(user_info or "{}")
        # An organisation alone has many members.
        developer = info.get("dev_id")
        if isinstance(developer, bool) or not isinstance(developer, int | str):
            return None
        name = str(developer or "").strip()
        return json.dumps(info, sort_keys=True).encode() if name != "0" and not is_placeholder(name) else None
    except (ValueError, RecursionError):
        return None


def _is_side_request(query: str) -> bool:
    return query.lstrip().startswith(_SIDE_REQUEST)


class ConversationIndex:
    """
    Remembers, for answers that finished, which engine session holds exactly which conversation.

    A request *takes* the session of the conversation it presents, and when its answer is complete the session is
    *remembered* under that conversation and the new turn. Two things follow:

    - A session goes on only for a caller who presents every turn it contains, and its owner: what else identifies
      those whose session it is. Whoever knows all of it learns nothing from it.
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

    def claim(self, history: tuple[Turn, ...], now_s: float, owner: bytes = b"") -> str | None:
        """
        The session that holds this conversation, which from now on is the caller's alone. None: a fresh one is due.

        Of several under the same conversation it is the one remembered last, as the engine is the least likely to
        have dropped it. An empty history, a conversation's first question, never matches.

        :param now_s: the time on any clock, in seconds, as it is given to :meth:`remember`.
        :param owner: as it is given there.
        """
        self._expire(now_s)
        key = _digest(history, owner)
        while session_ids := self._session_ids.get(key):
            session_id, _ = session_ids.popitem()
            _, remembered_s = self._remembered[session_id]
            self.forget(session_id)
            # Asked again, since a clock that was set back leaves younger entries behind the oldest of the order.
            if not self._is_old(remembered_s, now_s):
                return session_id
        return None

    def remember(self, history: tuple[Turn, ...], session_id: str, now_s: float, owner: bytes = b"") -> None:
        """
        Tell that the engine has completed an answer, and that the session now holds this conversation.

        Only for an answer that reached the caller whole. One that was cut short at a stop sequence or a length is
        another in the session than the caller knows, and is never to be remembered.

        :param history: the turns that the request presented *and* the new one. (A session begun in the middle of a
            conversation, because none matched, contains only the end of it; that changes nothing of the above.)
        :param session_id: whatever it was remembered under before no longer leads to it.
        :param owner: see :func:`owner_of`.
        """
        self.forget(session_id)
        if history:
            key = _digest(history, owner)
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


def _digest(history: tuple[Turn, ...], owner: bytes) -> bytes:
    """
    A key that no two different conversations share, and none of two owners.

    Each text comes after its own length, so no text can pass for the border between two.
    """
    digest = hashlib.blake2b(digest_size=32)
    texts = (text.strip().encode() for turn in history for text in (turn.user, turn.assistant))
    for part in (owner, *texts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
