from hypothesis import given
from hypothesis import strategies as st

from brunix_twisted.embedded.pacing import Pace, tokens


class Time:
    """A clock that moves only when somebody waits, or when it is told to."""

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
def test_tokens_joined_are_the_text(text: str) -> None:
    """A streamed answer would differ from the whole one: lines run together, code without its indentation."""
    assert "".join(tokens(text)) == text


def test_a_token_is_a_word_with_its_white_space() -> None:
    """An answer would come in odd pieces."""
    assert tokens("  One two\n\n  three ") == ["  One ", "two\n\n  ", "three "]


def test_tokens_come_at_their_rate() -> None:
    """A demonstration would run at another speed than asked for."""
    time = Time()
    assert list(Pace(4, time).spread("a b c", time.wait)) == ["a ", "b ", "c"]
    assert time.waits == [0.25, 0.25]


def test_a_late_token_does_not_make_the_next_one_late() -> None:
    """A stream would fall further behind with each hiccup."""
    time = Time()
    spread = Pace(4, time).spread("a b c d", time.wait)
    assert next(spread) == "a "
    time.now += 0.4
    assert next(spread) == "b "
    assert time.waits == []
    assert next(spread) == "c "
    assert [round(seconds, 6) for seconds in time.waits] == [0.1]


def test_without_a_rate_nothing_waits() -> None:
    """The engine would be slow for no reason."""
    time = Time()
    assert len(list(Pace(0, time).spread("a b c", time.wait))) == 3
    assert time.waits == []


def test_no_token_comes_after_the_call_has_ended() -> None:
    """A cancelled stream would go on."""
    time = Time()
    assert list(Pace(4, time).spread("a b c", lambda _: True)) == ["a "]
