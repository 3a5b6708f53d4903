"""What an answer needs of the request it belongs to."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IPushProducer


class Response(Protocol):
    """The request that an answer is written to; :class:`brunix_twisted.http.site.GatewayRequest` is one."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:  # noqa: FBT001 - IConsumer
        """See IConsumer."""

    def unregisterProducer(self) -> None:
        """See IConsumer."""

    def write(self, data: bytes) -> None:
        """Send a part of the answer."""

    def finish_with(self, data: bytes) -> None:
        """Send the last part of the answer, together with its end."""

    def truncate(self, data: bytes) -> None:
        """Send a part of the answer, and close the connection without the answer's end."""

    def disconnect(self) -> None:
        """Abort the connection, so that the client notices that the answer is truncated."""


class AnswerEvents(Protocol):
    """Callbacks for the headers of an answer, its request record and the log."""

    def on_headers(self, content_type: bytes, length_bytes: int | None) -> None:
        """
        Set the response's headers, which are sent next.

        :param length_bytes: of the whole answer; None if it is sent in chunks.
        """

    def on_first_text(self) -> None:
        """Note that the first text has arrived from the engine."""

    def on_stalled(self) -> None:
        """Note that the client has read nothing for too long, just before it is disconnected."""
