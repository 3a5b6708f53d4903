"""URLs of Redis: what they mean, and what is said about those that mean nothing."""

# ruff: noqa: S106 - passwords of nothing

from __future__ import annotations

import pytest

from brunix_twisted.config.redis_url import RedisAddress, parse

ONE = (("cache", 6379),)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", RedisAddress(hosts=ONE)),
        ("redis://cache:6379/0", RedisAddress(hosts=ONE)),
        ("redis://[::1]:7000/3", RedisAddress(hosts=(("::1", 7000),), database=3)),
        ("redis://:p%40s%2Fs@cache", RedisAddress(hosts=ONE, password="p@s/s")),
        ("redis://gateway:a:b@cache", RedisAddress(hosts=ONE, username="gateway", password="a:b")),
        ("redis://cache/0?prefix=team-1", RedisAddress(hosts=ONE, prefix="team-1")),
        (
            "rediss://cache?ca=/etc/ca.pem&cert=/etc/c.pem&key=/etc/k.pem",
            RedisAddress(hosts=ONE, tls=True, ca="/etc/ca.pem", cert="/etc/c.pem", key="/etc/k.pem"),
        ),
        (
            "redis+sentinel://:secret@a,b:7000/main",
            RedisAddress(hosts=(("a", 26379), ("b", 7000)), service="main", password="secret"),
        ),
        (
            "rediss+sentinel://a/main/2?sentinel_username=u&sentinel_password=p",
            RedisAddress(
                hosts=(("a", 26379),),
                service="main",
                tls=True,
                database=2,
                sentinel_username="u",
                sentinel_password="p",
            ),
        ),
    ],
)
def test_forms(url: str, address: RedisAddress) -> None:
    """Every form that operators know from other programs has its usual meaning."""
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://cache", "must begin with one of redis://"),
        ("redis://", "write it as"),
        ("redis://cache:0", "write it as"),
        ("redis://cache:99999", "write it as"),
        ("redis://[::1", "malformed"),
        ("redis://::1", "write it as"),
        ("redis://secret@cache", "redis://:password@host"),
        ("redis://:sec#ret@cache", "%23"),
        ("redis://a,b/0", "redis+sentinel://"),
        ("redis://cache/zero", "number of the database"),
        ("redis://cache/0/1", "number of the database"),
        ("redis+sentinel://a:1", "name of the service"),
        ("redis://cache?db=1", "unknown parameter db"),
        ("redis://cache?prefix", "malformed"),
        ("redis://cache?prefix=a b", "prefix"),
        ("redis://cache?ca=/etc/ca.pem", "rediss://"),
        ("redis+sentinel://a/main?cert=/etc/ca.pem", "rediss+sentinel://"),
        ("rediss://cache?key=/etc/k.pem", "key needs cert"),
    ],
)
def test_errors(url: str, message: str) -> None:
    """The message names the fault, and never contains the password."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        parse(url)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "sec#ret" not in str(caught.value)


def test_no_password_in_messages() -> None:
    """What is logged and reported about a server does not contain how to log in."""
    address = parse("rediss+sentinel://user:secret@a,[::1]:7/main/2?sentinel_password=secret")
    assert str(address) == "rediss+sentinel://a:26379,[::1]:7/main/2"
    assert "secret" not in repr(address)
