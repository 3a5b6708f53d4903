"""A conversation continues in its own engine session, and in nobody else's: without HTTP, with the store in memory."""

from __future__ import annotations

from collections.abc import Coroutine
from itertools import count, pairwise
from typing import Any, Final, TypeVar

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import Clock

from brunix_twisted import errors
from brunix_twisted.api.conversations import MAX_NODES, Digests, Kind, Node, Presented, Record
from brunix_twisted.api.response_store import ResponseStore
from brunix_twisted.api.sessions import SessionAssignment, Sessions
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Choice, CompletionRequest, EditorContext, Turn
from brunix_twisted.state import SessionEntry, StateLimits
from brunix_twisted.state.memory import MemoryStore

T = TypeVar("T")

bounded = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    database=None,
)

LIMITS = StateLimits(max_sessions=100, max_age_s=100.0, max_bodies=0, max_bytes=0)
HI = Turn("Hi", "Hello!")
MORE = Turn("And then?", "Nothing.")
DIGESTS = Digests(lambda: b"secret")


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    results: list[T] = []
    ensureDeferred(coroutine).addCallback(results.append)
    (result,) = results
    return result


def failing(coroutine: Coroutine[Any, Any, Any]) -> GatewayError:
    """Run a coroutine that fails at once."""
    failures: list[Any] = []
    ensureDeferred(coroutine).addErrback(failures.append)
    (failure,) = failures
    assert isinstance(failure.value, GatewayError)
    return failure.value


class WaitingStore(MemoryStore):
    """A store that answers only when it is told to."""

    waiting: list[Deferred[None]] | None = None

    async def _wait(self) -> None:
        if self.waiting is not None:
            self.waiting.append(Deferred())
            await self.waiting[-1]

    async def find(self, *args: Any, **kwargs: Any) -> list[SessionEntry]:  # noqa: ANN401 - as in the base class
        found = await super().find(*args, **kwargs)
        await self._wait()
        return found

    async def put(self, *args: Any, **kwargs: Any) -> bool:  # noqa: ANN401 - as in the base class
        await self._wait()
        return await super().put(*args, **kwargs)

    def answer(self) -> None:
        """Answer the calls that wait now."""
        assert self.waiting
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            deferred.callback(None)


class Asking:
    """Sessions, and how a client uses them."""

    def __init__(self, clock: Clock | None = None, limits: StateLimits = LIMITS, **options: bool) -> None:
        clock = clock or Clock()
        self.store = WaitingStore(clock.seconds, limits)
        self.responses = ResponseStore(self.store)
        numbers = count()
        self.sessions = Sessions(clock, self.store, DIGESTS, lambda: f"new-{next(numbers)}", **options)  # type: ignore[arg-type]  # a Clock is a Reactor but for threads

    def assign(
        self,
        query: str = "Why?",
        *history: Turn,
        named: str | None = None,
        caller: bytes = b"",
        **more: Any,  # noqa: ANN401 - fields of a request
    ) -> SessionAssignment:
        return now(self.sessions.assign(request(query, history=history, **more), named, [caller]))

    def complete(self, assignment: SessionAssignment, answer: str) -> str:
        self.sessions.completed(assignment, [choice(answer)])
        (session_id,) = assignment.session_ids
        return session_id

    def talk(self, *turns: Turn, caller: bytes = b"", **more: Any) -> str:  # noqa: ANN401 - fields of a request
        """Have a conversation, and return its session."""
        session_ids = {
            self.complete(self.assign(turn.user, *turns[:number], caller=caller, **more), turn.assistant)
            for number, turn in enumerate(turns)
        }
        (session_id,) = session_ids
        return session_id


def request(*queries: str, **more: Any) -> CompletionRequest:  # noqa: ANN401 - fields of a request
    fields: dict[str, Any] = {"model": "brunix", "stream": True, "prompt": "", "history": ()} | more
    return CompletionRequest(queries=queries, **fields)


def choice(text: str) -> Choice:
    return Choice(finish_reason="stop", completion_tokens=1, text=text)


# What is compared.


