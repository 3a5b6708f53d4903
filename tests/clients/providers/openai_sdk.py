"""OpenAI's own package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import openai
from questions import BUSY, FAILS, SCRIPTED_URL, URL

from providers import Answer, Cut, Provider, Refusal, common_refusals

Client = openai.OpenAI | openai.AsyncOpenAI
REPORTED = {"message": ..., "request_id": ...}


class OpenAI(Provider):
    """What both APIs have in common."""

    error = openai.APIError
    retries = True

    def client(self, url: str, **options: Any) -> Any:  # noqa: ANN401 - both kinds have the same methods
        """Create a client, which is closed after the test."""
        kind = openai.AsyncOpenAI if self.asynchronous else openai.OpenAI
        return self.kept(kind(base_url=f"{url}/v1", api_key="unused", **options))


class Chat(OpenAI):
    """Chat completions."""

    documented = ("openai-python", 1)
    cuts = (
        Cut({"stop": "three"}, "one two ", "stop"),
        Cut({"stop": ["four", " two"]}, "one", "stop"),
        Cut({"max_tokens": 1}, "one ", "length"),
        Cut({"max_completion_tokens": 2}, "one two ", "length"),
    )
    refusals = (
        *common_refusals(openai.NotFoundError, openai.InternalServerError, **REPORTED),
        Refusal("no messages", URL, {"messages": []}, openai.BadRequestError, REPORTED),
        Refusal("two answers", URL, {"n": 2}, openai.BadRequestError, REPORTED),
        Refusal("engine busy", SCRIPTED_URL, {"messages": BUSY}, openai.RateLimitError, REPORTED),
        Refusal("engine fails", SCRIPTED_URL, {"messages": FAILS}, openai.InternalServerError, REPORTED),
    )

    def ask(self, url: str, messages: list[Any], *, stream: bool = False, **parameters: Any) -> Any:  # noqa: ANN401
        client = self.client(url, max_retries=parameters.pop("max_retries", 0))
        usage = {"stream_options": {"include_usage": True}} if stream else {}
        return client.chat.completions.create(
            **{"model": "brunix", "messages": messages, "stream": stream} | usage | parameters
        )

    def whole(self, answer: Any) -> Answer:  # noqa: ANN401 - the package's
        choice, usage = answer.choices[0], answer.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        return Answer(choice.message.content, choice.finish_reason, usage.completion_tokens)

    def streamed(self, pieces: list[Any]) -> Answer:
        choices = [piece.choices[0] for piece in pieces if piece.choices]
        assert len({piece.id for piece in pieces}) == 1
        usage = pieces[-1].usage
        return Answer(
            "".join(choice.delta.content or "" for choice in choices),
            choices[-1].finish_reason,
            usage and usage.completion_tokens,
        )


class Responses(OpenAI):
    """The Responses API."""

    finish = ("completed", None)
    pieces_before_text = 4
    documented = ("openai-python-responses", 1)
    error_attributes: ClassVar[Mapping[str, object]] = {"code": "engine_error"}
    # Responses have no stop texts.
    cuts = (Cut({"max_output_tokens": 2}, "one two ", ("incomplete", "max_output_tokens")),)
    refusals = (
        *common_refusals(openai.NotFoundError, openai.InternalServerError, **REPORTED),
        Refusal("unknown answer", URL, {"previous_response_id": "resp_0"}, openai.NotFoundError, REPORTED),
        Refusal("no input", URL, {"input": []}, openai.BadRequestError, REPORTED),
        Refusal("a conversation", URL, {"conversation": "conv_0"}, openai.BadRequestError, REPORTED),
        Refusal("engine busy", SCRIPTED_URL, {"input": BUSY}, openai.RateLimitError, REPORTED),
        Refusal("engine fails", SCRIPTED_URL, {"input": FAILS}, openai.InternalServerError, REPORTED),
    )

    def ask(self, url: str, messages: list[Any], *, stream: bool = False, **parameters: Any) -> Any:  # noqa: ANN401
        client = self.client(url, max_retries=parameters.pop("max_retries", 0))
        return client.responses.create(**{"model": "brunix", "input": messages, "stream": stream} | parameters)

    def whole(self, answer: Any) -> Answer:  # noqa: ANN401 - the package's
        assert answer.error is None
        assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
        reason = answer.incomplete_details and answer.incomplete_details.reason
        return Answer(answer.output_text, (answer.status, reason), answer.usage.output_tokens)

    def text_pieces(self, pieces: list[Any]) -> int:
        return [event.type for event in pieces].count("response.output_text.delta")

    def streamed(self, pieces: list[Any]) -> Answer:
        text = "".join(event.delta for event in pieces if event.type == "response.output_text.delta")
        assert pieces[0].type == "response.created"
        assert [event.sequence_number for event in pieces] == list(range(len(pieces)))
        last = pieces[-1]
        if last.type not in {"response.completed", "response.incomplete"}:
            return Answer(text)
        assert last.response.output_text == text
        return self.whole(last.response)
