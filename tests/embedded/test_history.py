import threading

from brunix_twisted.embedded.history import SessionHistory, Turn
from threads import Threads


def turn(*words: str) -> Turn:
    return Turn(words, answered=True)


def test_sessions_are_separate() -> None:
    """A session does not see the turns of another."""
    sessions = SessionHistory()
    sessions.remember("a", turn("one"))
    sessions.remember("b", turn("two"))
    assert sessions.turns("a") == (turn("one"),)
    assert sessions.turns("b") == (turn("two"),)
    assert sessions.turns("c") == ()


def test_default_session() -> None:
    """An empty session id means the session "default"."""
    sessions = SessionHistory()
    sessions.remember("", turn("one"))
    assert sessions.turns("default") == (turn("one"),)


def test_max_turns() -> None:
    """The oldest turns of a session are dropped."""
    sessions = SessionHistory(max_turns=2)
    for word in ("one", "two", "three"):
        sessions.remember("a", turn(word))
    assert sessions.turns("a") == (turn("two"), turn("three"))


def test_max_sessions() -> None:
    """The least recently used session is dropped first."""
    sessions = SessionHistory(max_sessions=2)
    sessions.remember("a", turn("one"))
    sessions.remember("b", turn("two"))
    assert sessions.turns("a")
    sessions.remember("c", turn("three"))
    assert [bool(sessions.turns(each)) for each in "abc"] == [True, False, True]


def test_threads() -> None:
    """Turns from several threads are all remembered, in order."""
    sessions = SessionHistory(max_turns=1000, max_sessions=4)
    together = threading.Barrier(4)

    def remember(name: str) -> None:
        together.wait()
        for number in range(200):
            sessions.remember(name, turn(str(number)))

    with Threads() as threads:
        for name in "abcd":
            threads.start(remember, name)
    for name in "abcd":
        assert sessions.turns(name) == tuple(turn(str(number)) for number in range(200))
