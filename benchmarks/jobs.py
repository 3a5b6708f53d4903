"""What the clients of the benchmark are told to do, and how they answer: JSON, a line each."""

from __future__ import annotations

import json

import attrs


@attrs.frozen
class Wire:
    """How a dialect asks, and how its streams end."""

    path: str
    question: str
    """The parameter that has the messages."""
    end: bytes
    """What stands in the last bytes of every complete stream."""
    again: bytes | None = None
    """From where on a stream only repeats the tokens that it has sent."""


WIRES = {
    "openai": Wire("/v1/chat/completions", "messages", b"data: [DONE]"),
    "responses": Wire("/v1/responses", "input", b'"total_tokens":', b"event: response.output_text.done"),
    "messages": Wire("/v1/messages", "messages", b"event: message_stop"),
    "ollama": Wire("/api/chat", "messages", b'"done":true'),
}


@attrs.frozen(kw_only=True)
class Job:
    """What is to be asked, and how."""

    kind: str
    form: str
    port: int
    dialect: str = "openai"
    connections: int
    tokens: int
    per_second: float = 0
    seconds: float = 0
    """Closed: how long. Open: the most that all answers may take."""
    sample_every: int = 1
    """The delays of each so-manieth chunk's tokens are noted."""

    @property
    def nominal_s(self) -> float:
        """How long a paced answer takes when nothing is late."""
        return self.tokens / self.per_second if self.per_second else 0.0

    @property
    def script(self) -> str:
        """What the engine is asked, in its own words."""
        return f"{self.form} {self.tokens}" + (f" {self.per_second:g}" if self.form == "stream" else "")

    @property
    def request(self) -> bytes:
        """The whole HTTP request."""
        wire, asked = WIRES[self.dialect], [{"role": "user", "content": self.script}]
        body = json.dumps({"model": "brunix", wire.question: asked, "stream": self.form == "stream"}).encode()
        head = (
            f"POST {wire.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def say(**values: object) -> None:
    """Print one line for the main process."""
    print(json.dumps(values), flush=True)
