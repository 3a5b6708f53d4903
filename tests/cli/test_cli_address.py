"""What people write for an address, and what is made of it."""

from __future__ import annotations

import pytest

from brunix_twisted.cli.address import AddressError, read, shown


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
def test_read(written: str, root: str, corrections: int) -> None:
    """An address that anybody understands is refused, or another server asked than was meant."""
    address, put_right = read(written)
    assert address.root == root
    assert len(put_right) == corrections
    assert read(address.root) == (address, ())


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
def test_refused(written: str) -> None:
    """What is no address is asked all the same, or answered with a traceback."""
    with pytest.raises(AddressError) as refusal:
        read(written)
    assert "\n" not in str(refusal.value)


def test_a_password_in_the_address() -> None:
    """A user and a password that stand in an address are not sent, or shown to whoever looks on."""
    address, _ = read("https://alice:s%40cret@host")
    assert address.authorization == "Basic YWxpY2U6c0BjcmV0"
    assert "cret" not in f"{address} {address!r} {address.root}"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("https://alice:s@cret@host/v1", "https://…@host/v1"),
        ("alice:secret@host:8000", "…@host:8000"),
        ("http://host:8000/a@b", "http://host:8000/a@b"),
        ("host:8000", "host:8000"),
    ],
)
def test_what_is_shown_of_a_password(written: str, told: str) -> None:
    """A password that stands in an address gets into a report that somebody passes on."""
    assert shown(written) == told
    with pytest.raises(AddressError) as refusal:
        read(written.replace("host", "ho st"))
    assert "cret" not in str(refusal.value)
