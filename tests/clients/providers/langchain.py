"""LangChain, with its packages for OpenAI and for Ollama."""

from __future__ import annotations

from typing import Any

import ollama
import openai
from langchain_core.language_models import BaseChatModel
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

from providers import Answer, Cut, Provider, common_refusals


class LangChain(Provider):
    """What both packages have in common. An asynchronous method has the name of the other with an "a" before it."""

    # It reports the finish reason in metadata that differ between the packages.
    finish = None
    pieces_before_text = 2
    error = (openai.APIError, ollama.ResponseError)
    cuts = (Cut({"stop": ["three"]}, "one two ", None),)
    refusals = common_refusals(
        (openai.NotFoundError, ollama.ResponseError), (openai.InternalServerError, ollama.ResponseError)
    )

    def model(self, url: str, model: str = "brunix") -> BaseChatModel:
        """Create the model for a gateway."""
        raise NotImplementedError

    def ask(self, url: str, messages: list[Any], *, stream: bool = False, **parameters: Any) -> Any:  # noqa: ANN401
        method = ("a" if self.asynchronous else "") + ("stream" if stream else "invoke")
        return getattr(self.model(url, parameters.pop("model", "brunix")), method)(messages, **parameters)

    def whole(self, answer: Any) -> Answer:  # noqa: ANN401 - the package's
        return self.streamed([answer])

    def streamed(self, pieces: list[Any]) -> Answer:
        usage = [piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata]
        return Answer("".join(piece.content for piece in pieces), None, max(usage, default=None))


class OpenAI(LangChain):
    """langchain-openai."""

    documented = ("langchain", 2)

    def model(self, url: str, model: str = "brunix") -> BaseChatModel:
        return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key="unused", max_retries=0, stream_usage=True)


class Ollama(LangChain):
    """langchain-ollama."""

    def model(self, url: str, model: str = "brunix") -> BaseChatModel:
        return ChatOllama(model=model, base_url=url)