@pytest.mark.parametrize(
    "other",
    [
        (),
        (MORE,),
        (HI, HI),
        (Turn("hi", "Hello!"),),
        (Turn("HiHello!", ""),),
        (Turn("", "HiHello!"),),
        (Turn("H", "iHello!"),),
        (Turn("Hello!", "Hi"),),
        (HI, Turn("", "")),
    ],
)
def test_another_conversation(other: tuple[Turn, ...]) -> None:
    """A user would be answered out of a conversation that only resembles the one on the screen."""
    asking = Asking(exact=True)
    session_id = asking.talk(HI)
    assert asking.assign("Why?", *other).session_ids != (session_id,)
    assert asking.assign("Why?", HI).session_ids == (session_id,)


@pytest.mark.parametrize(
    "changed",
    [Turn("Hi\n", "Hello!"), Turn(" Hi", "\n\nHello! "), Turn("Hi", "Hello!\u2028")],
)
def test_white_space_at_the_ends(changed: Turn) -> None:
    """A user of a client that trims texts would lose the context with every question."""
    asking = Asking()
    assert asking.talk(HI) == asking.assign("Why?", changed).session_ids[0]


def test_line_breaks() -> None:
    """A user of a client that writes Windows' line breaks would lose the context with every question."""
    asking = Asking()
    assert asking.talk(Turn("a\nb", "c\nd")) == asking.assign("Why?", Turn("a\r\nb", "c\r\nd")).session_ids[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # These are the same where a zero byte comes before each text, ...
        (Turn("a\x00", ""), Turn("a", "\x00")),
        # ... its length in decimal, ...
        (Turn("10aaaaaaaaa", ""), Turn("1", "aaaaaaaaa0")),
        # ... and its length in one byte.
        (Turn("a\x00" + 255 * "a", ""), Turn("a", 255 * "a" + "\x00")),
    ],
)
def test_crafted_conversation(one: Turn, other: Turn) -> None:
    """A user who knows how keys are made could craft a conversation that opens another session."""
    assert Presented(DIGESTS, b"", b"", [one]).chain != Presented(DIGESTS, b"", b"", [other]).chain


@st.composite
def resembling(draw: st.DrawFn) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """Two conversations of the same words, with what may pass for a boundary between any two."""
    boundary = draw(st.sampled_from(["", "\x00", ":", "0", "1", "1:", "\x00\x00\x00\x00\x00\x00\x00\x01"]))
    words = draw(st.lists(st.sampled_from(["", "a", "1", "ab"]), min_size=4, max_size=8))

    def divided() -> tuple[Turn, ...]:
        places = st.lists(st.integers(0, len(words)), min_size=1, max_size=5).filter(lambda some: len(some) % 2)
        borders = [0, *sorted(draw(places)), len(words)]
        texts = [boundary.join(words[begin:end]) for begin, end in pairwise(borders)]
        return tuple(Turn(*texts[place : place + 2]) for place in range(0, len(texts), 2))

    return divided(), divided()


@bounded
@given(resembling())
def test_resembling_conversation(pair: tuple[tuple[Turn, ...], tuple[Turn, ...]]) -> None:
    """A user would be answered out of a conversation that was only divided into turns at other places."""
    one, other = (Presented(DIGESTS, b"", b"", turns).chain for turns in pair)
    assert (one == other) is (pair[0] == pair[1])


def test_digests_need_the_key() -> None:
    """Whoever reads the store could test guesses at what was said."""
    assert Presented(Digests(lambda: b"other"), b"", b"", [HI]).chain != Presented(DIGESTS, b"", b"", [HI]).chain


def test_no_text_is_kept() -> None:
    """Whoever reads the store would read what was said."""
    record = Record(b"c" * 16, nodes=tuple(Presented(DIGESTS, b"", b"", [HI, MORE]).context()))
    for text in (b"Hi", b"Hello", b"And then", b"Nothing"):
        assert text not in record.encode()


RECORD = Record(
    b"c" * 16,
    b"h" * 16,
    (Node(b"1" * 16, b"2" * 16, b"3" * 16), Node(b"4" * 16, b"5" * 16, b"1" * 16, Kind.QUESTION)),
    b"4" * 16,
    b"t" * 8,
    named=True,
    claimed=True,
)


