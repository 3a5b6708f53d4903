"""
Assign engine sessions to conversations.

Most clients have no session id: they send the whole conversation with every request. The engine receives one question
and keeps the earlier turns itself. The conversation that a client sends back is the key to its session.
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
    Return a client's session id if it is safe in a log line, an HTTP header and gRPC metadata.

    Allowed are 1 to 256 printable ASCII characters, U+0021 to U+007E. Spaces are not allowed: headers lose them at the
    ends, and in a log line a space would end the id.

    :raises GatewayError: INVALID_REQUEST for any other id.
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
        # A missing value as text, in the languages of clients.
        *("", "null", "(null)", "undefined", "none", "nil", "nan", "n/a", "false", "true", "unknown"),
        # What API documentation browsers put into a text field.
        "string",
    }
)
# The nil UUID, with and without hyphens.
_ZEROS = re.compile(r"0{8}-?(0{4}-?){3}0{12}")
# A variable's name that was sent instead of its value, such as {{CHAT_ID}}, chat-${session} or $CHAT_ID.
_UNFILLED = re.compile(r"\{\{.*\}\}|[$#]\{.*\}|\A(\{.*\}|<.*>|\$[a-z_]\w*|%s|%\(?[a-z_]+[%)]s?)\Z")


def is_placeholder(session_id: str) -> bool:
    """
    Return whether an id is a placeholder that names no session.

    Many clients send the same placeholder, and would share a session. Open WebUI sends ``local`` and ``local:…`` for
    every temporary chat: the first for all users, the second followed by the id of a browser's connection, or by
    ``undefined``, and the same for several chats.
    """
    # Some clients encode header values, as JSON or for a URL.
    name = unquote(session_id).lower().strip("\"'")
    parts = name.split(":")
    if parts[0] == "local" or all(part in _PLACEHOLDERS for part in parts):
        return True
    return _ZEROS.fullmatch(name) is not None or _UNFILLED.search(name) is not None


_MAX_HANDED_OVER = 50_000
"""Maximum number of session ids that are rejected because another client has claimed the session."""

# The engine's own session for calls without an id. Only the body of a request can name it.
_SHARED = "default"

# The beginning of Open WebUI's requests for a title, tags or follow-up questions; other chat clients use it too.
_SIDE_REQUEST = "### Task:"


@attrs.frozen
class SessionAssignment:
    """The engine sessions of a request."""

    session_ids: tuple[str, ...]
    """One for each query, in order."""
    history: tuple[Turn, ...] | None = None
    """The conversation to remember the session under, with the answer added; None: do not remember it."""
    owner: bytes = b""
    """Who may continue it; see :func:`owner_of`."""
    taken: bool = False
    """Whether the session contains this conversation already."""


class Sessions:
    """
    Assigns an engine session to each query.

    All methods belong to the reactor's thread.
    """

    def __init__(
        self, conversations: ConversationIndex | None, answers: ResponseStore, new_id: Callable[[], str]
    ) -> None:
        """
        Start without any session.

        :param conversations: None to remember no conversations.
        :param answers: the answers that clients can continue by their ids.
        :param new_id: returns an unguessable id.
        """
        self._conversations = conversations
        self._answers = answers
        self._new_id = new_id
        # Assignments in flight that may be remembered. If the answer fails, the entry is dropped with its request.
        self._under_way: WeakValueDictionary[str, SessionAssignment] = WeakValueDictionary()
        # Sessions claimed by presenting the conversation, the latest at the end.
        self._handed_over: OrderedDict[str, None] = OrderedDict()

    def assign(self, requested: CompletionRequest, named: str | None, now_s: float) -> SessionAssignment:
        """
        Assign the sessions of a request.

        A session's id and the ids of its answers lead to it until a client claims it by presenting its conversation.
        That may be another client than the one that received the ids: two clients with identical conversations may
        get either session. From then on, only the conversation leads to it.

        A query without a session never gets the engine's default session, which all such calls share. A placeholder
        names no session. Neither does ``default`` in a header, where it is probably a program's default value.

        :param named: the session that a header names. A chat client's side request carries the session of the
            conversation it is about, and must not become a part of it.
        :raises GatewayError: INVALID_REQUEST for an unsafe session id, PREVIOUS_NOT_FOUND for an unknown or expired
            answer to continue.
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
            # An answer in flight may be added after this query. The session then contains more than its conversation.
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
                "The previous response is unknown or has expired. Send the whole conversation without it.",
                param="previous_response_id",
            )
        return session_id

    def completed(
        self, assignment: SessionAssignment, requested: CompletionRequest, choices: Sequence[Choice], now_s: float
    ) -> None:
        """Remember the session of an answer that is complete and was sent."""
        if self._conversations is None or assignment.history is None or choices[0].cut:
            return
        (session_id,) = assignment.session_ids
        if self._under_way.pop(session_id, None) is not None:
            history = (*assignment.history, Turn(requested.queries[0], choices[0].text))
            self._conversations.remember(history, session_id, now_s, assignment.owner)

    def release(self, assignment: SessionAssignment, now_s: float) -> None:
        """
        Remember a claimed session as before, because the engine was not called.

        A rejected client sends the same request again, and then finds its conversation.
        """
        if self._conversations is None or assignment.history is None or not assignment.taken:
            return
        (session_id,) = assignment.session_ids
        if self._under_way.pop(session_id, None) is not None:
            self._conversations.remember(assignment.history, session_id, now_s, assignment.owner)


