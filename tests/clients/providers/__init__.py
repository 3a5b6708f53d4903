"""The table of clients: how each is asked, and what it makes of an answer. test_every_client.py tests all of them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from questions import DOWN_URL, URL, resolve

TABLE: Final = {
    "openai": ("openai_sdk", "Chat"),
    "responses": ("openai_sdk", "Responses"),
    "anthropic": ("anthropic_sdk", "Messages"),
    "ollama": ("ollama_sdk", "Chat"),
    "langchain-openai": ("langchain", "OpenAI"),
    "langchain-ollama": ("langchain", "Ollama"),
    "llamaindex-openai": ("llamaindex", "OpenAI"),
    "llamaindex-ollama": ("llamaindex", "Ollama"),
    "litellm-openai": ("litellm", "OpenAI"),
    "litellm-ollama_chat": ("litellm", "OllamaChat"),
    "litellm-ollama": ("litellm", "Ollama"),
}
"""The module and class of each client. It is imported only in an environment that has the client's package."""
INSTALLED: Final = os.environ["CLIENTS"].split()
"""The clients whose packages are installed here."""


Errors = type[Exception] | tuple[type[Exception], ...]


class Answer(NamedTuple):
    """What a client makes of an answer; None: the client does not report it."""

    text: str
    finish: object = None
    output_tokens: int | None = None


class Cut(NamedTuple):
    """A limit on an answer, and the text and finish reason that result."""

    parameters: Mapping[str, Any]
    text: str
    finish: object

    @property
    def id(self) -> str:
        """Name the case."""
        return str(self.parameters)


class Refusal(NamedTuple):
    """A request that fails, and the exception that results; the attribute value ``...`` means any but an empty one."""

    id: str
    url: str
    changes: Mapping[str, Any]
    error: Errors
    attributes: Mapping[str, object] = {}


class Provider:
    """
    A client of one package, synchronous or asynchronous.

    Methods that ask return what the package returns: a value, an awaitable or a stream.
    """

    finish: ClassVar[object] = "stop"
    """The finish reason of a complete answer."""
    reports_usage: ClassVar[bool] = True
    cuts: ClassVar[tuple[Cut, ...]]
    refusals: ClassVar[tuple[Refusal, ...]]
    error: ClassVar[Errors]
    """What a failure in the middle of a stream raises."""
    error_attributes: ClassVar[Mapping[str, object]] = {}
    retries: ClassVar[bool] = False
    """Whether the package repeats requests by default."""
    pieces_before_text: ClassVar[int] = 1
    leaves_streams_to_gc: ClassVar[bool] = False
    """Whether closing a stream leaves the connection to the garbage collector."""
    documented: ClassVar[tuple[str, int] | None] = None
    """The client's id in clients.toml, and how many answers its documented program prints."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self._clients: list[Any] = []

    def ask(self, url: str, messages: list[Any], *, stream: bool = False, **parameters: Any) -> Any:  # noqa: ANN401
        """Ask a conversation."""
        raise NotImplementedError

    def whole(self, answer: Any) -> Answer:  # noqa: ANN401 - the package's
        """Describe a whole answer."""
        raise NotImplementedError

    def streamed(self, pieces: list[Any]) -> Answer:
        """Describe the pieces of a stream."""
        raise NotImplementedError

    def text_pieces(self, pieces: list[Any]) -> int:
        """Count the pieces of a stream that may contain text."""
        return len(pieces)

    async def cancel(self, stream: Any) -> None:  # noqa: ANN401 - the package's
        """Close a stream before its end."""
        await resolve(stream.aclose() if hasattr(stream, "aclose") else stream.close())

    def kept(self, client: Any) -> Any:  # noqa: ANN401 - the package's
        """Close a client after the test."""
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Close all clients."""
        while self._clients:
            await resolve(self._clients.pop().close())


def provider(name: str, *, asynchronous: bool) -> Provider:
    """Import and create a provider of the table."""
    module, cls = TABLE[name]
    create: Callable[..., Provider] = getattr(importlib.import_module(f"providers.{module}"), cls)
    return create(asynchronous=asynchronous)


def common_refusals(unknown_model: Errors, engine_down: Errors, **attributes: object) -> tuple[Refusal, ...]:
    """Return the refusals that every client distinguishes."""
    return (
        Refusal("unknown model", URL, {"model": "gpt-7"}, unknown_model, {"status_code": 404} | attributes),
        Refusal("engine down", DOWN_URL, {}, engine_down, {"status_code": 503} | attributes),
    )