@pytest.mark.parametrize(
    "record",
    [
        Record(b"c" * 16),
        RECORD,
        attrs.evolve(RECORD, named=False),
        attrs.evolve(RECORD, claimed=False),
        attrs.evolve(RECORD, nodes=()),
    ],
)
def test_record(record: Record) -> None:
    """A conversation would not be what it was after a restart."""
    assert Record.decode(record.encode()) == record


@pytest.mark.parametrize("data", [b"", b"\x02" + RECORD.encode()[1:], RECORD.encode()[:-1], RECORD.encode()[:20]])
def test_unknown_record(data: bytes) -> None:
    """A record of another release would be taken for what it is not."""
    with pytest.raises(ValueError, match="session's record"):
        Record.decode(data)


def test_unknown_records_in_the_store() -> None:
    """After a downgrade of the gateway, requests would fail, or enter a session without anybody knowing whose it is."""
    asking = Asking()
    session_id = asking.talk(HI)
    entry = now(asking.store.get(session_id))
    assert entry is not None
    keys = Record.decode(entry.record).keys()
    assert now(asking.store.put(session_id, b"\x02" + entry.record[1:], keys, version=entry.version, held=False))
    assert asking.assign("Why?", HI).outcome == "new"
    assert asking.assign("Why?", named=session_id).outcome == "new"
    keep(asking, "1", session_id)
    by_id = asking.sessions.assign(request("And?", previous_response_id="1"), None, [b""])
    assert failing(by_id).kind is errors.PREVIOUS_NOT_FOUND


def test_size() -> None:
    """A long conversation would take ever more memory, or would not be found any more."""
    asking = Asking()
    turns = tuple(Turn(f"question {number}", f"answer {number}") for number in range(3 * MAX_NODES))
    session_id = asking.talk(*turns)
    entry = now(asking.store.get(session_id))
    assert entry is not None
    assert len(Record.decode(entry.record).nodes) == MAX_NODES
    for history in (turns, turns[:-5], turns[-3:]):
        assignment = asking.assign("Why?", *history)
        assert assignment.session_ids == (session_id,)
        asking.sessions.release(assignment)


# Which session.


def test_given_once() -> None:
    """Two users who both began with "Hi" would read each other's questions in their answers."""
    asking = Asking()
    session_ids = [asking.talk(HI) for _ in range(2)]
    given = [asking.assign("Why?", HI) for _ in range(3)]
    # The latest first: the engine is the least likely to have dropped it.
    assert [assignment.session_ids[0] for assignment in given[:2]] == session_ids[::-1]
    assert given[2].outcome == "new"
    # Nobody goes back in a session that is one of several.
    for assignment in given:
        asking.complete(assignment, "So.")
    assert asking.assign("How?", HI).outcome == "new"


def test_edited_where_several_fit() -> None:
    """A user who goes back would get into the session of somebody with an identical opening."""
    asking = Asking()
    for _ in range(2):
        asking.talk(HI, MORE)
    assert asking.assign("Why?", HI).outcome == "new"
    # The complete conversation counts, and each session is given once.
    outcomes = [asking.assign("Why?", HI, MORE).outcome for _ in range(3)]
    assert outcomes == ["found", "found", "new"]


def test_window_where_several_fit() -> None:
    """A user whose client sends the last turns would get into any conversation that ended alike."""
    asking = Asking()
    one, other = (asking.talk(Turn(f"I am {name}", "Hi."), HI, MORE) for name in ("Ann", "Bob"))
    assert asking.assign("Why?", MORE).outcome == "new"
    assert asking.assign("Why?", HI, MORE).outcome == "new"
    for name, session_id in (("Ann", one), ("Bob", other)):
        history = [Turn("Summary?", "None."), Turn(f"I am {name}", "Hi."), HI, MORE]
        assert asking.assign("Why?", *history).session_ids == (session_id,)


def test_what_a_window_must_have() -> None:
    """A user would get into another conversation that happens to end alike."""
    asking = Asking()
    session_id = asking.talk(HI, MORE, Turn("So?", "Yes."), Turn("Sure?", "Sure."))
    before = [Turn(f"question {number}", "answer") for number in range(5)]
    ended = [HI, MORE, Turn("So?", "Yes."), Turn("Sure?", "Sure.")]
    for turns, is_found in ((1, False), (2, False), (3, True), (4, True)):
        assignment = asking.assign("Why?", *before, *ended[-turns:])
        assert (assignment.session_ids == (session_id,)) is is_found
        asking.sessions.release(assignment)


