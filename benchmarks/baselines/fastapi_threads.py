"""
The design that the gateway replaces, as a baseline: FastAPI on uvicorn, and a pool of threads that call the engine.

Each request runs one blocking gRPC call on a thread of the pool. A stream's tokens go from there, each by a call of the
event loop's, into a queue, and from the queue to a ``StreamingResponse``. ``--single-threaded-stream`` reads the gRPC
stream on the thread that asks for it: A+ in the results; without it A.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.experimental
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc

HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class Message(BaseModel):
    """One message of a conversation."""

    role: str
    content: str


class Question(BaseModel):
    """What both APIs ask alike."""

    model: str
    messages: list[Message]
    stream: bool | None = None

    def request(self) -> brunix_pb2.AgentRequest:
        """Ask the engine the last thing that the user said, in a session of its own."""
        query = next((said.content for said in reversed(self.messages) if said.role == "user"), None)
        if not query:
            raise HTTPException(400, "no user message")
        return brunix_pb2.AgentRequest(query=query, session_id=uuid.uuid4().hex)


def dumps(value: dict[str, Any]) -> str:
    """Write compact JSON."""
    return json.dumps(value, separators=(",", ":"))


class Answer:
    """One call of the engine: a thread of the pool reads it into a queue, the event loop takes it out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Iterator[brunix_pb2.AgentResponse]) -> None:
        """Prepare to read the call."""
        self._loop = loop
        self._call = call
        self._queue: asyncio.Queue[str | grpc.RpcError | None] = asyncio.Queue()

    def read(self) -> None:
        """Read it to its end. On a thread of the pool."""
        put = self._queue.put_nowait
        try:
            for message in self._call:
                if message.text:
                    self._loop.call_soon_threadsafe(put, message.text)
        except grpc.RpcError as error:
            self._loop.call_soon_threadsafe(put, error)
        else:
            self._loop.call_soon_threadsafe(put, None)

    async def take(self) -> str | None:
        """Take the next text; None at the end."""
        taken = await self._queue.get()
        if isinstance(taken, grpc.RpcError):
            raise taken
        return taken

    def cancel(self) -> None:
        """Break the call off, so that the thread is free."""
        self._call.cancel()  # type: ignore[attr-defined]  # what a stub returns is a call too


class Gateway:
    """The pool, the channel, and the two APIs."""

    def __init__(self, target: str, workers: int, *, single_threaded_stream: bool) -> None:
        """Prepare to serve."""
        options = [(grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)] if single_threaded_stream else []
        self._stub = brunix_pb2_grpc.AssistanceEngineStub(grpc.insecure_channel(target, options=options))
        self._pool = ThreadPoolExecutor(workers)
        self.app = FastAPI()
        self.app.post("/v1/chat/completions", response_model=None)(self.openai_chat)
        self.app.post("/api/chat", response_model=None)(self.ollama_chat)

    def _ask(self, request: brunix_pb2.AgentRequest) -> str:
        return "".join(message.text for message in self._stub.AskAgent(request))

    async def _whole(self, question: Question) -> str:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, question.request())
        except grpc.RpcError as error:
            raise refusal(error) from error

    async def _stream(self, question: Question, media_type: str, encoder: Encoder) -> StreamingResponse:
        loop = asyncio.get_running_loop()
        answer = Answer(loop, self._stub.AskAgentStream(question.request()))
        loop.run_in_executor(self._pool, answer.read)
        # The status waits for the engine's first word.
        try:
            first = await answer.take()
        except grpc.RpcError as error:
            raise refusal(error) from error
        except BaseException:
            answer.cancel()
            raise

        async def body() -> AsyncIterator[str]:
            try:
                if opening := encoder.begin():
                    yield opening
                text = first
                while text is not None:
                    yield encoder.delta(text)
                    text = await answer.take()
                yield encoder.end()
            except grpc.RpcError:
                yield encoder.fail("the engine broke off")
            finally:
                # A client that goes away cancels this.
                answer.cancel()

        return StreamingResponse(body(), media_type=media_type, headers={"Cache-Control": "no-cache"})

    async def openai_chat(self, question: Question) -> JSONResponse | StreamingResponse:
        """OpenAI's chat completions."""
        if question.stream:
            return await self._stream(question, "text/event-stream", OpenAIEncoder(question.model))
        text = await self._whole(question)
        words = len(text.split())
        return JSONResponse(
            {
                "id": f"chatcmpl-{uuid.uuid4().hex}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": question.model,
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"},
                ],
                "usage": {"prompt_tokens": 0, "completion_tokens": words, "total_tokens": words},
            }
        )

    async def ollama_chat(self, question: Question) -> JSONResponse | StreamingResponse:
        """Ollama's chat, which streams unless told otherwise."""
        encoder = OllamaEncoder(question.model)
        if question.stream is not False:
            return await self._stream(question, "application/x-ndjson", encoder)
        return JSONResponse(encoder.last(await self._whole(question)))


class OpenAIEncoder:
    """A stream as Server-Sent Events of chunks."""

    def __init__(self, model: str) -> None:
        """Fix what is the same in every chunk."""
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = model

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> str:
        chunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        }
        return f"data: {dumps(chunk)}\n\n"

    def begin(self) -> str:
        """Name the role."""
        return self._chunk({"role": "assistant", "content": ""})

    def delta(self, text: str) -> str:
        """Write one token."""
        return self._chunk({"content": text})

    def end(self) -> str:
        """Write the end."""
        return self._chunk({}, "stop") + "data: [DONE]\n\n"

    def fail(self, why: str) -> str:
        """Write an error within the stream."""
        return f"data: {dumps({'error': {'message': why, 'type': 'server_error'}})}\n\ndata: [DONE]\n\n"


class OllamaEncoder:
    """A stream as JSON objects, one a line."""

    def __init__(self, model: str) -> None:
        """Fix what is the same in every line."""
        self._model = model
        self._began_ns = time.monotonic_ns()
        self._tokens = 0

    def begin(self) -> str:
        """Write nothing: Ollama begins with the first token."""
        return ""

    def _object(self, text: str, *, done: bool) -> dict[str, Any]:
        return {
            "model": self._model,
            "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "message": {"role": "assistant", "content": text},
            "done": done,
        }

    def delta(self, text: str) -> str:
        """Write one token."""
        self._tokens += 1
        return dumps(self._object(text, done=False)) + "\n"

    def last(self, text: str = "") -> dict[str, Any]:
        """Write what the last object says."""
        return {
            **self._object(text, done=True),
            "done_reason": "stop",
            "total_duration": time.monotonic_ns() - self._began_ns,
            "eval_count": self._tokens or len(text.split()),
        }

    def end(self) -> str:
        """Write the end."""
        return dumps(self.last()) + "\n"

    def fail(self, why: str) -> str:
        """Write an error within the stream."""
        return dumps({"error": why}) + "\n"


Encoder = OpenAIEncoder | OllamaEncoder


def refusal(error: grpc.RpcError) -> HTTPException:
    """Say with which HTTP status a failed call is told."""
    code: Callable[[], grpc.StatusCode] = error.code
    return HTTPException(HTTP_STATUS.get(code(), 502), "the engine failed to answer")


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--single-threaded-stream", action="store_true")
    arguments = parser.parse_args()
    gateway = Gateway(arguments.target, arguments.workers, single_threaded_stream=arguments.single_threaded_stream)
    listening = socket.create_server(("127.0.0.1", arguments.port), backlog=2048)
    config = uvicorn.Config(gateway.app, loop="uvloop", http="httptools", log_level="info")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
