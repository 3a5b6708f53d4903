"""
What a client reads on the wire: bodies held against the published schemas, streams read as the strictest clients do.

The schemas in ``wire_schemas/`` are this project's own writing of what the published documents say, each of which
names its source. ``nullable: true`` in those documents is read as one more type.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.validators import extend
from referencing import Registry
from referencing.jsonschema import DRAFT202012

_SCHEMAS = Path(__file__).parent / "wire_schemas"

# JSON Schema takes 1.0 for an integer; a client in Go does not.
_Validator: type[Draft202012Validator] = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def check(name: str, body: object) -> None:
    """
    Hold a body, as read from JSON, against the schema of this name.

    :raises AssertionError: naming the place, the fault and the body.
    """
    fault = best_match(_validator(name).iter_errors(body))
    if fault is not None:
        shown = json.dumps(body, indent=2, default=repr)
        raise AssertionError(f"not {name} at {fault.json_path}: {fault.message}\n{shown}")


@cache
def names() -> tuple[str, ...]:
    """List what :func:`check` can check."""
    return tuple(sorted(path.stem for path in _SCHEMAS.glob("*.json")))


@cache
def _registry() -> Registry[Any]:
    files = {path.name: json.loads(path.read_text("utf-8")) for path in _SCHEMAS.glob("*.json")}
    for schema in files.values():
        # A schema that names its dialect is judged by that dialect's own validator as soon as another refers to it.
        assert schema.pop("$schema") == _Validator.META_SCHEMA["$id"]
    return Registry().with_resources((name, DRAFT202012.create_resource(schema)) for name, schema in files.items())


@cache
def _validator(name: str) -> Draft202012Validator:
    schema = _registry().contents(f"{name}.json")
    _Validator.check_schema(schema)
    return _Validator(schema, registry=_registry())


def sse_events(body_bytes: bytes) -> list[dict[str, Any]]:
    """
    Read the events of a whole stream of Server-Sent Events, without the ``[DONE]`` that ends it.

    :raises AssertionError: for anything that a client of OpenAI's API stumbles over, be it allowed in the format: an
        event that is not one single ``data:`` line, that is empty or no JSON object, or a stream without its end.
    """
    data = [frame.removeprefix("data: ") for frame in _sse_frames(body_bytes) if frame.startswith("data: ")]
    assert data, "no event at all"
    assert data[-1] == "[DONE]", f"the last event is not [DONE]: {data[-1]!r}"
    return [_read_object(text) for text in data[:-1]]


def sse_comments(body_bytes: bytes) -> list[str]:
    """Read the comments (heartbeats) of a stream; the same faults as in :func:`sse_events` are raised."""
    return [frame.removeprefix(":").strip() for frame in _sse_frames(body_bytes) if frame.startswith(":")]


def _sse_frames(body_bytes: bytes) -> list[str]:
    text = _read_lines(body_bytes)
    assert text.endswith("\n\n"), f"the stream ends inside an event: {text[-80:]!r}"
    frames = text.removesuffix("\n\n").split("\n\n")
    for frame in frames:
        assert "\n" not in frame, f"a frame of several lines: {frame!r}"
        assert frame.startswith((":", "data: ")), f"neither data nor comment: {frame!r}"
        assert frame.removeprefix("data: ").strip(), "empty data"
    done = [frame for frame in frames if frame == "data: [DONE]"]
    assert len(done) <= 1, "[DONE] comes twice"
    assert not done or frames[-1] == done[0], f"something follows [DONE]: {frames[-1]!r}"
    return frames


def named_events(body_bytes: bytes) -> list[dict[str, Any]]:
    """
    Read the events of a whole stream of Server-Sent Events that have names, as OpenAI's Responses and Anthropic's
    Messages send them.

    :raises AssertionError: for anything that a client stumbles over: an event that is not one ``event:`` line and one
        ``data:`` line, that is empty or no JSON object, or whose ``type`` is not its name.
    """
    return [event for event in _named_frames(body_bytes) if isinstance(event, dict)]


def named_comments(body_bytes: bytes) -> list[str]:
    """Read the comments (heartbeats) of such a stream; the same faults as in :func:`named_events` are raised."""
    return [event for event in _named_frames(body_bytes) if isinstance(event, str)]


def _named_frames(body_bytes: bytes) -> list[dict[str, Any] | str]:
    text = _read_lines(body_bytes)
    assert text.endswith("\n\n"), f"the stream ends inside an event: {text[-80:]!r}"
    return [_read_named(frame) for frame in text.removesuffix("\n\n").split("\n\n")]


def _read_named(frame: str) -> dict[str, Any] | str:
    if frame.startswith(":") and "\n" not in frame:
        return frame.removeprefix(":").strip()
    lines = frame.split("\n")
    assert len(lines) == 2, f"not one line of its name and one of data: {frame!r}"
    name, data = lines
    assert name.startswith("event: "), f"no name: {frame!r}"
    assert data.startswith("data: "), f"no data: {frame!r}"
    event = _read_object(data.removeprefix("data: "))
    assert event.get("type") == name.removeprefix("event: "), f"the name is not the type: {frame!r}"
    return event


# The types of a stream's events, each with a comma after it.
_RESPONSE_EVENTS = re.compile(
    r"response\.created,response\.in_progress,response\.output_item\.added,response\.content_part\.added,"
    r"(response\.output_text\.delta,)*"
    r"((response\.output_text\.annotation\.added,)*response\.output_text\.done,response\.content_part\.done,response\.output_item\.done,"
    r"response\.(completed|incomplete),|error,response\.failed,)"
)


def response_events(body_bytes: bytes) -> list[dict[str, Any]]:
    """
    Read a whole stream of OpenAI's Responses.

    :raises AssertionError: for what :func:`named_events` raises it for, and for an event that is not as published, out
        of its order, wrongly numbered, after the end, or that says something else than the ones before it.
    """
    assert isinstance(_named_frames(body_bytes)[-1], dict), "something follows the last event"
    events = named_events(body_bytes)
    for event in events:
        check("openai_response_event", event)
    order = "".join(f"{event['type']}," for event in events)
    assert _RESPONSE_EVENTS.fullmatch(order), f"not the order of a response: {order}"
    assert [event["sequence_number"] for event in events] == list(range(len(events))), "wrongly numbered"
    responses = [event["response"] for event in events if "response" in event]
    assert len({response["id"] for response in responses}) == 1, "several ids of the response"
    items = [event["item"] for event in events if "item" in event] + responses[-1]["output"]
    ids = {item["id"] for item in items} | {event["item_id"] for event in events if "item_id" in event}
    assert len(ids) == 1, f"several ids of the item: {ids}"
    text = "".join(event.get("delta", "") for event in events)
    told = [event["text"] for event in events if "text" in event]
    told += [event["part"]["text"] for event in events if event["type"] == "response.content_part.done"]
    told += [part["text"] for item in items for part in item["content"]]
    assert set(told) <= {text}, f"the whole text is not that of its pieces: {told}"
    return events


_MESSAGE_EVENTS = re.compile(
    r"message_start,(ping,)*content_block_start,(ping,|content_block_delta,)*"
    r"(content_block_stop,message_delta,message_stop,|error,)"
)


def message_events(body_bytes: bytes) -> list[dict[str, Any]]:
    """
    Read the events of a whole stream of Anthropic's Messages.

    :raises AssertionError: for what :func:`named_events` raises it for, for an event that is not as the published types
        have it, for a comment, for events out of order (each stream begins and ends once, and one that fails does not
        say how the answer ended), and for a question whose tokens are counted twice and not alike.
    """
    events = named_events(body_bytes)
    assert not named_comments(body_bytes), "a comment"
    # Thousands may be alike, and to hold one against a schema takes a millisecond.
    for event in {json.dumps(event): event for event in events}.values():
        check("anthropic_event", event)
    order = "".join(f"{event['type']}," for event in events)
    assert _MESSAGE_EVENTS.fullmatch(order), f"out of order: {order}"
    usages = [event["message"]["usage"] if "message" in event else event.get("usage") for event in events]
    assert len({usage["input_tokens"] for usage in usages if usage}) == 1, f"several counts of a question: {usages}"
    return events


def ndjson_lines(body_bytes: bytes) -> list[dict[str, Any]]:
    """
    Read a body of one JSON object a line.

    :raises AssertionError: for anything that a client of Ollama's API stumbles over: a character beyond ASCII, a blank
        line, a last line without its end, a line that is no JSON object.
    """
    text = _read_lines(body_bytes)
    assert text.endswith("\n"), f"the last line does not end: {text[-80:]!r}"
    lines = text.removesuffix("\n").split("\n")
    assert all(line.strip() for line in lines), "a blank line"
    return [_read_object(line) for line in lines]


def _read_lines(body_bytes: bytes) -> str:
    assert body_bytes, "nothing at all"
    # Some clients split at every line break that Unicode knows, so none but \n may be there; the same clients are safe
    # from all of them when the JSON is escaped to ASCII.
    assert body_bytes.isascii(), f"not ASCII: {body_bytes!r}"
    text = body_bytes.decode("ascii")
    assert text.splitlines() == text.removesuffix("\n").split("\n"), f"a line break other than \\n: {text!r}"
    return text


def _read_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except json.JSONDecodeError as fault:
        raise AssertionError(f"not JSON: {text!r}") from fault
    assert isinstance(value, dict), f"not an object: {text!r}"
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), f"a key comes twice: {[key for key, _ in pairs]}"
    return found


def _no_constant(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")