def test_editor_state() -> None:
    """A user would be answered from editor content that was never sent with the conversation."""
    asking = Asking()
    code = EditorContext(editor_content="YQ==")
    session_id = asking.talk(HI, editor=code)
    assert asking.assign("Why?", HI).outcome == "new"
    assert asking.assign("Why?", HI, editor=EditorContext(editor_content="Yg==")).outcome == "new"
    assert asking.assign("Why?", HI, editor=code).session_ids == (session_id,)
    # A caller that names it knows it, whatever its editor shows.
    assert asking.assign("How?", named=asking.talk(HI, editor=code)).outcome == "named"


@pytest.mark.parametrize("exact", [True, False])
def test_callers_who_differ(*, exact: bool) -> None:
    """A caller would get into another's session, whatever it presents."""
    asking = Asking(exact=exact)
    session_id = asking.talk(HI, MORE, caller=b"a")
    for history in ((HI, MORE), (HI,), (MORE,)):
        assert asking.assign("Why?", *history, caller=b"b").outcome == "new"
    assert asking.assign("Why?", named=session_id, caller=b"b").outcome == "new"
    assert asking.assign("Why?", session_id=session_id, caller=b"b").outcome == "new"
    # Nor has any of this disturbed its caller.
    assert asking.assign("Why?", HI, MORE, caller=b"a").session_ids == (session_id,)


def test_age() -> None:
    """A user would be sent to a session that the engine has dropped."""
    asking = Asking(clock := Clock())
    session_id = asking.talk(HI)
    clock.advance(100.0)
    assert asking.complete(asking.assign("Why?", HI), "So.") == session_id
    clock.advance(100.1)
    assert asking.assign("How?", HI, Turn("Why?", "So.")).outcome == "new"


def test_no_continuity() -> None:
    """An operator who wants nothing remembered would not be obeyed."""
    asking = Asking(continuity=False)
    asking.complete(asking.assign("Hi"), "Hello!")
    assert asking.assign("Why?", HI).outcome == "new"
    assert len(asking.store) == 0


def test_several_questions() -> None:
    """Of several prompts in one request, one would be answered in the context of another."""
    sessions = Asking().sessions
    several = request("a", "b", history=None)
    assert now(sessions.assign(several, None)).session_ids == ("new-0", "new-1")
    assert now(sessions.assign(several, "mine")).session_ids == ("mine", "mine")
    assert now(sessions.assign(request(history=None), None)).session_ids == ()


@pytest.mark.parametrize("session_id", ["two words", "é", "x" * 257, "\n"])
def test_unsafe_name(session_id: str) -> None:
    """A caller could put into a log or into gRPC's metadata what does not belong there."""
    for asked, named in ((request("Hi", session_id=session_id), None), (request("Hi"), session_id)):
        error = failing(Asking().sessions.assign(asked, named))
        assert (error.kind, error.param) == (errors.INVALID_REQUEST, "session_id")


# Names and ids.


def test_a_name_after_its_conversation_was_presented() -> None:
    """A caller could name its way into a session that another, who began alike, got for the conversation."""
    asking = Asking()
    session_id = asking.talk(HI)
    asking.complete(asking.assign("Why?", HI), "So.")
    assert asking.assign("And?", named=session_id).outcome == "new"
    assert asking.assign("And?", session_id=session_id).outcome == "new"
    assert asking.assign("And?", HI, Turn("Why?", "So."), named=session_id).outcome == "found"


def test_a_conversation_whose_session_was_named() -> None:
    """A user's conversation would continue where something else was asked in between."""
    asking = Asking()
    session_id = asking.talk(HI)
    in_flight = asking.assign("Why?", HI, named=session_id)
    assert in_flight.outcome == "named"
    assert asking.assign("Why?", HI).outcome == "new"
    # Nor is an answer recorded that is in flight meanwhile.
    first = asking.assign("Hi")
    asking.sessions.began(first)
    assert asking.assign("x", named=first.session_ids[0]).outcome == "named"
    asking.complete(first, "Hello!")
    assert asking.assign("Why?", HI).outcome == "new"


