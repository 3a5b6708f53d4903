import threading

from brunix_twisted.embedded.history import Sessions, Turn
from threads import Threads


def turn(*words: str) -> Turn:
    return Turn(words, answered=True)


def test_sessions_share_nothing() -> None:
    """Somebody would get an answer to what another person had asked."""
    sessions = Sessions()
    sessions.remember("a", turn("one"))
    sessions.remember("b", turn("two"))
    assert sessions.turns("a") == (turn("one"),)
    assert sessions.turns("b") == (turn("two"),)
    assert sessions.turns("c") == ()


def test_no_id_is_the_session_named_default() -> None:
    """The engine would keep another history than its contract says."""
    sessions = Sessions()
    sessions.remember("", turn("one"))
    assert sessions.turns("default") == (turn("one"),)


def test_old_turns_are_forgotten() -> None:
    """A long talk would fill the memory."""
    sessions = Sessions(most_turns=2)
    for word in ("one", "two", "three"):
        sessions.remember("a", turn(word))
    assert sessions.turns("a") == (turn("two"), turn("three"))


def test_the_session_longest_unused_is_forgotten_first() -> None:
    """Many visitors would fill the memory, or somebody in the middle of a talk would be forgotten."""
    sessions = Sessions(most_sessions=2)
    sessions.remember("a", turn("one"))
    sessions.remember("b", turn("two"))
    assert sessions.turns("a")
    sessions.remember("c", turn("three"))
    assert [bool(sessions.turns(each)) for each in "abc"] == [True, False, True]


def test_many_threads_remember_at_once() -> None:
    """People who talk at the same time would lose turns."""
    sessions = Sessions(most_turns=1000, most_sessions=4)
    together = threading.Barrier(4)

    def talk(name: str) -> None:
        together.wait()
        for number in range(200):
            sessions.remember(name, turn(str(number)))

    with Threads() as threads:
        for name in "abcd":
            threads.start(talk, name)
    for name in "abcd":
        assert sessions.turns(name) == tuple(turn(str(number)) for number in range(200))
