"""What the line of a request says about its client: only what the operator has selected."""

from __future__ import annotations

import json
from typing import cast

import attrs
import pytest
import pytest_twisted
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from brunix_twisted.config import trusted_proxies
from brunix_twisted.observability.logs import as_json, log_request
from gateways import run_gateway, stop_gateway
from log_lines import log_lines
from metrics_table import record
from scripted_engine import ScriptedEngine

HEADERS = {
    "User-Agent": 'Editor/1.0 "beta"',
    "X-Forwarded-For": "198.51.100.1, 203.0.113.7",
    "X-Forwarded-User": "ana",
}


def test_json_fields() -> None:
    """A program that reads the log would have to take the line apart, or a line break would end it."""
    events: list[LogEvent] = []
    keep = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(keep)
    log_request(attrs.evolve(record(), client={"user_agent": "one\ntwo", "user": ""}))
    globalLogPublisher.removeObserver(keep)
    (event,) = events
    assert event["line"].endswith(r' user_agent="one\ntwo" user=""')
    told = json.loads(as_json(event))
    assert (told["user_agent"], told["user"]) == ("one\ntwo", "")


@pytest.mark.parametrize(
    ("selected", "trusted", "said"),
    [
        ("", "127.0.0.1", ""),
        ("address", "", " client=127.0.0.1"),
        ("address", "127.0.0.1", " client=203.0.113.7"),
        ("user", "", ""),
        ("user", "127.0.0.1", " user=ana"),
        ("agent", "", ' user_agent="Editor/1.0 \\"beta\\""'),
        ("address, user, agent", "127.0.0.1", ' client=203.0.113.7 user=ana user_agent="Editor/1.0 \\"beta\\""'),
    ],
)
@pytest_twisted.ensureDeferred
async def test_client(engine: ScriptedEngine, selected: str, trusted: str, said: str) -> None:
    """The log would tell of people whom the operator has not asked for, or believe what a client says of itself."""
    gateway = await run_gateway(
        grpc_target=engine.target,
        drain_s=0.0,
        log_client=frozenset(word.strip() for word in selected.split(",") if word),
        trusted_proxies=trusted_proxies.read(trusted),
    )
    with log_lines() as lines:
        await gateway.ask("GET", "/v1/models", headers=HEADERS)
        await stop_gateway(gateway)
    (line,) = lines.of_requests()
    assert line.partition(" ended=complete")[2] == said
