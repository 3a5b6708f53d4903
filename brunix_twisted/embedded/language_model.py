"""A language model behind an OpenAI-compatible API: one streamed chat completion, bounded in time and size.

It uses the standard library's HTTP client, on the thread of the gRPC call. No proxy of the environment is used.
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

CONNECT_TIMEOUT_S: Final = 3.0
MAX_TOTAL_S: Final = 300.0
# A small model may repeat itself without end.
MAX_ANSWER_CHARACTERS: Final = 8000
_MAX_LINE_BYTES: Final = 1024 * 1024
_MAX_DETAIL_CHARACTERS: Final = 200
_THINK: Final = ("<think>", "</think>")

# After the model has let a question wait for the whole timeout, it is not asked for this long: each of the next
# questions would wait as long.
_PAUSE_AFTER_TIMEOUT_S: Final = 30.0


class ModelError(Exception):
    """The model gave no answer, or only its beginning.

    The text is for the user and contains nothing of the API's response; ``detail`` is for the log.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Name the reason, as the second half of "The language model …"."""
        super().__init__(reason)
        self.detail = detail


def base_url(text: str) -> str:
    """Check a base URL. Raises ValueError.

    A URL without a path gets ``/v1``, and one that ends with the endpoint loses it: both are common mistakes.
    """
    parts = urlsplit(text.strip())
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        raise ValueError(text)
    _ = parts.port  # raises ValueError
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    if not (parts.netloc + path).isascii() or not (parts.netloc + path).isprintable() or " " in path:
        raise ValueError(text)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


@attrs.define
class LanguageModel:
    """A model and the address of its API. Thread-safe."""

    url: str
    name: str
    key: str = attrs.field(default="", repr=False)
    timeout_s: float = 30.0
    """Maximum time to the first text, and from each text to the next."""
    max_total_s: float = MAX_TOTAL_S
    _not_before_s: float = 0.0

    def start(self, messages: Sequence[Mapping[str, str]]) -> "Completion":
        """Prepare a completion. Raises ModelError if the model has just timed out."""
        if time.monotonic() < self._not_before_s:
            raise ModelError("did not respond in time", "it has timed out less than 30 seconds ago")
        return Completion(self, messages)

    def timed_out(self) -> None:
        """Note that a question has waited for the whole timeout."""
        self._not_before_s = time.monotonic() + _PAUSE_AFTER_TIMEOUT_S


