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
from brunix_twisted.embedded.history import Sessions
from brunix_twisted.embedded.pacing import Pace
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.server import Address, EngineServer, ListenError
from brunix_twisted.embedded.servicer import Servicer
from threads import Threads

if TYPE_CHECKING:
    from served_engine import Served

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def servicer(retriever: Retriever, questions: tuple[GoldenQuestion, ...]) -> Servicer:
    return Servicer(Assistant(retriever, Sessions()), questions, Pace(0))


def health(served: "Served") -> Any:  # noqa: ANN401 - the generated stub has no annotations
    """Give a stub of the health service."""
    return health_pb2_grpc.HealthStub(served.channel)


@pytest.mark.parametrize("service", ["", "brunix.AssistanceEngine"])
def test_the_health_says_serving(served: "Served", service: str) -> None:
    """A supervisor would take a running engine for a dead one."""
    assert health(served).Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status == SERVING


def test_the_health_says_when_the_engine_stops(served: "Served") -> None:
    """A supervisor would send calls to an engine that is going away."""
    watch = health(served).Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert next(watch).status == SERVING
    with Threads() as threads:
        threads.start(served.server.stop, 5)
        assert next(watch).status == NOT_SERVING
        watch.cancel()


def test_reflection_tells_of_the_engine(served: "Served") -> None:
    """Grpcurl and its like could not call the engine without the proto file."""
    database = ProtoReflectionDescriptorDatabase(served.channel)
    assert "brunix.AssistanceEngine" in database.get_services()
    file = database.FindFileContainingSymbol("brunix.AssistanceEngine")
    assert isinstance(file, descriptor_pb2.FileDescriptorProto)
    assert [method.name for method in file.service[0].method] == ["AskAgent", "AskAgentStream", "EvaluateRAG"]


def test_a_stop_lets_a_call_end(serve: Callable[..., "Served"]) -> None:
    """An answer would be cut off when the engine is stopped."""
    served = serve(tokens_per_second=200)
    call = served.stub.AskAgentStream(brunix_pb2.AgentRequest(query="What does exit status 143 mean?"), timeout=20)
    next(call)
    with Threads() as threads:
        threads.start(served.server.stop, 20)
        assert list(call)[-1].is_final


def test_a_stop_does_not_wait_for_ever(serve: Callable[..., "Served"]) -> None:
    """The engine would have to be killed."""
    served = serve(tokens_per_second=0.001)
    call = served.stub.AskAgentStream(brunix_pb2.AgentRequest(query="What does exit status 143 mean?"), timeout=60)
    next(call)
    served.server.stop(0.1)
    with pytest.raises(grpc.RpcError):
        next(call)


def test_one_call_too_many_is_refused(serve: Callable[..., "Served"], monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait unseen until another ends, however long that takes."""
    monkeypatch.setattr(server_module, "CALLS_AT_ONCE", 2)
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
    """Half of the questions would go to an engine with other documents."""
    with pytest.raises(ListenError):
        EngineServer(servicer, served.server.address)


def test_a_port_taken_on_one_of_the_hosts_addresses_is_taken(servicer: Servicer) -> None:
    """Clients that dial localhost over IPv4 would talk to a stranger, those over IPv6 to the engine."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(ListenError, match="in use"):
            EngineServer(servicer, Address("localhost", stranger.getsockname()[1]))


@pytest.mark.parametrize(
    ("host", "reason"), [("host.invalid", "no address"), ("192.0.2.1", "assign"), ("a" * 300, "no address")]
)
def test_a_host_that_is_not_this_machine_is_refused(servicer: Servicer, host: str, reason: str) -> None:
    """The engine would seem to run and be reached by nobody."""
    with pytest.raises(ListenError, match=reason):
        EngineServer(servicer, Address(host, 0))


def test_every_address_of_a_name_is_served_on_one_port(servicer: Servicer) -> None:
    """A client that tries IPv4 first would find nothing where one that tries IPv6 finds the engine."""
    server = EngineServer(servicer, Address("localhost", 0))
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


def test_an_address_is_written_as_it_is_dialled() -> None:
    """The printed address could not be copied into a client."""
    assert [str(Address(host, 1)) for host in ("localhost", "::1")] == ["localhost:1", "[::1]:1"]


def test_calls_are_logged_once_each(served: "Served", log_lines: "queue.SimpleQueue[str]") -> None:
    """The log would not add up."""
    served.ask("What is a checkpoint?")
    served.evaluate(brunix_pb2.EvalRequest(limit=1))
    assert [log_lines.get(timeout=20).split()[0] for _ in range(2)] == ["AskAgent", "EvaluateRAG"]
    assert log_lines.empty()


def test_a_stop_runs_every_step(servicer: Servicer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that cannot tell its health that it stops still closes its port and ends its threads."""
    server = EngineServer(servicer, Address("127.0.0.1", 0))

    def broken() -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(server._health, "enter_graceful_shutdown", broken)  # noqa: SLF001 - what fails
    with pytest.raises(RuntimeError, match="broken on purpose"):
        server.stop(0)
    with pytest.raises(RuntimeError, match="after shutdown"):
        server._pool.submit(print)  # noqa: SLF001 - what has to have ended
    socket.create_server(("127.0.0.1", server.address.port)).close()
