"""A conversation goes on in its own engine session, and in nobody else's."""

from __future__ import annotations

import pickle
from itertools import pairwise

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from brunix_twisted import errors
from brunix_twisted.api.sessions import ConversationIndex, check_session_id
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Turn

bounded = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    database=None,
)

MAX_SESSIONS, MAX_AGE_S = 4, 100.0
HI = Turn("Hi", "Hello!")
MORE = Turn("And then?", "Nothing.")


def remembering(max_sessions: int = MAX_SESSIONS, max_age_s: float = MAX_AGE_S) -> ConversationIndex:
    return ConversationIndex(max_sessions=max_sessions, max_age_s=max_age_s)


def test_goes_on() -> None:
    """A user's follow-up question would be answered without what was said before."""
    conversations = remembering()
    assert conversations.claim((), 0.0) is None
    conversations.remember((HI,), "one", 1.0)
    assert conversations.claim((HI,), 2.0) == "one"
    conversations.remember((HI, MORE), "one", 3.0)
    assert conversations.claim((HI,), 4.0) is None
    assert conversations.claim((MORE, HI), 4.0) is None
    assert conversations.claim((HI, MORE), 5.0) == "one"


def test_taken_once() -> None:
    """Two users who both began with "Hi" would read each other's questions in their answers."""
    conversations = remembering()
    conversations.remember((HI,), "one", 0.0)
    conversations.remember((HI,), "two", 1.0)
    assert [conversations.claim((HI,), 2.0) for _ in range(3)] == ["two", "one", None]


@pytest.mark.parametrize(
    "other",
    [
        (),
        (MORE,),
        (HI, MORE),
        (HI, HI),
        (Turn("hi", "Hello!"),),
        (Turn("Hi", "Hello! "), Turn("", "")),
        (Turn("HiHello!", ""),),
        (Turn("", "HiHello!"),),
        (Turn("H", "iHello!"),),
        (Turn("Hello!", "Hi"),),
    ],
)
def test_another_conversation(other: tuple[Turn, ...]) -> None:
    """A user would be answered out of a conversation that only resembles the one on the screen."""
    conversations = remembering()
    conversations.remember((HI,), "one", 0.0)
    assert conversations.claim(other, 0.0) is None
    assert conversations.claim((HI,), 0.0) == "one"


@pytest.mark.parametrize("padded", [Turn("Hi\n", "Hello!"), Turn(" Hi", "\n\nHello! "), Turn("Hi", "Hello!\u2028")])
def test_white_space_at_the_ends(padded: Turn) -> None:
    """A user of a client that trims texts would lose the thread with every question."""
    conversations = remembering()
    conversations.remember((HI,), "one", 0.0)
    assert conversations.claim((padded,), 0.0) == "one"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # These are the same where a zero byte stands before each text, ...
        (Turn("a\x00", ""), Turn("a", "\x00")),
        # ... its length in decimal, ...
        (Turn("10aaaaaaaaa", ""), Turn("1", "aaaaaaaaa0")),
        # ... and its length in one byte.
        (Turn("a\x00" + 255 * "a", ""), Turn("a", 255 * "a" + "\x00")),
    ],
)
def test_crafted_conversation(one: Turn, other: Turn) -> None:
    """A user who knows how keys are made could craft a conversation that opens somebody else's session."""
    conversations = remembering()
    conversations.remember((one,), "one", 0.0)
    assert conversations.claim((other,), 0.0) is None
    assert conversations.claim((one,), 0.0) == "one"


@st.composite
def resembling(draw: st.DrawFn) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """Two conversations made of the same words, where what may pass for a border stands between any two."""
    border = draw(st.sampled_from(["", "\x00", ":", "0", "1", "1:", "\x00\x00\x00\x00\x00\x00\x00\x01"]))
    said = draw(st.lists(st.sampled_from(["", "a", "1", "ab"]), min_size=4, max_size=8))

    def divided() -> tuple[Turn, ...]:
        places = st.lists(st.integers(0, len(said)), min_size=1, max_size=5).filter(lambda some: len(some) % 2)
        borders = [0, *sorted(draw(places)), len(said)]
        texts = [border.join(said[begin:end]) for begin, end in pairwise(borders)]
        return tuple(Turn(*texts[place : place + 2]) for place in range(0, len(texts), 2))

    return divided(), divided()


@bounded
@given(resembling())
def test_resembling_conversation(pair: tuple[tuple[Turn, ...], tuple[Turn, ...]]) -> None:
    """A user would be answered out of a conversation that was only divided into turns at other places."""
    conversations = remembering()
    conversations.remember(pair[0], "one", 0.0)
    assert conversations.claim(pair[1], 0.0) == ("one" if pair[0] == pair[1] else None)


