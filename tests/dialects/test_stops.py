"""The stop sequences of a request."""

from __future__ import annotations

import pytest

from brunix_twisted import errors
from brunix_twisted.dialects.stops import MAX_STOP_CHARACTERS, stop_sequences
from brunix_twisted.errors import GatewayError


@pytest.mark.parametrize(
    ("stop", "stops"),
    [
        (None, ()),
        ("END", ("END",)),
        (["END"], ("END",)),
        (["b", "a", "b"], ("b", "a", "b")),
        ([" ", "\n\n", "é😀"], (" ", "\n\n", "é😀")),
        ([], ()),
        # Clients fill their form's empty fields in; an answer must not end before it has begun.
        ("", ()),
        (["", "END", ""], ("END",)),
    ],
)
def test_forms(stop: str | list[str] | None, stops: tuple[str, ...]) -> None:
    """An answer would not end where the caller asked, or before its first word."""
    assert stop_sequences(stop, "stop") == stops


def test_number() -> None:
    """A caller with more stop sequences than are looked for would get text that it asked not to have."""
    assert stop_sequences(list("abcd"), "stop", max_count=4) == ("a", "b", "c", "d")
    with pytest.raises(GatewayError) as caught:
        stop_sequences(list("abcde"), "stop", max_count=4)
    assert (caught.value.kind, caught.value.param) == (errors.INVALID_REQUEST, "stop")
    assert caught.value.message == "'stop' has 5 sequences; at most 4 are allowed"
    assert len(stop_sequences(list("abcde"), "options.stop")) == 5


@pytest.mark.parametrize("parts", [1, 2, 64])
def test_size(parts: int) -> None:
    """One request with a book of stop sequences would take the gateway's memory from everyone else."""
    most = ["x" * (MAX_STOP_CHARACTERS // parts)] * parts
    assert stop_sequences(most, "options.stop") == tuple(most)
    with pytest.raises(GatewayError) as caught:
        stop_sequences([*most, "x"], "options.stop")
    assert (caught.value.kind, caught.value.param) == (errors.INVALID_REQUEST, "options.stop")
    assert caught.value.message == f"'options.stop' has {MAX_STOP_CHARACTERS + 1} characters; at most 4096 are allowed"


def test_size_of_one() -> None:
    """A single sequence, not in a list, would escape the bound."""
    assert stop_sequences("x" * MAX_STOP_CHARACTERS, "stop")
    with pytest.raises(GatewayError):
        stop_sequences("x" * (MAX_STOP_CHARACTERS + 1), "stop")
