"""The head of a request, without a connection: what is read of one that is refused, and the numbers that bound it."""

from __future__ import annotations

import pytest

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError
from brunix_twisted.http.syntax import Remainder, check_field, request_line

NEEDED = b"Origin:\t http://a.example \r\nx-request-id: 7\r\n"
FOUND = [(b"Origin", b"http://a.example"), (b"x-request-id", b"7")]


@pytest.mark.parametrize("step", [1, 2, 7, 1_000])
def test_headers_behind_a_refusal(step: int) -> None:
    """A page learns why its request was refused, and a log finds its id, however the network splits the head."""
    remainder = Remainder()
    data = b"X: y\r\n" + NEEDED + b"\r\n"
    ended = [remainder.add(data[begin : begin + step]) for begin in range(0, len(data), step)]
    assert ended == [False] * (len(ended) - 1) + [True]
    assert remainder.fields == FOUND


@pytest.mark.parametrize("pieces", [[b"y" * 3_000, b"\r", b"\n" + NEEDED], [b"y" * 3_000 + b"\r", b"\n" + NEEDED]])
def test_a_long_line_behind_a_refusal(pieces: list[bytes]) -> None:
    """A line too long to be kept ends where it ends, and none of it is kept for long."""
    remainder = Remainder()
    assert [remainder.add(piece) for piece in (b"X: ", *pieces)] == [False] * (len(pieces) + 1)
    assert remainder.fields == FOUND


def test_a_refused_head_without_an_end() -> None:
    """A client that never ends its head is waited for no longer than 256 KiB."""
    remainder = Remainder()
    assert not remainder.add(b"y" * 262_144)
    assert remainder.add(b"y")


@pytest.mark.parametrize(("digits", "refused"), [(18, False), (19, True)])
def test_content_length(digits: int, refused: bool) -> None:  # noqa: FBT001 - a column of the table
    """A length beyond every body is refused as too large; another header may have as many digits."""
    check_field(b"X-Number: " + b"9" * digits, b"HTTP/1.1")
    if not refused:
        check_field(b"Content-Length: " + b"9" * digits, b"HTTP/1.1")
        return
    with pytest.raises(GatewayError) as caught:
        check_field(b"Content-Length: " + b"9" * digits, b"HTTP/1.1")
    assert caught.value.kind is errors.BODY_TOO_LARGE


def test_a_long_method_is_named_in_part() -> None:
    """A method as long as a line does not fill the answer and the log."""
    with pytest.raises(GatewayError) as caught:
        request_line(b"m" * 100 + b" / HTTP/1.1")
    assert caught.value.message.endswith(" " + "m" * 32)