def test_under_one_key_only() -> None:
    """A user who goes back in a conversation would be answered from a session that has gone further."""
    conversations = remembering()
    conversations.remember((HI,), "one", 0.0)
    conversations.remember((HI, MORE), "one", 1.0)
    assert len(conversations) == 1
    assert conversations.claim((HI,), 2.0) is None
    assert conversations.claim((HI, MORE), 2.0) == "one"
    conversations.remember((HI,), "two", 3.0)
    conversations.remember((), "two", 4.0)
    assert (len(conversations), conversations.claim((HI,), 4.0)) == (0, None)


def test_forget() -> None:
    """A user would find questions in the session that another client asked there by naming it."""
    conversations = remembering()
    conversations.forget("never heard of")
    conversations.remember((HI,), "one", 0.0)
    conversations.remember((HI,), "two", 0.0)
    conversations.forget("two")
    assert [conversations.claim((HI,), 0.0) for _ in range(2)] == ["one", None]


def test_oldest_goes_first() -> None:
    """The gateway's memory would grow with every conversation, or users would lose the newest ones."""
    conversations = remembering(max_sessions=2)
    for place, session_id in enumerate(["one", "two", "one", "three"]):
        conversations.remember((HI,), session_id, float(place))
    assert len(conversations) == 2
    assert [conversations.claim((HI,), 3.0) for _ in range(3)] == ["three", "one", None]
    nothing = remembering(max_sessions=0)
    nothing.remember((HI,), "one", 0.0)
    assert (len(nothing), nothing.claim((HI,), 0.0)) == (0, None)


def test_age() -> None:
    """A user would be sent to a session that the engine dropped long ago."""
    conversations = remembering(max_age_s=10.0)
    conversations.remember((HI,), "one", 0.0)
    conversations.remember((MORE,), "two", 5.0)
    assert conversations.claim((HI,), 10.5) is None
    assert conversations.claim((MORE,), 15.0) == "two"


def test_age_frees_memory() -> None:
    """The gateway would keep what nobody can ever use again, until as many newer conversations have come."""
    conversations = remembering(max_age_s=10.0)
    conversations.remember((HI,), "one", 0.0)
    conversations.remember((HI,), "two", 5.0)
    conversations.remember((HI,), "three", 11.0)
    assert len(conversations) == 2
    assert conversations.claim((MORE,), 16.0) is None
    assert len(conversations) == 1


def test_clock_set_back() -> None:
    """A user would be sent to a dropped session on the day that the machine's clock is corrected."""
    conversations = remembering(max_age_s=10.0)
    conversations.remember((HI,), "early", 1_000.0)
    conversations.remember((HI,), "late", 0.0)
    assert conversations.claim((HI,), 500.0) == "early"


def test_keeps_no_text_and_no_traces() -> None:
    """A user's words would stay in the gateway's memory, or what is left of past conversations would fill it."""
    conversations = remembering()
    empty = pickle.dumps(conversations)
    for place in range(500):
        history = (Turn(f"my secret {place}", "kept"),)
        conversations.remember(history, f"session-{place}", 0.0)
        assert b"secret" not in pickle.dumps(conversations)
        assert conversations.claim(history, 0.0 if place % 2 else 101.0) == (f"session-{place}" if place % 2 else None)
    assert pickle.dumps(conversations) == empty


@pytest.mark.parametrize("session_id", ["a", "default", "6f1c-42/e", "!", "~", 'a"b,c;d=e', "x" * 256])
def test_session_id_allowed(session_id: str) -> None:
    """A user's own session id would be refused though it harms nothing."""
    assert check_session_id(session_id) == session_id


@pytest.mark.parametrize(
    "session_id",
    [
        "",
        " ",
        "a b",
        " a",
        "a ",
        "a\n",
        "\na",
        "a\r\nX-Evil: 1",
        "a\tb",
        "\x00",
        "\x1b[2J",
        "\x7f",
        "é",
        "😀",
        "x" * 257,
    ],
)
def test_session_id_refused(session_id: str) -> None:
    """Whoever reads the log or the headers would be shown lines that a caller made up."""
    with pytest.raises(GatewayError) as caught:
        check_session_id(session_id)
    assert (caught.value.kind, caught.value.param) == (errors.INVALID_REQUEST, "session_id")
    assert session_id not in caught.value.message or session_id in ("", " ")


@attrs.define(eq=False)
class Call:
    """A question with the engine, as the caller and the gateway see it."""

    caller: int
    presented: tuple[Turn, ...]
    session_id: str
    question: str


@attrs.define
class Kept:
    """What the gateway should remember of one session."""

    session_id: str
    history: tuple[Turn, ...]
    remembered_s: float


# So few words that callers open, edit and ask again alike all the time.
words = st.sampled_from(["Hi", "Why?"])
space = st.sampled_from(["", " ", "\n"])


