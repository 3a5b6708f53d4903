"""The gRPC server of the engine: listening, health, reflection and stopping."""

import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import attrs
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.embedded.ports import bindable
from brunix_twisted.embedded.servicer import Servicer

SERVICE: Final = brunix_pb2.DESCRIPTOR.services_by_name["AssistanceEngine"].full_name

# Maximum number of concurrent calls. A call occupies a thread until it ends, and a paced stream can take long: with
# fewer threads than streams, some streams would wait for others to end. Threads are started on demand and take about
# 0.1 MB each. Further calls are rejected with RESOURCE_EXHAUSTED instead of waiting.
MAX_CONCURRENT_CALLS: Final = 1024

# Time that a stop gives running calls before it cancels them.
GRACE_S: Final = 2.0

_OPTIONS: Final = (
    # Otherwise a second engine could listen on the same port without an error and receive half of the calls.
    ("grpc.so_reuseport", 0),
    # Allow a keep-alive ping every ten seconds on an idle connection; by default gRPC closes it after a few.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


# Trailing metadata of a health check: a JSON list of questions that the documents answer. The engine's contract has no
# place for them, and callers that do not know the name ignore it.
SAMPLE_QUESTIONS: Final = "brunix-sample-questions-bin"


class ListenError(Exception):
    """The engine cannot listen on the address; the text says why."""


@attrs.frozen
class ListenAddress:
    """A host and a port. Port 0 means any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return host:port, with an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _HealthServicer(health.HealthServicer):
    """gRPC's health service, which also reports the sample questions."""

    def __init__(self, sample_questions: Callable[[], tuple[str, ...]]) -> None:
        super().__init__()
        self._sample_questions = sample_questions

    def Check(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        questions = json.dumps(self._sample_questions(), ensure_ascii=False)
        context.set_trailing_metadata(((SAMPLE_QUESTIONS, questions.encode()),))
        return super().Check(request, context)


class EngineServer:
    """A running engine. Call its methods only on the thread that created it."""

    def __init__(
        self, servicer: Servicer, address: ListenAddress, sample_questions: Callable[[], tuple[str, ...]] = tuple
    ) -> None:
        """Listen, serve, and set the health to SERVING. Raises ListenError."""
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT_CALLS, thread_name_prefix="call")
        self._server = grpc.server(self._pool, options=_OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS)
        self._health = _HealthServicer(sample_questions)
        brunix_pb2_grpc.add_AssistanceEngineServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            self.address = _listen(self._server, address)
        except BaseException:
            self._server.stop(0)
            self._pool.shutdown()
            raise
        self._server.start()
        for service in (health.OVERALL_HEALTH, SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Set the health to NOT_SERVING, reject new calls, wait for running calls, then cancel the remaining ones."""
        # Callbacks run in reverse order, each even if the ones before it failed.
        with ExitStack() as steps:
            steps.callback(self._pool.shutdown)
            steps.callback(lambda: self._server.stop(grace_s).wait())
            steps.callback(self._health.enter_graceful_shutdown)


def _listen(server: grpc.Server, address: ListenAddress) -> ListenAddress:
    """Bind all addresses of the host to one port, or fail.

    If a name has an IPv4 and an IPv6 address, gRPC succeeds if it can bind one of them, and clients of the other would
    reach another program. So bind all of them here first, which also yields the system's error message.
    """
    try:
        port, addresses = bindable(address.host, address.port)
        for each in addresses:
            server.add_insecure_port(str(ListenAddress(each, port)))
    except OSError as error:
        raise ListenError(error.strerror or str(error)) from error
    except RuntimeError as error:  # another program has bound the port in the meantime
        raise ListenError(os.strerror(errno.EADDRINUSE)) from error
    return ListenAddress(address.host, port)
