"""The ids by which clients name sessions."""

from __future__ import annotations

import pytest

from brunix_twisted import errors
from brunix_twisted.api.session_ids import check_session_id
from brunix_twisted.errors import GatewayError


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
