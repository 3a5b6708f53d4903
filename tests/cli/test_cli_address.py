"""How the command line parses a gateway's address."""

from __future__ import annotations

import pytest

from brunix_twisted.cli.address import AddressError, parse, redacted


@pytest.mark.parametrize(
    ("written", "root", "corrections"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", 0),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", 0),
        (" HTTP://Brunix.Example ", "http://brunix.example", 0),
        ("https://brunix.example:443", "https://brunix.example", 0),
        ("https://host/brunix", "https://host/brunix", 0),
        ("https://host//brunix//", "https://host/brunix", 0),
        ("http://[::1]:8000", "http://[::1]:8000", 0),
        ("http://[::1]", "http://[::1]", 0),
        ("http://host.example.:8000", "http://host.example:8000", 0),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", 1),
        ("localhost:8000", "http://localhost:8000", 1),
        ("//localhost:8000", "http://localhost:8000", 1),
        ("brunix.example:443", "https://brunix.example", 1),
        ("http:/localhost:8000", "http://localhost:8000", 0),
        ("http://host:8000/v1", "http://host:8000", 1),
        ("http://host:8000/v1/", "http://host:8000", 1),
        ("http://host:8000/v1/chat/completions", "http://host:8000", 1),
        ("http://host:8000/v1/messages", "http://host:8000", 1),
        ("http://host:8000/api", "http://host:8000", 1),
        ("http://host:8000/api/generate/", "http://host:8000", 1),
        ("http://host:8000/health/live", "http://host:8000", 1),
        ("https://host/brunix/v1", "https://host/brunix", 1),
        ("https://host/v1beta", "https://host/v1beta", 0),
        ("http://host:8000/?model=brunix#top", "http://host:8000", 1),
        ("0.0.0.0:8000/v1", "http://127.0.0.1:8000", 3),
        ("http://[::]:8000", "http://[::1]:8000", 1),
        ("http://bücher.example", "http://xn--bcher-kva.example", 0),
    ],
)
def test_parse(written: str, root: str, corrections: int) -> None:
    """An address that is easy to understand is accepted, corrected, and always means the intended server."""
    address, found = parse(written)
    assert address.root == root
    assert len(found) == corrections
    assert parse(address.root) == (address, ())


@pytest.mark.parametrize(
    "written",
    [
        "",
        "http://",
        "http://:8000",
        "unix:/run/brunix.sock",
        "ftp://host",
        "http://host:port",
        "http://host:99999",
        "http://host:0",
        "http://ho st",
        "http://host/a b",
        "http://[::1",
        "http://-host",
        "http://host\r\nX-Evil: 1",
    ],
)
def test_rejected(written: str) -> None:
    """Text that is not an address is rejected with one line."""
    with pytest.raises(AddressError) as refusal:
        parse(written)
    assert "\n" not in str(refusal.value)


def test_a_password_in_the_address() -> None:
    """A user and a password in the address are sent, and never shown."""
    address, _ = parse("https://alice:s%40cret@host")
    assert address.authorization == "Basic YWxpY2U6c0BjcmV0"
    assert "cret" not in f"{address} {address!r} {address.root}"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("https://alice:s@cret@host/v1", "https://…@host/v1"),
        ("alice:secret@host:8000", "…@host:8000"),
        ("http://host:8000/a@b", "http://host:8000/a@b"),
        ("host:8000", "host:8000"),
    ],
)
def test_a_password_is_redacted(written: str, expected: str) -> None:
    """A password in an address does not appear in reports or error messages."""
    assert redacted(written) == expected
    with pytest.raises(AddressError) as refusal:
        parse(written.replace("host", "ho st"))
    assert "cret" not in str(refusal.value)