def keep(asking: Asking, response_id: str, session_id: str, caller: bytes = b"") -> None:
    now(asking.responses.keep(response_id, session_id, asking.sessions.identify([caller]), b"body"))


def test_continued_by_its_id() -> None:
    """A user who continues a response is asked in another session, or one who guesses an id in somebody's."""
    asking = Asking(clock := Clock())
    keep(asking, "1", "theirs")
    for named in (None, "mine"):
        assert asking.assign("And?", previous_response_id="1", named=named).session_ids == ("theirs",)
    # The body names it outright; the response's id has to be right all the same.
    assert asking.assign("And?", previous_response_id="1", session_id="mine").session_ids == ("mine",)
    for unknown in (
        request("And?", previous_response_id="2"),
        request("And?", previous_response_id="2", session_id="mine"),
    ):
        error = failing(asking.sessions.assign(unknown, None, [b""]))
        assert (error.kind, error.param) == (errors.PREVIOUS_NOT_FOUND, "previous_response_id")
    theirs = asking.sessions.assign(request("And?", previous_response_id="1"), None, [b"other"])
    assert failing(theirs).kind is errors.PREVIOUS_NOT_FOUND
    assert now(asking.responses.body_of("1", asking.sessions.identify([b"other"]))) is None
    clock.advance(100.1)
    too_late = asking.sessions.assign(request("And?", previous_response_id="1"), None, [b""])
    assert failing(too_late).kind is errors.PREVIOUS_NOT_FOUND


def test_continued_by_its_id_and_by_its_conversation() -> None:
    """Two users who began alike would read each other's questions, one by a response's id, the other by its text."""
    asking = Asking()
    # Whoever comes first has the session, and the other does not get into it.
    first = asking.talk(HI)
    keep(asking, "1", first)
    assert asking.assign("And?", previous_response_id="1").session_ids == (first,)
    assert asking.assign("And?", HI).session_ids != (first,)
    first = asking.talk(HI)
    keep(asking, "1", first)
    assert asking.assign("And?", HI).session_ids == (first,)
    by_id = asking.sessions.assign(request("And?", previous_response_id="1"), None, [b""])
    assert failing(by_id).kind is errors.PREVIOUS_NOT_FOUND


# Answers that fail, and questions at the same time.


@pytest.mark.parametrize("exact", [True, False])
def test_released(*, exact: bool) -> None:
    """A caller whose question failed would lose its conversation, or get one that a new session never contained."""
    asking = Asking(exact=exact)
    new = asking.assign("Why?", HI)
    asking.sessions.release(new)
    assert asking.assign("Why?", HI).session_ids != new.session_ids
    session_id = asking.talk(HI)
    for _ in range(2):
        found = asking.assign("Why?", HI)
        assert found.session_ids == (session_id,)
        asking.sessions.release(found)
        asking.sessions.release(found)


def test_an_answer_that_never_came_leaves_nothing() -> None:
    """The gateway's memory would grow with every answer that fails."""
    asking = Asking()
    for _ in range(10):
        asking.sessions.release(asking.assign("Hi"))
    assert len(asking.store) == 0


def test_stopped_where_several_fit() -> None:
    """A user who stops an answer would get into the session of somebody who asked the same at the same time."""
    asking = Asking()
    session_ids = [asking.talk(HI) for _ in range(2)]
    in_flight = [asking.assign("Why?", HI) for _ in range(2)]
    assert {assignment.session_ids[0] for assignment in in_flight} == set(session_ids)
    assert asking.assign("How?", HI, Turn("Why?", "Beca")).outcome == "new"
    # Each is free again after its end.
    asking.complete(in_flight[0], "Because.")
    asking.sessions.release(in_flight[1])
    assert asking.assign("How?", HI, Turn("Why?", "Because.")).session_ids == in_flight[0].session_ids


