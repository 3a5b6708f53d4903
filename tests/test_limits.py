"""The text ends where the caller asked, however the engine splits it; a simple reference tells where that is."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brunix_twisted.limits import OutputLimiter, count_tokens
from brunix_twisted.model import Limits

bounded = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)

# Letters of one to four bytes, a combining one, and two that some clients take for the end of a line. Mostly few at a
# time, so that stops occur, overlap and break off often.
letters = st.sampled_from(["a", "ab", "ab", "aé😀", "ab\ne\u0301\u2028"])


@st.composite
def asked(draw: st.DrawFn) -> tuple[Limits, list[str]]:
    """Limits, and an answer in pieces made of stops, beginnings of stops, and other text."""
    some = draw(letters)
    stop = tuple(draw(st.lists(st.text(some, min_size=1, max_size=6), max_size=3)))
    max_tokens = draw(st.none() | st.none() | st.integers(0, 5))
    begun = [stop[:end] for stop in stop for end in range(1, len(stop) + 1)] or ["a"]
    answer = "".join(draw(st.lists(st.sampled_from(begun) | st.text(some, max_size=3), max_size=8)))
    return Limits(stop=stop, max_tokens=max_tokens), split(answer, draw(st.lists(st.integers(0, len(answer)))))


def split(text: str, places: list[int]) -> list[str]:
    borders = [0, *sorted(places), len(text)]
    return [text[begin:end] for begin, end in pairwise(borders)]


def reference(limit: Limits, text: str) -> tuple[str, str | None]:
    """The rules, said of a whole text in the plainest way."""
    stop_at = min((text.find(stop) for stop in limit.stop if stop in text), default=None)
    length = len(text)
    while limit.max_tokens is not None and count_tokens(text[:length]) > limit.max_tokens:
        length -= 1
    if stop_at is not None and stop_at <= length:
        return text[:stop_at], "stop"
    return (text[:length], "length") if length < len(text) else (text, None)


def cut(limit: Limits, texts: list[str]) -> tuple[str, str | None, int]:
    limiter = OutputLimiter(limit)
    released = "".join([limiter.feed(text) for text in texts]) + limiter.flush()
    return released, limiter.finish_reason, limiter.tokens


def held_back(limit: Limits, text: str) -> str:
    """The longest end of the text that is a beginning, not the whole, of a stop."""
    ends = (text[begin:] for begin in range(len(text)))
    return next((end for end in ends if any(stop.startswith(end) and stop != end for stop in limit.stop)), "")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("é", 1), ("éé", 1), ("ééa", 2), ("😀", 1), ("😀\u2028", 2)],
)
def test_count_tokens(text: str, tokens: int) -> None:
    """A user would see a usage that does not follow the published rule: four bytes of UTF-8 a token."""
    assert count_tokens(text) == tokens


@pytest.mark.parametrize(
    ("stop", "max_tokens", "texts", "expected"),
    [
        ((), None, ["Hi", " there"], ("Hi there", None, 2)),
        ((), 1, ["ab", "cd"], ("abcd", None, 1)),
        ((), 1, ["ab", "cd", "e"], ("abcd", "length", 1)),
        ((), 1, ["abc😀"], ("abc", "length", 1)),
        ((), 0, ["a"], ("", "length", 0)),
        ((), 0, ["", ""], ("", None, 0)),
        (("\n\n",), None, ["one\n", "\ntwo"], ("one", "stop", 1)),
        (("\n\n",), None, ["one\n", "two\n"], ("one\ntwo\n", None, 2)),
        (("aab",), None, ["aa", "ab"], ("a", "stop", 1)),
        # Two overlap: the one that begins first counts, though the other is whole first.
        (("bc", "abcd"), None, ["xabc", "d"], ("x", "stop", 1)),
        (("bc", "abcd"), None, ["xabc", "x"], ("xa", "stop", 1)),
        (("bc", "abcd"), None, ["xabc"], ("xa", "stop", 1)),
        # Right at the length a stop still counts, and may become whole beyond it. After the length it does not.
        (("END",), 1, ["abcd", "EN", "D"], ("abcd", "stop", 1)),
        (("END",), 1, ["abcE", "ND"], ("abc", "stop", 1)),
        (("END",), 1, ["abcE", "N", "x"], ("abcE", "length", 1)),
        (("END",), 1, ["abcE", "N"], ("abcE", "length", 1)),
        (("END",), 1, ["abcdeEND"], ("abcd", "length", 1)),
        (("END",), 0, ["EN", "D"], ("", "stop", 0)),
        (("cdxxx", "x"), 1, ["abcdxx"], ("abcd", "stop", 1)),
        # What means something in a regular expression means itself in a stop.
        (("]", "^", "-", "\\"), None, ["a.b[c]"], ("a.b[c", "stop", 2)),
        (("^",), None, ["a^"], ("a", "stop", 1)),
        (("\\",), None, ["a\\"], ("a", "stop", 1)),
        (("-",), None, ["a,-b"], ("a,", "stop", 1)),
        # No dialect lets an empty stop through; it would be nowhere and everywhere.
        (("",), None, ["a"], ("a", None, 1)),
        (("", "b"), None, ["ab"], ("a", "stop", 1)),
    ],
)
def test_cut(stop: tuple[str, ...], max_tokens: int | None, texts: list[str], expected: tuple[str, str, int]) -> None:
    """A user would get text beyond what was asked for, or miss text, or read a wrong reason for the end."""
    assert cut(Limits(stop=stop, max_tokens=max_tokens), texts) == expected


@bounded
@given(asked())
def test_streamed_is_the_reference(case: tuple[Limits, list[str]]) -> None:
    """A user would get another text, reason or usage with another split of the answer, as with stream on and off."""
    limit, texts = case
    released, reason = reference(limit, "".join(texts))
    assert cut(limit, texts) == (released, reason, count_tokens(released))
    assert cut(limit, ["".join(texts)]) == (released, reason, count_tokens(released))
    assert cut(limit, list("".join(texts))) == (released, reason, count_tokens(released))


@bounded
@given(asked())
def test_nothing_forbidden_goes_out(case: tuple[Limits, list[str]]) -> None:
    """A user would see a stop sequence in the text, or more tokens than asked for."""
    limit, texts = case
    released, _, tokens = cut(limit, texts)
    assert not any(stop in released for stop in limit.stop)
    assert limit.max_tokens is None or tokens <= limit.max_tokens


@bounded
@given(asked())
def test_flows_as_early_as_possible(case: tuple[Limits, list[str]]) -> None:
    """A user would see the answer come in jerks, or wait for an end that was already certain."""
    limit, texts = case
    limiter, fed, released = OutputLimiter(limit), "", ""
    for text in texts:
        fed += text
        released += limiter.feed(text)
        assert limiter.tokens == count_tokens(released)
        if limiter.finish_reason is not None:
            assert (released, limiter.finish_reason) == reference(limit, fed)
            break
        held = held_back(limit, fed)
        assert released + held == fed
        # Still open: either nothing is cut yet, or some stop that has begun would cut elsewhere.
        rests = [stop[len(held) :] for stop in limit.stop if held and stop.startswith(held)]
        here = reference(limit, fed)
        assert here[1] is None or any(reference(limit, fed + rest) != here for rest in rests)


@bounded
@given(asked(), st.text("abé", max_size=8))
def test_nothing_after_the_cut(case: tuple[Limits, list[str]], more: str) -> None:
    """A user would see text after the end, or the reason for it change."""
    limit, texts = case
    limiter = OutputLimiter(limit)
    for text in texts:
        limiter.feed(text)
    reason, tokens = limiter.finish_reason, limiter.tokens
    if reason is None:
        return
    assert limiter.feed(more) == ""
    assert limiter.flush() == ""
    assert (limiter.finish_reason, limiter.tokens) == (reason, tokens)


@pytest.mark.parametrize(
    ("stop", "texts", "met"),
    [
        ((), ["abc"], None),
        (("x",), ["abc"], None),
        (("c", "b"), ["abc"], "b"),
        (("bc", "c"), ["ab", "cd"], "bc"),
        # Of those that begin in the same place the one first complete, ...
        (("bcd", "bc"), ["ab", "c", "d"], "bc"),
        (("abcdx", "bc", "bcd"), ["abcdy"], "bc"),
        # ... and of those that do not the one that begins first, be it complete later or only at the end of all.
        (("bc", "abcd"), ["xabc", "d"], "abcd"),
        (("bc", "abcd"), ["xabc", "x"], "bc"),
        (("bc", "abcd"), ["xabc"], "bc"),
        # It was not what ended the text.
        (("z",), ["abcdefgh", "z"], None),
    ],
)
def test_which_stop(stop: tuple[str, ...], texts: list[str], met: str | None) -> None:
    """A client that asked to be told which of its stop sequences ended the answer is told another."""
    limiter = OutputLimiter(Limits(stop=stop, max_tokens=1))
    for text in texts:
        limiter.feed(text)
    limiter.flush()
    assert limiter.stop == met


def test_time_is_linear() -> None:
    """Every user would wait while one answer of repeated letters is compared with one long stop sequence."""
    half = "a" * 4_000
    limit = Limits(stop=(half + "b" + half, half + "c"))
    before_s = time.process_time()
    released, reason, _ = cut(limit, ["a" * 50] * 2_000)
    assert (len(released), reason) == (100_000, None)
    # About 0.1 s. Quadratic, it is minutes.
    assert time.process_time() - before_s < 5
