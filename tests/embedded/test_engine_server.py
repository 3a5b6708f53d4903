import queue
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.embedded import server as server_module
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.pacing import Pace
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.server import EngineServer, ListenAddress, ListenError
from brunix_twisted.embedded.servicer import Servicer
from threads import Threads

if TYPE_CHECKING:
    from served_engine import Served

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def servicer(retriever: Retriever, questions: tuple[GoldenQuestion, ...]) -> Servicer:
    return Servicer(Assistant(retriever, SessionHistory()), questions, Pace(0))


def health(served: "Served") -> Any:  # noqa: ANN401 - the generated stub has no annotations
    """Return a stub of the health service."""
    return health_pb2_grpc.HealthStub(served.channel)


@pytest.mark.parametrize("service", ["", "brunix.AssistanceEngine"])
def test_health_serving(served: "Served", service: str) -> None:
    """A running engine reports SERVING."""
    assert health(served).Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status == SERVING


def test_health_while_stopping(served: "Served") -> None:
    """A stopping engine reports NOT_SERVING to a watching client."""
    watch = health(served).Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert next(watch).status == SERVING
    with Threads() as threads:
        threads.start(served.server.stop, 5)
        assert next(watch).status == NOT_SERVING
        watch.cancel()


def test_reflection(served: "Served") -> None:
    """Server reflection describes the service, so that grpcurl works without the proto file."""
    database = ProtoReflectionDescriptorDatabase(served.channel)
    assert "brunix.AssistanceEngine" in database.get_services()
    file = database.FindFileContainingSymbol("brunix.AssistanceEngine")
    assert isinstance(file, descriptor_pb2.FileDescriptorProto)
    assert [method.name for method in file.service[0].method] == ["AskAgent", "AskAgentStream", "EvaluateRAG"]


def test_stop_waits_for_calls(serve: Callable[..., "Served"]) -> None:
    """A stop waits for a running call."""
    served = serve(tokens_per_second=200)
    call = served.stub.AskAgentStream(brunix_pb2.AgentRequest(query="What does exit status 143 mean?"), timeout=20)
    next(call)
    with Threads() as threads:
        threads.start(served.server.stop, 20)
        assert list(call)[-1].is_final


def test_stop_cancels_long_calls(serve: Callable[..., "Served"]) -> None:
    """After its grace period, a stop cancels the calls that are still running."""
    served = serve(tokens_per_second=0.001)
    call = served.stub.AskAgentStream(brunix_pb2.AgentRequest(query="What does exit status 143 mean?"), timeout=60)
    next(call)
    served.server.stop(0.1)
    with pytest.raises(grpc.RpcError):
        next(call)


def test_too_many_calls(serve: Callable[..., "Served"], monkeypatch: pytest.MonkeyPatch) -> None:
    """A call above the limit is rejected with RESOURCE_EXHAUSTED."""
    monkeypatch.setattr(server_module, "MAX_CONCURRENT_CALLS", 2)
    served = serve(tokens_per_second=0.001)
    question = brunix_pb2.AgentRequest(query="What does exit status 143 mean?")
    calls = [served.stub.AskAgentStream(question, timeout=60) for _ in range(2)]
    assert all(next(call).text for call in calls)
    with pytest.raises(grpc.RpcError) as error:
        next(served.stub.AskAgentStream(question, timeout=20))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()


def test_two_engines_cannot_share_a_port(servicer: Servicer, served: "Served") -> None:
    """A second engine on the same port does not start."""
    with pytest.raises(ListenError):
        EngineServer(servicer, served.server.address)


def test_port_in_use_on_one_address(servicer: Servicer) -> None:
    """A port that is in use on one of a name's addresses is an error."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(ListenError, match="in use"):
            EngineServer(servicer, ListenAddress("localhost", stranger.getsockname()[1]))


@pytest.mark.parametrize(
    ("host", "reason"), [("host.invalid", "no address"), ("192.0.2.1", "assign"), ("a" * 300, "no address")]
)
def test_host_of_another_machine(servicer: Servicer, host: str, reason: str) -> None:
    """A host that is not this machine is an error."""
    with pytest.raises(ListenError, match=reason):
        EngineServer(servicer, ListenAddress(host, 0))


def test_all_addresses_share_a_port(servicer: Servicer) -> None:
    """All addresses of a name are served on the same port."""
    server = EngineServer(servicer, ListenAddress("localhost", 0))
    try:
        for family, _, _, _, where in socket.getaddrinfo("localhost", server.address.port, type=socket.SOCK_STREAM):
            try:
                probe = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                continue
            with probe:
                probe.settimeout(20)
                probe.connect(where)
    finally:
        server.stop(0)


def test_address_format() -> None:
    """An IPv6 address is written in brackets."""
    assert [str(ListenAddress(host, 1)) for host in ("localhost", "::1")] == ["localhost:1", "[::1]:1"]


def test_one_log_line_per_call(served: "Served", log_lines: "queue.SimpleQueue[str]") -> None:
    """Each call is logged once."""
    served.ask("What is a checkpoint?")
    served.evaluate(brunix_pb2.EvalRequest(limit=1))
    assert [log_lines.get(timeout=20).split()[0] for _ in range(2)] == ["AskAgent", "EvaluateRAG"]
    assert log_lines.empty()


def test_stop_runs_every_step(servicer: Servicer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If setting the health fails, a stop still closes the port and ends the threads."""
    server = EngineServer(servicer, ListenAddress("127.0.0.1", 0))

    def broken() -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(server._health, "enter_graceful_shutdown", broken)  # noqa: SLF001 - what fails
    with pytest.raises(RuntimeError, match="broken on purpose"):
        server.stop(0)
    with pytest.raises(RuntimeError, match="after shutdown"):
        server._pool.submit(print)  # noqa: SLF001 - what has to have ended
    socket.create_server(("127.0.0.1", server.address.port)).close()
