"""LiteLLM, with its three routes to such a gateway."""

from __future__ import annotations

from typing import Any

import litellm
import openai
from questions import resolve

from providers import Answer, Cut, Provider, common_refusals


class LiteLLM(Provider):
    """What all routes have in common."""

    route = ""
    path = ""
    error = openai.APIError
    cuts = (Cut({"stop": ["three"]}, "one two ", "stop"), Cut({"max_tokens": 1}, "one ", "length"))
    refusals = common_refusals(litellm.NotFoundError, litellm.ServiceUnavailableError)

    def ask(self, url: str, messages: list[Any], *, stream: bool = False, **parameters: Any) -> Any:  # noqa: ANN401
        model = f"{self.route}/{parameters.pop('model', 'brunix')}"
        usage = {"stream_options": {"include_usage": True}} if stream else {}
        return (litellm.acompletion if self.asynchronous else litellm.completion)(
            model=model,
            messages=messages,
            api_base=url + self.path,
            api_key="unused",
            max_retries=0,
            stream=stream,
            **usage | parameters,
        )

    def whole(self, answer: Any) -> Answer:  # noqa: ANN401 - the package's
        choice = answer.choices[0]
        return Answer(choice.message.content, choice.finish_reason, answer.usage.completion_tokens)

    def streamed(self, pieces: list[Any]) -> Answer:
        choices = [piece.choices[0] for piece in pieces if piece.choices]
        finish = [choice.finish_reason for choice in choices if choice.finish_reason]
        usage = getattr(pieces[-1], "usage", None)
        return Answer(
            "".join(choice.delta.content or "" for choice in choices),
            finish[-1] if finish else None,
            usage and usage.completion_tokens,
        )

    async def cancel(self, stream: Any) -> None:  # noqa: ANN401 - the package's
        if self.asynchronous:
            await stream.aclose()
        elif hasattr(stream.completion_stream, "close"):
            await resolve(stream.completion_stream.close())
        # The synchronous stream of the routes to Ollama can only be closed by deleting it.


class OpenAI(LiteLLM):
    """The route for OpenAI-compatible servers."""

    route = "openai"
    path = "/v1"
    documented = ("litellm", 3)


class OllamaChat(LiteLLM):
    """The route to Ollama's chats."""

    route = "ollama_chat"


class Ollama(LiteLLM):
    """The route to Ollama's prompts."""

    route = "ollama"
    # It reports every end as "stop".
    cuts = tuple(cut._replace(finish="stop") for cut in LiteLLM.cuts)