def test_two_questions_at_once() -> None:
    """Two questions at once in one conversation would be answered in one session, each in the other's context."""
    asking = Asking()
    session_id = asking.talk(HI)
    first, second = asking.assign("Why?", HI), asking.assign("Why?", HI)
    assert first.session_ids == (session_id,)
    assert second.outcome == "new"
    # Each answer leads to where it was given.
    asking.complete(second, "No idea.")
    asking.complete(first, "Because.")
    assert asking.assign("And?", HI, Turn("Why?", "Because.")).session_ids == first.session_ids
    assert asking.assign("And?", HI, Turn("Why?", "No idea.")).session_ids == second.session_ids


def test_taken_over() -> None:
    """A later question would not be recorded because an earlier one ends after it."""
    asking = Asking()
    session_id = asking.talk(HI)
    stopped = asking.assign("Why?", HI)
    following = asking.assign("How?", HI, Turn("Why?", "Beca"))
    assert following.session_ids == (session_id,)
    asking.sessions.release(stopped)
    # It is still being answered.
    assert asking.assign("What?", HI).outcome == "new"
    asking.complete(following, "So.")
    assert asking.assign("What?", HI, Turn("Why?", "Beca"), Turn("How?", "So.")).session_ids == (session_id,)


def test_recorded_late() -> None:
    """In another process, a client's next question may be there before its last answer is recorded."""
    asking = Asking()
    first = asking.assign("Hi")
    asking.sessions.began(first)
    following = asking.assign("Why?", HI)
    assert following.session_ids == first.session_ids
    asking.complete(first, "Hello!")
    asking.complete(following, "So.")
    assert asking.assign("And?", HI, Turn("Why?", "So.")).session_ids == first.session_ids


def test_recorded_late_where_complete_conversations_count() -> None:
    """The same, where nothing but a complete conversation leads to a session."""
    asking = Asking(clock := Clock(), exact=True, shared=True)
    first = asking.assign("Hi")
    now(asking.sessions.settle(first))
    assigned: list[SessionAssignment] = []
    ensureDeferred(asking.sessions.assign(request("Why?", history=(HI,)), None, [b""])).addCallback(assigned.append)
    clock.advance(0.005)
    assert not assigned
    asking.complete(first, "Hello!")
    clock.advance(0.015)
    assert [assignment.session_ids for assignment in assigned] == [first.session_ids]
    # It does not wait for ever.
    ensureDeferred(asking.sessions.assign(request("And?", history=(HI, Turn("Why?", "x"))), None, [b""])).addCallback(
        assigned.append
    )
    for _ in range(3):
        clock.advance(0.05)
    assert assigned[1].outcome == "new"


def test_recorded_late_where_several_fit() -> None:
    """Of callers who look the same, one would lose the context if its answer is recorded late."""
    asking = Asking(clock := Clock(), shared=True)
    in_flight = [asking.assign("Hi") for _ in range(2)]
    for assignment in in_flight:
        now(asking.sessions.settle(assignment))
    assigned: list[SessionAssignment] = []
    ensureDeferred(asking.sessions.assign(request("Why?", history=(HI,)), None, [b""])).addCallback(assigned.append)
    assert not assigned
    asking.complete(in_flight[1], "Hello!")
    clock.advance(0.005)
    assert [assignment.session_ids for assignment in assigned] == [in_flight[1].session_ids]


@pytest.mark.parametrize("shared", [True, False])
def test_when_the_question_is_found(*, shared: bool) -> None:
    """An answer would end before another process can find its session, or would wait without need."""
    asking = Asking(shared=shared)
    first = asking.assign("Hi")
    asking.store.waiting = []
    settled: list[None] = []
    ensureDeferred(asking.sessions.settle(first)).addCallback(settled.append)
    assert bool(settled) is not shared
    if shared:
        asking.store.answer()
    assert settled == [None]


def test_the_client_leaves_during_the_claim() -> None:
    """A client that disconnects early would leave its conversation without its session."""
    for before in range(2):
        asking = Asking()
        session_id = asking.talk(HI)
        asking.store.waiting = []
        assigning = ensureDeferred(asking.sessions.assign(request("Why?", history=(HI,)), None, [b""]))
        for _ in range(before):
            asking.store.answer()
        assigning.addErrback(lambda failure: failure.trap(CancelledError))
        assigning.cancel()
        while asking.store.waiting:
            asking.store.answer()
        asking.store.waiting = None
        assert asking.assign("Why?", HI).session_ids == (session_id,)


