"""
The public APIs the gateway speaks: one module each, pure translation between bytes and values.

Nothing in this package waits, reads a clock, or draws a random number, and none of it knows Twisted or gRPC. What a
request asks comes out of :meth:`Dialect.parse`; what the engine says goes through an :class:`Encoder`.
"""

from __future__ import annotations

from typing import Protocol

from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import CompletionEnd, CompletionRequest, Model, ResponseMeta


class Encoder(Protocol):
    """
    One answer as bytes, event by event, in the order of these methods; b"" where an event has no bytes.

    A streamed answer has bytes for every event. A whole one gathers them and has bytes only at its end, which is all
    the difference there is between the two.
    """

    content_type: bytes

    def begin(self) -> bytes:
        """Open the answer: before everything else, once."""

    def delta(self, index: int, text: str) -> bytes:
        """Add text, never empty, to the choice of this index."""

    def heartbeat(self) -> bytes:
        """Show a sign of life that adds nothing to the answer."""

    def finish(self, end: CompletionEnd) -> bytes:
        """Say that the answer is complete. Nothing follows."""

    def fail(self, error: GatewayError) -> bytes:
        """Say, after bytes have gone out, that the answer will not be completed. Nothing follows."""


class Refusals(Protocol):
    """How a public API tells failures: a module that has these two functions."""

    def error_body(self, error: GatewayError, request_id: str | None) -> bytes:
        """Render a failure, with the request's id where the API has a place for it."""

    def error_status(self, kind: Kind) -> int:
        """Give a failure's HTTP status."""


class Models(Protocol):
    """How a public API describes the model: a module that has these two functions."""

    def models_body(self, model: Model, created_s: float) -> bytes:
        """Render the list of models."""

    def model_body(self, model: Model, name: str, created_s: float) -> bytes:
        """
        Render the model under the name that was asked for.

        :raises GatewayError: UNKNOWN_MODEL.
        """


class Dialect(Protocol):
    """How one endpoint of a public API asks for text and gets it."""

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """
        Read what a request's body asks for.

        :raises GatewayError: INVALID_REQUEST or UNKNOWN_MODEL.
        """

    def encoder(self, requested: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """Make the encoder of one answer, streamed or whole as was asked."""
