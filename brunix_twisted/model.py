"""Values that the layers exchange: the request, its limits, and how the answer ended."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal, get_args

import attrs

FinishReason = Literal["stop", "length", "load", "unload"]
"""
Why an answer ended: ``stop`` (the engine ended it, or a stop sequence occurred) or ``length`` (the token limit).

``load`` and ``unload`` are Ollama's, for a request without a question.
"""

SessionOutcome = Literal["found", "new", "named", "side"]
"""
How a request got its session.

``found``: by the conversation that it presents; ``named``: by an id; ``new``: a new one, because no session fits;
``side``: a new one, for a client's side request, which belongs to no conversation.
"""

SESSION_OUTCOMES: Final[tuple[SessionOutcome, ...]] = get_args(SessionOutcome)


def tagged(name: str) -> str:
    """Return a model's name with a tag, as Ollama lists it."""
    return name if ":" in name else f"{name}:latest"


@attrs.frozen
class Model:
    """The gateway's only model: its names, and what the model lists report about it."""

    id: str
    aliases: tuple[str, ...] = ()
    """Additional names; ``*`` accepts any name."""
    capabilities: tuple[str, ...] = ("completion",)
    context_length: int = 131_072
    """In tokens."""
    family: str = "brunix"

    @property
    def listed(self) -> tuple[str, ...]:
        """The names in the model lists: the model's and its aliases."""
        return tuple(dict.fromkeys((self.id, *(alias for alias in self.aliases if alias != "*"))))

    @property
    def tagged(self) -> str:
        """The name with a tag, as Ollama lists it: ``brunix`` becomes ``brunix:latest``."""
        return tagged(self.id)

    def accepts(self, name: str) -> bool:
        """Whether a request may use this name, with or without the tag ``:latest``."""
        return name.removesuffix(":latest") in self._names or "*" in self._names

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(known.removesuffix(":latest") for known in (self.id, *self.aliases))


@attrs.frozen
class Limits:
    """The caller's limits on the length of an answer."""

    stop: tuple[str, ...] = ()
    """Stop sequences, none of them empty. The text ends before the first that occurs."""
    max_tokens: int | None = None
    """Counted by :func:`brunix_twisted.limits.count_tokens`, like ``usage``."""


@attrs.frozen
class Turn:
    """One question and its answer, from the conversation that the client sends."""

    user: str
    assistant: str


@attrs.frozen
class EditorContext:
    """The state of the caller's editor, passed to the engine unchanged. None: not sent."""

    editor_content: str | None = None
    """Base64 of UTF-8 text, like the next two."""
    selected_text: str | None = None
    extra_context: str | None = None
    user_info: str | None = None
    """A JSON object as text."""


@attrs.frozen(kw_only=True)
class CompletionRequest:
    """One parsed request, independent of its API."""

    model: str
    """The name that the request used; the answer repeats it."""
    queries: tuple[str, ...]
    """
    One question to the engine for each choice of the answer, in order.

    Empty for a request without a question: Ollama's clients load and unload a model that way.
    """
    stream: bool
    prompt: str
    """All text of the request, to estimate its tokens."""
    session_id: str | None = None
    """The engine session in the request's body."""
    previous_response_id: str | None = None
    """The :attr:`ResponseMeta.id` of the answer whose engine session this question continues."""
    history: tuple[Turn, ...] | None = None
    """The turns before the question; None if an engine session cannot contain this conversation."""
    instructions: tuple[str, ...] = ()
    """The system prompt: its texts, in order. ``PROXY_SYSTEM_PROMPT`` says whether the engine receives them."""
    reminders: tuple[str, ...] = ()
    """Instructions that an agent adds to the question for its model. They are not sent to the engine."""
    side_request: str | None = None
    """The kind of side request; None for a user's question. See :mod:`brunix_twisted.api.side_requests`."""
    limits: Limits = Limits()
    include_usage: bool = False
    echo: bool = False
    """Whether the answer begins with the prompt."""
    wants_sources: bool = False
    """Whether the client expects sources in a stream. Only read in APIs where other clients would not ignore them."""
    echoed_params: Mapping[str, Any] = attrs.Factory(dict)
    """The request's parameters that the answer repeats, unchanged."""
    stored: bool = False
    """Whether the complete answer is stored, to be retrieved by its id."""
    editor: EditorContext = EditorContext()
    load_reason: FinishReason = "load"
    """The finish reason of an answer to a request without a question."""
    ignored: tuple[str, ...] = ()
    """Names of the request's parameters that have no effect."""
    status: int = 200
    """The HTTP status of a complete answer."""
    call_id: str | None = None
    """The id by which a later request can cancel this one, unique among all clients."""
    cancels: str | None = None
    """The :attr:`call_id` of the request that this one cancels."""


