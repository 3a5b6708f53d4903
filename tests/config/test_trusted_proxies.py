"""Whose word is taken for who a caller is."""

from __future__ import annotations

import pytest

from brunix_twisted.config.trusted_proxies import read, without_loopback


@pytest.mark.parametrize(
    ("trusted", "host", "forwarded_for", "client"),
    [
        # Nobody is trusted, so the peer is the client.
        ("", "10.0.0.1", ["1.2.3.4"], "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2", ["1.2.3.4"], "10.0.0.2"),
        ("10.0.0.1", "10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.0/8, 192.168.1.1", "10.7.7.7", [" 1.2.3.4 "], "1.2.3.4"),
        # What a client claims itself comes before what the proxy knows.
        ("10.0.0.1", "10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", "10.0.0.1", ["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
        # Through several proxies.
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # The ways to write an address.
        ("::1", "::1", ["2001:DB8::0:1"], "2001:db8::1"),
        ("::1", "::1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("::1", "::1", ["1.2.3.4:5678"], "1.2.3.4"),
        ("10.0.0.1", "::ffff:10.0.0.1", ["::ffff:1.2.3.4"], "1.2.3.4"),
        ("::1", "::1", ["unknown"], "unknown"),
        ("::1", "::1", [","], "loopback"),
        # A client on this machine may come from any loopback address.
        ("", "127.0.0.1", [], "loopback"),
        ("", "::1", [], "loopback"),
        ("", "127.8.8.8", [], "loopback"),
        ("", None, ["1.2.3.4"], "unix"),
        ("unix", None, ["1.2.3.4"], "1.2.3.4"),
        ("unix", None, [], "unix"),
        ("unix", "10.0.0.1", ["1.2.3.4"], "10.0.0.1"),
    ],
)
def test_client(trusted: str, host: str | None, forwarded_for: list[str], client: str) -> None:
    """A caller could say to be another, or would not be known again."""
    assert without_loopback(read(trusted).client_of(host, forwarded_for)) == client


@pytest.mark.parametrize("text", ["10.0.0.0/33", "proxy", "10.0.0.1/8", "1.2.3.4:80", "UNIX"])
def test_refused(text: str) -> None:
    """A mistyped proxy would be ignored in silence."""
    with pytest.raises(ValueError, match=r"does not appear|has host bits"):
        read(text)


def test_none() -> None:
    """Headers would be read where nobody is trusted."""
    assert not read(" , ")
    assert read("unix")
    assert read("10.0.0.0/8")
