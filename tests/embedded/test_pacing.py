from hypothesis import given
from hypothesis import strategies as st

from brunix_twisted.embedded.pacing import Pace, tokens


class FakeTime:
    """A clock that moves only on request."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    """Joined, the tokens are the text."""
    assert "".join(tokens(text)) == text


def test_tokens() -> None:
    """A token is a word with the white space around it."""
    assert tokens("  One two\n\n  three ") == ["  One ", "two\n\n  ", "three "]


def test_rate() -> None:
    """Tokens are sent at the given rate, the first immediately."""
    time = FakeTime()
    assert list(Pace(4, time).stream("a b c", time.wait)) == ["a ", "b ", "c"]
    assert time.waits == [0.25, 0.25]


def test_delayed_token() -> None:
    """A delayed token does not delay the next one."""
    time = FakeTime()
    spread = Pace(4, time).stream("a b c d", time.wait)
    assert next(spread) == "a "
    time.now += 0.4
    assert next(spread) == "b "
    assert time.waits == []
    assert next(spread) == "c "
    assert [round(seconds, 6) for seconds in time.waits] == [0.1]


def test_no_rate() -> None:
    """Without a rate, no token is delayed."""
    time = FakeTime()
    assert len(list(Pace(0, time).stream("a b c", time.wait))) == 3
    assert time.waits == []


def test_ended_call() -> None:
    """No token is sent after the call has ended."""
    time = FakeTime()
    assert list(Pace(4, time).stream("a b c", lambda _: True)) == ["a "]
