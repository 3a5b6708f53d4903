"""Answers that are kept by their ids."""

from __future__ import annotations

import tracemalloc

import pytest
from twisted.internet.task import Clock

from brunix_twisted.api.response_store import BODY_OVERHEAD_BYTES, ResponseStore

MAX_AGE_S = 100.0


def keeping(
    clock: Clock | None = None, *, max_answers: int = 4, max_bodies: int = 2, max_bytes: int = 1_000_000
) -> ResponseStore:
    clock = Clock() if clock is None else clock
    return ResponseStore(
        clock.seconds, max_answers=max_answers, max_bodies=max_bodies, max_bytes=max_bytes, max_age_s=MAX_AGE_S
    )


def test_known_by_its_id() -> None:
    """A caller who goes on from an answer, or asks for it again, is told that there is none."""
    answers = keeping()
    answers.keep("a", "one", b"A")
    answers.keep("b", "one", None)
    assert (answers.session_of("a"), answers.body_of("a")) == ("one", b"A")
    # Not to be had again, and its session goes on all the same.
    assert (answers.session_of("b"), answers.body_of("b")) == ("one", None)
    assert (answers.session_of("c"), answers.body_of("c")) == (None, None)


def test_forgotten() -> None:
    """An answer that its caller has deleted is still there, or another one has gone with it."""
    answers = keeping()
    answers.keep("a", "one", b"A")
    answers.keep("b", "one", b"B")
    answers.forget("a")
    answers.forget("a")
    answers.forget("unknown")
    assert (answers.session_of("a"), answers.body_of("a")) == (None, None)
    assert (answers.session_of("b"), answers.body_of("b")) == ("one", b"B")
    answers.forget("b")
    # What is left of them would grow for ever.
    assert (len(answers), answers._of_session, answers._bodies) == (0, {}, {})  # noqa: SLF001 - it shows in nothing else


def test_session_of_somebody_else() -> None:
    """A user goes on from an answer, and is answered out of what somebody else has said since."""
    answers = keeping()
    answers.keep("a", "one", b"A")
    answers.keep("b", "two", b"B")
    answers.part("one")
    answers.part("unknown")
    assert (answers.session_of("a"), answers.body_of("a")) == (None, b"A")
    assert answers.session_of("b") == "two"
    # Whoever has the session now goes on from what is said in it from now on.
    answers.keep("c", "one", None)
    assert answers.session_of("c") == "one"
    answers.forget("a")
    assert answers.session_of("c") == "one"


@pytest.mark.parametrize(("later_s", "known"), [(MAX_AGE_S, True), (MAX_AGE_S + 0.1, False)])
def test_too_old(later_s: float, known: bool) -> None:  # noqa: FBT001 - a column of the table
    """A user goes on from an answer whose session the engine has dropped, or cannot go on from one that is there."""
    for look in (
        lambda answers: answers.session_of("a") == ("one" if known else None),
        lambda answers: answers.body_of("a") == (b"A" if known else None),
    ):
        clock = Clock()
        answers = keeping(clock)
        answers.keep("a", "one", b"A")
        clock.advance(later_s)
        assert look(answers)
        assert len(answers) == int(known)


def test_age_frees_memory() -> None:
    """Expired answers leave memory when another one is kept, also if no client asks for any."""
    clock = Clock()
    answers = keeping(clock)
    answers.keep("a", "one", b"A")
    clock.advance(MAX_AGE_S + 1)
    answers.keep("b", "two", b"B")
    assert len(answers) == 1


def test_too_many() -> None:
    """A gateway that runs for long runs out of memory."""
    answers = keeping(max_answers=3, max_bodies=2)
    for number in range(10):
        answers.keep(str(number), f"session {number % 2}", b"body")
    assert len(answers) == 3
    assert [answers.session_of(str(number)) for number in (6, 7, 8, 9)] == [
        None,
        "session 1",
        "session 0",
        "session 1",
    ]
    assert [answers.body_of(str(number)) for number in (6, 7, 8, 9)] == [None, None, b"body", b"body"]
    none = keeping(max_bodies=0)
    none.keep("a", "one", b"A")
    assert (none.session_of("a"), none.body_of("a")) == ("one", None)


def test_large_answers_push_out_the_oldest() -> None:
    """The bodies must not take more memory than allowed, however few they are, and the oldest must go first."""
    answers = keeping(max_answers=100, max_bodies=100, max_bytes=30_000)
    for name in "abc":
        answers.keep(name, "one", b"x" * 8_000)
    assert [answers.body_of(name) is not None for name in "abc"] == [True, True, True]
    answers.keep("d", "one", b"x" * 12_000)
    assert [answers.body_of(name) is not None for name in "abcd"] == [False, False, True, True]
    # The conversations go on all the same.
    assert [answers.session_of(name) for name in "abcd"] == ["one"] * 4


def test_a_deleted_answer_makes_room() -> None:
    """What is deleted or has expired must not count any longer."""
    clock = Clock()
    answers = keeping(clock, max_answers=100, max_bodies=100, max_bytes=20_000)
    answers.keep("a", "one", b"x" * 8_000)
    answers.keep("b", "one", b"x" * 8_000)
    answers.forget("a")
    answers.keep("c", "one", b"x" * 8_000)
    assert answers.body_of("b") is not None
    clock.advance(MAX_AGE_S + 1)
    for name in "de":
        answers.keep(name, "one", b"x" * 8_000)
    assert [answers.body_of(name) is not None for name in "bcde"] == [False, False, True, True]
    assert answers._stored_bytes == 2 * (8_000 + BODY_OVERHEAD_BYTES)  # noqa: SLF001 - a drift shows only after years


def test_answers_that_just_fit() -> None:
    """Bodies may fill the allowed memory to the last byte, one alone or several together."""
    one = keeping(max_bytes=8_000 + BODY_OVERHEAD_BYTES)
    one.keep("a", "one", b"x" * 8_000)
    assert one.body_of("a") is not None
    two = keeping(max_bytes=2 * (8_000 + BODY_OVERHEAD_BYTES))
    for name in "ab":
        two.keep(name, "one", b"x" * 8_000)
    assert [two.body_of(name) is not None for name in "ab"] == [True, True]


def test_an_answer_that_is_too_large_by_itself() -> None:
    """One huge answer must not push out all the others, only to find no room itself."""
    answers = keeping(max_bytes=10_000)
    answers.keep("a", "one", b"A")
    answers.keep("b", "two", b"x" * 10_000)
    assert (answers.body_of("a"), answers.body_of("b")) == (b"A", None)
    assert answers.session_of("b") == "two"


@pytest.mark.parametrize("size_bytes", [10, 1_000, 100_000])
def test_the_memory_is_what_was_allowed(size_bytes: int) -> None:
    """An operator who allows so many bytes must not find more of them taken, whatever the size of the answers."""
    max_bytes = 4_000_000
    tracemalloc.start()
    answers = keeping(max_answers=1_000_000, max_bodies=1_000_000, max_bytes=max_bytes)
    taken = []
    # Of each answer the session's entry stays, so only the growth up to the limit is of the bodies.
    for number in range(max_bytes // (size_bytes + BODY_OVERHEAD_BYTES)):
        answers.keep(f"{number:032x}", f"session-{number:032x}", bytes(size_bytes))
        taken.append(answers.body_of(f"{0:032x}") is not None)
    current_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(taken)
    assert current_bytes <= max_bytes
