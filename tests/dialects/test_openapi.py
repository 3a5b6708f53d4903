"""The description of the endpoints that the gateway serves of itself."""

from __future__ import annotations

import json
import re

import pytest
import pytest_twisted
from jsonschema import Draft202012Validator

from brunix_twisted.api.routes import Gateway
from brunix_twisted.dialects.openapi import openapi_body
from gateways import RunningGateway

DOCUMENT = json.loads(openapi_body())


@pytest_twisted.ensureDeferred
async def test_served(gateway: RunningGateway) -> None:
    """A tool that asks the gateway for its description would find none."""
    reply = await gateway.ask("GET", "/openapi.json")
    assert (reply.status, reply.json()) == (200, DOCUMENT)


def test_every_route_is_described() -> None:
    """An endpoint would be missing from the description, or one described that is not there."""
    routes = {
        (re.sub("<(path:)?name>", "{name}", rule.rule), method.lower())
        for rule in Gateway.app.url_map.iter_rules()
        for method in rule.methods or ()
        if method != "HEAD"
    }
    described = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == routes


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_schemas(name: str) -> None:
    """A generator of clients or tests would fail on a schema."""
    Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])


def test_references() -> None:
    """A reader of the description would follow a reference to nowhere."""
    text = json.dumps(DOCUMENT)
    names = {piece.partition('"')[0] for piece in text.split('"#/components/schemas/')[1:]}
    assert names <= DOCUMENT["components"]["schemas"].keys()
