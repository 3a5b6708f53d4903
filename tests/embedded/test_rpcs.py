"""The Ask rpcs, over real gRPC on loopback."""

import base64
import queue
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.embedded.answers import NO_ANSWER
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.pacing import Pace
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.servicer import Servicer
from brunix_twisted.engine import ConnectionLimits
from engine_clients import CLIENTS, question, texts

if TYPE_CHECKING:
    from served_engine import Served

LogLines = queue.SimpleQueue[str]

BACKUP = "How do I safely copy a live SQLite file?"
WAL = "How do I switch on the write-ahead log of SQLite?"
FOLLOW_UP = "and over a network?"


def request(query: str, session_id: str = "s") -> brunix_pb2.AgentRequest:
    return brunix_pb2.AgentRequest(query=query, session_id=session_id)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_ask_agent(served: "Served") -> None:
    """AskAgent sends one final message with the text and the version of the language."""
    [message] = served.stub.AskAgent(request(BACKUP), timeout=20)
    assert message.is_final
    assert "— `sqlite.md`, SQLite › Backups, lines " in message.text  # noqa: RUF001 - as shown
    assert message.avap_code == "AVAP-2026"


def test_ask_agent_stream(served: "Served") -> None:
    """AskAgentStream sends the same text in tokens, then an empty final message."""
    *pieces, last = served.stub.AskAgentStream(request(BACKUP), timeout=20)
    assert len(pieces) > 10
    assert all(piece.text and not piece.is_final for piece in pieces)
    assert {piece.avap_code for piece in (*pieces, last)} == {""}
    assert (last.text, last.is_final) == ("", True)
    assert "".join(piece.text for piece in pieces) == served.ask(BACKUP)


def test_no_answer(served: "Served") -> None:
    """A question that the documents do not answer ends with OK and the fixed text."""
    assert served.ask("Who wrote Don Quixote?") == NO_ANSWER


@pytest.mark.parametrize("rpc", ["AskAgent", "AskAgentStream"])
@pytest.mark.parametrize("query", ["", " \n\t"])
def test_empty_question(served: "Served", rpc: str, query: str) -> None:
    """An empty question is INVALID_ARGUMENT."""
    with pytest.raises(grpc.RpcError) as error:
        list(getattr(served.stub, rpc)(request(query), timeout=20))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.sessions.turns("s") == ()


@pytest.mark.parametrize("rpc", ["AskAgent", "AskAgentStream"])
def test_follow_up(served: "Served", rpc: str) -> None:
    """A completed turn is the context of the next question."""
    list(getattr(served.stub, rpc)(request(WAL), timeout=20))
    assert "WAL does not work over a network filesystem" in served.ask(FOLLOW_UP, "s")


def test_turn_is_remembered_before_the_end(served: "Served") -> None:
    """A turn is remembered before the caller sees the end of its call."""
    for number in range(50):
        list(served.stub.AskAgentStream(request(WAL, f"s{number}"), timeout=20))
        assert len(served.sessions.turns(f"s{number}")) == 1


def test_cancelled_turn(serve: Callable[..., "Served"], log_lines: LogLines) -> None:
    """The turn of a cancelled call is not remembered."""
    served = serve(tokens_per_second=0.5)
    call = served.stub.AskAgentStream(request(WAL), timeout=60)
    assert next(call).text
    call.cancel()
    assert "outcome=CANCELLED" in log_lines.get(timeout=20)
    assert served.sessions.turns("s") == ()


class FakeContext:
    """The context of a call whose handler is iterated by hand."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        del callback
        return True

    def is_active(self) -> bool:
        return True

    def set_trailing_metadata(self, metadata: object) -> None:
        pass


@pytest.mark.parametrize("rpc", ["AskAgent", "AskAgentStream"])
def test_turn_is_remembered_after_its_last_message(
    retriever: Retriever, questions: tuple[GoldenQuestion, ...], rpc: str
) -> None:
    """A turn is remembered after its last message was sent, not before."""
    sessions = SessionHistory()
    servicer = Servicer(Assistant(retriever, sessions), questions, Pace(0))
    broken_off, read_on = (getattr(servicer, rpc)(request(WAL), FakeContext()) for _ in range(2))
    while not next(broken_off).is_final:
        pass
    broken_off.close()
    assert sessions.turns("s") == ()
    assert list(read_on)[-1].is_final
    assert len(sessions.turns("s")) == 1


def test_cancelled_stream(serve: Callable[..., "Served"], log_lines: LogLines) -> None:
    """A cancelled stream ends without waiting for its next token."""
    served = serve(tokens_per_second=0.001)  # the second token is due in 1,000 seconds
    call = served.stub.AskAgentStream(request(WAL), timeout=600)
    assert next(call).text
    call.cancel()
    assert "outcome=CANCELLED" in log_lines.get(timeout=20)


def test_deadline(serve: Callable[..., "Served"], log_lines: LogLines) -> None:
    """A stream ends at the caller's deadline, and its turn is not remembered."""
    served = serve(tokens_per_second=0.001)
    # The time to connect is no part of the deadline that the engine has to keep.
    grpc.channel_ready_future(served.channel).result(timeout=20)
    with pytest.raises(grpc.RpcError) as error:
        list(served.stub.AskAgentStream(request(WAL), timeout=0.5))
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "outcome=CANCELLED" in log_lines.get(timeout=20)
    assert served.sessions.turns("s") == ()


