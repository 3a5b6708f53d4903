"""Anthropic's own package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import anthropic
from questions import BUSY, DOWN_URL, FAILS, SCRIPTED_URL, URL

from providers import Answer, Cut, Provider, Refusal


def refused(status: int, type_: str) -> dict[str, object]:
    """Return the attributes of a refusal."""
    return {"status_code": status, "type": type_, "request_id": ...}


class Messages(Provider):
    """Messages."""

    finish = ("end_turn", None)
    retries = True
    # The package does not return the ping.
    pieces_before_text = 2
    documented = ("anthropic-python", 1)
    error = anthropic.APIStatusError
    error_attributes: ClassVar[Mapping[str, object]] = {"type": "api_error"}
    cuts = (
        Cut({"stop_sequences": ["three"]}, "one two ", ("stop_sequence", "three")),
        Cut({"stop_sequences": ["four", " two"]}, "one", ("stop_sequence", " two")),
        Cut({"max_tokens": 1}, "one ", ("max_tokens", None)),
    )
    refusals = (
        Refusal("unknown model", URL, {"model": "x"}, anthropic.NotFoundError, refused(404, "not_found_error")),
        Refusal("no messages", URL, {"messages": []}, anthropic.BadRequestError, refused(400, "invalid_request_error")),
        Refusal("engine down", DOWN_URL, {}, anthropic.ServiceUnavailableError, refused(503, "api_error")),
        Refusal("busy", SCRIPTED_URL, {"messages": BUSY}, anthropic.RateLimitError, refused(429, "rate_limit_error")),
        Refusal("fails", SCRIPTED_URL, {"messages": FAILS}, anthropic.InternalServerError, refused(502, "api_error")),
    )

    def client(self, url: str, **options: Any) -> Any:  # noqa: ANN401 - both kinds have the same methods
        """Create a client, which is closed after the test."""
        kind = anthropic.AsyncAnthropic if self.asynchronous else anthropic.Anthropic
        return self.kept(kind(base_url=url, api_key="unused", **options))

    def ask(self, url: str, messages: list[Any], *, stream: bool = False, **parameters: Any) -> Any:  # noqa: ANN401
        client = self.client(url, max_retries=parameters.pop("max_retries", 0))
        return client.messages.create(**request(messages, stream=stream, **parameters))

    def whole(self, answer: Any) -> Answer:  # noqa: ANN401 - the package's
        (block,) = answer.content
        return Answer(block.text, (answer.stop_reason, answer.stop_sequence), answer.usage.output_tokens)

    def streamed(self, pieces: list[Any]) -> Answer:
        text = "".join(event.delta.text for event in pieces if event.type == "content_block_delta")
        if pieces[-1].type != "message_stop":
            return Answer(text)
        assert pieces[0].message.usage.input_tokens > 0
        end = pieces[-2]
        return Answer(text, (end.delta.stop_reason, end.delta.stop_sequence), end.usage.output_tokens)


def request(messages: list[Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401 - the package's
    """Return the parameters of a request."""
    return {"model": "brunix", "max_tokens": 1024, "messages": messages} | more