@attrs.frozen
class TraceContext:
    """The trace and the parent span: the two headers of W3C Trace Context, validated."""

    traceparent: str
    tracestate: str = ""
    """Empty: not sent."""

    @property
    def trace_id(self) -> str:
        """The trace id, 32 hexadecimal digits."""
        return self.traceparent[3:35]


@attrs.frozen(kw_only=True)
class Question:
    """The content of one engine call."""

    query: str
    session_id: str
    request_id: str
    stream: bool
    """True calls AskAgentStream (one message per token), False AskAgent (one message)."""
    editor: EditorContext = EditorContext()


@attrs.frozen(kw_only=True)
class ResponseMeta:
    """The answer's metadata, fixed before its first byte."""

    id: str
    """Unique; each API adds its prefix."""
    created_s: float
    """Seconds since the epoch."""
    session_id: str = ""
    """The engine session; see :attr:`CompletedAnswer.session_id`."""


@attrs.frozen
class Source:
    """A source that an answer's text cites, as the engine reports it."""

    url: str
    """An absolute URL, or one relative to the documents."""
    title: str
    start: int
    """Where the citation begins in the text, in characters."""
    end: int
    """Where it ends."""
    cited_text: str = ""


@attrs.frozen(kw_only=True)
class Choice:
    """One completed choice of the answer."""

    finish_reason: FinishReason
    completion_tokens: int
    text: str = ""
    cut: bool = False
    """Whether one of the caller's limits truncated the text."""
    stop: str | None = None
    """The stop sequence that ended the text, if any."""
    sources: tuple[Source, ...] = ()
    """The sources that the text cites. Most engines report none."""


@attrs.frozen(kw_only=True)
class CompletionEnd:
    """Choices, tokens and measured durations of a complete answer. Durations are in nanoseconds."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    finished_s: float
    """Seconds since the epoch."""
    load_duration_ns: int
    """Time in the queue for the engine."""
    prompt_eval_duration_ns: int
    """From the end of the queue to the engine's first message."""
    eval_duration_ns: int
    """From the engine's first message to its last."""

    @property
    def completion_tokens(self) -> int:
        """The sum over all choices."""
        return sum(choice.completion_tokens for choice in self.choices)

    @property
    def total_duration_ns(self) -> int:
        """From the request to the end of the answer, in nanoseconds."""
        return self.load_duration_ns + self.prompt_eval_duration_ns + self.eval_duration_ns


@attrs.frozen
class CompletedAnswer:
    """An answer that is complete and has been sent."""

    requested: CompletionRequest
    meta: ResponseMeta
    end: CompletionEnd
    session_id: str
    """The engine session; for several questions, their sessions separated by commas."""
    caller: bytes
    """The digest of the caller; see :meth:`brunix_twisted.api.sessions.Sessions.identify`."""


@attrs.frozen
class Processes:
    """One of several gateway processes on a machine, and the state of the others."""

    number: int
    """This process's number, from 0. A replacement process takes the number of the one it replaces."""
    configured: int
    """Number of configured processes."""
    running: int
    """Number of processes that accept connections."""
    restarts: int
    """Number of processes that were replaced."""
