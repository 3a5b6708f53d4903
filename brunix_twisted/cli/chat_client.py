"""One question and its answer, as the commands ``ask`` and ``chat`` need them."""

from __future__ import annotations

import json
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
from brunix_twisted.cli.http_client import Connection, Response, Target, get

DEFAULT_MODEL: Final = "brunix"
"""A gateway's own name for its model, unless PROXY_MODEL_ID says otherwise."""
SILENCE_S: Final = 660.0
"""Longer than a gateway waits for a place with the engine and for the engine, as they are set by default."""
_LOOK_S: Final = 5.0


def listed_model(target: Target, limit_s: float = _LOOK_S) -> str | None:
    """
    The name of the model that a server lists first; None where it has no such list.

    :raises TroubleError: nobody is there.
    """
    try:
        response, body = get(target, "/v1/models", limit_s=limit_s)
    except EXPECTED as error:
        raise DiagnosisError(diagnose_exception(error, target.address)) from error
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        if name := json.loads(body)["data"][0]["id"]:
            return str(name)
    if not response.ok:
        diagnosis = diagnose_response(response.status, response.headers, body, target.address)
        if diagnosis.kind not in {"not_the_gateway", "unknown_url"}:
            raise DiagnosisError(diagnosis)
    return None


class ChatCompletion:
    """An answer on its way. Everything but its texts is there once they have been read."""

    def __init__(self, target: Target, question: str, *, model: str, session_id: str | None, stream: bool) -> None:
        """Prepare to ask; nothing is sent before the texts are read."""
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
        """The engine session that was asked in."""
        self.request_id = ""
        """By which the gateway's log knows the question."""
        self.finish_reason: str | None = None
        """None: the answer is not complete."""
        self.usage: dict[str, int] | None = None

    def close(self) -> None:
        """Break it off; the gateway then cancels the engine's call."""
        self._connection.close()

    def texts(self, read_timeout_s: float = SILENCE_S) -> Iterator[str]:
        """
        Ask, and give the answer's texts as they come.

        :param silence_s: how long nothing at all may come.
        :raises TroubleError: there is no answer, or not the whole of it.
        """
        try:
            response = self._connection.ask(
                "POST",
                CHAT.path,
                self._body,
                headers=self._headers,
                limit_s=float("inf"),
                read_timeout_s=read_timeout_s,
            )
            self.request_id = response.header("X-Request-Id")
            self.session_id = response.header("X-Session-Id") or self.session_id
            if not response.ok:
                body = response.body()
                raise DiagnosisError(diagnose_response(response.status, response.headers, body, self._target.address))
            yield from self._streamed(response) if self._stream else self._whole(response)
            if self.finish_reason is None:
                raise DiagnosisError(_BROKEN_OFF)
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
                    Diagnosis(failed.code or "broken_off", failed.message, "The answer is not complete; ask again.")
                )
            if text := CHAT.text_of(event.data):
                yield text
            self._note(event.data)

    def _whole(self, response: Response) -> Iterator[str]:
        try:
            data = json.loads(response.body())
            text = data["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise DiagnosisError(_NO_ANSWER) from None
        self._note(data)
        yield text or ""

    def _note(self, data: Any) -> None:  # noqa: ANN401 - whatever JSON holds
        with suppress(LookupError, TypeError):
            self.usage = data["usage"] or self.usage
        with suppress(LookupError, TypeError):
            self.finish_reason = data["choices"][0]["finish_reason"] or self.finish_reason


_BROKEN_OFF: Final = Diagnosis(
    "broken_off",
    "the answer broke off before its end",
    "The gateway was stopped, or something between cuts answers off; `brunix doctor` looks for that.",
)
_NO_ANSWER: Final = Diagnosis(
    "not_the_gateway", "what came back is no answer of OpenAI's API", "`brunix doctor` says what is there."
)