def test_written_in_order() -> None:
    """An answer would be recorded as being in progress after its end."""
    asking = Asking()
    asking.store.waiting = []
    first = asking.assign("Hi")
    asking.sessions.began(first)
    asking.complete(first, "Hello!")
    written: list[None] = []
    ensureDeferred(asking.sessions.when_written()).addCallback(written.append)
    for _ in range(2):
        assert not written
        asking.store.answer()
    assert written == [None]
    asking.store.waiting = None
    assert asking.assign("Why?", HI).session_ids == first.session_ids


def test_another_process_was_first() -> None:
    """Two processes would get one session; or a request would get none though another is free."""
    asking = Asking()
    one, other = (asking.talk(HI) for _ in range(2))
    asking.store.waiting = []
    assigned: list[SessionAssignment] = []
    for _ in range(2):
        ensureDeferred(asking.sessions.assign(request("Why?", history=(HI,)), None, [b""])).addCallback(assigned.append)
    while asking.store.waiting:
        asking.store.answer()
    assert {assignment.session_ids[0] for assignment in assigned} == {one, other}


def test_a_store_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the store would cost answers, and not only the context."""
    asking = Asking()
    session_id = asking.talk(HI)

    async def fail(*_: object, **__: object) -> Any:  # noqa: ANN401 - it never returns
        raise OSError("broken")

    for name in ("find", "get", "put", "get_response", "put_response", "delete_response"):
        monkeypatch.setattr(asking.store, name, fail)
    assert asking.assign("Why?", HI).outcome == "new"
    assert asking.assign("Why?", named=session_id).session_ids == (session_id,)
    asking.complete(asking.assign("Hi"), "Hello!")
    asking.sessions.began(first := asking.assign("Hi"))
    asking.sessions.release(first)
    keep(asking, "1", session_id)
    assert now(asking.responses.body_of("1", b"")) is None
    by_id = asking.sessions.assign(request("And?", previous_response_id="1"), None, [b""])
    assert failing(by_id).kind is errors.PREVIOUS_NOT_FOUND


# Everything together.


@attrs.define(eq=False)
class Call:
    """A question that is being answered, as the caller and the gateway see it."""

    caller: int
    presented: tuple[Turn, ...]
    assignment: SessionAssignment
    question: str

    @property
    def session_id(self) -> str:
        """The engine session."""
        return self.assignment.session_ids[0]


# So few words that callers open, edit and ask again alike all the time.
words = st.sampled_from(["Hi", "Why?"])
space = st.sampled_from(["", " ", "\n"])

NAMES: Final = (b"one", b"two", b"two", b"two")
"""The callers: the last three cannot be told apart."""


class Callers(RuleBasedStateMachine):
    """
    Clients that keep their conversations themselves, before a gateway and an engine.

    ``engine`` is the truth of what each session contains.
    """

    exact = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.asking = Asking(self.clock, attrs.evolve(LIMITS, max_sessions=6), exact=self.exact)
        self.screens: list[tuple[Turn, ...]] = [()] * len(NAMES)
        self.engine: dict[str, tuple[Turn, ...]] = {}
        self.asked: dict[str, set[str]] = {}
        self.owners: dict[str, bytes] = {}
        self.calls: list[Call] = []
        self.known: set[str] = set()

    @rule(caller=st.integers(0, 3), question=words, before=space, after=space)
    def ask(self, caller: int, question: str, before: str, after: str) -> None:
        """A caller sends its whole conversation and a question, alone or beside others and itself."""
        presented = self.screens[caller]
        padded = tuple(Turn(before + turn.user + after, after + turn.assistant + before) for turn in presented)
        assignment = self.asking.assign(question, *padded, caller=NAMES[caller])
        call = Call(caller, presented, assignment, question)
        assert (assignment.outcome == "found") is (call.session_id in self.engine)
        # Callers that can be told apart never share a session.
        assert self.owners.setdefault(call.session_id, NAMES[caller]) == NAMES[caller]
        contains = self.engine.setdefault(call.session_id, ())
        if self.exact:
            # The session contains nothing that this caller did not present, and no other request is in it.
            assert presented[len(presented) - len(contains) :] == contains
            assert call.session_id not in [other.session_id for other in self.calls]
        else:
            # One of the presented questions at least was asked in it.
            asked = self.asked.setdefault(call.session_id, set())
            assert not asked or {turn.user for turn in presented} & asked
            asked.add(question)
        self.calls.append(call)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), answer=words, space=space)
    def finish(self, data: st.DataObject, answer: str, space: str) -> None:
        """One of the answers is complete."""
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        turn = Turn(call.question, answer)
        self.engine[call.session_id] += (turn,)
        self.screens[call.caller] = (*call.presented, turn)
        self.known.add(self.asking.complete(call.assignment, answer + space))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A caller receives the first part of an answer, and with it the id of its session."""
        call = data.draw(st.sampled_from(self.calls))
        self.asking.sessions.began(call.assignment)
        self.known.add(call.session_id)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), answer=words, began=st.booleans(), seen=st.booleans())
    def break_off(self, data: st.DataObject, answer: str, *, began: bool, seen: bool) -> None:
        """The engine has dropped the turn, and the caller may keep the part that it has received."""
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        if began:
            self.asking.sessions.began(call.assignment)
            self.known.add(call.session_id)
        self.asking.sessions.release(call.assignment)
        if seen:
            self.screens[call.caller] = (*call.presented, Turn(call.question, answer))

    @rule(caller=st.integers(0, 3), turns=st.integers(0, 3))
    def go_back(self, caller: int, turns: int) -> None:
        """Before an edited question or an answer that is asked for again; 0 begins a new conversation."""
        self.screens[caller] = self.screens[caller][:turns]

    @rule(caller=st.integers(0, 3), turns=st.integers(1, 3))
    def shorten(self, caller: int, turns: int) -> None:
        """A client sends a window."""
        self.screens[caller] = self.screens[caller][-turns:]

    @precondition(lambda self: any(self.screens))
    @rule(data=st.data(), question=words, answer=words)
    def edit(self, data: st.DataObject, question: str, answer: str) -> None:
        """A caller writes into its own past."""
        caller = data.draw(st.sampled_from([caller for caller, screen in enumerate(self.screens) if screen]))
        turns = list(self.screens[caller])
        turns[data.draw(st.integers(0, len(turns) - 1))] = Turn(question, answer)
        self.screens[caller] = tuple(turns)

    @rule(caller=st.integers(0, 3), other=st.integers(0, 3))
    def fork(self, caller: int, other: int) -> None:
        """One caller continues another's conversation, as with a shared or a duplicated chat."""
        self.screens[caller] = self.screens[other]

    @precondition(lambda self: self.known)
    @rule(data=st.data(), caller=st.integers(0, 3))
    def name(self, data: st.DataObject, caller: int) -> None:
        """Somebody names a session outright and asks something in it."""
        session_id = data.draw(st.sampled_from(sorted(self.known)))
        assignment = self.asking.assign("x", named=session_id, caller=NAMES[caller])
        known = now(self.asking.store.get(session_id)) is not None
        if known and self.owners[session_id] != NAMES[caller]:
            assert assignment.session_ids != (session_id,)
        if assignment.session_ids == (session_id,):
            self.owners[session_id] = NAMES[caller]
            self.engine[session_id] += (Turn("x", "y"),)

    @rule(passed_s=st.sampled_from([0.5, 30.0, 99.5, 101.0]))
    def wait(self, passed_s: float) -> None:
        """Time passes."""
        self.clock.advance(passed_s)

    @invariant()
    def is_bounded(self) -> None:
        """No more is remembered than was allowed."""
        assert len(self.asking.store) <= 6


class ExactCallers(Callers):
    """The same, where only complete conversations count."""

    exact = True


@pytest.mark.parametrize("machine", [Callers, ExactCallers])
def test_callers(machine: type[Callers]) -> None:
    """A user would be answered from somebody else's conversation, or from another than the one on the screen."""
    run_state_machine_as_test(machine, settings=bounded)