def owner_of(editor: EditorContext) -> bytes:
    """
    Return what a client must present, in addition to the conversation, to continue a session with editor state.

    The engine's session contains the editor's state at each turn, and no request repeats that of earlier turns. So only
    the same person in the same project can continue the session: the ``user_info`` with its ``dev_id`` must be the
    same, and the editor's state may change. Without a ``dev_id``, the editor's state must be the same in all turns.
    Empty: no editor state was sent.
    """
    if editor == EditorContext():
        return b""
    if person := _person(editor.user_info):
        return b"person" + person
    texts = (editor.editor_content, editor.selected_text, editor.extra_context, editor.user_info)
    return b"editor" + hashlib.blake2b(json.dumps(texts).encode()).digest()


def _person(user_info: str | None) -> bytes | None:
    """Return the person that a ``user_info`` names, in a canonical form; None if it names none."""
    try:
        info: dict[str, object] = json.loads(user_info or "{}")
        # An organisation without a developer has many members.
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
    Maps conversations to the engine sessions that contain exactly them.

    A request *claims* the session of the conversation it presents. When its answer is complete, the session is
    *remembered* under that conversation plus the new turn. This guarantees two things:

    - Only a client that presents every turn of a session, and its owner, can continue it. Such a client learns nothing
      new from the session.
    - A claimed session has no key, so two clients with identical opening messages never share one: the second gets a
      new session. So does a client whose earlier request was disconnected, because it is unknown whether the engine
      kept that turn.

    Texts are compared without leading and trailing white space, which some clients trim. They are not stored: the key
    is a digest. Every call costs amortised O(1), plus the digest of its conversation.

    All methods belong to the reactor's thread; there is no lock.

    :param max_sessions: maximum number of sessions; the oldest is forgotten first.
    :param max_age_s: how long a session is remembered, in seconds. It should not exceed the time for which the engine
        keeps a session.
    """

    def __init__(self, *, max_sessions: int, max_age_s: float) -> None:
        self._max_sessions = max_sessions
        self._max_age_s = max_age_s
        # In the order of remembering. An OrderedDict removes its first item in O(1); a dict does not.
        self._remembered: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._session_ids: dict[bytes, dict[str, None]] = {}

    def __len__(self) -> int:
        """Return the number of remembered sessions."""
        return len(self._remembered)

    def claim(self, history: tuple[Turn, ...], now_s: float, owner: bytes = b"") -> str | None:
        """
        Return the session that contains this conversation, and forget it; None if no session does.

        Of several sessions with the same conversation, it returns the one remembered last, which the engine is least
        likely to have dropped. An empty history, a conversation's first query, never matches.

        :param now_s: the time in seconds, on the same clock as in :meth:`remember`.
        :param owner: see :func:`owner_of`.
        """
        self._expire(now_s)
        key = _digest(history, owner)
        while session_ids := self._session_ids.get(key):
            session_id, _ = session_ids.popitem()
            _, remembered_s = self._remembered[session_id]
            self.forget(session_id)
            # Checked again: after a clock was set back, the order by age does not hold.
            if not self._is_old(remembered_s, now_s):
                return session_id
        return None

    def remember(self, history: tuple[Turn, ...], session_id: str, now_s: float, owner: bytes = b"") -> None:
        """
        Remember that the session now contains this conversation.

        Call it only for an answer that was sent completely. The session contains another text than the client received
        if the answer was truncated at a stop sequence or a maximum length.

        :param history: the turns that the request presented, and the new one. A session that was started in the middle
            of a conversation, because none matched, contains only the end of it.
        :param session_id: its earlier key is forgotten.
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
        Forget a session, if it is remembered.

        A session that a client names contains queries that no known conversation has.
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
    Return a key that differs for different conversations and for different owners.

    Each text is preceded by its length, so that no text can imitate the boundary between two.
    """
    digest = hashlib.blake2b(digest_size=32)
    texts = (text.strip().encode() for turn in history for text in (turn.user, turn.assistant))
    for part in (owner, *texts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
