"""The values that travel between the rooms: what was asked, under which limits, and how the answer ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

FinishReason = Literal["stop", "length", "load", "unload"]
"""
Why an answer is complete. Both public APIs say ``stop`` (the engine ended, or a stop sequence was met) and
``length`` (the caller's limit was met); ``load`` and ``unload`` are Ollama's, for a request that asks nothing.
"""


@attrs.frozen
class Model:
    """The one model: the names it is known under, and what its lists say of it."""

    id: str
    aliases: tuple[str, ...] = ()
    """Further names; ``*`` stands for any."""
    capabilities: tuple[str, ...] = ("completion",)
    context_length: int = 4096
    """In tokens."""
    family: str = "brunix"

    @property
    def tagged(self) -> str:
        """The name with a tag, as Ollama lists it: ``brunix`` becomes ``brunix:latest``."""
        return self.id if ":" in self.id else f"{self.id}:latest"

    def accepts(self, name: str) -> bool:
        """Whether a request may call the model so. The tag ``:latest`` may be there or not."""
        known = {known.removesuffix(":latest") for known in (self.id, *self.aliases)}
        return "*" in known or name.removesuffix(":latest") in known


@attrs.frozen
class Limits:
    """Where the caller wants the text to end, should the engine not end it first."""

    stop: tuple[str, ...] = ()
    """The text ends before the first of these, none of them empty."""
    max_tokens: int | None = None
    """Counted by :func:`brunix_twisted.limits.count_tokens`, the rule that ``usage`` is counted by."""


@attrs.frozen
class Turn:
    """One question and its answer, as a client that keeps the conversation itself sends it back."""

    user: str
    assistant: str


@attrs.frozen
class EditorContext:
    """The state of the caller's editor, exactly as it goes to the engine. None: not sent."""

    editor_content: str | None = None
    """Base64 of UTF-8 text; so are the next two."""
    selected_text: str | None = None
    extra_context: str | None = None
    user_info: str | None = None
    """A JSON object as text."""


@attrs.frozen(kw_only=True)
class CompletionRequest:
    """One request to complete something, whatever API it came by."""

    model: str
    """As the request spelled it; the answer echoes it."""
    queries: tuple[str, ...]
    """
    One question to the engine for each choice of the answer, in order. Empty when nothing is asked: Ollama's clients
    load and unload a model that way.
    """
    stream: bool
    prompt: str
    """All the text that was sent, for the estimate of its tokens."""
    session_id: str | None = None
    """The engine session that the caller named in the body."""
    previous_response_id: str | None = None
    """The :attr:`Head.id` of the answer whose engine session goes on with this question."""
    history: tuple[Turn, ...] | None = None
    """The turns before the question, or None when this is no conversation that an engine session could hold."""
    limits: Limits = Limits()
    include_usage: bool = False
    echo: bool = False
    """Whether the prompt stands before the text in the answer."""
    echoed_params: Mapping[str, Any] = attrs.Factory(dict)
    """What the answer repeats of the request, as it was given there."""
    stored: bool = False
    """Whether the answer, once it is complete, can be had again by its id."""
    editor: EditorContext = EditorContext()
    empty_finish_reason: FinishReason = "load"
    """How an answer without any query ends."""
    ignored: tuple[str, ...] = ()
    """The request's parameters that had no effect, by name."""


@attrs.frozen
class TraceContext:
    """Which trace something belongs to, and below what: the two headers of W3C Trace Context, well formed."""

    traceparent: str
    tracestate: str = ""
    """Empty: not sent."""

    @property
    def trace_id(self) -> str:
        """The trace's own id, 32 hexadecimal digits."""
        return self.traceparent[3:35]


@attrs.frozen(kw_only=True)
class Question:
    """What one call to the engine carries."""

    query: str
    session_id: str
    request_id: str
    stream: bool
    """False asks for the whole answer (AskAgent), True for its tokens (AskAgentStream)."""
    editor: EditorContext = EditorContext()


@attrs.frozen(kw_only=True)
class ResponseMeta:
    """What the whole answer says of itself, fixed before its first byte."""

    id: str
    """Unique; each API puts its own prefix before it."""
    created_s: float
    """Seconds since the epoch."""


@attrs.frozen(kw_only=True)
class Choice:
    """How one choice of the answer ended."""

    finish_reason: FinishReason
    completion_tokens: int
    text: str = ""
    cut: bool = False
    """Whether a limit of the caller's ended the text before the engine did."""
    stop: str | None = None
    """The stop sequence that ended it, if one did."""


@attrs.frozen(kw_only=True)
class CompletionEnd:
    """A complete answer's account. Durations are measured, in nanoseconds."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    finished_s: float
    """Seconds since the epoch."""
    load_duration_ns: int
    """Waiting for a place with the engine."""
    prompt_eval_duration_ns: int
    """From the place to the engine's first message."""
    eval_duration_ns: int
    """From the engine's first message to its last."""

    @property
    def completion_tokens(self) -> int:
        """The tokens of all choices."""
        return sum(choice.completion_tokens for choice in self.choices)

    @property
    def total_duration_ns(self) -> int:
        """From the request to the end of the answer."""
        return self.load_duration_ns + self.prompt_eval_duration_ns + self.eval_duration_ns


@attrs.frozen(kw_only=True)
class CompletedAnswer:
    """An answer that is complete, and has been sent."""

    requested: CompletionRequest
    meta: ResponseMeta
    end: CompletionEnd
    session_id: str
    """The engine session it was given in; several, for several questions, have commas between them."""


@attrs.frozen
class Processes:
    """One of several gateway processes on a machine, and how the others are."""

    number: int
    """This one's, from 0; a process that replaces another has its number."""
    configured: int
    """How many there are meant to be."""
    running: int
    """How many of them accept connections."""
    restarts: int
    """How often one has had to be replaced."""
