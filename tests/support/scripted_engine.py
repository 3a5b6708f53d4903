"""
An engine that does as it is told by the question's text: a real gRPC server for tests, and to run by hand.

A question that is a JSON list is a script. Its steps are done in order, then the answer is completed by an empty final
message, as the real engine does:

=========================  ==========================================================================
``"text"``                 send one message with this text
``{"final": "text"}``      send the final message, with this text; nothing is completed afterwards
``{"break_off": true}``    end the call with status OK and without a final message
``{"status": "INTERNAL"}`` end the call with this gRPC status
``{"status": ["INTERNAL", "why"]}``  the same, with these details
``{"hang": true}``         send nothing more until the call is cancelled
``{"wait": "name"}``       go on once :meth:`ScriptedEngine.go` was called with this name
``{"repeat": ["x", 1000]}``  send one message so many times
``{"letters": 1000}``      send one message of so many letters
``{"raw": "6869"}``        send these bytes, in hexadecimal, as the message
``{"first": {…}}``         do this step only for the first call that asks this
``{"sources": […]}``       report these sources at the end, as the embedded engine does; text: these bytes
``{"die": true}``          end the process, as soon as a line is on its standard input, so only for one of its own:
                           ``python tests/support/scripted_engine.py``
=========================  ==========================================================================

Any other question is answered with its own words, one a message. ``AskAgent`` sends the texts as one message at the
end, as the real engine does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.engine.sources import METADATA as SOURCES
from ports import free_port


def script(*steps: object) -> str:
    """Write the question that makes the engine do this."""
    return json.dumps(steps)


@attrs.frozen
class Asked:
    """One call as the engine saw it."""

    rpc: str
    request: brunix_pb2.AgentRequest
    metadata: dict[str, str]
    ended: threading.Event
    """Set when the call has ended, for whatever reason."""
    finished: threading.Event
    """Set when the engine has done everything it was told: not when the caller broke off."""


def _serialize(message: brunix_pb2.AgentResponse | bytes) -> bytes:
    """Send what is bytes already as it is, right or wrong."""
    return message if isinstance(message, bytes) else message.SerializeToString()


class _Health(health.HealthServicer):
    """The health service. Its checks can have trailing metadata, as the embedded engine's do."""

    trailing_metadata: tuple[tuple[str, bytes], ...] = ()

    def Check(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        context.set_trailing_metadata(self.trailing_metadata)
        return super().Check(request, context)


class ScriptedEngine:
    """The two rpcs that are asked, and their server, which listens as soon as it is made."""

    def __init__(
        self,
        address: str = "localhost:0",
        *,
        with_health: bool = True,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.calls: list[Asked] = []
        self._signals: dict[str, threading.Event] = {}
        self._arrived = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(128), options=[("grpc.so_reuseport", 0)])
        handlers = {
            rpc.__name__: grpc.unary_stream_rpc_method_handler(
                rpc, request_deserializer=brunix_pb2.AgentRequest.FromString, response_serializer=_serialize
            )
            for rpc in (self.AskAgent, self.AskAgentStream)
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("brunix.AssistanceEngine", handlers),)
        )
        self.health = _Health()
        if with_health:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
            self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        host, _, port = address.rpartition(":")
        if port == "0":
            # One of the system's choice could be another test's as soon as this engine has stopped.
            address = f"{host}:{free_port()}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self.target = f"localhost:{self.port}"
        self._server.start()

    def stop(self) -> None:
        """Break every call off and close the port."""
        stopped = self._server.stop(None)
        # Not before: a script that goes on would have its call end well.
        for signal in self._signals.values():
            signal.set()
        stopped.wait()

    def go(self, name: str) -> None:
        """Let every script that waits for this name go on."""
        self._signal(name).set()

    def _signal(self, name: str) -> threading.Event:
        # One step, where a defaultdict would make two events for two threads that come at the same time.
        return self._signals.setdefault(name, threading.Event())

    def call(self, number: int = 0, timeout_s: float = 20) -> Asked:
        """Wait for the call of this number, counted from 0, and return it. Blocks."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.calls) > number, timeout_s), "the engine was not called"
            return self.calls[number]

    def AskAgentStream(  # noqa: N802 - the rpc's name
        self, request: brunix_pb2.AgentRequest, context: grpc.ServicerContext
    ) -> Iterator[brunix_pb2.AgentResponse | bytes]:
        yield from self._answer("AskAgentStream", request, context)

    def AskAgent(  # noqa: N802 - the rpc's name
        self, request: brunix_pb2.AgentRequest, context: grpc.ServicerContext
    ) -> Iterator[brunix_pb2.AgentResponse | bytes]:
        gathered = ""
        for message in self._answer("AskAgent", request, context):
            if isinstance(message, bytes):
                yield message
                continue
            gathered += message.text
            if message.is_final:
                yield brunix_pb2.AgentResponse(text=gathered, is_final=True)

    def _answer(
        self, rpc: str, request: brunix_pb2.AgentRequest, context: grpc.ServicerContext
    ) -> Iterator[brunix_pb2.AgentResponse | bytes]:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        asked = Asked(rpc, request, metadata, threading.Event(), threading.Event())
        if not context.add_callback(asked.ended.set):
            asked.ended.set()  # it ended before this
        with self._arrived:
            self.calls.append(asked)
            self._arrived.notify_all()
        try:
            steps = json.loads(request.query)
        except ValueError:
            steps = [f"{word} " for word in request.query.split()]
        if not isinstance(steps, list):
            steps = [request.query]
        for step in steps:
            if isinstance(step, str):
                yield brunix_pb2.AgentResponse(text=step)
                continue
            ((order, value),) = step.items()
            if order == "first":
                if sum(earlier.request.query == request.query for earlier in self.calls) > 1:
                    continue
                ((order, value),) = value.items()
            if order in {"final", "break_off"}:
                if order == "final":
                    yield brunix_pb2.AgentResponse(text=value, is_final=True)
                asked.finished.set()
                return
            yield from self._obey(order, value, asked, context)
        asked.finished.set()
        yield brunix_pb2.AgentResponse(is_final=True)

    def _obey(
        self,
        order: str,
        value: Any,  # noqa: ANN401 - whatever JSON holds
        asked: Asked,
        context: grpc.ServicerContext,
    ) -> Iterator[brunix_pb2.AgentResponse | bytes]:
        if order == "status":
            name, details = value if isinstance(value, list) else (value, "secret internals of the engine")
            context.abort(grpc.StatusCode[name], details)
        elif order == "hang":
            asked.ended.wait()
        elif order == "wait":
            self._signal(value).wait(60)
        elif order == "repeat":
            text, times = value
            message = brunix_pb2.AgentResponse(text=text)
            for _ in range(times):
                yield message
        elif order == "letters":
            yield brunix_pb2.AgentResponse(text="x" * value)
        elif order == "raw":
            yield bytes.fromhex(value)
        elif order == "sources":
            encoded = value if isinstance(value, str) else json.dumps(value)
            context.set_trailing_metadata(((SOURCES, encoded.encode()),))
        elif order == "die":
            # What has been said before is on its way only, and would be lost with the process.
            sys.stdin.readline()
            os._exit(1)
        else:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no such step: {order}")


if __name__ == "__main__":
    engine = ScriptedEngine(sys.argv[1] if len(sys.argv) > 1 else "localhost:50051")
    print(f"scripted engine on {engine.target}", flush=True)  # noqa: T201 - for whoever runs it
    engine._server.wait_for_termination()  # noqa: SLF001 - the same module
