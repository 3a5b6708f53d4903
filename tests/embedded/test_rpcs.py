"""The Ask rpcs, over real gRPC on loopback."""

import base64
import queue
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import pytest

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.embedded.answers import NOT_SAID
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.golden import GoldenQuestion
from brunix_twisted.embedded.history import Sessions
from brunix_twisted.embedded.pacing import Pace
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.servicer import Servicer

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


def test_a_whole_answer_is_one_final_message(served: "Served") -> None:
    """A client that reads one message would miss the rest, or the code."""
    [message] = served.stub.AskAgent(request(BACKUP), timeout=20)
    assert message.is_final
    assert "— `sqlite.md`, SQLite › Backups, lines " in message.text  # noqa: RUF001 - as shown
    assert message.avap_code == 'sqlite3 app.db ".backup copy.db"'


def test_a_how_to_is_answered_with_the_command(served: "Served") -> None:
    """An editor would have nothing to insert."""
    [message] = served.stub.AskAgent(request("How do I create a compressed archive?"), timeout=20)
    assert message.avap_code == "tar -czf backup.tar.gz folder/"


def test_an_answer_without_code_has_no_code(served: "Served") -> None:
    """An editor would offer prose to be inserted as code."""
    [message] = served.stub.AskAgent(request("What does exit status 143 mean?"), timeout=20)
    assert message.avap_code == ""


def test_a_streamed_answer_is_the_whole_one_in_pieces(served: "Served") -> None:
    """Streaming would change the answer, or not end."""
    *pieces, last = served.stub.AskAgentStream(request(BACKUP), timeout=20)
    assert len(pieces) > 10
    assert all(piece.text and not piece.is_final for piece in pieces)
    assert (last.text, last.is_final) == ("", True)
    assert "".join(piece.text for piece in pieces) == served.ask(BACKUP)


def test_what_the_documents_do_not_say_is_an_answer(served: "Served") -> None:
    """An honest "no" would look like a fault of the engine."""
    assert served.ask("Who wrote Don Quixote?") == NOT_SAID


@pytest.mark.parametrize("rpc", ["AskAgent", "AskAgentStream"])
@pytest.mark.parametrize("query", ["", " \n\t"])
def test_no_question_is_refused(served: "Served", rpc: str, query: str) -> None:
    """An empty message would be answered with something at random."""
    with pytest.raises(grpc.RpcError) as error:
        list(getattr(served.stub, rpc)(request(query), timeout=20))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.sessions.turns("s") == ()


@pytest.mark.parametrize("rpc", ["AskAgent", "AskAgentStream"])
def test_a_turn_read_to_its_end_is_remembered(served: "Served", rpc: str) -> None:
    """A follow-up would be answered as if nothing had been said before."""
    list(getattr(served.stub, rpc)(request(WAL), timeout=20))
    assert "WAL does not work over a network filesystem" in served.ask(FOLLOW_UP, "s")


def test_a_turn_is_remembered_before_the_call_has_ended(served: "Served") -> None:
    """Somebody who asks on at once would be asked what they mean."""
    for number in range(50):
        list(served.stub.AskAgentStream(request(WAL, f"s{number}"), timeout=20))
        assert len(served.sessions.turns(f"s{number}")) == 1


def test_a_turn_that_is_broken_off_is_lost(serve: Callable[..., "Served"], log_lines: LogLines) -> None:
    """The engine would go on from an answer that nobody has read."""
    served = serve(tokens_per_second=0.5)
    call = served.stub.AskAgentStream(request(WAL), timeout=60)
    assert next(call).text
    call.cancel()
    assert "outcome=CANCELLED" in log_lines.get(timeout=20)
    assert served.sessions.turns("s") == ()