class Callers(RuleBasedStateMachine):
    """
    Clients that keep their conversations themselves, before a gateway and an engine.

    ``engine`` is the truth of what each session contains. ``kept`` is the plainest form of the gateway's memory: a
    list, the one remembered last at its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conversations = remembering()
        self.now_s = 1_000.0
        self.screens: list[tuple[Turn, ...]] = [(), (), ()]
        self.engine: dict[str, tuple[Turn, ...]] = {}
        self.calls: list[Call] = []
        self.kept: list[Kept] = []

    def expected(self, presented: tuple[Turn, ...]) -> Kept | None:
        """The session that must be taken for a conversation."""
        alike = [kept for kept in self.kept if kept.history == presented and self.is_fresh(kept)]
        return alike[-1] if alike and presented else None

    def is_fresh(self, kept: Kept) -> bool:
        """Whether it is young enough."""
        return self.now_s - kept.remembered_s <= MAX_AGE_S

    def drop(self, session_id: str) -> None:
        """It is remembered no more."""
        self.kept = [kept for kept in self.kept if kept.session_id != session_id]

    @rule(caller=st.integers(0, 2), question=words, before=space, after=space)
    def ask(self, caller: int, question: str, before: str, after: str) -> None:
        """A caller sends its whole conversation and a question, alone or beside others and itself."""
        presented = self.screens[caller]
        expected = self.expected(presented)
        padded = tuple(Turn(before + turn.user + after, after + turn.assistant + before) for turn in presented)
        session_id = self.conversations.claim(padded, self.now_s)
        assert session_id == (expected.session_id if expected else None)
        if session_id is None:
            session_id = f"session-{len(self.engine)}"
            self.engine[session_id] = ()
        # The one promise: the session contains nothing that this caller did not present, and nobody else is in it.
        contains = self.engine[session_id]
        assert presented[len(presented) - len(contains) :] == contains
        assert session_id not in [call.session_id for call in self.calls]
        self.drop(session_id)
        self.calls.append(Call(caller, presented, session_id, question))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), answer=words, space=space)
    def finish(self, data: st.DataObject, answer: str, space: str) -> None:
        """One of the answers is complete."""
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        turn = Turn(call.question, answer)
        self.engine[call.session_id] += (turn,)
        history = (*call.presented, turn)
        self.screens[call.caller] = history
        padded = (*call.presented, Turn(call.question, answer + space))
        self.conversations.remember(padded, call.session_id, self.now_s)
        self.kept.append(Kept(call.session_id, history, self.now_s))
        self.kept = [kept for kept in self.kept if self.is_fresh(kept)][-MAX_SESSIONS:]

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), answer=words, stored=st.booleans(), seen=st.booleans())
    def break_off(self, data: st.DataObject, answer: str, *, stored: bool, seen: bool) -> None:
        """The engine may have kept the turn or not, and the caller may keep the part that was seen."""
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        if stored:
            self.engine[call.session_id] += (Turn(call.question, answer),)
        if seen:
            self.screens[call.caller] = (*call.presented, Turn(call.question, answer))

    @rule(caller=st.integers(0, 2), turns=st.integers(0, 3))
    def go_back(self, caller: int, turns: int) -> None:
        """Before an edited question or an answer that is asked for again; 0 begins a new conversation."""
        self.screens[caller] = self.screens[caller][:turns]

    @precondition(lambda self: any(self.screens))
    @rule(data=st.data(), question=words, answer=words)
    def edit(self, data: st.DataObject, question: str, answer: str) -> None:
        """A caller writes into its own past."""
        caller = data.draw(st.sampled_from([caller for caller, screen in enumerate(self.screens) if screen]))
        turns = list(self.screens[caller])
        turns[data.draw(st.integers(0, len(turns) - 1))] = Turn(question, answer)
        self.screens[caller] = tuple(turns)

    @rule(caller=st.integers(0, 2), other=st.integers(0, 2))
    def fork(self, caller: int, other: int) -> None:
        """One caller goes on with another's conversation, as with a shared or a duplicated chat."""
        self.screens[caller] = self.screens[other]

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), question=words, answer=words)
    def name(self, data: st.DataObject, question: str, answer: str) -> None:
        """Somebody names a session outright and asks something in it."""
        session_id = data.draw(st.sampled_from([kept.session_id for kept in self.kept]))
        self.conversations.forget(session_id)
        self.drop(session_id)
        self.engine[session_id] += (Turn(question, answer),)

    @rule(passed_s=st.sampled_from([0.5, 30.0, 99.5, 101.0]))
    def wait(self, passed_s: float) -> None:
        """Time passes."""
        self.now_s += passed_s

    @invariant()
    def is_bounded(self) -> None:
        """No more is remembered than was allowed."""
        assert len(self.conversations) <= MAX_SESSIONS


def test_callers() -> None:
    """A user would be answered from somebody else's conversation, or from another than the one on the screen."""
    run_state_machine_as_test(Callers, settings=bounded)
