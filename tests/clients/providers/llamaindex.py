"""LlamaIndex, with its packages for OpenAI-like servers and for Ollama."""

from __future__ import annotations

from typing import Any

import ollama
import openai
import pytest
from llama_index.core.llms import LLM, ChatMessage
from llama_index.llms.ollama import Ollama as OllamaLLM
from llama_index.llms.openai_like import OpenAILike
from questions import resolve

from providers import Answer, Provider, common_refusals


class LlamaIndex(Provider):
    """What both packages have in common. An asynchronous method has the name of the other with an "a" before it."""

    # It reports neither.
    finish = None
    reports_usage = False
    # Its settings belong to the model and not to the question.
    cuts = ()
    leaves_streams_to_gc = True
    error = (openai.APIError, ollama.ResponseError)
    refusals = common_refusals(
        (openai.NotFoundError, ollama.ResponseError), (openai.InternalServerError, ollama.ResponseError)
    )

    def model(self, url: str, model: str = "brunix") -> LLM:
        """Create the model for a gateway."""
        raise NotImplementedError

    def ask(self, url: str, messages: list[Any], *, stream: bool = False, **parameters: Any) -> Any:  # noqa: ANN401
        method = ("a" if self.asynchronous else "") + ("stream_chat" if stream else "chat")
        llm = self.model(url, parameters.pop("model", "brunix"))
        return getattr(llm, method)([ChatMessage(**message) for message in messages], **parameters)

    def whole(self, answer: Any) -> Answer:  # noqa: ANN401 - the package's
        return Answer(str(answer.message.content))

    def streamed(self, pieces: list[Any]) -> Answer:
        return Answer("".join(piece.delta or "" for piece in pieces))

    async def cancel(self, stream: Any) -> None:  # noqa: ANN401 - the package's
        await (stream.aclose() if self.asynchronous else resolve(stream.close()))


class OpenAI(LlamaIndex):
    """llama-index-llms-openai-like."""

    documented = ("llamaindex", 2)

    def model(self, url: str, model: str = "brunix") -> LLM:
        return OpenAILike(
            model=model, api_base=f"{url}/v1", api_key="unused", is_chat_model=True, context_window=4096, max_retries=0
        )

    async def cancel(self, stream: Any) -> None:  # noqa: ANN401 - the package's
        if self.asynchronous:
            pytest.skip("its connection is still open 10 s after the stream was closed; the cause is unknown")
        await super().cancel(stream)


class Ollama(LlamaIndex):
    """llama-index-llms-ollama."""

    def model(self, url: str, model: str = "brunix") -> LLM:
        return OllamaLLM(model=model, base_url=url, context_window=4096)
