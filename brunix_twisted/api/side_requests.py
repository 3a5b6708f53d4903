"""
Recognise the requests that clients make for themselves: for a title, suggestions, a summary of a long conversation …

A side request is about a conversation, but no part of it. The kinds are data, in ``side_requests.toml``; each table
there is a :class:`SideRequest`. A user's question must never match, so the patterns are long literal texts, which are
compared with the two ends of a message. The cost depends neither on the length of a message nor on the number of
patterns. Pure.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import attrs

from brunix_twisted.model import CompletionRequest

CUSTOM: Final = "custom"
"""The name of side requests that match ``PROXY_SIDE_REQUEST_PATTERNS``."""

_MAX_END: Final = 1_000
"""Number of characters that are compared at each end of a message. White space outside of them is not skipped."""

_KEY_LENGTH: Final = 20
"""Patterns are found by up to this many characters at their beginning or end."""


def _head(text: str) -> str:
    return text[:_MAX_END].lstrip()


def _tail(text: str) -> str:
    return text[-_MAX_END:].rstrip()


def _texts(value: Sequence[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen
class Pattern:
    """
    Literal texts at the ends of a message, not counting white space there.

    Of each list that is set, one text must match.
    """

    begins: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    ends: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    equals: tuple[str, ...] = attrs.field(default=(), converter=_texts)

    def matches(self, text: str) -> bool:
        """Return whether a message matches."""
        return (
            (not self.begins or _head(text).startswith(self.begins))
            and (not self.ends or _tail(text).endswith(self.ends))
            and (not self.equals or (len(text) <= _MAX_END and text.strip() in self.equals))
        )


def _pattern(value: dict[str, list[str]] | Pattern | None) -> Pattern | None:
    return Pattern(**value) if isinstance(value, dict) else value


@attrs.frozen(kw_only=True)
class SideRequest:
    """One kind of side request. Every pattern that is set must match."""

    name: str
    """For the log, such as ``open-webui/title``. Kinds that need several patterns share a name."""
    client: str
    """The client's name."""
    purpose: str
    """What the client wants, for the documentation."""
    release: str
    """The client's releases in which the texts were read, or the revision of a file in its repository."""
    source: str
    """Where they were read: the repository and the file."""
    apis: tuple[str, ...] = attrs.field(converter=_texts)
    """The APIs by which the client sends it: ``openai``, ``ollama``, ``responses``, ``anthropic``."""
    wanted: bool = False
    """Whether the user, or the rest of the conversation, needs the answer. Then a refusal does harm."""
    question: Pattern | None = attrs.field(default=None, converter=_pattern)
    """For the last user message."""
    instructions: Pattern | None = attrs.field(default=None, converter=_pattern)
    """For one of the system messages."""
    either: Pattern | None = attrs.field(default=None, converter=_pattern)
    """For the last user message or one of the system messages."""
    max_tokens: int | None = None
    """The limit that the request must have."""


@cache
def known() -> tuple[SideRequest, ...]:
    """Return all kinds, in the order of the file."""
    data: dict[str, Any] = tomllib.loads((files(__package__) / "side_requests.toml").read_text("utf-8"))
    return tuple(SideRequest(**each) for each in data["side_requests"])


_Alternatives = list[tuple[Pattern, SideRequest]]


class _Ends:
    """Patterns by the first or the last characters of their texts, at most :data:`_KEY_LENGTH`."""

    def __init__(self) -> None:
        self._by_key: dict[str, _Alternatives] = {}
        self._lengths: tuple[int, ...] = ()

    def add(self, keys: set[str], pattern: Pattern, kind: SideRequest) -> None:
        for key in keys:
            self._by_key.setdefault(key, []).append((pattern, kind))
        # The longest first, because those patterns are the most specific.
        self._lengths = tuple(sorted({len(key) for key in self._by_key}, reverse=True))

    def at_beginning(self, head: str) -> _Alternatives:
        return [found for length in self._lengths for found in self._by_key.get(head[:length], ())]

    def at_end(self, tail: str) -> _Alternatives:
        return [found for length in self._lengths for found in self._by_key.get(tail[-length:], ())]


class _Index:
    """Finds the patterns that a message matches, without a comparison with all of them."""

    def __init__(self) -> None:
        self._heads = _Ends()
        self._tails = _Ends()

    def add(self, pattern: Pattern, kind: SideRequest) -> None:
        if beginnings := pattern.begins or pattern.equals:
            self._heads.add({text[:_KEY_LENGTH] for text in beginnings}, pattern, kind)
        else:
            self._tails.add({text[-_KEY_LENGTH:] for text in pattern.ends}, pattern, kind)

    def matching(self, text: str) -> list[SideRequest]:
        alternatives = self._heads.at_beginning(_head(text)) + self._tails.at_end(_tail(text))
        return [kind for pattern, kind in alternatives if pattern.matches(text)]


class SideRequests:
    """Recognises side requests."""

    def __init__(
        self, kinds: Iterable[SideRequest], custom_beginnings: Sequence[str] = (), *, refuse: bool = False
    ) -> None:
        """
        Prepare to recognise some kinds.

        :param custom_beginnings: how the last user message of further side requests begins; see
            ``PROXY_SIDE_REQUEST_PATTERNS``.
        :param refuse: whether side requests are refused. This class only keeps it.
        """
        self.refuse = refuse
        self._custom_beginnings = tuple(custom_beginnings)
        self._by_question = _Index()
        self._by_instructions = _Index()
        for kind in kinds:
            if kind.either is not None:
                self._by_question.add(kind.either, kind)
                self._by_instructions.add(kind.either, kind)
            elif kind.question is not None:
                self._by_question.add(kind.question, kind)
            elif kind.instructions is not None:
                self._by_instructions.add(kind.instructions, kind)

    def name_of(self, requested: CompletionRequest) -> str | None:
        """Return the name of a side request; None for a user's question."""
        for query in requested.queries:
            for kind in self._by_question.matching(query):
                if _rest_matches(kind, requested):
                    return kind.name
            if self._custom_beginnings and _head(query).startswith(self._custom_beginnings):
                return CUSTOM
        for instruction in _instructions(requested):
            for kind in self._by_instructions.matching(instruction):
                if _rest_matches(kind, requested):
                    return kind.name
        return None


def _rest_matches(kind: SideRequest, requested: CompletionRequest) -> bool:
    """Return whether a request whose first pattern matches also meets the other conditions."""
    if kind.max_tokens is not None and requested.limits.max_tokens != kind.max_tokens:
        return False
    if kind.question is None or kind.instructions is None:
        return True
    return any(map(kind.instructions.matches, _instructions(requested)))


def _instructions(requested: CompletionRequest) -> tuple[str, ...]:
    return (*requested.instructions, *requested.reminders)
