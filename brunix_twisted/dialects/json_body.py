"""The encoder of answers that are not streamed, for all dialects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brunix_twisted.dialects.framing import JSON
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import CompletionEnd


class JsonBodyEncoder:
    """Collects the events of an answer, and writes one JSON body at the end."""

    content_type = JSON

    def __init__(
        self,
        choices: int,
        body: Callable[[Sequence[str], CompletionEnd], bytes],
        error: Callable[[GatewayError], bytes],
    ) -> None:
        """
        Prepare to collect an answer.

        :param choices: number of choices.
        :param body: renders the body from the text of each choice and the end of the answer.
        :param error: renders the body of an error.
        """
        self._chunks: list[list[str]] = [[] for _ in range(choices)]
        self._body = body
        self.fail = error

    def begin(self) -> bytes:
        """Return nothing yet."""
        return b""

    def delta(self, index: int, text: str) -> bytes:
        """Collect the text."""
        self._chunks[index].append(text)
        return b""

    def heartbeat(self) -> bytes:
        """Return nothing: heartbeats are white space before the body, and not in it."""
        return b""

    def finish(self, end: CompletionEnd) -> bytes:
        """Return the complete body."""
        return self._body(["".join(chunks) for chunks in self._chunks], end)