class Taken:
    """What grpc tells a handler of a call, for a handler that is iterated by hand."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        del callback
        return True

    def is_active(self) -> bool:
        return True


@pytest.mark.parametrize("rpc", ["AskAgent", "AskAgentStream"])
def test_a_turn_is_kept_when_its_last_message_was_taken_and_not_before(
    retriever: Retriever, questions: tuple[GoldenQuestion, ...], rpc: str
) -> None:
    """The engine would go on from an answer of which the end has never left it."""
    sessions = Sessions()
    servicer = Servicer(Assistant(retriever, sessions), questions, Pace(0))
    broken_off, read_on = (getattr(servicer, rpc)(request(WAL), Taken()) for _ in range(2))
    while not next(broken_off).is_final:
        pass
    broken_off.close()
    assert sessions.turns("s") == ()
    assert list(read_on)[-1].is_final
    assert len(sessions.turns("s")) == 1


def test_a_cancelled_stream_stops_at_once(serve: Callable[..., "Served"], log_lines: LogLines) -> None:
    """A stream that nobody reads would hold a thread of the engine until its next token is due."""
    served = serve(tokens_per_second=0.001)  # the second token is due in 1,000 seconds
    call = served.stub.AskAgentStream(request(WAL), timeout=600)
    assert next(call).text
    call.cancel()
    assert "outcome=CANCELLED" in log_lines.get(timeout=20)


def test_a_deadline_ends_a_stream(serve: Callable[..., "Served"], log_lines: LogLines) -> None:
    """A client's time limit would not be kept by the engine."""
    served = serve(tokens_per_second=0.001)
    # The time to connect is no part of the deadline that the engine has to keep.
    grpc.channel_ready_future(served.channel).result(timeout=20)
    with pytest.raises(grpc.RpcError) as error:
        list(served.stub.AskAgentStream(request(WAL), timeout=0.5))
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "outcome=CANCELLED" in log_lines.get(timeout=20)
    assert served.sessions.turns("s") == ()


def test_paced_streams_do_not_wait_for_each_other(serve: Callable[..., "Served"]) -> None:
    """The hundredth reader would see nothing until the first has read everything."""
    served = serve(tokens_per_second=0.001)
    calls = [served.stub.AskAgentStream(request(WAL, f"s{number}"), timeout=60) for number in range(120)]
    assert all(next(call).text for call in calls)
    for call in calls:
        call.cancel()


def test_sessions_share_nothing(served: "Served") -> None:
    """Somebody would get an answer to what another person had asked."""
    served.ask(WAL, "a")
    alone = served.ask("why?", "b")
    assert alone == NOT_SAID
    assert served.ask("why?", "a") != NOT_SAID


def test_no_session_is_the_one_named_default(served: "Served") -> None:
    """The engine would keep another history than its contract says."""
    served.ask(WAL)
    assert "network filesystem" in served.ask(FOLLOW_UP, "default")


@pytest.mark.parametrize("field", ["editor_content", "selected_text", "extra_context"])
@pytest.mark.parametrize("value", ["aGk=!", encoded("text")[:-1], base64.b64encode(b"\xff").decode(), "é"])
def test_a_malformed_editor_state_is_refused(served: "Served", field: str, value: str) -> None:
    """A fault of the editor's would end as a fault of the engine's."""
    malformed = request(BACKUP)
    setattr(malformed, field, value)
    with pytest.raises(grpc.RpcError) as error:
        list(served.stub.AskAgent(malformed, timeout=20))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (error.value.details() or "")


def test_a_selection_is_what_a_question_points_at(served: "Served") -> None:
    """Asking "What does this do?" in the editor would not be answered."""
    asked = request("What does this do?")
    asked.selected_text = encoded("git bisect start")
    asked.user_info = "no JSON, and nobody minds"
    [message] = served.stub.AskAgent(asked, timeout=20)
    assert "begins a binary search" in message.text


def test_the_log_has_the_callers_request_id_and_not_the_question(served: "Served", log_lines: LogLines) -> None:
    """A call could not be followed from the gateway to the engine, or the log would tell what people ask."""
    list(served.stub.AskAgent(request(BACKUP), timeout=20, metadata=(("x-request-id", "req-1 {evil}=" + "x" * 999),)))
    line = log_lines.get(timeout=20)
    assert line.startswith("AskAgent request=req-1??evil?=" + "x" * 115 + " outcome=OK ")
    assert "SQLite" not in line
    assert "backup" not in line


def test_a_call_without_an_id_is_logged_too(served: "Served", log_lines: LogLines) -> None:
    """Calls from other clients would leave no trace."""
    list(served.stub.AskAgentStream(request(BACKUP), timeout=20))
    assert log_lines.get(timeout=20).startswith("AskAgentStream request=- outcome=OK tokens=")


def test_a_refused_call_is_logged_as_such(served: "Served", log_lines: LogLines) -> None:
    """A client's fault would look like a disconnect."""
    with pytest.raises(grpc.RpcError):
        list(served.stub.AskAgent(request(""), timeout=20))
    assert "outcome=INVALID_ARGUMENT" in log_lines.get(timeout=20)
