"""
The public APIs of the gateway, one module each. Pure: they translate between bytes and values.

No module of this package waits, reads a clock, uses random numbers, or imports Twisted or gRPC. :meth:`Dialect.parse`
reads a request; an :class:`Encoder` writes the engine's answer.
"""

from __future__ import annotations

from typing import Protocol

from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import CompletionEnd, CompletionRequest, Model, ResponseMeta


class Encoder(Protocol):
    """
    Writes one answer, event by event. The methods are called in this order; each returns bytes, or b"" for none.

    A streamed answer has bytes for each event. The encoder of an answer that is not streamed collects the events, and
    returns the body at the end.
    """

    content_type: bytes

    def begin(self) -> bytes:
        """Begin the answer. Called once, before every other method."""

    def delta(self, index: int, text: str) -> bytes:
        """Add a text, never empty, to the choice with this index."""

    def heartbeat(self) -> bytes:
        """Return a heartbeat, which adds nothing to the answer."""

    def finish(self, end: CompletionEnd) -> bytes:
        """End a complete answer. No method is called after it."""

    def fail(self, error: GatewayError) -> bytes:
        """End an answer that failed after its first bytes were sent. No method is called after it."""


class ErrorFormat(Protocol):
    """How a public API reports errors: a module with these two functions."""

    def error_body(self, error: GatewayError, request_id: str | None) -> bytes:
        """Render an error, with the request id if the API has a field for it."""

    def error_status(self, kind: Kind) -> int:
        """Return the HTTP status of an error."""


class Models(Protocol):
    """How a public API describes the model: a module with these two functions."""

    def models_body(self, model: Model, created_s: float) -> bytes:
        """Render the list of models."""

    def model_body(self, model: Model, name: str, created_s: float) -> bytes:
        """
        Render the model, under the name in the request.

        :raises GatewayError: UNKNOWN_MODEL.
        """


class Dialect(Protocol):
    """The requests and answers of one endpoint of a public API."""

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """
        Parse a request's body.

        :raises GatewayError: INVALID_REQUEST or UNKNOWN_MODEL.
        """

    def encoder(self, request: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """Return the encoder of one answer, streamed or not, as requested."""
