"""The configurations for nginx and HAProxy: quoted in the docs as they are, and in step with the gateway's settings."""

from __future__ import annotations

import re
from typing import Final

import pytest
from twisted.web.http import HTTPFactory

from brunix_twisted.config.settings import Settings
from paths import ROOT
from proxies import FILES, KINDS, Kind

PAGE: Final = (ROOT / "docs" / "proxies.md").read_text("utf-8")
DEFAULTS: Final = Settings()


def seconds(kind: Kind, directive: str) -> float:
    """Read a time-out."""
    (found,) = re.findall(rf"^ *{directive} (\d+)s;?$", FILES[kind].read_text("utf-8"), re.MULTILINE)
    return float(found)


def mebibytes(directive: str) -> int:
    """Read one of nginx's sizes."""
    (found,) = re.findall(rf"^ *{directive} (\d+)m;$", FILES["nginx"].read_text("utf-8"), re.MULTILINE)
    return int(found) * 1024 * 1024


@pytest.mark.parametrize("kind", FILES)
def test_the_page_quotes_the_file(kind: Kind) -> None:
    """Somebody who copies from the page would get another configuration than the one that is tested."""
    assert f"```{kind}\n{FILES[kind].read_text('utf-8')}```\n" in PAGE


@pytest.mark.parametrize("kind", KINDS)
def test_answers_have_the_time_that_the_gateway_gives_them(kind: Kind) -> None:
    """The proxy would cut off an answer that the gateway still waits for."""
    silence_s = seconds(kind, "proxy_read_timeout" if kind == "nginx" else "timeout server")
    assert silence_s > DEFAULTS.queue_timeout_s + DEFAULTS.engine_timeout_s
    assert silence_s > 2 * DEFAULTS.heartbeat_s


@pytest.mark.parametrize("kind", KINDS)
def test_clients_have_the_time_that_the_gateway_gives_them(kind: Kind) -> None:
    """A client that is slow would be cut off by the proxy, though the gateway would wait, or by neither."""
    nginx = kind == "nginx"
    assert seconds(kind, "client_header_timeout" if nginx else "timeout http-request") == DEFAULTS.headers_timeout_s
    assert seconds(kind, "send_timeout" if nginx else "timeout client") == DEFAULTS.stall_timeout_s
    if nginx:
        assert seconds(kind, "client_body_timeout") == DEFAULTS.body_timeout_s


def test_sizes() -> None:
    """What the gateway takes would be refused by nginx, or a question would be written to its disk."""
    assert DEFAULTS.max_body_bytes < mebibytes("client_max_body_size") <= mebibytes("client_body_buffer_size")
    (number, size) = re.findall(r"large_client_header_buffers (\d+) (\d+)k;", FILES["nginx"].read_text("utf-8"))[0]
    assert int(number) * int(size) * 1024 == DEFAULTS.max_header_bytes


def test_lighttpd_is_in_step() -> None:
    """Lighttpd must not refuse what the gateway takes, or end an answer that the gateway still waits for."""
    numbers = dict(re.findall(r'^ *"?([a-z.-]+)"? =>? (\d+),?$', FILES["lighttpd"].read_text("utf-8"), re.MULTILINE))
    assert numbers["server.stream-response-body"] == "1"
    assert int(numbers["server.max-request-size"]) * 1024 > DEFAULTS.max_body_bytes
    assert int(numbers["server.max-request-field-size"]) >= DEFAULTS.max_header_bytes - 1
    assert int(numbers["server.max-read-idle"]) == DEFAULTS.body_timeout_s
    assert int(numbers["server.max-write-idle"]) == DEFAULTS.stall_timeout_s
    assert int(numbers["read-timeout"]) > DEFAULTS.queue_timeout_s + DEFAULTS.engine_timeout_s


def test_idle_connections() -> None:
    """A question would be sent into a connection that the gateway is just closing."""
    closes_s = HTTPFactory().timeOut
    assert closes_s is not None
    assert seconds("nginx", "keepalive_timeout") < closes_s
    assert f"which is after {closes_s:g} seconds" in PAGE
