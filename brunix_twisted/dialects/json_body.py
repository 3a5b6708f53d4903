"""An answer that goes out in one piece, whatever the dialect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brunix_twisted.dialects.framing import JSON
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import CompletionEnd


class JsonBodyEncoder:
    """The encoder that gathers a stream's events and writes one body at the end."""

    content_type = JSON

    def __init__(
        self,
        choices: int,
        body: Callable[[Sequence[str], CompletionEnd], bytes],
        error: Callable[[GatewayError], bytes],
    ) -> None:
        """
        Gather an answer.

        :param choices: how many there are.
        :param body: the whole body, from each choice's text and the account of the answer.
        :param error: the body of a failure.
        """
        self._pieces: list[list[str]] = [[] for _ in range(choices)]
        self._body = body
        self.fail = error

    def begin(self) -> bytes:
        """Nothing yet."""
        return b""

    def delta(self, index: int, text: str) -> bytes:
        """Nothing yet."""
        self._pieces[index].append(text)
        return b""

    def heartbeat(self) -> bytes:
        """Nothing: a body has no room for one."""
        return b""

    def finish(self, end: CompletionEnd) -> bytes:
        """Everything."""
        return self._body(["".join(pieces) for pieces in self._pieces], end)