def test_concurrent_streams(serve: Callable[..., "Served"]) -> None:
    """120 paced streams run at the same time."""
    served = serve(tokens_per_second=0.001)
    calls = [served.stub.AskAgentStream(request(WAL, f"s{number}"), timeout=60) for number in range(120)]
    assert all(next(call).text for call in calls)
    for call in calls:
        call.cancel()


def test_sessions_are_separate(served: "Served") -> None:
    """A session does not see the turns of another."""
    served.ask(WAL, "a")
    alone = served.ask("why?", "b")
    assert alone == NO_ANSWER
    assert served.ask("why?", "a") != NO_ANSWER


@pytest.mark.parametrize("kind", CLIENTS)
def test_follow_ups_with_several_engines(serve: "Callable[..., Served]", kind: str) -> None:
    """With two engines, a follow-up question reaches the engine that has the session."""
    engines = [serve(), serve()]
    target = "ipv4:" + ",".join(str(engine.server.address) for engine in engines)
    limits = ConnectionLimits(connect_s=20)
    with closing(CLIENTS[kind](target, 20, limits=limits)) as client:
        for number in range(20):
            texts(client.call(question(WAL, session_id=str(number))))
            answer = texts(client.call(question(FOLLOW_UP, session_id=str(number))))
            assert "network filesystem" in "".join(answer)
    first, second = ({number for number in range(20) if engine.sessions.turns(str(number))} for engine in engines)
    assert first
    assert second
    assert first.isdisjoint(second)


def test_default_session(served: "Served") -> None:
    """An empty session id means the session "default"."""
    served.ask(WAL)
    assert "network filesystem" in served.ask(FOLLOW_UP, "default")


@pytest.mark.parametrize("field", ["editor_content", "selected_text", "extra_context"])
@pytest.mark.parametrize("value", ["aGk=!", encoded("text")[:-1], base64.b64encode(b"\xff").decode(), "é"])
def test_invalid_editor_field(served: "Served", field: str, value: str) -> None:
    """An editor field that is not base64 of UTF-8 is INVALID_ARGUMENT, and the message names it."""
    malformed = request(BACKUP)
    setattr(malformed, field, value)
    with pytest.raises(grpc.RpcError) as error:
        list(served.stub.AskAgent(malformed, timeout=20))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (error.value.details() or "")


def test_selection(served: "Served") -> None:
    """A question about the selected text is answered; user_info is ignored."""
    asked = request("What does this do?")
    asked.selected_text = encoded("git bisect start")
    asked.user_info = "no JSON, and nobody minds"
    [message] = served.stub.AskAgent(asked, timeout=20)
    assert "begins a binary search" in message.text


def test_log_line(served: "Served", log_lines: LogLines) -> None:
    """The log line has the caller's request id, sanitized, and neither question nor answer."""
    list(served.stub.AskAgent(request(BACKUP), timeout=20, metadata=(("x-request-id", "req-1 {evil}=" + "x" * 999),)))
    line = log_lines.get(timeout=20)
    assert line.startswith("AskAgent request=req-1??evil?=" + "x" * 115 + " outcome=OK ")
    assert "SQLite" not in line
    assert "backup" not in line


def test_log_line_without_request_id(served: "Served", log_lines: LogLines) -> None:
    """A call without a request id is logged with "-"."""
    list(served.stub.AskAgentStream(request(BACKUP), timeout=20))
    assert log_lines.get(timeout=20).startswith("AskAgentStream request=- outcome=OK tokens=")


def test_log_line_of_a_refused_call(served: "Served", log_lines: LogLines) -> None:
    """A refused call is logged as INVALID_ARGUMENT."""
    with pytest.raises(grpc.RpcError):
        list(served.stub.AskAgent(request(""), timeout=20))
    assert "outcome=INVALID_ARGUMENT" in log_lines.get(timeout=20)
