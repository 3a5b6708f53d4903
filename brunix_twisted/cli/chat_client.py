"""Ask one question over the chat API, for the commands ``ask`` and ``chat``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from brunix_twisted.cli.api_formats import CHAT
from brunix_twisted.cli.diagnosis import (
    EXPECTED,
    Diagnosis,
    DiagnosisError,
    diagnose_exception,
    diagnose_response,
    find_error,
)
from brunix_twisted.cli.http_client import MAX_PAGE_BYTES, Connection, Response, Target, get

DEFAULT_MODEL: Final = "brunix"
"""The default of PROXY_MODEL_ID."""
IDLE_TIMEOUT_S: Final = 660.0
"""Longer than a gateway with default settings waits in its queue and for the engine."""
_MODELS_TIMEOUT_S: Final = 5.0


def listed_model(target: Target, timeout_s: float = _MODELS_TIMEOUT_S) -> str | None:
    """
    Return the first model that the server lists; None if it has no list.

    :raises DiagnosisError: the server cannot be reached, or refuses.
    """
    try:
        response = get(target, "/v1/models", timeout_s=timeout_s)
    except EXPECTED as error:
        raise DiagnosisError(diagnose_exception(error, target.address)) from error
    with suppress(LookupError, TypeError):
        if name := response.json()["data"][0]["id"]:
            return str(name)
    if not response.ok:
        diagnosis = diagnose_response(response, target.address)
        if diagnosis.kind not in {"not_the_gateway", "unknown_url"}:
            raise DiagnosisError(diagnosis)
    return None


class ChatCompletion:
    """One question and its answer. The attributes are complete once the texts have been read."""

    def __init__(self, target: Target, question: str, *, model: str, session_id: str | None, stream: bool) -> None:
        """Prepare the request; it is sent when the texts are read."""
        self._target = target
        self._connection = Connection(target)
        self._stream = stream
        self._body = CHAT.request(model, [{"role": "user", "content": question}])
        if not stream:
            del self._body["stream_options"]
            self._body["stream"] = False
        self._headers = (("X-Session-Id", session_id),) if session_id else ()
        self.model = model
        self.session_id = session_id
        """The engine session of the question."""
        self.request_id = ""
        """Identifies the request in the gateway's log."""
        self.finish_reason: str | None = None
        """None while the answer is incomplete."""
        self.usage: dict[str, int] | None = None

    def close(self) -> None:
        """Disconnect; the gateway then cancels the engine call."""
        self._connection.close()

    def texts(self, idle_timeout_s: float = IDLE_TIMEOUT_S) -> Iterator[str]:
        """
        Send the question, and yield the answer's text as it arrives.

        :param idle_timeout_s: how long the server may send nothing.
        :raises DiagnosisError: there is no answer, or it is incomplete.
        """
        try:
            response = self._connection.request(
                "POST",
                CHAT.path,
                self._body,
                headers=self._headers,
                timeout_s=float("inf"),
                idle_timeout_s=idle_timeout_s,
            )
            self.request_id = response.headers.get("X-Request-Id")
            self.session_id = response.headers.get("X-Session-Id") or self.session_id
            if not response.ok:
                raise DiagnosisError(diagnose_response(response.read(MAX_PAGE_BYTES), self._target.address))
            yield from self._streamed(response) if self._stream else self._complete(response)
            if self.finish_reason is None:
                raise DiagnosisError(_INCOMPLETE)
        except EXPECTED as error:
            raise DiagnosisError(diagnose_exception(error, self._target.address)) from error
        finally:
            self.close()

    def _streamed(self, response: Response) -> Iterator[str]:
        for event in CHAT.events(response.chunks()):
            if event.data is None:
                continue
            if failed := find_error(event.data):
                raise DiagnosisError(
                    Diagnosis(failed.code or "broken_off", failed.message, "The answer is incomplete. Ask again.")
                )
            if text := CHAT.text_of(event.data):
                yield text
            self._note(event.data)

    def _complete(self, response: Response) -> Iterator[str]:
        try:
            data = response.read().json()
            text = data["choices"][0]["message"]["content"]
        except (LookupError, TypeError):
            raise DiagnosisError(_NOT_AN_ANSWER) from None
        self._note(data)
        yield text or ""

    def _note(self, data: Any) -> None:  # noqa: ANN401 - any JSON value
        with suppress(LookupError, TypeError):
            self.usage = data["usage"] or self.usage
        with suppress(LookupError, TypeError):
            self.finish_reason = data["choices"][0]["finish_reason"] or self.finish_reason


_INCOMPLETE: Final = Diagnosis(
    "broken_off",
    "the answer ended before it was complete",
    "The gateway was stopped, or a proxy ends long responses. `brunix doctor` checks for that.",
)
_NOT_AN_ANSWER: Final = Diagnosis(
    "not_the_gateway", "the response is not one of OpenAI's API", "`brunix doctor` shows what runs at this address."
)