class Completion:
    """One completion: iterate over its texts once. ``cancel`` may be called on any thread, at any time."""

    def __init__(self, model: LanguageModel, messages: Sequence[Mapping[str, str]]) -> None:
        """Send nothing yet."""
        self._model = model
        self._messages = messages
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._is_cancelled = False
        self._timed_out = ""
        self._is_complete = False
        self._length = 0
        self.is_shortened = False
        """Whether the answer ended at a limit of its length."""

    def cancel(self) -> None:
        """Close the connection. The API then stops generating."""
        self._is_cancelled = True
        if self._socket is not None:
            # Closing alone does not wake the thread that reads from it.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def __iter__(self) -> Iterator[str]:
        """Yield the texts as they arrive. Raises ModelError."""
        try:
            yield from self._watched()
        except TimeoutError as error:
            raise self._time_over("did not respond in time") from error
        except (OSError, http.client.HTTPException) as error:
            if self._timed_out:
                raise self._time_over(self._timed_out) from error
            reason = "ended its answer early" if self._length or self._response else "is unreachable"
            raise ModelError(reason, str(error) or type(error).__name__) from error
        if self._timed_out:
            raise self._time_over(self._timed_out)
        if not self._is_complete:
            raise ModelError("ended its answer early", "the stream ended without finish_reason and [DONE]")
        if not self._length:
            raise ModelError("sent an empty answer")

    def _watched(self) -> Iterator[str]:
        started_s = time.monotonic()
        watchdog = self._watch(self._model.timeout_s, "did not respond in time")
        try:
            for text in _without_thoughts(self._texts()):
                if not self._length:
                    watchdog.cancel()
                    watchdog = self._watch(self._model.max_total_s - (time.monotonic() - started_s), "took too long")
                shown = text[: MAX_ANSWER_CHARACTERS - self._length]
                self._length += len(shown)
                yield shown
                if self._length >= MAX_ANSWER_CHARACTERS:
                    self.is_shortened = self._is_complete = True
                    return
        finally:
            watchdog.cancel()
            self._close()

    def _time_over(self, reason: str) -> ModelError:
        if not self._length:
            self._model.timed_out()
        return ModelError(reason, f"no text for {self._model.timeout_s:g} s, or {self._model.max_total_s:g} s in total")

    def _watch(self, limit_s: float, reason: str) -> threading.Timer:
        """Cancel after a time: a server that sends single bytes would not run into the timeout of a socket."""

        def end() -> None:
            self._timed_out = reason
            self.cancel()

        timer = threading.Timer(max(0.0, limit_s), end)
        timer.daemon = True
        timer.start()
        return timer

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
        if self._socket is not None:
            self._socket.close()

    def _texts(self) -> Iterator[str]:
        response = self._post({"temperature": 0})
        if response.status != http.client.OK:
            body = response.read(_MAX_LINE_BYTES)
            if response.status != http.client.BAD_REQUEST or b"temperature" not in body:
                raise _refused(response.status, body)
            # Some models accept no temperature but their own.
            response = self._post({})
            if response.status != http.client.OK:
                raise _refused(response.status, response.read(_MAX_LINE_BYTES))
        if response.headers.get_content_type() == "application/json":
            yield from self._whole(response)
        else:
            yield from self._events(response)

    def _post(self, parameters: Mapping[str, Any]) -> http.client.HTTPResponse:
        self._close()
        parts = urlsplit(self._model.url)
        # Without a default context, HTTPSConnection makes one that verifies the certificate and the host's name.
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except TimeoutError as error:
            raise ModelError("is unreachable", "connecting timed out") from error
        # The connection forgets its socket as soon as the response's headers say that it will be closed.
        self._socket = connection.sock
        if self._is_cancelled:
            raise ConnectionAbortedError("cancelled")
        self._socket.settimeout(self._model.timeout_s)
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._model.key:
            headers["Authorization"] = f"Bearer {self._model.key}"
        body = {"model": self._model.name, "messages": list(self._messages), "stream": True, **parameters}
        connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body).encode(), headers)
        self._response = connection.getresponse()
        return self._response

    def _whole(self, response: http.client.HTTPResponse) -> Iterator[str]:
        """Read an answer of an API that does not stream."""
        text = self._choice(_json(response.read(_MAX_LINE_BYTES)), "message")
        self._is_complete = True
        yield text

    def _events(self, response: http.client.HTTPResponse) -> Iterator[str]:
        """Read Server-Sent Events."""
        while line := response.readline(_MAX_LINE_BYTES):
            if len(line) >= _MAX_LINE_BYTES:
                raise ModelError("sent an invalid answer", "a line is longer than 1 MiB")
            if not line.startswith(b"data:"):
                continue
            data = line[len(b"data:") :].strip()
            if data == b"[DONE]":
                self._is_complete = True
                return
            yield self._choice(_json(data), "delta")

    def _choice(self, chunk: dict[str, Any], part: str) -> str:
        """Return the text of a chunk, and note what it says about the end."""
        if "error" in chunk:
            raise ModelError("returned an error", _message(json.dumps(chunk).encode()))
        try:
            # The last chunk of some APIs has only the number of tokens.
            choice: dict[str, Any] = next(iter(chunk.get("choices") or ()), {})
            text = (choice.get(part) or {}).get("content") or ""
            reason = choice.get("finish_reason")
        except (AttributeError, TypeError) as error:
            raise ModelError("sent an invalid answer", "a chunk has another form") from error
        if not isinstance(text, str):
            raise ModelError("sent an invalid answer", "the content is not a text")
        if reason == "content_filter":
            raise ModelError("refused to answer", "finish_reason: content_filter")
        self._is_complete |= reason is not None
        self.is_shortened |= reason == "length"
        return text.replace("\0", "").encode("utf-8", "replace").decode()


def _refused(status: int, body: bytes) -> ModelError:
    return ModelError("returned an error", f"HTTP {status}: {_message(body)}")


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError("sent an invalid answer", "it is not JSON") from error
    if not isinstance(value, dict):
        raise ModelError("sent an invalid answer", "it is not a JSON object")
    return value


def _message(body: bytes) -> str:
    """Return the message of an error, for the log."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError, AttributeError, TypeError):
        error = json.loads(text)["error"]
        text = error if isinstance(error, str) else error["message"]
    return " ".join(str(text).split())[:_MAX_DETAIL_CHARACTERS]


def _without_thoughts(texts: Iterator[str]) -> Iterator[str]:
    """Leave out what a reasoning model writes between ``<think>`` tags at the beginning, and empty texts."""
    start, end = _THINK
    held = ""
    for text in texts:
        held = (held + text).lstrip()
        if not start.startswith(held[: len(start)]):
            yield held
            break
        if held.startswith(start):
            held = held[len(start) :]
            while end not in held:
                # Of a long thought, only what may be the beginning of its end is kept.
                held = held[-len(end) :] + next(texts, end)
            held = held.partition(end)[2]
            while not held.strip():
                more = next(texts, None)
                if more is None:
                    return
                held = more
            yield held.lstrip()
            break
    else:
        if held:
            yield held
    yield from filter(None, texts)
